//! What is no event: typing, receipts, presence and the like.

use futures::future::BoxFuture;
use ruma_common::ServerName;
use serde::Deserialize;
use serde_json::value::RawValue;

/// An EDU as another server sent it: nothing of it is checked.
#[derive(Clone, Debug, Deserialize)]
pub struct RawEdu {
    /// `m.typing`, …
    pub edu_type: String,
    /// What its type says it is.
    pub content: Box<RawValue>,
}

/// Takes EDUs.
pub trait EduSink: Send + Sync + 'static {
    /// Takes one that `origin` sent, or drops it: an EDU is never an error.
    fn accept<'a>(&'a self, origin: &'a ServerName, edu: RawEdu) -> BoxFuture<'a, ()>;
}

/// Drops them all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEdus;

impl EduSink for NoEdus {
    fn accept<'a>(&'a self, _: &'a ServerName, _: RawEdu) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

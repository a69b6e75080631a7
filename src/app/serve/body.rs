//! Bodies that tell their connection what becomes of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::activity::{Activity, OpenRequest};

/// A request's body, which tells how much of it nobody has read.
pub(super) struct Question {
    inner: Incoming,
    ended: bool,
    activity: Arc<Activity>,
}

impl Question {
    pub(super) fn new(inner: Incoming, activity: &Arc<Activity>) -> Self {
        Self { inner, ended: false, activity: Arc::clone(activity) }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.ended && !self.inner.is_end_stream() {
            self.activity.left_unread(self.inner.size_hint().exact().unwrap_or(u64::MAX));
        }
    }
}

impl HttpBody for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        self.ended |= matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body, which keeps its request open until it has been written.
pub(super) struct Answer {
    pub(super) inner: Body,
    pub(super) _open: OpenRequest,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

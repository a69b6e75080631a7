//! One answer: which rooms are in it, what else, and the JSON around them.

use hearth_accounts::Requester;
use hearth_rooms::Rooms;
use hearth_store::{Pos, StoreError, View};

use super::begin;
use super::connection::{Added, Sent};
use super::request::SlidingBody;
use crate::live::LiveUser;
use crate::token::{Incarnation, SlidingToken, Token};
use crate::v3::{Inner, MAX_VIEWS};

/// An answer.
pub(super) struct Composed {
    pub bytes: Vec<u8>,
    /// Nothing is new.
    pub empty: bool,
    /// The number of its `pos`.
    pub number: u64,
    /// What the connection has with it.
    pub added: Added,
    /// The version of typing up to which everything is told.
    pub typing: u64,
}

/// An answer in the making: everything after what was sent, up to `until`.
pub(super) struct Slide<'a> {
    pub rooms: &'a Rooms,
    pub who: &'a Requester,
    pub body: &'a SlidingBody,
    pub sent: &'a Sent,
    /// At or after `until`.
    pub view: View,
    pub until: Pos,
    pub incarnation: Incarnation,
}

impl Inner {
    /// Puts an answer together. A view may expire under a long one; a new view is as good.
    pub(super) async fn compose(
        &self,
        who: &Requester,
        user: &LiveUser,
        body: &SlidingBody,
        sent: &Sent,
    ) -> Result<Composed, StoreError> {
        let mut attempts = 0;
        loop {
            let typing = self.live.typing();
            let until = self.live.processed().max(sent.until);
            let view = self.rooms.view().await?;
            let (rooms, incarnation) = (&self.rooms, self.incarnation);
            let number = self.connections.number();
            let _ = user;
            let slide = Slide { rooms, who, body, sent, view, until, incarnation };
            match slide.write(number).await {
                Ok((bytes, empty, added)) => return Ok(Composed { bytes, empty, number, added, typing }),
                Err(StoreError::SnapshotExpired) if attempts < MAX_VIEWS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Slide<'_> {
    /// The JSON, whether it says nothing new, and what the connection has with it.
    async fn write(&self, number: u64) -> Result<(Vec<u8>, bool, Added), StoreError> {
        let mut added = Added {
            until: self.until,
            account_data: self.sent.account_data,
            threads: self.sent.threads,
            ..Added::default()
        };
        let extensions = self.extensions(&mut added).await?;
        let empty = extensions.empty;
        let at = Token::pagination(self.incarnation, self.until);
        let mut out = Vec::with_capacity(256 + extensions.json.len());
        begin(&SlidingToken { number, at }, self.body, &mut out);
        out.extend_from_slice(b",\"lists\":{},\"rooms\":{},\"extensions\":{");
        out.extend_from_slice(&extensions.json);
        out.extend_from_slice(b"}}");
        Ok((out, empty, added))
    }
}

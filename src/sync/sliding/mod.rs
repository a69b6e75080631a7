//! Simplified sliding sync (MSC4186): rooms by windows into a list that the server keeps, and what else a client asks
//! for.
//!
//! The problem: `/v3/sync` tells of every room, so a first answer grows with the account. Here the client says which
//! rooms it wants (the newest twenty, say, and the one that is open) and how much of each; the server remembers for
//! each connection what it has sent, and sends the rest when a room comes into view. What of a room may be shown, and
//! what is new of it, is asked in the same way as by `/v3/sync`: an [`Answer`](crate::answer::Answer) for one room,
//! since what this connection has of it.
//!
//! See [MSC4186](https://github.com/matrix-org/matrix-spec-proposals/pull/4186).

mod by_room;
mod compose;
mod connection;
mod extensions;
mod list;
mod request;
mod required;
mod room;
#[cfg(test)]
mod tests;
mod traits;
mod write;

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use hearth_accounts::{PresenceState, Requester, SessionEnd};
use hearth_store::StoreError;
use tokio::time::Instant;

use crate::json;
use crate::live::LiveUser;
use crate::token::{SlidingToken, TokenError};
use crate::v3::{CATCH_UP, FIRST_CATCH_UP, Inner, Sync};

use compose::Composed;
pub(crate) use connection::Connections;
use connection::{ConnectionKey, Turn};
pub(crate) use extensions::write_threads;
pub use request::SlidingBody;
pub(crate) use traits::KnownTraits;

/// Rooms that any number of answers may bring at the same time; those with more take turns.
const FEW_ROOMS: usize = 20;

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct SlidingRequest<'a> {
    /// What is wanted.
    pub body: &'a SlidingBody,
    /// `pos` of the answer before; `None`: this is the first request of the connection.
    pub pos: Option<&'a str>,
    /// How long to wait for news.
    pub timeout: Duration,
    /// What the client says of its user's presence.
    pub set_presence: PresenceState,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SlidingError {
    /// `pos` is not the newest of this connection, or the connection was let go: the client has to begin anew.
    #[error("the position is not known")]
    UnknownPos,
    /// The member of the body with this name asks for too much, or has no meaning.
    #[error("\"{0}\" cannot be used")]
    Invalid(&'static str),
    /// The access token was taken away before the answer was ready.
    #[error("the session has ended")]
    SessionEnded,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<TokenError> for SlidingError {
    fn from(_: TokenError) -> Self {
        Self::UnknownPos
    }
}

impl Sync {
    /// The body of the answer. Ends as soon as the requester's access token is taken away, or another request of
    /// the same connection begins.
    ///
    /// # Errors
    /// See [`SlidingError`].
    pub async fn slide(&self, who: &Requester, request: &SlidingRequest<'_>) -> Result<Bytes, SlidingError> {
        request.body.check()?;
        let watch = self.0.accounts.watch_session(who).await?;
        let session = watch.ok_or(SlidingError::SessionEnded)?;
        let mut answer = pin!(self.slid(who, request));
        let answer = tokio::select! {
            biased;
            end = session.end() => match (end, request.pos) {
                (SessionEnd::Revoked, _) => Err(SlidingError::SessionEnded),
                // The device has a newer token, and shall use it.
                (SessionEnd::Superseded, Some(pos)) => {
                    let pos = SlidingToken::parse(pos, self.0.incarnation)?;
                    Ok(unchanged(&pos, request.body).into())
                }
                (SessionEnd::Superseded, None) => answer.await,
            },
            answer = &mut answer => answer,
        };
        match session.ended() {
            Some(SessionEnd::Revoked) => Err(SlidingError::SessionEnded),
            Some(SessionEnd::Superseded) | None => answer,
        }
    }

    async fn slid(&self, who: &Requester, request: &SlidingRequest<'_>) -> Result<Bytes, SlidingError> {
        let this = &*self.0;
        let committed = this.rooms.store().frontier().base();
        let pos = request.pos.map(|text| SlidingToken::parse(text, this.incarnation)).transpose()?;
        let key = ConnectionKey {
            user: who.user,
            device: who.client.name().to_string(),
            conn_id: request.body.conn_id.clone().unwrap_or_default(),
        };
        let turn = this.connections.begin(key, pos.map(|pos| pos.number)).ok_or(SlidingError::UnknownPos)?;
        let poll = self.enter(who).await?;
        let _connected = self.presence().connect(who, request.set_presence);
        let patience = if pos.is_some() { CATCH_UP } else { FIRST_CATCH_UP };
        if this.live.processed() < committed {
            this.catch_up(committed, patience).await;
        }
        let timeout = if pos.is_none() { Duration::ZERO } else { request.timeout };
        Ok(this.composed(who, &poll.user, (request.body, timeout), turn).await?.into())
    }
}

/// Whether an answer may have many rooms that a connection with `known` rooms does not have.
fn may_bring_many(user: &LiveUser, body: &SlidingBody, known: usize) -> bool {
    let rooms = user.count();
    let reach = body.reach().map_or(rooms, |reach| usize::try_from(reach).unwrap_or(usize::MAX).min(rooms));
    reach.saturating_sub(known) > FEW_ROOMS
}

/// The answer that changes nothing: the client goes on from where it is.
fn unchanged(pos: &SlidingToken, body: &SlidingBody) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    begin(pos, body, &mut out);
    out.push(b'}');
    out
}

/// Appends what every answer begins with.
fn begin(pos: &SlidingToken, body: &SlidingBody, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"pos\":");
    json::plain_string(pos, out);
    if let Some(txn_id) = &body.txn_id {
        json::member("txn_id", out);
        json::string(txn_id, out);
    }
}

impl Inner {
    /// What is new for the connection, or an answer without news after `timeout`.
    async fn composed(
        &self,
        who: &Requester,
        user: &LiveUser,
        (body, timeout): (&SlidingBody, Duration),
        mut turn: Turn,
    ) -> Result<Vec<u8>, StoreError> {
        let deadline = Instant::now() + timeout.min(self.settings.max_timeout);
        let mut newest: Option<Composed> = None;
        loop {
            let mut woken = pin!(user.woken());
            woken.as_mut().enable();
            let mut composed = match newest.take() {
                // Before the look: see `news` of `/v3/sync`.
                Some(known) if !self.may_have_news(user, &known) => known,
                _ => {
                    let sent = std::sync::Arc::clone(&turn.sent);
                    // Never while it waits for news, because others want to be put together.
                    let many = may_bring_many(user, body, sent.rooms.len());
                    let _permit = if many { Some(self.full_answers.acquire().await) } else { None };
                    // In memory of its own: see `news` of `/v3/sync`.
                    Box::pin(self.compose(who, user, body, &sent)).await?
                }
            };
            if !composed.empty || timeout.is_zero() || self.shutdown.is_cancelled() {
                return Ok(self.finish(&turn, &mut composed));
            }
            // Shutdown wakes everybody.
            tokio::select! {
                () = woken => {}
                () = turn.superseded() => return Ok(self.finish(&turn, &mut composed)),
                () = tokio::time::sleep_until(deadline) => return Ok(self.finish(&turn, &mut composed)),
            }
            newest = Some(composed);
        }
    }

    /// Whether more can be said than `known` does.
    fn may_have_news(&self, user: &LiveUser, known: &Composed) -> bool {
        let until = known.added.until;
        let stored = self.live.processed() > until && (user.has_changed(until) || user.has_threads(until));
        stored || (self.live.typing() > known.typing && user.has_typing(known.typing))
    }

    /// Remembers what the answer adds. If another request has begun, nobody reads this answer.
    fn finish(&self, turn: &Turn, composed: &mut Composed) -> Vec<u8> {
        self.connections.finish(turn, (composed.number, std::mem::take(&mut composed.added)));
        std::mem::take(&mut composed.bytes)
    }
}

//! `GET /_matrix/client/v3/sync`: waiting for news, and answering.
//!
//! Listen first, then look: a poll arms its wake-up before it asks whether anything is new, so what
//! is committed in between wakes it. A poll that finds nothing costs two numbers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_accounts::{Accounts, Presence, PresenceMode, PresenceState, Requester, Screening, SessionEnd};
use hearth_base::{Clock, Millis};
use hearth_rooms::Rooms;
use hearth_store::{Pos, StoreError, View};
use ruma_common::OwnedServerName;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Scope, empty_answer};
use crate::filter::{Filter, FilterError};
use crate::live::{Live, LiveUser, Notifier, Pacer, Poll};
use crate::presence::PresenceNews;
use crate::sliding::Connections;
use crate::token::{Incarnation, Token, TokenError};

/// How long a request waits for its own past: what was committed before it shall be shown.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(2);
/// The same for a first answer, which would lack whole rooms. Not for ever: while the disk is full
/// counts stand still, and reading has to go on.
pub(crate) const FIRST_CATCH_UP: Duration = Duration::from_secs(5);
/// Views that may expire under one answer.
pub(crate) const MAX_VIEWS: usize = 8;
/// Bytes of a stored filter's ID.
const MAX_FILTER_ID: usize = 32;
/// Bytes of a filter that is not parsed again when it is given again, as clients do with every poll.
const MAX_KEPT_FILTER: usize = 512;

/// What [`Sync`] is made of.
pub struct SyncParts {
    /// The rooms.
    pub rooms: Rooms,
    /// Accounts: filters, account data, push rules.
    pub accounts: Arc<Accounts>,
    /// The time, for `age`.
    pub clock: Arc<dyn Clock>,
    /// This server.
    pub server_name: OwnedServerName,
    /// Which life of the store this is.
    pub incarnation: Incarnation,
    /// How far the unread consumer has come.
    pub counted: watch::Receiver<Pos>,
    /// Limits.
    pub settings: SyncSettings,
    /// Ends polls and the notifier.
    pub shutdown: CancellationToken,
}

/// Limits of `/sync`.
#[derive(Clone, Copy, Debug)]
pub struct SyncSettings {
    /// The longest that a poll waits.
    pub max_timeout: Duration,
    /// First syncs and full states that are put together at the same time; others wait.
    pub max_full_answers: usize,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self { max_timeout: Duration::from_secs(90), max_full_answers: 16 }
    }
}

/// The parameters of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncRequest<'a> {
    /// `next_batch` of an earlier answer.
    pub since: Option<&'a str>,
    /// The ID of a stored filter, or a filter.
    pub filter: Option<&'a str>,
    /// All state, also of what has not changed.
    pub full_state: bool,
    /// State up to the end of the timeline instead of its start.
    pub use_state_after: UseStateAfter,
    /// What the client says of its user's presence.
    pub set_presence: PresenceState,
    /// How long to wait for news.
    pub timeout: Duration,
}

/// Up to where state goes, and what the answer calls it.
///
/// See <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>, `use_state_after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UseStateAfter {
    /// To the start of the timeline: `state`.
    #[default]
    No,
    /// To its end: `state_after`.
    Yes,
    /// The same under the name that it had before it was specified (MSC4222).
    Unstable,
}

impl UseStateAfter {
    pub(crate) fn at_end(self) -> bool {
        self != Self::No
    }

    /// The member of the room's object.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::No => "state",
            Self::Yes => "state_after",
            Self::Unstable => "org.matrix.msc4222.state_after",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SyncError {
    /// `since` cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// `filter` is not a filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The user has not stored a filter with this ID.
    #[error("there is no such filter")]
    UnknownFilter,
    /// The access token was taken away before the answer was ready.
    #[error("the session has ended")]
    SessionEnded,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// `/sync`. Cheap to clone.
#[derive(Clone)]
pub struct Sync(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub rooms: Rooms,
    pub accounts: Arc<Accounts>,
    pub clock: Arc<dyn Clock>,
    pub incarnation: Incarnation,
    pub live: Arc<Live>,
    pub settings: SyncSettings,
    pub full_answers: Semaphore,
    pub connections: Connections,
    pub shutdown: CancellationToken,
}

impl Sync {
    /// Syncs for the users of one server, and what wakes them and keeps their presence: it must run,
    /// until shutdown.
    pub fn new(parts: SyncParts) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let presence = parts.accounts.presence();
        let live = Arc::new(Live::new(parts.rooms.clone(), parts.server_name, presence.clone()));
        let store = Arc::clone(parts.rooms.store());
        let notifier = Notifier::new(Arc::clone(&live), store, parts.counted).run(parts.shutdown.clone());
        let pacer = Pacer::new(Arc::clone(&live)).run(parts.shutdown.clone());
        let presence = presence.clone().run(parts.shutdown.clone());
        let waker = Arc::clone(&live).wake_at(parts.shutdown.clone());
        let tasks = async move {
            tokio::join!(notifier, pacer, presence, waker);
        };
        let inner = Inner {
            // No server answers as often as this counts on while it is up.
            connections: Connections::new(parts.clock.now().0 << 16),
            rooms: parts.rooms,
            accounts: parts.accounts,
            clock: parts.clock,
            incarnation: parts.incarnation,
            live,
            full_answers: Semaphore::new(parts.settings.max_full_answers.max(1)),
            settings: parts.settings,
            shutdown: parts.shutdown,
        };
        (Self(Arc::new(inner)), tasks)
    }

    /// Which life of the store its tokens belong to.
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// How many of those who have polled lately the newest change concerned.
    pub fn concerned(&self) -> usize {
        self.0.live.concerned()
    }

    pub(crate) fn presence(&self) -> &Presence {
        self.0.accounts.presence()
    }

    pub(crate) fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    pub(crate) fn live(&self) -> &Live {
        &self.0.live
    }

    pub(crate) fn now(&self) -> Millis {
        self.0.clock.now()
    }

    pub(crate) async fn enter(&self, who: &Requester) -> Result<Poll, StoreError> {
        self.0.enter(who).await
    }

    #[cfg(test)]
    pub(crate) fn let_go_of_idle_users(&self, now: Instant) {
        self.0.live.sweep(now);
    }

    /// The body of the answer. Ends as soon as the requester's access token is taken away.
    ///
    /// # Errors
    /// See [`SyncError`].
    pub async fn sync(&self, who: &Requester, request: &SyncRequest<'_>) -> Result<Bytes, SyncError> {
        let watch = self.0.accounts.watch_session(who).await?;
        let session = watch.ok_or(SyncError::SessionEnded)?;
        let mut answer = pin!(self.answer(who, request));
        let answer = tokio::select! {
            biased;
            end = session.end() => match (end, request.since) {
                (SessionEnd::Revoked, _) => Err(SyncError::SessionEnded),
                // The device has a newer token, and shall use it.
                (SessionEnd::Superseded, Some(since)) if !request.full_state => {
                    let since = Token::parse(since, self.0.incarnation)?;
                    Ok(self.0.nothing((since.pos, since.typing, since.presence)))
                }
                (SessionEnd::Superseded, _) => answer.await,
            },
            answer = &mut answer => answer,
        };
        match session.ended() {
            Some(SessionEnd::Revoked) => Err(SyncError::SessionEnded),
            Some(SessionEnd::Superseded) | None => answer,
        }
    }

    async fn answer(&self, who: &Requester, request: &SyncRequest<'_>) -> Result<Bytes, SyncError> {
        let this = &*self.0;
        let committed = this.rooms.store().frontier().base();
        let since = request.since.map(|text| Token::parse(text, this.incarnation)).transpose()?;
        if since.is_some_and(|since| since.pos > committed) {
            return Err(TokenError::UnknownPos.into());
        }
        let poll = this.enter(who).await?;
        let _connected = self.presence().connect(who, request.set_presence);
        let filter = this.filter(who, &poll.user, request.filter).await?;
        // What is rare is boxed: a poll would hold the place for it as long as it waits.
        let patience = if since.is_some() { CATCH_UP } else { FIRST_CATCH_UP };
        let reached = this.live.processed() >= committed || Box::pin(this.catch_up(committed, patience)).await;
        if !reached && since.is_none() {
            tracing::warn!("a first sync is answered although unread counts are behind");
        }
        poll.user.sent_members.begin(who.client.name().as_str(), since.map(|since| since.pos));
        let scope = Scope { filter: &filter, full_state: request.full_state, state_after: request.use_state_after };
        match since {
            Some(since) if !request.full_state => this.news(who, &poll.user, scope, (since, request.timeout)).await,
            _ => {
                let _permit = this.full_answers.acquire().await;
                Ok(Box::pin(this.answer(who, &poll.user, scope, since)).await?.bytes.into())
            }
        }
    }
}

/// An answer, and where it ends.
struct Answered {
    bytes: Vec<u8>,
    empty: bool,
    pos: Pos,
    typing: u64,
    presence: u64,
}

impl Inner {
    /// What is new after `since`, or an empty answer after `timeout`.
    async fn news(
        &self,
        who: &Requester,
        user: &LiveUser,
        scope: Scope<'_>,
        (since, timeout): (Token, Duration),
    ) -> Result<Bytes, SyncError> {
        let deadline = Instant::now() + timeout.min(self.settings.max_timeout);
        let mut seen = (since.pos, since.typing, since.presence);
        loop {
            let mut woken = std::pin::pin!(user.woken());
            woken.as_mut().enable();
            // Before the look: what is published by now has been raised before. What has been raised
            // and not published is followed by a wake-up.
            let here = (self.live.processed().max(seen.0), self.live.typing().max(seen.1), seen.2);
            let changed = here.0 > seen.0 && user.has_changed(seen.0);
            let typing = here.1 > seen.1 && user.has_typing(seen.1);
            if changed || typing || user.presence.has_news(seen.2) {
                // In memory of its own: who waits keeps little, and the answers to many are made in the same place.
                let answered = Box::pin(self.answer(who, user, scope, Some(since))).await?;
                if !answered.empty {
                    return Ok(answered.bytes.into());
                }
                seen = (answered.pos, answered.typing, answered.presence);
                if timeout.is_zero() {
                    return Ok(self.nothing(seen));
                }
                continue;
            }
            if timeout.is_zero() || self.shutdown.is_cancelled() {
                return Ok(self.nothing(here));
            }
            // Shutdown wakes everybody.
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(deadline) => return Ok(self.nothing(here)),
            }
        }
    }

    /// Waits until everything up to `committed` may be shown; `false`: it may not, because it took too long or the
    /// server stops.
    pub(crate) async fn catch_up(&self, committed: Pos, patience: Duration) -> bool {
        tokio::select! {
            reached = self.live.reach(committed, patience) => reached,
            () = self.shutdown.cancelled() => false,
        }
    }

    async fn enter(&self, who: &Requester) -> Result<Poll, StoreError> {
        let mut attempts = 0;
        loop {
            match self.live.enter(who.user).await {
                Err(StoreError::SnapshotExpired) if attempts < MAX_VIEWS => attempts += 1,
                other => return other,
            }
        }
    }

    fn nothing(&self, (pos, typing, presence): (Pos, u64, u64)) -> Bytes {
        empty_answer(&Token { incarnation: self.incarnation, pos, typing, presence }).into()
    }

    /// A view may expire under a long answer; a new one is as good.
    async fn answer(
        &self,
        who: &Requester,
        user: &LiveUser,
        scope: Scope<'_>,
        since: Option<Token>,
    ) -> Result<Answered, StoreError> {
        let mut attempts = 0;
        loop {
            let typing = self.live.typing().max(since.map_or(0, |since| since.typing));
            let counted = self.live.processed();
            let pos = counted.max(since.map_or(Pos::ZERO, |since| since.pos));
            let view = self.rooms.view().await?;
            let screening = self.accounts.screening_kept(who.user, &user.screening).await?;
            let presence = self.presence_news(user, scope, since, &view, &screening).await?;
            let upto = presence.upto;
            let until = Token { incarnation: self.incarnation, pos, typing, presence: upto };
            let (rooms, now) = (&self.rooms, self.clock.now());
            let answer = Answer { rooms, who, user, view, counted, scope, since, until, now, presence, screening };
            match answer.write().await {
                Ok((bytes, empty)) => return Ok(Answered { bytes, empty, pos, typing, presence: upto }),
                Err(StoreError::SnapshotExpired) if attempts < MAX_VIEWS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the receiver counts; what is left names different things")]
    async fn presence_news(
        &self,
        user: &LiveUser,
        scope: Scope<'_>,
        since: Option<Token>,
        view: &View,
        screening: &Screening,
    ) -> Result<PresenceNews, StoreError> {
        let presence = self.accounts.presence();
        if presence.mode() == PresenceMode::Off {
            return Ok(PresenceNews { sights: Vec::new(), upto: since.map_or(0, |since| since.presence) });
        }
        let seen = since.map(|since| (since.presence, since.pos));
        let (sights, upto) = self.live.presence_since(view, user, seen).await?;
        let mut news = PresenceNews { sights, upto };
        let filter = &scope.filter.presence;
        news.retain(|kind, sender| filter.matches_parts(kind, sender.as_str()) && !screening.ignores(sender));
        Ok(news)
    }

    async fn filter(&self, who: &Requester, user: &LiveUser, filter: Option<&str>) -> Result<Arc<Filter>, SyncError> {
        let Some(filter) = filter else { return Ok(Arc::default()) };
        if let Some(known) = user.filter(filter) {
            return Ok(known);
        }
        if filter.starts_with('{') {
            let parsed = Arc::new(Filter::parse(filter)?);
            if filter.len() <= MAX_KEPT_FILTER {
                user.keep_filter(filter, &parsed);
            }
            return Ok(parsed);
        }
        if filter.len() > MAX_FILTER_ID {
            return Err(SyncError::UnknownFilter);
        }
        let json = Box::pin(self.accounts.filter(who.user, filter)).await?.ok_or(SyncError::UnknownFilter)?;
        let parsed = Arc::new(Filter::parse(&json)?);
        user.keep_filter(filter, &parsed);
        Ok(parsed)
    }
}

//! Who is asked for what an event stands on, and for how long.
//!
//! The problem: what a room takes next may depend on a server that accepts a question and never answers it, by fault or on
//! purpose. So whoever asks has a deadline for all its questions, each server gets a share of what is left of it, and who
//! lets its share pass counts as a server that does not answer, which is left alone for a while. That nobody answered is
//! no verdict: [`SendError::Unanswered`] says that it is worth trying again.

use std::time::Duration;

use ruma_common::{EventId, OwnedServerName};
use std::collections::BTreeSet;
use tokio::time::Instant;

use super::fetch::FetchError;
use super::take::Taker;
use crate::SendError;
use crate::remote::{Answer, RemoteError};

/// How long others may be asked for what one event stands on, if nothing else is said.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Servers that are asked for a state.
const MAX_SERVERS: usize = 4;
/// Who had less time than this to answer has not failed.
const FAIR: Duration = Duration::from_secs(1);

/// Who may be asked for the state before an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// The origin, and others in the room.
    All,
    /// Others in the room: the origin has told what it knows.
    Others,
}

impl Taker {
    /// The same, which asks others for no longer than `time`.
    pub(super) fn for_at_most(&self, time: Duration) -> Self {
        Self { deadline: self.deadline.min(Instant::now() + time), ..self.clone() }
    }

    /// The same, which may ask for `time`, however long it might before.
    pub(super) fn for_all_of(self, time: Duration) -> Self {
        Self { deadline: Instant::now() + time, ..self }
    }

    /// How long others may still be asked.
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The same, which asks `server`, the first of `servers` that are to be asked: it may take its share of the time.
    pub(super) fn asking(&self, server: &OwnedServerName, servers: usize) -> Self {
        let share = self.time_left() / u32::try_from(servers.max(1)).unwrap_or(u32::MAX);
        Self { origin: server.clone(), ..self.for_at_most(share) }
    }

    /// What the origin answers, if it does so before the deadline; if not, it counts as one that cannot be reached.
    pub(super) async fn in_time<T>(&self, answer: Answer<'_, T>) -> Result<T, RemoteError> {
        let server = &self.origin;
        let unreachable = |why: &str| RemoteError::Unreachable { server: server.clone(), why: why.to_owned() };
        let left = self.time_left();
        if left.is_zero() {
            return Err(unreachable("there is no time left to ask it"));
        }
        let began = self.rooms.0.clock.now();
        if let Ok(answer) = tokio::time::timeout(left, answer).await {
            return answer;
        }
        if left >= FAIR {
            self.rooms.0.remote.gave_up(server, began);
        }
        Err(unreachable("it does not answer in time"))
    }

    /// Fetches `event_id` and the state before it, from one of those who may be asked, and stores both.
    pub(super) async fn fetch_with_state(&self, event_id: &EventId, whom: Whom) -> Result<(), SendError> {
        let mut servers = self.servers().await?;
        servers.retain(|server| whom == Whom::All || *server != self.origin);
        let (mut silence, mut refusal) = (None, None);
        for (asked, server) in servers.iter().enumerate() {
            let taker = self.asking(server, servers.len() - asked);
            match taker.fetch_from(server, event_id).await {
                Ok(()) => return Ok(()),
                Err(FetchError::Remote(error)) if is_silence(&error) => silence = Some(error.to_string()),
                Err(FetchError::Here(SendError::Unanswered(why))) => silence = Some(why),
                Err(FetchError::Remote(error)) => refusal = Some(error.to_string()),
                Err(FetchError::Useless(why)) => refusal = Some(why),
                Err(FetchError::Here(error)) => return Err(error),
            }
        }
        if let Some(why) = silence {
            // It may be the one that knows.
            return Err(SendError::Unanswered(format!("{event_id} is missing: {why}")));
        }
        let why = refusal.unwrap_or_else(|| "there is nobody to ask".to_owned());
        Err(SendError::BadContent(format!("{event_id} is missing: {why}")))
    }

    /// Who may be asked: the origin first, then those with the most members.
    async fn servers(&self) -> Result<Vec<OwnedServerName>, SendError> {
        let view = self.rooms.view().await?;
        let servers = self.rooms.servers(&view, self.room).await?;
        let own = &self.rooms.0.signer.server_name;
        let mut others: Vec<_> =
            servers.iter().filter(|(server, _)| **server != self.origin && *server != own).collect();
        others.sort_by_key(|(_, members)| std::cmp::Reverse(**members));
        let others = others.into_iter().map(|(server, _)| server.clone());
        Ok(std::iter::once(self.origin.clone()).chain(others).take(MAX_SERVERS).collect())
    }

    /// Whether somebody has to be asked before `event` can be judged.
    pub(super) async fn has_to_ask(&self, event: &hearth_event::Pdu) -> Result<bool, SendError> {
        let named: BTreeSet<_> = event.auth_events().iter().collect();
        let known = self.graph().await?.numbers(event.auth_events()).await?.len();
        Ok(known < named.len() || self.has_gap(event).await?)
    }
}

/// Whether the server has not said what it knows; it may another time.
pub(super) const fn is_silence(error: &RemoteError) -> bool {
    match error {
        RemoteError::Unreachable { .. } | RemoteError::Off => true,
        RemoteError::Refused { status, .. } => *status == 429 || *status >= 500,
        RemoteError::Invalid { .. } => false,
    }
}

/// Whether an event that was not taken for this reason may be taken later.
pub(super) const fn is_for_later(error: &SendError) -> bool {
    is_of_here(error) || matches!(error, SendError::Unanswered(_))
}

/// Whether it says nothing about the event or about other servers.
pub(super) const fn is_of_here(error: &SendError) -> bool {
    matches!(error, SendError::Store(_) | SendError::Full | SendError::Stopping | SendError::Busy)
}

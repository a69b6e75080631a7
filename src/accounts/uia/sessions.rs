//! The authentications under way, in memory: a restart asks clients to begin again, which they do.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use hearth_base::Millis;
use hearth_schema::UserNid;
use parking_lot::Mutex;
use ruma_common::OwnedDeviceId;

use super::{RequestDigest, Stage, UiaError, UiaOperation, UiaRequest};

/// How long a session lives.
pub(super) const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// After so many wrong attempts a session ends.
const MAX_FAILURES: u32 = 10;

/// The request that a session belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Binding {
    method: String,
    path: String,
    who: Option<(UserNid, OwnedDeviceId)>,
    body: RequestDigest,
}

impl Binding {
    fn of(request: &UiaRequest<'_>) -> Self {
        Self {
            method: request.method.to_owned(),
            path: request.path.to_owned(),
            who: match request.operation {
                UiaOperation::Register => None,
                UiaOperation::Account(requester) => Some((requester.user, requester.client.name().to_owned())),
            },
            body: request.body,
        }
    }
}

/// How far a session has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// In the order of completion.
    pub completed: Vec<Stage>,
    /// The token shown at `m.login.registration_token`.
    pub registration_token: Option<String>,
}

#[derive(Debug)]
struct Session {
    binding: Binding,
    begun: Millis,
    progress: Progress,
    failures: u32,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct UiaSessions {
    table: Mutex<Table>,
    capacity: usize,
}

/// `oldest` names every session in `by_id`, and some that have ended.
#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<String, Session>,
    oldest: VecDeque<String>,
}

impl UiaSessions {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { table: Mutex::default(), capacity: capacity.max(1) }
    }

    /// Begins session `id`. The oldest one makes room if there are too many.
    pub(super) fn begin(&self, id: String, request: &UiaRequest<'_>, now: Millis) {
        let session = Session { binding: Binding::of(request), begun: now, progress: Progress::default(), failures: 0 };
        let mut table = self.table.lock();
        while let Some(oldest) = table.oldest.front() {
            let live = table.by_id.get(oldest).is_some_and(|session| now.since(session.begun) < LIFETIME);
            if live && table.oldest.len() < self.capacity {
                break;
            }
            if let Some(oldest) = table.oldest.pop_front() {
                table.by_id.remove(&oldest);
            }
        }
        table.oldest.push_back(id.clone());
        table.by_id.insert(id, session);
    }

    /// How far session `id` has come, if it belongs to `request`.
    pub(super) fn progress(&self, id: &str, request: &UiaRequest<'_>, now: Millis) -> Result<Progress, UiaError> {
        self.with(id, request, now, |session| session.progress.clone())
    }

    /// Marks a stage as done. Stages that have been done stay as they are.
    pub(super) fn complete_stage(
        &self,
        (id, request): (&str, &UiaRequest<'_>),
        now: Millis,
        stage: Stage,
        token: Option<String>,
    ) -> Result<Progress, UiaError> {
        self.with(id, request, now, |session| {
            if !session.progress.completed.contains(&stage) {
                session.progress.completed.push(stage);
                session.progress.registration_token = token.or(session.progress.registration_token.take());
            }
            session.progress.clone()
        })
    }

    /// Counts a wrong attempt; after too many the session is gone.
    pub(super) fn fail_stage(&self, id: &str, request: &UiaRequest<'_>, now: Millis) -> Result<Progress, UiaError> {
        let (progress, failures) = self.with(id, request, now, |session| {
            session.failures += 1;
            (session.progress.clone(), session.failures)
        })?;
        if failures >= MAX_FAILURES {
            self.end(id);
        }
        Ok(progress)
    }

    /// Ends a session.
    pub(super) fn end(&self, id: &str) {
        self.table.lock().by_id.remove(id);
    }

    fn with<T>(
        &self,
        id: &str,
        request: &UiaRequest<'_>,
        now: Millis,
        act: impl FnOnce(&mut Session) -> T,
    ) -> Result<T, UiaError> {
        let binding = Binding::of(request);
        let mut table = self.table.lock();
        let session = table.by_id.get_mut(id).filter(|session| now.since(session.begun) < LIFETIME);
        match session {
            None => Err(UiaError::UnknownSession),
            Some(session) if session.binding != binding => Err(UiaError::OtherRequest),
            Some(session) => Ok(act(session)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: UiaRequest<'static> = UiaRequest {
        operation: UiaOperation::Register,
        method: "POST",
        path: "/register",
        body: RequestDigest::unbound(),
    };

    #[test]
    fn the_oldest_session_makes_room() {
        let sessions = UiaSessions::new(3);
        for id in ["a", "b", "c", "d"] {
            sessions.begin(id.into(), &REQUEST, Millis(1));
        }
        assert!(matches!(sessions.progress("a", &REQUEST, Millis(1)), Err(UiaError::UnknownSession)));
        for id in ["b", "c", "d"] {
            assert!(sessions.progress(id, &REQUEST, Millis(1)).is_ok());
        }
    }

    #[test]
    fn old_sessions_end_and_leave_no_trace() {
        let sessions = UiaSessions::new(100);
        for n in 0..50 {
            sessions.begin(n.to_string(), &REQUEST, Millis(n));
        }
        let end = Millis(49).plus(LIFETIME);
        assert!(sessions.progress("49", &REQUEST, Millis(end.0 - 1)).is_ok());
        assert!(matches!(sessions.progress("49", &REQUEST, end), Err(UiaError::UnknownSession)));
        sessions.begin("new".into(), &REQUEST, end);
        let table = sessions.table.lock();
        assert_eq!((table.by_id.len(), table.oldest.len()), (1, 1));
    }

    #[test]
    fn ended_sessions_do_not_pile_up() {
        let sessions = UiaSessions::new(10);
        for n in 0..1000 {
            sessions.begin(n.to_string(), &REQUEST, Millis(1));
            sessions.end(&n.to_string());
        }
        let table = sessions.table.lock();
        assert!(table.by_id.is_empty());
        assert!(table.oldest.len() <= 10);
    }

    #[test]
    fn ten_wrong_attempts_end_a_session() {
        let sessions = UiaSessions::new(10);
        sessions.begin("a".into(), &REQUEST, Millis(1));
        for _ in 0..MAX_FAILURES {
            assert!(sessions.fail_stage("a", &REQUEST, Millis(1)).is_ok());
        }
        assert!(matches!(sessions.fail_stage("a", &REQUEST, Millis(1)), Err(UiaError::UnknownSession)));
    }
}

//! Asking a policy server.
//!
//! The problem: whoever may set a room's state chooses who is asked, and that server may be silent, on purpose too. So
//! each question has a deadline, a server is asked so many at the same time, and who lets a deadline pass counts as a
//! server that cannot be reached. Of a room's inbox nothing waits for one that was silent a moment ago.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hearth_base::Millis;
use hearth_event::{CountersignError, Pdu, PolicyServer};
use hearth_schema::{RoomNid, UserNid};
use parking_lot::Mutex;
use ruma_common::{OwnedServerName, ServerName};
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::PolicyError;
use crate::intake::Rooms;
use crate::remote::{PolicyAnswer, RemoteError};

/// How long a policy server has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who had less time than this to answer has not failed.
const FAIR: Duration = Duration::from_secs(1);
/// Questions that one policy server is asked at the same time.
const AT_ONCE: usize = 16;
/// How long events of others do not wait for a policy server that was silent.
const QUIET: Duration = Duration::from_secs(60);
/// Names after which those that nobody uses any more are looked for.
const TIDY: usize = 256;

/// For whom a policy server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Somebody who waits for the answer.
    Somebody,
    /// An inbox, in which others wait behind the event.
    Inbox,
}

/// Whose turn it is.
type Turn = tokio::sync::Mutex<()>;

/// Questions to policy servers that are under way.
#[derive(Default)]
pub(crate) struct Policing {
    slots: Mutex<HashMap<OwnedServerName, Weak<Semaphore>>>,
    turns: Mutex<HashMap<(RoomNid, UserNid), Weak<Turn>>>,
    /// Until when nothing is expected of these.
    quiet: Mutex<HashMap<OwnedServerName, Millis>>,
}

impl Policing {
    /// Waits until nothing else of `user` is under way in `room`, in the order of the calls.
    pub(super) async fn turn(&self, room: RoomNid, user: UserNid) -> OwnedMutexGuard<()> {
        let lock = shared(&mut self.turns.lock(), (room, user), Turn::default);
        lock.lock_owned().await
    }

    fn slots(&self, server: &ServerName) -> Arc<Semaphore> {
        shared(&mut self.slots.lock(), server.to_owned(), || Semaphore::new(AT_ONCE))
    }

    fn is_quiet(&self, server: &ServerName, now: Millis) -> bool {
        self.quiet.lock().get(server).is_some_and(|until| now < *until)
    }

    fn was_silent(&self, server: &ServerName, now: Millis) {
        let mut quiet = self.quiet.lock();
        if quiet.len() >= TIDY {
            quiet.retain(|_, until| now < *until);
        }
        // Under very many names those that come last are asked once more: the pause is only for speed.
        if quiet.len() < TIDY * TIDY {
            quiet.insert(server.to_owned(), now.plus(QUIET));
        }
    }

    fn has_answered(&self, server: &ServerName) {
        self.quiet.lock().remove(server);
    }
}

/// What `key` leads to for as long as somebody uses it.
fn shared<K: std::hash::Hash + Eq, T>(all: &mut HashMap<K, Weak<T>>, key: K, new: impl FnOnce() -> T) -> Arc<T> {
    if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
        return known;
    }
    if all.len() >= TIDY {
        all.retain(|_, known| known.strong_count() > 0);
    }
    let made = Arc::new(new());
    all.insert(key, Arc::downgrade(&made));
    made
}

impl Rooms {
    /// `event` with the signature of `policy`, which is asked for it once.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn policy_signed(
        &self,
        policy: &PolicyServer,
        event: &Pdu,
        asker: Asker,
    ) -> Result<Pdu, PolicyError> {
        let via = policy.via();
        let useless = |why: String| PolicyError::Useless { server: via.to_owned(), why };
        if *via == self.0.signer.server_name {
            return Err(useless("this server is named as the room's policy server, and is none".to_owned()));
        }
        if !policy.has_key() {
            return Err(useless("the room gives no key that it could sign with".to_owned()));
        }
        let desk = &self.0.policing;
        if asker == Asker::Inbox && desk.is_quiet(via, self.0.clock.now()) {
            return Err(PolicyError::Unreachable(format!("{via} did not answer a moment ago")));
        }
        let signature = match self.ask_policy_server(via, event).await {
            Ok(PolicyAnswer::Signed(signature)) => signature,
            Ok(PolicyAnswer::Refused(refusal)) => return Err(PolicyError::Refused(refusal)),
            Err(error @ (RemoteError::Unreachable { .. } | RemoteError::Off)) => {
                return Err(PolicyError::Unreachable(error.to_string()));
            }
            Err(RemoteError::Refused { status, .. }) => {
                return Err(useless(format!("it answers with status {status}")));
            }
            Err(RemoteError::Invalid { why, .. }) => return Err(useless(why)),
        };
        policy.with_signature(event, &signature).map_err(|error| match error {
            CountersignError::BadSignature => {
                useless("its signature is not valid by the key that the room gives".into())
            }
            other => useless(other.to_string()),
        })
    }

    async fn ask_policy_server(&self, via: &ServerName, event: &Pdu) -> Result<PolicyAnswer, RemoteError> {
        let desk = &self.0.policing;
        let until = Instant::now() + PATIENCE;
        let silent = |why: &str| RemoteError::Unreachable { server: via.to_owned(), why: why.to_owned() };
        let slots = desk.slots(via);
        let slot = timeout_at(until, slots.acquire()).await;
        let Ok(Ok(_slot)) = slot else { return Err(silent("it is asked too much")) };
        let (began, left) = (self.0.clock.now(), until.saturating_duration_since(Instant::now()));
        metrics::counter!("hearth_policy_server_questions_total").increment(1);
        let answer = timeout_at(until, self.0.remote.policy_sign(via, event)).await;
        let answer = answer.unwrap_or_else(|_| {
            if left >= FAIR {
                self.0.remote.gave_up(via, began);
            }
            Err(silent("it does not answer in time"))
        });
        match &answer {
            Err(RemoteError::Unreachable { .. }) => desk.was_silent(via, self.0.clock.now()),
            _ => desk.has_answered(via),
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use hearth_schema::Ids;
    use ruma_common::{room_id, server_name, user_id};

    use super::*;

    #[tokio::test]
    async fn one_user_is_served_in_turn_and_nothing_is_kept() {
        let (policing, ids) = (Policing::default(), Ids::new([5; 32]));
        let (room, user) = (ids.room(room_id!("!r:a")), ids.user(user_id!("@u:a")));
        let first = policing.turn(room, user).await;
        let (mut second, mut third) = (Box::pin(policing.turn(room, user)), Box::pin(policing.turn(room, user)));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        drop(policing.turn(room, ids.user(user_id!("@v:a"))).await);
        drop(first);
        assert!(futures::poll!(&mut third).is_pending(), "not before the one that came before");
        drop(second.await);
        drop(third.await);
        for n in 0..2 * TIDY {
            drop(policing.turn(room, ids.user(&ruma_common::UserId::parse(format!("@u{n}:a")).expect("a user"))).await);
        }
        assert!(policing.turns.lock().len() <= TIDY);
    }

    #[test]
    fn a_silence_counts_for_a_while() {
        let (policing, via) = (Policing::default(), server_name!("p.test"));
        policing.was_silent(via, Millis(1000));
        assert!(policing.is_quiet(via, Millis(60_999)));
        assert!(!policing.is_quiet(via, Millis(61_000)));
        assert!(!policing.is_quiet(server_name!("q.test"), Millis(1000)));
        policing.has_answered(via);
        assert!(!policing.is_quiet(via, Millis(1000)));
    }
}

//! What a destination is to be told besides events: the newest of each, in memory.
//!
//! A crash forgets it, and nobody misses much: typing and presence are over soon, and a receipt that is lost is followed
//! by the next one. Receipts wait while a destination does not answer; the rest does not.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hearth_accounts::Sight;
use hearth_base::Millis;
use ruma_common::{OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value, json};

/// Users whose typing waits; more are not told.
const MAX_TYPING: usize = 200;
/// Receipts that wait; more are not told.
const MAX_RECEIPTS: usize = 1000;
/// Users whose presence waits; more are not told.
const MAX_PRESENCE: usize = 1000;
/// Typing notices of one transaction.
const TYPING_AT_ONCE: usize = 20;
/// Rooms with receipts of one transaction. With the rest this stays under the 100 EDUs of the specification.
const RECEIPTS_AT_ONCE: usize = 70;
/// Bytes of receipts of one transaction, about.
const RECEIPT_BYTES: usize = 30_000;
/// Bytes of presence of one transaction, about.
const PRESENCE_BYTES: usize = 20_000;
/// How often one destination is told of presence.
const PRESENCE_PAUSE: Duration = Duration::from_secs(1);

/// Whose receipt, where: room, user, thread.
pub(super) type ReceiptOf = (OwnedRoomId, OwnedUserId, Option<String>);

/// A receipt on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OutReceipt {
    pub event_id: String,
    /// Milliseconds since the epoch.
    pub ts: u64,
}

/// What waits for one destination.
#[derive(Default)]
pub(super) struct EduQueue {
    typing: BTreeMap<(OwnedRoomId, OwnedUserId), bool>,
    receipts: BTreeMap<ReceiptOf, OutReceipt>,
    presence: BTreeMap<OwnedUserId, Sight>,
    /// Whose turn it is: those that were told of stand behind.
    presence_order: VecDeque<OwnedUserId>,
    presence_after: Millis,
}

/// What goes with one transaction.
#[derive(Default)]
pub(super) struct Taken {
    /// Whole EDUs.
    pub edus: Vec<String>,
    /// The receipts among them, to be put back if nobody takes them.
    pub receipts: Vec<(ReceiptOf, OutReceipt)>,
}

impl EduQueue {
    #[expect(clippy::fn_params_excessive_bools, reason = "what the EDU says, by its own name")]
    pub(super) fn typing(&mut self, room: &OwnedRoomId, user: &OwnedUserId, typing: bool) {
        let key = (room.clone(), user.clone());
        if self.typing.len() < MAX_TYPING || self.typing.contains_key(&key) {
            self.typing.insert(key, typing);
        }
    }

    pub(super) fn receipt(&mut self, of: ReceiptOf, receipt: OutReceipt) {
        if self.receipts.len() < MAX_RECEIPTS || self.receipts.contains_key(&of) {
            self.receipts.insert(of, receipt);
        }
    }

    pub(super) fn presence(&mut self, sight: &Sight) {
        let user = &sight.user_id;
        if self.presence.contains_key(user) {
            self.presence.insert(user.clone(), sight.clone());
        } else if self.presence.len() < MAX_PRESENCE {
            self.presence.insert(user.clone(), sight.clone());
            self.presence_order.push_back(user.clone());
        }
    }

    /// What is soon over is of no use to who does not answer.
    pub(super) fn only_receipts(&mut self) {
        self.typing.clear();
        self.presence.clear();
        self.presence_order.clear();
    }

    /// Receipts that did not arrive, unless newer ones wait.
    pub(super) fn put_back(&mut self, receipts: Vec<(ReceiptOf, OutReceipt)>) {
        for (of, receipt) in receipts {
            if !self.receipts.contains_key(&of) {
                self.receipt(of, receipt);
            }
        }
    }

    /// When there is something to send: `None`, never.
    pub(super) fn ready_at(&self, now: Millis) -> Option<Millis> {
        if !self.typing.is_empty() || !self.receipts.is_empty() {
            return Some(now);
        }
        (!self.presence.is_empty()).then_some(self.presence_after.max(now))
    }

    /// Takes what one transaction has place for.
    pub(super) fn take(&mut self, now: Millis) -> Taken {
        let mut taken = Taken::default();
        while taken.edus.len() < TYPING_AT_ONCE
            && let Some(((room_id, user_id), typing)) = self.typing.pop_first()
        {
            let content = json!({ "room_id": room_id, "user_id": user_id, "typing": typing });
            taken.edus.push(edu("m.typing", &content));
        }
        self.take_receipts(&mut taken);
        if now >= self.presence_after && !self.presence.is_empty() {
            taken.edus.push(self.take_presence(now));
            self.presence_after = now.plus(PRESENCE_PAUSE);
        }
        taken
    }

    /// An EDU has place for one receipt of a user in a room: those of further threads go into further EDUs.
    fn take_receipts(&mut self, taken: &mut Taken) {
        let (mut bytes, mut edus) = (0, Vec::<(OwnedRoomId, Map<String, Value>)>::new());
        while let Some(entry) = self.receipts.first_entry() {
            let (room_id, user_id, thread) = entry.key();
            let thread_bytes = thread.as_ref().map_or(0, String::len);
            bytes += 200 + room_id.as_str().len() + user_id.as_str().len() + thread_bytes + entry.get().event_id.len();
            let has_place = |(room, users): &(OwnedRoomId, Map<String, Value>)| {
                room == room_id && !users.contains_key(user_id.as_str())
            };
            let place = edus.iter().position(has_place);
            if bytes > RECEIPT_BYTES || (place.is_none() && edus.len() == RECEIPTS_AT_ONCE) {
                break;
            }
            let place = place.unwrap_or_else(|| {
                edus.push((room_id.clone(), Map::new()));
                edus.len() - 1
            });
            let (of, receipt) = entry.remove_entry();
            let mut data = json!({ "ts": receipt.ts });
            if let Some(thread) = &of.2 {
                data["thread_id"] = json!(thread);
            }
            edus[place].1.insert(of.1.to_string(), json!({ "event_ids": [receipt.event_id], "data": data }));
            taken.receipts.push((of, receipt));
        }
        for (room_id, users) in edus {
            taken.edus.push(edu("m.receipt", &json!({ room_id.as_str(): { "m.read": users } })));
        }
    }

    fn take_presence(&mut self, now: Millis) -> String {
        let (mut push, mut bytes) = (Vec::new(), 0);
        while let Some(user) = self.presence_order.front() {
            let Some(sight) = self.presence.get(user) else {
                self.presence_order.pop_front();
                continue;
            };
            let update = presence_update(sight, now);
            bytes += update.to_string().len();
            if bytes > PRESENCE_BYTES && !push.is_empty() {
                break;
            }
            push.push(update);
            self.presence.remove(user);
            self.presence_order.pop_front();
        }
        edu("m.presence", &json!({ "push": push }))
    }
}

fn presence_update(sight: &Sight, now: Millis) -> Value {
    // The specification asks for a number: of who has never done anything nothing is known.
    let ago = sight.last_active.map_or(0, |at| u64::try_from(now.since(at).as_millis()).unwrap_or(0));
    let mut update = json!({
        "user_id": sight.user_id,
        "presence": sight.state.as_str(),
        "last_active_ago": ago,
        "currently_active": sight.currently_active,
    });
    if let Some(text) = &sight.status_msg {
        update["status_msg"] = json!(text);
    }
    update
}

fn edu(edu_type: &str, content: &Value) -> String {
    json!({ "edu_type": edu_type, "content": content }).to_string()
}

#[cfg(test)]
mod tests {
    use hearth_accounts::PresenceState;
    use hearth_schema::Ids;
    use ruma_common::{RoomId, UserId};

    use super::*;

    fn room(name: &str) -> OwnedRoomId {
        RoomId::parse(format!("!{name}:x")).expect("a room ID")
    }

    fn user(name: &str) -> OwnedUserId {
        UserId::parse(format!("@{name}:x")).expect("a user ID")
    }

    fn receipt(event_id: &str) -> OutReceipt {
        OutReceipt { event_id: event_id.to_owned(), ts: 7 }
    }

    fn sight(name: &str, state: PresenceState) -> Sight {
        let user_id = user(name);
        Sight {
            user: Ids::new([1; 32]).user(&user_id),
            user_id,
            state,
            currently_active: false,
            last_active: Some(Millis(1_000)),
            status_msg: None,
        }
    }

    fn take(queue: &mut EduQueue, now: u64) -> Vec<Value> {
        let edus = queue.take(Millis(now)).edus;
        edus.iter().map(|edu| serde_json::from_str(edu).expect("JSON")).collect()
    }

    #[test]
    fn the_newest_of_each_is_told_once() {
        let mut queue = EduQueue::default();
        queue.typing(&room("r"), &user("a"), true);
        queue.typing(&room("r"), &user("a"), false);
        for event_id in ["$1", "$2"] {
            queue.receipt((room("r"), user("a"), None), receipt(event_id));
        }
        queue.receipt((room("r"), user("b"), Some("main".into())), receipt("$3"));
        queue.receipt((room("r"), user("b"), Some("$t".into())), receipt("$4"));
        let told = take(&mut queue, 5_000);
        let content = json!({ "room_id": "!r:x", "user_id": "@a:x", "typing": false });
        let first = json!({ "!r:x": { "m.read": {
            "@a:x": { "event_ids": ["$2"], "data": { "ts": 7 } },
            "@b:x": { "event_ids": ["$4"], "data": { "ts": 7, "thread_id": "$t" } },
        } } });
        let second = json!({ "!r:x": { "m.read": {
            "@b:x": { "event_ids": ["$3"], "data": { "ts": 7, "thread_id": "main" } },
        } } });
        assert_eq!(
            told,
            [
                json!({ "edu_type": "m.typing", "content": content }),
                json!({ "edu_type": "m.receipt", "content": first }),
                json!({ "edu_type": "m.receipt", "content": second }),
            ]
        );
        assert_eq!(queue.ready_at(Millis(5_000)), None);
    }

    #[test]
    fn presence_is_told_once_in_a_while() {
        let mut queue = EduQueue::default();
        queue.presence(&sight("a", PresenceState::Online));
        assert_eq!(take(&mut queue, 5_000).len(), 1);
        queue.presence(&sight("a", PresenceState::Unavailable));
        queue.presence(&sight("a", PresenceState::Offline));
        assert_eq!(queue.ready_at(Millis(5_001)), Some(Millis(6_000)));
        assert_eq!(take(&mut queue, 5_999), Vec::<Value>::new());
        let update =
            json!({ "user_id": "@a:x", "presence": "offline", "last_active_ago": 5_000, "currently_active": false });
        assert_eq!(take(&mut queue, 6_000), [json!({ "edu_type": "m.presence", "content": { "push": [update] } })]);
    }

    #[test]
    fn what_did_not_arrive_does_not_replace_what_is_newer() {
        let mut queue = EduQueue::default();
        queue.receipt((room("r"), user("a"), None), receipt("$1"));
        queue.receipt((room("r"), user("b"), None), receipt("$1"));
        let taken = queue.take(Millis(0));
        queue.receipt((room("r"), user("a"), None), receipt("$2"));
        queue.put_back(taken.receipts);
        let found: Vec<_> = queue.receipts.values().map(|receipt| receipt.event_id.as_str()).collect();
        assert_eq!(found, ["$2", "$1"]);
    }

    #[test]
    fn a_queue_and_a_transaction_are_bounded() {
        let mut queue = EduQueue::default();
        for n in 0..3_000 {
            let (room, user) = (room(&format!("r{n}")), user(&format!("u{n}")));
            queue.typing(&room, &user, true);
            queue.receipt((room, user, Some("t".repeat(200))), receipt(&"e".repeat(200)));
            let status_msg = Some("\u{1}".repeat(1024).into());
            queue.presence(&Sight { status_msg, ..sight(&format!("u{n}"), PresenceState::Online) });
        }
        assert_eq!((queue.typing.len(), queue.receipts.len(), queue.presence.len()), (200, 1000, 1000));
        let mut transactions = 0;
        for now in (1..).map(|second| second * 10_000) {
            if queue.ready_at(Millis(now)).is_none() {
                break;
            }
            let edus = queue.take(Millis(now)).edus;
            let bytes: usize = edus.iter().map(String::len).sum();
            assert!(edus.len() <= 100 && bytes < 85_000, "{} EDUs of {bytes} bytes", edus.len());
            transactions += 1;
        }
        assert!(transactions > 10);
        assert!(queue.presence_order.is_empty());
    }
}

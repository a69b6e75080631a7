//! Which member events a device has, so that lazy loading need not repeat them.
//!
//! What was sent in an answer that the client never got must be sent again. So each entry carries
//! the position that the answer's `next_batch` meant, and a request with an older `since` takes back
//! everything after it. Forgetting is always allowed: it costs a repetition.

use std::collections::HashMap;

use hearth_schema::{NidMap, RoomNid};
use hearth_store::Pos;
use parking_lot::Mutex;

/// Member events remembered for one user, over all devices.
const MAX_ENTRIES: usize = 20_000;

/// What the devices of one user have.
#[derive(Default)]
pub(crate) struct SentMembers(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    devices: HashMap<String, Device>,
    entries: usize,
}

#[derive(Default)]
struct Device {
    newest: Pos,
    members: NidMap<RoomNid, HashMap<Box<str>, Pos>>,
}

impl SentMembers {
    /// A request of `device` with this `since` begins: what was sent after it did not arrive.
    pub(crate) fn begin(&self, device: &str, since: Option<Pos>) {
        let mut inner = self.0.lock();
        match since {
            None => drop(inner.devices.remove(device)),
            Some(since) => {
                let Some(known) = inner.devices.get_mut(device).filter(|known| known.newest > since) else { return };
                known.newest = since;
                known.members.retain(|_, members| {
                    members.retain(|_, sent| *sent <= since);
                    !members.is_empty()
                });
            }
        }
        inner.entries = inner.devices.values().flat_map(|known| known.members.values()).map(HashMap::len).sum();
    }

    /// Those of `users` whose member events in `room` the device does not have.
    pub(crate) fn missing<'u>(&self, device: &str, room: RoomNid, users: Vec<&'u str>) -> Vec<&'u str> {
        let inner = self.0.lock();
        match inner.devices.get(device).and_then(|known| known.members.get(&room)) {
            None => users,
            Some(members) => users.into_iter().filter(|user| !members.contains_key(*user)).collect(),
        }
    }

    /// The member events of `users` in `room` are in an answer that ends at `pos`.
    pub(crate) fn sent<'u>(&self, device: &str, room: RoomNid, users: impl Iterator<Item = &'u str>, pos: Pos) {
        let mut inner = self.0.lock();
        if inner.entries > MAX_ENTRIES {
            *inner = Inner::default();
        }
        let known = inner.devices.entry(device.to_owned()).or_default();
        let members = known.members.entry(room).or_default();
        let before = members.len();
        for user in users {
            members.entry(user.into()).or_insert(pos);
        }
        known.newest = known.newest.max(pos);
        let added = members.len() - before;
        inner.entries += added;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_schema::Ids;
    use ruma_common::RoomId;

    fn room() -> RoomNid {
        Ids::new([0; 32]).room(<&RoomId>::try_from("!r:x").expect("a room ID"))
    }

    #[test]
    fn what_was_sent_is_not_missing() {
        let sent = SentMembers::default();
        sent.sent("D", room(), ["@a:x"].into_iter(), Pos::new(10));
        assert_eq!(sent.missing("D", room(), vec!["@a:x", "@b:x"]), ["@b:x"]);
        assert_eq!(sent.missing("E", room(), vec!["@a:x"]), ["@a:x"], "another device has nothing");
    }

    #[test]
    fn an_answer_that_did_not_arrive_is_taken_back() {
        let sent = SentMembers::default();
        sent.sent("D", room(), ["@a:x"].into_iter(), Pos::new(5));
        sent.sent("D", room(), ["@b:x"].into_iter(), Pos::new(10));
        sent.begin("D", Some(Pos::new(10)));
        assert!(sent.missing("D", room(), vec!["@a:x", "@b:x"]).is_empty());
        sent.begin("D", Some(Pos::new(7)));
        assert_eq!(sent.missing("D", room(), vec!["@a:x", "@b:x"]), ["@b:x"]);
        sent.begin("D", None);
        assert_eq!(sent.missing("D", room(), vec!["@a:x"]), ["@a:x"]);
    }

    #[test]
    fn memory_is_bounded() {
        let sent = SentMembers::default();
        for n in 0..3 * MAX_ENTRIES {
            sent.sent("D", room(), [format!("@{n}:x").as_str()].into_iter(), Pos::new(1));
        }
        assert!(sent.0.lock().entries <= MAX_ENTRIES + 1);
    }
}

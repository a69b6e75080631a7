//! A server under test, a hostile one, and a room that both are in.

use std::sync::atomic::{AtomicU32, Ordering};

use hearth_test_harness::{Answer, Config, Federated, Hostile, Room, Signed, now, pct};
use serde_json::{Value, json};

use crate::pair::{Ours, ours};
use crate::people::{Person, Side, eventually};

/// The server under test and the hostile one.
pub(crate) struct Scene {
    ours: Ours,
    pub(crate) mal: Hostile,
}

/// A room of the server under test that the hostile one has joined.
pub(crate) struct Shared {
    /// Who made it.
    pub(crate) alice: Person,
    /// The hostile member.
    pub(crate) mallory: String,
    /// The hostile server's copy.
    pub(crate) room: Room,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self { ours: ours().await, mal: Hostile::start() }
    }

    /// With other settings.
    pub(crate) async fn with(config: Config) -> Self {
        let server = Federated::start(env!("CARGO_BIN_EXE_hearth"), config).await;
        Self { ours: Ours::Hearth(Box::new(server)), mal: Hostile::start() }
    }

    /// Bytes of memory that the server under test has; 0 if it is none of ours.
    pub(crate) fn memory(&mut self) -> u64 {
        let Ours::Hearth(server) = &mut self.ours else { return 0 };
        let pid = server.server().pid().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
        kib << 10
    }

    pub(crate) fn side(&self) -> Side {
        self.ours.side()
    }

    pub(crate) fn name(&self) -> String {
        self.ours.side().name
    }

    pub(crate) async fn room(&self, version: u8) -> Shared {
        let alice = self.side().person("alice").await;
        let id = alice.create_public(&version.to_string()).await;
        self.join(alice, &id, version).await
    }

    /// A room that `alice` has made already.
    pub(crate) async fn join(&self, alice: Person, id: &str, version: u8) -> Shared {
        let mallory = self.mal.user("mallory");
        let room = Room::join(&self.mal, &self.name(), id, &mallory, version).await;
        eventually("the hostile member is in", async || {
            let path = format!("/rooms/{}/state/m.room.member/{}", pct(id), pct(&mallory));
            alice.get(&path).await.expect_status(200).map(drop)
        })
        .await;
        Shared { alice, mallory, room }
    }

    /// Sends a transaction of these PDUs, as text, and EDUs.
    pub(crate) async fn transaction(&self, pdus: &[String], edus: &[Value]) -> Answer {
        static SENT: AtomicU32 = AtomicU32::new(0);
        let id = format!("t{}", SENT.fetch_add(1, Ordering::Relaxed));
        self.transaction_called(&id, pdus, edus).await
    }

    pub(crate) async fn transaction_called(&self, id: &str, pdus: &[String], edus: &[Value]) -> Answer {
        let (edus, time) = (json!(edus), now());
        let body = format!(
            "{{\"edus\":{edus},\"origin\":\"{}\",\"origin_server_ts\":{time},\"pdus\":[{}]}}",
            self.mal.name(),
            pdus.join(",")
        );
        self.mal.ask(&self.name(), "PUT", &format!("/_matrix/federation/v1/send/{id}")).text(&body).send().await
    }

    /// Sends one event, which must be taken.
    pub(crate) async fn deliver(&self, event: &Signed) {
        let answer = self.transaction(std::slice::from_ref(&event.text), &[]).await;
        let body = answer.expect_status(200).unwrap_or_else(|other| panic!("{other}")).body;
        assert!(body["pdus"][&event.id].get("error").is_none(), "{body}");
    }

    /// A message on top of the room that everybody sees: whatever was sent before it has been looked at by then.
    pub(crate) async fn all_is_looked_at(&self, shared: &mut Shared) {
        let event = shared.room.message(&shared.mallory, "the last one");
        let event = shared.room.send(&self.mal, &event);
        self.deliver(&event).await;
        shared.alice.sees(&shared.room.id, &event.id).await;
    }

    /// Stops the server and looks at what is left: nothing may be damaged, no handler may have panicked.
    pub(crate) async fn end(mut self) {
        let Ours::Hearth(server) = &mut self.ours else { return };
        let server = server.server();
        assert!(!server.log().contains("panicked"), "a handler panicked");
        server.terminate();
        server.wait(std::time::Duration::from_secs(30)).await;
        let (sound, report) = server.command(&["fsck"]);
        assert!(sound, "{report}");
    }

    /// Kills the server under test and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.ours.restart().await;
    }
}

impl Shared {
    /// Takes what the server under test has sent up to `event` into the hostile server's copy.
    pub(crate) async fn follow(&mut self, mal: &Hostile, event: &str) {
        let room = self.room.clone();
        let of = |asked: &hearth_test_harness::Asked| asked.body["pdus"].as_array().cloned().unwrap_or_default();
        mal.is_asked(event, |asked| of(asked).iter().any(|pdu| room.received(pdu).id == event)).await;
        for asked in mal.asked("/send/") {
            for pdu in of(&asked).iter().filter(|pdu| pdu["room_id"] == room.id) {
                let received = self.room.received(pdu);
                if !self.room.events.contains_key(&received.id) {
                    self.room.add(&received);
                }
            }
        }
    }

    /// What a client is answered about the event.
    pub(crate) async fn shown(&self, event: &str) -> Answer {
        self.alice.get(&format!("/rooms/{}/event/{}", pct(&self.room.id), pct(event))).await
    }

    /// The event is nowhere to be seen: neither by its ID, nor in the state, nor in the history.
    pub(crate) async fn is_kept_out(&self, what: &str, event: &str) {
        assert_eq!(self.shown(event).await.status, 404, "{what}: {event} is shown");
        let state = self.alice.state(&self.room.id).await.expect("the room can be read");
        assert!(!state.values().any(|id| id == event), "{what}: {event} is in the state");
        let path = format!("/rooms/{}/messages?dir=b&limit=100", pct(&self.room.id));
        let page = self.alice.get(&path).await.expect_status(200).expect("the room can be read").body;
        assert!(!page.to_string().contains(event), "{what}: {event} is in the history");
    }
}

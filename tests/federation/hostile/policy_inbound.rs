//! A room whose policy server is the hostile one: what other servers send.

use hearth_test_harness::{Hostile, PolicyKey, RawEvent, Reply, Signed, pct};
use serde_json::{Value, json};

use super::policy::{Policed, VERSION};

impl Policed {
    /// A message of the hostile member on top of the room.
    fn message(&self, text: &str) -> RawEvent {
        self.shared.room.message(&self.shared.mallory, text)
    }

    /// The event with the policy server's signature, on top of the room.
    fn signed(&mut self, event: &RawEvent) -> Signed {
        let event = self.key.add_to(&event.sign(&self.scene.mal), self.scene.mal.name(), VERSION);
        self.shared.room.add(&event);
        event
    }

    /// The same without it.
    fn unsigned(&mut self, event: &RawEvent) -> Signed {
        self.shared.room.send(&self.scene.mal, event)
    }

    /// A signed message on top of the room is shown, so what was sent before it has been looked at.
    async fn all_is_looked_at(&mut self) {
        let last = self.signed(&self.message("the last one"));
        self.scene.deliver(&last).await;
        self.shared.alice.sees(&self.shared.room.id, &last.id).await;
    }

    /// The event as the server under test tells it to others.
    async fn told(&self, id: &str) -> Value {
        let uri = format!("/_matrix/federation/v1/event/{}", pct(id));
        self.scene.mal.get(&self.scene.name(), &uri).ok().await["pdus"][0].clone()
    }

    /// The policy server wants nothing to do with anything.
    fn refuses(&self) {
        self.answers(|_| Reply::error(400, "M_FORBIDDEN"));
    }
}

#[tokio::test]
async fn a_missing_signature_is_asked_for_and_kept() {
    let mut policed = Policed::new().await;
    let room = policed.shared.room.id.clone();
    let good = policed.signed(&policed.message("signed by its server"));
    policed.scene.deliver(&good).await;
    policed.shared.alice.sees(&room, &good.id).await;
    assert!(policed.questions().is_empty(), "who brings the signature needs no other");
    let bare = policed.unsigned(&policed.message("without a signature"));
    policed.scene.deliver(&bare).await;
    policed.shared.alice.sees(&room, &bare.id).await;
    assert_eq!(policed.questions().len(), 1);
    let wrong = policed.message("with that of another key").sign(&policed.scene.mal);
    let wrong = PolicyKey::fresh().add_to(&wrong, policed.scene.mal.name(), VERSION);
    policed.shared.room.add(&wrong);
    policed.scene.deliver(&wrong).await;
    policed.shared.alice.sees(&room, &wrong.id).await;
    assert_eq!(policed.questions().len(), 2);
    let (own, key_id) = (policed.scene.mal.name().to_owned(), policed.scene.mal.key_id().to_owned());
    for sent in [good, bare, wrong] {
        let told = policed.told(&sent.id).await;
        assert!(policed.has_signed(&told), "{told}");
        assert_eq!(told["signatures"][&own][&key_id], sent.json()["signatures"][&own][&key_id], "{told}");
    }
    policed.end().await;
}

#[tokio::test]
async fn what_stays_without_a_signature_is_not_shown_and_what_follows_it_is() {
    let mut policed = Policed::new().await;
    let (room, own) = (policed.shared.room.id.clone(), policed.scene.mal.name().to_owned());
    policed.refuses();
    let bare = policed.unsigned(&policed.message("without a signature"));
    policed.scene.deliver(&bare).await;
    let wrong = policed.message("with that of another key").sign(&policed.scene.mal);
    let wrong = PolicyKey::fresh().add_to(&wrong, &own, VERSION);
    policed.shared.room.add(&wrong);
    policed.scene.deliver(&wrong).await;
    // With the key that the server publishes, under the name of the other one.
    let forged = policed.message("signed with a published key").sign(&policed.scene.mal);
    let mut json = forged.json();
    json["signatures"][&own]["ed25519:policy_server"] = json["signatures"][&own][policed.scene.mal.key_id()].clone();
    let forged = Signed { id: forged.id, text: json.to_string() };
    policed.shared.room.add(&forged);
    policed.scene.deliver(&forged).await;
    let mallory = policed.shared.mallory.clone();
    let profile = json!({"membership": "join", "displayname": "A new name"});
    let state = policed.shared.room.event("m.room.member", Some(&mallory), &mallory, &profile);
    // Nothing follows it: what does would bring it along (§"Soft failure").
    let state = state.sign(&policed.scene.mal);
    policed.scene.deliver(&state).await;
    policed.all_is_looked_at().await;
    assert_eq!(policed.questions().len(), 4, "each was asked about once");
    for (what, event) in [("none", &bare), ("wrong", &wrong), ("published", &forged), ("state", &state)] {
        policed.shared.is_kept_out(what, &event.id).await;
        let sync = policed.shared.alice.get("/sync?timeout=0").await.expect_status(200).expect("a sync");
        assert!(!sync.text.contains(&event.id), "{what}: {} is in /sync", event.id);
    }
    let member = format!("/rooms/{}/state/m.room.member/{}", pct(&room), pct(&mallory));
    assert!(policed.shared.alice.get(&member).await.body.get("displayname").is_none());
    // The same again is known.
    policed.scene.deliver(&bare).await;
    policed.all_is_looked_at().await;
    assert_eq!(policed.questions().len(), 4);
    policed.end().await;
}

#[tokio::test]
async fn many_events_of_one_transaction_are_looked_at_one_by_one() {
    let mut policed = Policed::new().await;
    let room = policed.shared.room.id.clone();
    policed.refuses();
    let mut sent = Vec::new();
    for n in 0..12 {
        let message = policed.message(&n.to_string());
        let is_good = n % 4 != 2;
        let event = if is_good { policed.signed(&message) } else { policed.unsigned(&message) };
        sent.push((event, is_good));
    }
    let texts: Vec<String> = sent.iter().map(|(event, _)| event.text.clone()).collect();
    policed.scene.transaction(&texts, &[]).await.expect_status(200).expect("an answer");
    policed.all_is_looked_at().await;
    for (event, is_good) in &sent {
        if *is_good {
            policed.shared.alice.sees(&room, &event.id).await;
        } else {
            policed.shared.is_kept_out("no signature", &event.id).await;
        }
    }
    assert_eq!(policed.questions().len(), 3);
    policed.end().await;
}

#[tokio::test]
async fn the_same_transaction_may_switch_the_policy_server_off() {
    let mut policed = Policed::new().await;
    let (room, mallory) = (policed.shared.room.id.clone(), policed.shared.mallory.clone());
    let levels = json!({"users": {policed.shared.alice.id(): 100, &mallory: 100}});
    let levels = policed.shared.alice.set_state(&room, "m.room.power_levels", "", &levels).await;
    policed.shared.follow(&policed.scene.mal, &levels).await;
    policed.refuses();
    let before = policed.questions().len();
    let bare = policed.unsigned(&policed.message("before"));
    let off = policed.shared.room.event("m.room.policy", Some(""), &mallory, &json!({}));
    let off = policed.unsigned(&off);
    let free = policed.unsigned(&policed.message("after"));
    let on = policed.key.content(policed.scene.mal.name());
    let on = policed.shared.room.event("m.room.policy", Some(""), &mallory, &on);
    let on = policed.unsigned(&on);
    let late = policed.unsigned(&policed.message("too late"));
    let texts: Vec<String> = [&bare, &off, &free, &on, &late].iter().map(|event| event.text.clone()).collect();
    policed.scene.transaction(&texts, &[]).await.expect_status(200).expect("an answer");
    policed.all_is_looked_at().await;
    for event in [&off, &free, &on] {
        policed.shared.alice.sees(&room, &event.id).await;
    }
    policed.shared.is_kept_out("before", &bare.id).await;
    policed.shared.is_kept_out("after it was named again", &late.id).await;
    let about: Vec<String> =
        policed.questions()[before..].iter().map(|asked| policed.shared.room.received(&asked.body).id).collect();
    assert_eq!(about, [bare.id, late.id]);
    policed.end().await;
}

#[tokio::test]
async fn what_fills_a_gap_is_asked_about() {
    let mut policed = Policed::new().await;
    let (room, key, own) = (policed.shared.room.id.clone(), policed.key.clone(), policed.scene.mal.name().to_owned());
    policed.answers(move |asked| match asked.body["content"]["body"].as_str() {
        Some("bad") => Reply::error(400, "M_FORBIDDEN"),
        _ => Reply::json(&key.answer(&own, &asked.body, VERSION)),
    });
    let missing: Vec<Signed> =
        ["good", "bad", "better"].into_iter().map(|text| policed.unsigned(&policed.message(text))).collect();
    let told: Vec<Value> = missing.iter().map(Signed::json).collect();
    policed.scene.mal.answer("/get_missing_events/", Reply::json(&json!({"events": told})));
    let last = policed.unsigned(&policed.message("the last one"));
    policed.scene.deliver(&last).await;
    for event in [&missing[0], &missing[2], &last] {
        policed.shared.alice.sees(&room, &event.id).await;
        assert!(policed.has_signed(&policed.told(&event.id).await));
    }
    policed.shared.is_kept_out("refused", &missing[1].id).await;
    assert_eq!(policed.questions().len(), 4);
    policed.end().await;
}

#[tokio::test]
async fn an_inbox_waits_for_a_silent_policy_server_once() {
    let mut policed = Policed::new().await;
    policed.answers(|_| Reply::silence());
    let mut kept_out = Vec::new();
    let mut texts = Vec::new();
    for n in 0..5 {
        let event = policed.unsigned(&policed.message(&format!("silence {n}")));
        texts.push(event.text.clone());
        kept_out.push(event.id);
    }
    policed.scene.transaction(&texts, &[]).await.expect_status(200).expect("an answer");
    policed.all_is_looked_at().await;
    for id in &kept_out {
        policed.shared.is_kept_out("silence", id).await;
    }
    assert_eq!(policed.questions().len(), 1, "after that nobody waits for it");
    policed.end().await;
}

#[tokio::test]
async fn who_joins_through_us_is_asked_about() {
    let mut policed = Policed::new().await;
    let (room, eve) = (policed.shared.room.id.clone(), Hostile::start());
    let user = eve.user("eve");
    let join =
        policed.shared.room.event("m.room.member", Some(&user), &user, &json!({"membership": "join"})).sign(&eve);
    let uri = format!("/_matrix/federation/v2/send_join/{}/{}", pct(&room), pct(&join.id));
    let put = async || eve.put(&policed.scene.name(), &uri, &join.json()).send().await;
    policed.refuses();
    let refused = put().await;
    assert_eq!((refused.status, refused.errcode()), (403, "M_FORBIDDEN"), "{}", refused.text);
    assert_eq!(refused.body["error"], "because");
    let member = format!("/rooms/{}/state/m.room.member/{}", pct(&room), pct(&user));
    assert_eq!(policed.shared.alice.get(&member).await.status, 404);
    policed.signs();
    let answer = put().await.expect_status(200).expect("a join").body;
    let event = &answer["event"];
    assert!(policed.has_signed(event), "{event}");
    assert_eq!(event["signatures"][eve.name()], join.json()["signatures"][eve.name()]);
    assert_eq!(policed.shared.alice.get(&member).await.status, 200);
    // It is told on as it is here.
    policed.shared.follow(&policed.scene.mal, &join.id).await;
    assert!(policed.has_signed(&policed.shared.room.events[&join.id].json()));
    // An event of a server that is not the policy server is asked about like any other.
    let message = policed.shared.room.message(&user, "by somebody else").sign(&eve);
    let body = json!({"origin": eve.name(), "origin_server_ts": 1, "pdus": [message.json()], "edus": []});
    eve.put(&policed.scene.name(), "/_matrix/federation/v1/send/eve", &body).ok().await;
    policed.shared.alice.sees(&room, &message.id).await;
    assert!(policed.has_signed(&policed.told(&message.id).await));
    policed.end().await;
}

//! Answers of sliding sync, on a store in memory.

mod mended;

use std::sync::Arc;
use std::time::Duration;

use hearth_accounts::{NewAccountData, PresenceState, Requester};
use hearth_rooms::{CreateRoom, NewReceipt, Typing};
use hearth_schema::{Membership, ReceiptKind};
use ruma_common::{CanonicalJsonValue, OwnedRoomId, RoomId};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{SlidingBody, SlidingError, SlidingRequest};
use crate::testing::*;

/// A device's connection.
struct Client<'w> {
    world: &'w World,
    who: &'w Requester,
    pos: Option<String>,
}

impl<'w> Client<'w> {
    fn new(world: &'w World, who: &'w Requester) -> Self {
        Self { world, who, pos: None }
    }

    async fn request(&self, body: Value, timeout: Duration) -> Result<Value, SlidingError> {
        let body: SlidingBody = serde_json::from_value(body).expect("a body");
        let pos = self.pos.as_deref();
        let request = SlidingRequest { body: &body, pos, timeout, set_presence: PresenceState::default() };
        let bytes = self.world.sync.slide(self.who, &request).await?;
        Ok(serde_json::from_slice(&bytes).expect("an answer is JSON"))
    }

    /// An answer at once, which arrives.
    async fn ask(&mut self, body: Value) -> Value {
        let answer = self.request(body, Duration::ZERO).await.expect("an answer");
        self.pos = answer["pos"].as_str().map(str::to_owned);
        answer
    }

    /// An answer with news, which arrives.
    async fn wait(&mut self, body: Value) -> Value {
        let answer = timeout(LONG, self.request(body, LONG * 2)).await.expect("news").expect("an answer");
        self.pos = answer["pos"].as_str().map(str::to_owned);
        answer
    }
}

fn list(first: u64, last: u64) -> Value {
    json!({"lists": {"l": {"ranges": [[first, last]], "timeline_limit": 10, "required_state": []}}})
}

fn requiring(state: &Value) -> Value {
    json!({"lists": {"l": {"ranges": [[0, 9]], "timeline_limit": 10, "required_state": state}}})
}

fn filtered(filters: &Value) -> Value {
    json!({"lists": {"l": {"timeline_limit": 1, "filters": filters}}})
}

/// Subscribed to one room.
fn open(room_id: &RoomId, limit: u64) -> Value {
    json!({"room_subscriptions": {room_id.as_str(): {"timeline_limit": limit, "required_state": []}}})
}

fn room<'a>(answer: &'a Value, room_id: &RoomId) -> &'a Value {
    &answer["rooms"][room_id.as_str()]
}

/// Rooms of an answer, among those given.
fn shown(answer: &Value, rooms: &[&OwnedRoomId]) -> Vec<usize> {
    let ids = answer["rooms"].as_object().expect("rooms");
    assert!(ids.keys().all(|id| rooms.iter().any(|room_id| room_id.as_str() == id)), "{answer}");
    (0..rooms.len()).filter(|n| ids.contains_key(rooms[*n].as_str())).collect()
}

/// Bodies of messages, and types of the rest.
fn said(room: &Value) -> Vec<String> {
    let events = room["timeline"].as_array().map_or(&[][..], Vec::as_slice);
    let label = |event: &Value| event["content"]["body"].as_str().or(event["type"].as_str()).map(str::to_owned);
    events.iter().map(|event| label(event).expect("a type")).collect()
}

fn state_of(room: &Value) -> Vec<String> {
    let events = room["required_state"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |event: &Value| format!("{}/{}", event["type"].as_str().unwrap(), event["state_key"].as_str().unwrap());
    let mut names: Vec<String> = events.iter().map(name).collect();
    names.sort();
    names
}

fn of_type(owner: &Requester, room_type: &str) -> CreateRoom {
    let room_type = CanonicalJsonValue::String(room_type.to_owned());
    CreateRoom { creation_content: [("type".to_owned(), room_type)].into(), ..creation(owner) }
}

async fn store(world: &World, who: &Requester, room: Option<&OwnedRoomId>, kind: &str, content: Value) {
    let item = NewAccountData { room: room.cloned(), kind: kind.to_owned(), json: content.to_string() };
    world.accounts.set_account_data(who.user, item).await.expect("stored");
}

async fn read(world: &World, who: &Requester, room_id: &OwnedRoomId, event_id: &str) {
    let receipt = NewReceipt {
        room_id: room_id.clone(),
        user_id: who.user_id.clone(),
        kind: ReceiptKind::Read,
        thread: None,
        event_id: event_id.try_into().expect("an event ID"),
    };
    world.rooms.set_receipt(&receipt).await.expect("a receipt");
}

#[tokio::test]
async fn windows_show_the_most_active_rooms_and_each_once() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (a, b, c) = (world.room(&ann, &[&bob]).await, world.room(&ann, &[&bob]).await, world.room(&ann, &[&bob]).await);
    let rooms = [&a, &b, &c];
    world.say(&a, &bob, "one").await;
    let mut client = Client::new(&world, &ann);
    let first = client.ask(list(0, 1)).await;
    assert_eq!((shown(&first, &rooms), &first["lists"]["l"]), (vec![0, 2], &json!({"count": 3})));
    assert_eq!(room(&first, &a)["initial"], json!(true));
    assert_eq!(room(&first, &a)["num_live"], json!(0));
    let grown = client.ask(list(0, 2)).await;
    assert_eq!(shown(&grown, &rooms), [1], "what the client has is not sent again");
    assert_eq!(shown(&client.ask(list(0, 2)).await, &rooms), Vec::<usize>::new());
    world.say(&b, &bob, "two").await;
    world.say(&b, &bob, "three").await;
    let news = client.wait(list(0, 0)).await;
    assert_eq!(shown(&news, &rooms), [1], "it has come to the top");
    let told = room(&news, &b);
    assert_eq!((said(told), &told["num_live"]), (vec!["two".to_owned(), "three".to_owned()], &json!(2)));
    assert!(told["initial"].is_null() && told["limited"].is_null() && told["joined_count"].is_null(), "{told}");
    assert!(told["bump_stamp"].as_u64() > room(&first, &a)["bump_stamp"].as_u64());
    for n in 0..12 {
        world.say(&c, &bob, &n.to_string()).await;
    }
    let gap = client.ask(list(0, 2)).await;
    let told = room(&gap, &c);
    assert_eq!((said(told).len(), &told["limited"]), (10, &json!(true)));
    assert!(told["prev_batch"].is_string(), "{told}");
}

#[tokio::test]
async fn an_answer_that_was_lost_comes_again() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let room_id = world.room(&ann, &[&bob]).await;
    let mut client = Client::new(&world, &ann);
    client.ask(list(0, 9)).await;
    world.say(&room_id, &bob, "text").await;
    let lost = client.request(list(0, 9), Duration::ZERO).await.expect("an answer");
    let again = client.ask(list(0, 9)).await;
    assert_eq!(said(room(&again, &room_id)), said(room(&lost, &room_id)));
    client.pos = lost["pos"].as_str().map(str::to_owned);
    let refused = client.request(list(0, 9), Duration::ZERO).await;
    assert!(matches!(refused, Err(SlidingError::UnknownPos)), "{refused:?}");
    let world = world.restarted().await;
    let mut client = Client { world: &world, who: &ann, pos: again["pos"].as_str().map(str::to_owned) };
    let refused = client.request(list(0, 9), Duration::ZERO).await;
    assert!(matches!(refused, Err(SlidingError::UnknownPos)), "after a restart: {refused:?}");
    client.pos = None;
    assert_eq!(shown(&client.ask(list(0, 9)).await, &[&room_id]), [0]);
}

#[tokio::test]
async fn a_room_is_described() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let room_id = world.room(&ann, &[&bob]).await;
    let mut client = Client::new(&world, &ann);
    let first = client.ask(list(0, 9)).await;
    let told = room(&first, &room_id);
    assert_eq!(told["heroes"], json!([{"user_id": "@bob:hearth.test", "displayname": "bob"}]));
    assert_eq!((&told["membership"], &told["joined_count"]), (&json!("join"), &json!(2)));
    assert!(told["name"].is_null() && told["is_dm"].is_null(), "{told}");
    world.event(&room_id, &ann, ("m.room.name", Some("")), json!({"name": "Room"})).await;
    store(&world, &ann, None, "m.direct", json!({"@bob:hearth.test": [room_id]})).await;
    let news = client.wait(list(0, 9)).await;
    let told = room(&news, &room_id);
    assert_eq!((&told["name"], &told["heroes"], &told["joined_count"]), (&json!("Room"), &Value::Null, &json!(2)));
    let said_dm = |answer: &Value| room(answer, &room_id)["is_dm"] == json!(true);
    assert!(said_dm(&news) || said_dm(&client.wait(list(0, 9)).await));
    world.event(&room_id, &ann, ("m.room.name", Some("")), json!({})).await;
    let told = client.wait(list(0, 9)).await;
    assert!(room(&told, &room_id).as_object().expect("the room").get("name").is_some_and(Value::is_null), "{told}");
    let anew = Client::new(&world, &ann).ask(list(0, 9)).await;
    assert!(said_dm(&anew));
}

#[tokio::test]
async fn state_comes_as_it_is_required() {
    let world = World::new();
    let (ann, bob, cem) = (world.user("ann").await, world.user("bob").await, world.user("cem").await);
    let room_id = world.room(&ann, &[&bob, &cem]).await;
    let ask = async |state: Value| state_of(room(&Client::new(&world, &ann).ask(requiring(&state)).await, &room_id));
    assert_eq!(ask(json!([])).await, Vec::<String>::new());
    assert_eq!(ask(json!([["m.room.create", ""], ["m.room.member", "$ME"]])).await.len(), 2);
    let all = ask(json!([["*", "*"]])).await;
    assert_eq!(all.iter().filter(|name| name.starts_with("m.room.member/")).count(), 3);
    assert_eq!(ask(json!([["m.room.member", "*"]])).await.len(), 3);
    for n in 0..12 {
        world.say(&room_id, &bob, &n.to_string()).await;
    }
    let lazy = || json!([["*", "*"], ["m.room.member", "$LAZY"]]);
    let few = ask(lazy()).await;
    assert!(few.contains(&"m.room.member/@bob:hearth.test".to_owned()) && few.len() == all.len() - 2, "{few:?}");

    let mut client = Client::new(&world, &ann);
    client.ask(requiring(&json!([["m.room.topic", ""], ["m.room.member", "$LAZY"]]))).await;
    world.event(&room_id, &ann, ("m.room.topic", Some("")), json!({"topic": "t"})).await;
    world.event(&room_id, &ann, ("m.room.name", Some("")), json!({"name": "n"})).await;
    world.say(&room_id, &bob, "known").await;
    world.say(&room_id, &cem, "new").await;
    let news = client.ask(requiring(&json!([["m.room.topic", ""], ["m.room.member", "$LAZY"]]))).await;
    let members = ["m.room.member/@ann:hearth.test", "m.room.member/@cem:hearth.test"];
    assert_eq!(state_of(room(&news, &room_id)), [&members[..], &["m.room.topic/"]].concat());
    let more =
        client.ask(requiring(&json!([["m.room.topic", ""], ["m.room.name", ""], ["m.room.member", "$LAZY"]]))).await;
    assert_eq!(state_of(room(&more, &room_id)), ["m.room.name/"], "what was not asked for before");
    let same = client.ask(requiring(&json!([["m.room.name", ""], ["m.room.member", "$LAZY"]]))).await;
    assert_eq!(shown(&same, &[&room_id]), Vec::<usize>::new());
}

#[tokio::test]
async fn a_subscription_opens_more_of_the_timeline() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (room_id, secret) = (world.room(&ann, &[&bob]).await, world.room(&bob, &[]).await);
    for n in 0..5 {
        world.say(&room_id, &bob, &n.to_string()).await;
    }
    let mut client = Client::new(&world, &ann);
    let first = client.ask(open(&room_id, 1)).await;
    assert_eq!(said(room(&first, &room_id)), ["4"]);
    assert_eq!(first["lists"], json!({}));
    let more = client.ask(open(&room_id, 3)).await;
    let told = room(&more, &room_id);
    assert_eq!(
        (said(told), &told["unstable_expanded_timeline"]),
        (["2", "3", "4"].map(str::to_owned).to_vec(), &json!(true))
    );
    assert_eq!(told["num_live"], json!(0));
    assert_eq!(shown(&client.ask(open(&room_id, 3)).await, &[&room_id]), Vec::<usize>::new());
    client.ask(open(&room_id, 100)).await;
    let whole = client.ask(open(&room_id, 90)).await;
    assert_eq!(shown(&whole, &[&room_id]), Vec::<usize>::new(), "all of it has been sent");
    let none = client.ask(open(&secret, 5)).await;
    assert_eq!(none["rooms"], json!({}), "of a room that is not the user's");
    world.say(&room_id, &bob, "5").await;
    let told = client.wait(open(&room_id, 3)).await;
    assert_eq!((said(room(&told, &room_id)), &room(&told, &room_id)["num_live"]), (vec!["5".to_owned()], &json!(1)));
}

#[tokio::test]
async fn invitations_show_no_more_than_the_door() {
    let world = World::new();
    let (ann, bob, eve) = (world.user("ann").await, world.user("bob").await, world.user("eve").await);
    let (room_id, spam) = (world.room(&ann, &[]).await, world.room(&eve, &[]).await);
    let secret = world.say(&room_id, &ann, "secret").await;
    store(&world, &bob, None, "m.ignored_user_list", json!({"ignored_users": {"@eve:hearth.test": {}}})).await;
    world.change(&room_id, &ann, &bob, Membership::Invite).await;
    world.change(&spam, &eve, &bob, Membership::Invite).await;
    let mut client = Client::new(&world, &bob);
    let all = || requiring(&json!([["*", "*"]]));
    let first = client.ask(all()).await;
    assert_eq!((shown(&first, &[&room_id]), &first["lists"]["l"]["count"]), (vec![0], &json!(1)));
    let told = room(&first, &room_id);
    assert_eq!(told["membership"], json!("invite"));
    let stripped = told["invite_state"].as_array().expect("stripped state");
    assert!(stripped.iter().any(|event| event["state_key"] == json!("@bob:hearth.test")));
    assert!(told["timeline"].is_null() && told["required_state"].is_null() && told["joined_count"].is_null());
    assert!(!first.to_string().contains(&secret));
    world.event(&room_id, &ann, ("m.room.topic", Some("")), json!({"topic": "hidden"})).await;
    assert_eq!(client.ask(all()).await["rooms"], json!({}));
    assert_eq!(client.ask(open(&spam, 1)).await["rooms"], json!({}), "nor by a subscription");
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    let joined = client.wait(all()).await;
    let told = room(&joined, &room_id);
    assert_eq!((&told["membership"], &told["initial"]), (&json!("join"), &json!(true)));
    assert!(state_of(told).contains(&"m.room.create/".to_owned()) && said(told).contains(&"secret".to_owned()));
}

#[tokio::test]
async fn who_is_put_out_is_shown_that_and_nothing_after_it() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (room_id, left) = (world.room(&ann, &[&bob]).await, world.room(&ann, &[&bob]).await);
    let all = || requiring(&json!([["*", "*"]]));
    let mut client = Client::new(&world, &bob);
    assert_eq!(shown(&client.ask(all()).await, &[&room_id, &left]), [0, 1]);
    world.say(&room_id, &ann, "before").await;
    world.change(&room_id, &ann, &bob, Membership::Leave).await;
    world.change(&left, &bob, &bob, Membership::Leave).await;
    for room_id in [&room_id, &left] {
        world.event(room_id, &ann, ("m.room.topic", Some("")), json!({"topic": "secret"})).await;
        world.event(room_id, &ann, ("m.room.name", Some("")), json!({"name": "secret"})).await;
        world.say(room_id, &ann, "secret").await;
    }
    let mut answers = vec![client.ask(all()).await, client.ask(all()).await];
    let told = room(&answers[0], &room_id);
    assert_eq!(said(told), ["before", "m.room.member"]);
    assert_eq!((&told["membership"], &told["joined_count"]), (&json!("leave"), &Value::Null));
    assert_eq!(shown(&answers[0], &[&room_id, &left]), [0, 1]);
    assert_eq!(shown(&answers[1], &[]), Vec::<usize>::new());
    let mut anew = Client::new(&world, &bob);
    answers.push(anew.ask(all()).await);
    assert_eq!(shown(&answers[2], &[&room_id, &left]), [0], "who has left knows it");
    answers.push(anew.ask(open(&left, 5)).await);
    assert_eq!(said(room(&answers[3], &left)).last().map(String::as_str), Some("m.room.member"));
    for answer in &answers {
        assert!(!answer.to_string().contains("secret"), "{answer}");
    }
    world.rooms.forget(&bob.user_id, &room_id).await.expect("forgotten");
    let mut last = Client::new(&world, &bob);
    assert_eq!(last.ask(all()).await["rooms"], json!({}));
    world.change(&left, &bob, &bob, Membership::Join).await;
    let back = last.wait(all()).await;
    assert_eq!(room(&back, &left)["initial"], json!(true));
}

/// Whoever is kicked during a long poll is shown everything before, the kick, and nothing after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_kicked_during_a_long_poll_gets_no_byte_after_the_leave() {
    let world = Arc::new(World::new());
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let body = || {
        let mut body = requiring(&json!([["*", "*"]]));
        body["extensions"] = json!({"typing": {"enabled": true}, "receipts": {"enabled": true}});
        body
    };
    for round in 0..20 {
        let room_id = world.room(&ann, &[&bob]).await;
        let mut client = Client::new(&world, &bob);
        client.ask(body()).await;
        let reads = async {
            let mut answers = Vec::new();
            loop {
                let answer = client.wait(body()).await;
                let done = room(&answer, &room_id)["membership"] == json!("leave");
                answers.push(answer);
                if done {
                    answers.push(client.ask(body()).await);
                    return answers;
                }
            }
        };
        let acts = async {
            world.say(&room_id, &ann, "said").await;
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            world.change(&room_id, &ann, &bob, Membership::Leave).await;
            world.rooms.set_typing(&room_id, &ann.user_id, Typing::For(LONG)).await.expect("typing");
            world.event(&room_id, &ann, ("m.room.topic", Some("")), json!({"topic": "secret"})).await;
        };
        let (answers, ()) = tokio::join!(reads, acts);
        let said: Vec<String> = answers.iter().flat_map(|answer| said(room(answer, &room_id))).collect();
        assert_eq!(said, ["said", "m.room.member"]);
        assert!(!json!(answers).to_string().contains("secret"));
        assert!(!json!(answers).to_string().contains("m.typing"));
    }
}

#[tokio::test]
async fn lists_are_filtered() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (plain, secret, space, invite) = (
        world.room(&ann, &[]).await,
        world.room(&ann, &[]).await,
        world.rooms.create(of_type(&ann, "m.space")).await.expect("a space"),
        world.room(&bob, &[]).await,
    );
    let algorithm = json!({"algorithm": "m.megolm.v1.aes-sha2"});
    world.event(&secret, &ann, ("m.room.encryption", Some("")), algorithm).await;
    world.event(&space, &ann, ("m.space.child", Some(plain.as_str())), json!({"via": ["hearth.test"]})).await;
    world.event(&space, &ann, ("m.space.child", Some(secret.as_str())), json!({})).await;
    world.change(&invite, &bob, &ann, Membership::Invite).await;
    store(&world, &ann, None, "m.direct", json!({"@bob:hearth.test": [plain, invite]})).await;
    store(&world, &ann, Some(&plain), "m.tag", json!({"tags": {"m.favourite": {}, "u.x": {}}})).await;
    store(&world, &ann, Some(&secret), "m.tag", json!({"tags": {"u.x": {}}})).await;
    let rooms = [&plain, &secret, &space, &invite];
    let mut client = Client::new(&world, &ann);
    for (filters, wanted) in [
        (json!({}), vec![0, 1, 2, 3]),
        (json!({"is_dm": true}), vec![0, 3]),
        (json!({"is_dm": false}), vec![1, 2]),
        (json!({"is_encrypted": true}), vec![1]),
        (json!({"is_encrypted": false}), vec![0, 2, 3]),
        (json!({"is_invite": true}), vec![3]),
        (json!({"is_invite": false, "is_dm": true}), vec![0]),
        (json!({"room_types": ["m.space"]}), vec![2]),
        (json!({"room_types": [null]}), vec![0, 1, 3]),
        (json!({"not_room_types": ["m.space"]}), vec![0, 1, 3]),
        (json!({"room_types": ["m.space", null], "not_room_types": [null]}), vec![2]),
        (json!({"spaces": [space]}), vec![0]),
        (json!({"spaces": ["!none:x", "odd"]}), vec![]),
        (json!({"tags": ["u.x"]}), vec![0, 1]),
        (json!({"tags": ["u.x"], "not_tags": ["m.favourite"]}), vec![1]),
        (json!({"not_tags": ["u.x"]}), vec![2, 3]),
    ] {
        client.pos = None;
        let answer = client.ask(filtered(&filters)).await;
        assert_eq!(
            (shown(&answer, &rooms), &answer["lists"]["l"]["count"]),
            (wanted.clone(), &json!(wanted.len())),
            "{filters}"
        );
    }
    let algorithm = json!({"algorithm": "m.megolm.v1.aes-sha2"});
    world.event(&plain, &ann, ("m.room.encryption", Some("")), algorithm).await;
    client.pos = None;
    assert_eq!(shown(&client.ask(filtered(&json!({"is_encrypted": true}))).await, &rooms), [0, 1], "it is now");
}

#[tokio::test]
async fn counts_come_with_messages_and_when_they_are_read() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let room_id = world.room(&ann, &[&bob]).await;
    let mut client = Client::new(&world, &bob);
    client.ask(list(0, 9)).await;
    let event_id = world.say(&room_id, &ann, "text").await;
    let news = client.wait(list(0, 9)).await;
    let told = room(&news, &room_id);
    assert_eq!((&told["notification_count"], &told["highlight_count"]), (&json!(1), &json!(0)));
    read(&world, &ann, &room_id, &event_id).await;
    assert_eq!(client.ask(list(0, 9)).await["rooms"], json!({}), "somebody else has read it");
    read(&world, &bob, &room_id, &event_id).await;
    let news = client.wait(list(0, 9)).await;
    assert_eq!(room(&news, &room_id)["notification_count"], json!(0));
    assert_eq!(said(room(&news, &room_id)), Vec::<String>::new());
}

#[tokio::test]
async fn extensions_tell_what_is_new_of_the_rooms_shown() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (one, two) = (world.room(&ann, &[&bob]).await, world.room(&ann, &[&bob]).await);
    store(&world, &ann, Some(&one), "m.tag", json!({"tags": {}, "a": 1})).await;
    let old = world.say(&one, &bob, "old").await;
    for _ in 0..12 {
        world.say(&one, &bob, "x").await;
    }
    let event_id = world.say(&one, &bob, "new").await;
    read(&world, &bob, &one, &old).await;
    read(&world, &ann, &one, &old).await;
    let on = json!({"enabled": true});
    let body = |last: u64| {
        let mut body = list(0, last);
        let names = ["account_data", "receipts", "typing", "to_device", "e2ee"];
        body["extensions"] =
            names.iter().map(|name| ((*name).to_owned(), on.clone())).collect::<serde_json::Map<_, _>>().into();
        body
    };
    let mut client = Client::new(&world, &ann);
    let first = client.ask(body(0)).await;
    let of = |answer: &Value, extension: &str, room_id: &RoomId| {
        answer["extensions"][extension]["rooms"][room_id.as_str()].clone()
    };
    assert_eq!(shown(&first, &[&one, &two]), [0]);
    assert_eq!(first["extensions"]["account_data"]["global"][0]["type"], json!("m.push_rules"));
    assert_eq!(of(&first, "account_data", &one)[0]["type"], json!("m.tag"));
    let receipts = of(&first, "receipts", &one)["content"].clone();
    assert!(receipts[&old]["m.read"]["@ann:hearth.test"].is_object(), "the own one: {receipts}");
    assert!(receipts[&old]["m.read"]["@bob:hearth.test"].is_null(), "of an event that is not shown: {receipts}");
    assert_eq!(first["extensions"]["e2ee"], json!({"device_one_time_keys_count": {}}));
    assert!(first["extensions"]["to_device"]["next_batch"].is_string());

    read(&world, &bob, &one, &event_id).await;
    read(&world, &bob, &two, &world.say(&two, &bob, "y").await).await;
    world.say(&one, &bob, "top").await;
    store(&world, &ann, Some(&one), "m.tag", json!({"tags": {"u.x": {}}})).await;
    store(&world, &ann, None, "org.x", json!({"a": 1})).await;
    world.rooms.set_typing(&one, &bob.user_id, Typing::For(LONG)).await.expect("typing");
    let mut news = vec![client.ask(body(0)).await];
    while !json!(news).to_string().contains("m.typing") {
        news.push(client.wait(body(0)).await);
    }
    let found = |extension: &str, room_id: &RoomId| {
        news.iter().map(|answer| of(answer, extension, room_id)).find(Value::is_object)
    };
    let receipts = found("receipts", &one).expect("a receipt");
    assert!(receipts["content"][&event_id]["m.read"]["@bob:hearth.test"]["ts"].is_u64(), "{receipts}");
    assert_eq!(found("receipts", &two), None, "it is not in the window");
    assert_eq!(found("typing", &one).expect("typing")["content"], json!({"user_ids": ["@bob:hearth.test"]}));
    let text = json!(news).to_string();
    assert!(text.contains("org.x") && text.contains("u.x"), "{text}");
    let quiet = client.ask(body(0)).await;
    assert_eq!(quiet["rooms"], json!({}));
    let names: Vec<&String> = quiet["extensions"].as_object().expect("extensions").keys().collect();
    assert_eq!(names, ["e2ee", "to_device"]);
    let both = client.ask(body(1)).await;
    assert!(of(&both, "receipts", &two)["content"].is_object(), "when it comes into the window: {both}");
}

#[tokio::test]
async fn messages_of_ignored_users_are_left_out() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let room_id = world.room(&ann, &[&bob]).await;
    let ignored = json!({"ignored_users": {"@bob:hearth.test": {}}});
    store(&world, &ann, None, "m.ignored_user_list", ignored).await;
    world.say(&room_id, &bob, "unwanted").await;
    let mut client = Client::new(&world, &ann);
    assert!(!client.ask(list(0, 9)).await.to_string().contains("unwanted"));
    world.say(&room_id, &bob, "unwanted").await;
    assert!(!client.ask(list(0, 9)).await.to_string().contains("unwanted"));
}

#[tokio::test]
async fn a_newer_request_takes_the_place_of_the_one_that_waits() {
    let world = World::new();
    let ann = world.user("ann").await;
    world.room(&ann, &[]).await;
    let mut client = Client::new(&world, &ann);
    client.ask(list(0, 9)).await;
    let both = async {
        let later = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            client.request(list(0, 5), Duration::ZERO).await.expect("an answer")
        };
        tokio::join!(client.request(list(0, 9), LONG), later)
    };
    let (old, new) = timeout(Duration::from_secs(5), both).await.expect("at once");
    old.expect("an answer that nobody reads");
    client.pos = new["pos"].as_str().map(str::to_owned);
    client.ask(list(0, 9)).await;
}

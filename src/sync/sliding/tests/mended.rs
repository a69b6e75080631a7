//! What clients remember and the server must not forget: members after a gap, state that is gone, forms and names.

use hearth_schema::{CurrentState, StateKeys, StateLog, StateLogEntry};
use hearth_store::{Batch, Owner as _, Pos};
use tokio::sync::watch;

use super::*;

const LAZY_STATE: &str = r#"[["m.room.topic", ""], ["m.room.member", "$LAZY"]]"#;

fn lazy() -> Value {
    requiring(&serde_json::from_str(LAZY_STATE).expect("JSON"))
}

fn name_of(room: &Value, user: &Requester) -> Option<String> {
    let events = room["required_state"].as_array()?;
    let own = events.iter().find(|event| event["state_key"] == json!(user.user_id))?;
    own["content"]["displayname"].as_str().map(str::to_owned)
}

async fn rename(world: &World, room_id: &RoomId, user: &Requester, name: &str) {
    let content = json!({"membership": "join", "displayname": name});
    world.event(room_id, user, ("m.room.member", Some(user.user_id.as_str())), content).await;
}

/// With a gap the client lets go of its members, because it is not told of all that have changed.
#[tokio::test]
async fn members_are_sent_again_after_a_gap() {
    let world = World::new();
    let (ann, bob, cem) = (world.user("ann").await, world.user("bob").await, world.user("cem").await);
    let room_id = world.room(&ann, &[&bob, &cem]).await;
    world.say(&room_id, &bob, "before").await;
    let mut client = Client::new(&world, &ann);
    assert_eq!(name_of(room(&client.ask(lazy()).await, &room_id), &bob), Some("bob".to_owned()));
    rename(&world, &room_id, &bob, "Robert").await;
    for n in 0..12 {
        world.say(&room_id, &cem, &n.to_string()).await;
    }
    let gap = client.ask(lazy()).await;
    assert_eq!(room(&gap, &room_id)["limited"], json!(true));
    assert_eq!(name_of(room(&gap, &room_id), &cem), Some("cem".to_owned()), "who speaks is named again");
    world.say(&room_id, &bob, "after").await;
    let told = client.ask(lazy()).await;
    assert_eq!(name_of(room(&told, &room_id), &bob), Some("Robert".to_owned()));
    world.say(&room_id, &bob, "again").await;
    assert_eq!(state_of(room(&client.ask(lazy()).await, &room_id)), Vec::<String>::new(), "and is known then");
}

#[tokio::test]
async fn who_speaks_in_a_gap_is_shown_under_the_newest_name() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let room_id = world.room(&ann, &[&bob]).await;
    world.say(&room_id, &bob, "before").await;
    let mut client = Client::new(&world, &ann);
    client.ask(lazy()).await;
    rename(&world, &room_id, &bob, "Robert").await;
    for n in 0..12 {
        world.say(&room_id, &bob, &n.to_string()).await;
    }
    let gap = client.ask(lazy()).await;
    assert_eq!(name_of(room(&gap, &room_id), &bob), Some("Robert".to_owned()));
}

/// What the resolution of states takes out is told by its place alone.
#[tokio::test]
async fn state_that_is_gone_is_told_without_content() {
    let world = World::new();
    let ann = world.user("ann").await;
    let room_id = world.room(&ann, &[]).await;
    let kinds = ["m.room.name", "m.room.topic"];
    world.event(&room_id, &ann, (kinds[0], Some("")), json!({"name": "n"})).await;
    world.event(&room_id, &ann, (kinds[1], Some("")), json!({"topic": "t"})).await;
    let body = || requiring(&json!([["m.room.topic", ""]]));
    let mut client = Client::new(&world, &ann);
    assert_eq!(room(&client.ask(body()).await, &room_id)["name"], json!("n"));
    // As the room's task writes it when a fork does without them.
    let event_id = world.say(&room_id, &ann, "one").await;
    client.request(body(), LONG * 2).await.expect("the notifier is past it");
    let (nid, view) = (world.rooms.ids().room(&room_id), world.rooms.view().await.expect("a view"));
    let event_id = event_id.as_str().try_into().expect("an ID");
    let event = world.rooms.event_in_room(&view, nid, event_id).await.expect("read").expect("it is there");
    let mut batch = Batch::new(nid.lane());
    for kind in kinds {
        let place = (nid, kind.to_owned(), String::new());
        let entry = view.get::<CurrentState>(&place).await.expect("read").expect("it is there");
        let key = view.get::<StateKeys>(&place).await.expect("read").expect("it is there");
        batch.delete::<CurrentState>(&place);
        batch.put::<StateLog>(&(nid, event.pos, key), &StateLogEntry { n: None, previous: Some(entry.n) });
    }
    world.store.commit(batch).await.expect("committed");
    // What a room's task has planned itself is known to leave the state as it is, so this comes in another way.
    let elsewhere = World::with_counting(Arc::clone(&world.store), |_, _, _| watch::channel(Pos::MAX).1);
    elsewhere.say(&room_id, &ann, "two").await;
    let mut told = client.ask(body()).await;
    while said(room(&told, &room_id)).last().is_none_or(|last| last != "two") {
        told = client.ask(body()).await;
    }
    let told = room(&told, &room_id);
    assert_eq!(told["required_state"], json!([{"type": "m.room.topic", "state_key": ""}]), "{told}");
    assert!(told.as_object().expect("the room").get("name").is_some_and(Value::is_null), "{told}");
}

#[tokio::test]
async fn state_may_be_included_and_excluded() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let room_id = world.room(&ann, &[&bob]).await;
    let mut client = Client::new(&world, &ann);
    let own = json!({"type": "m.room.member", "state_key": "@ann:hearth.test"});
    let few = json!({"include": [{"type": "m.room.create"}, own]});
    let first = client.ask(requiring(&few)).await;
    assert_eq!(state_of(room(&first, &room_id)), ["m.room.create/", "m.room.member/@ann:hearth.test"]);
    let most = json!({"include": [{}], "exclude": [{"type": "m.room.create"}, {"type": "m.room.member"}]});
    let more = state_of(room(&client.ask(requiring(&most)).await, &room_id));
    assert!(more.contains(&"m.room.join_rules/".to_owned()), "at once: {more:?}");
    assert!(
        !more.iter().any(|name| name.starts_with("m.room.member") || name.starts_with("m.room.create")),
        "{more:?}"
    );
    let same = client.ask(requiring(&most)).await;
    assert_eq!(shown(&same, &[&room_id]), Vec::<usize>::new());
    world.event(&room_id, &ann, ("m.room.topic", Some("")), json!({"topic": "t"})).await;
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    let mut news = vec![client.wait(requiring(&most)).await];
    while !said(room(&news[news.len() - 1], &room_id)).contains(&"m.room.member".to_owned()) {
        news.push(client.wait(requiring(&most)).await);
    }
    let told: Vec<String> = news.iter().flat_map(|answer| state_of(room(answer, &room_id))).collect();
    assert_eq!(told, ["m.room.topic/"], "a change of what is excluded is not told");
}

#[tokio::test]
async fn rooms_name_the_lists_that_show_them() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (one, two) = (world.room(&ann, &[]).await, world.room(&ann, &[]).await);
    let invited = world.room(&bob, &[]).await;
    world.change(&invited, &bob, &ann, Membership::Invite).await;
    let rule = json!({"timeline_limit": 1});
    let body = json!({
        "lists": {
            "a": {"timeline_limit": 1, "range": [1, 1]},
            "b": {"timeline_limit": 1, "filters": {"is_invited": false}, "range": [0, 0]},
            "c": {"timeline_limit": 1, "filters": {"is_invited": true}},
        },
        "room_subscriptions": {one.as_str(): rule, two.as_str(): rule},
    });
    let told = Client::new(&world, &ann).ask(body).await;
    assert_eq!(room(&told, &invited)["lists"], json!(["c"]));
    assert_eq!(room(&told, &two)["lists"], json!(["a", "b"]));
    assert_eq!(room(&told, &one).as_object().expect("the room").get("lists"), None, "by a subscription only");
}

/// Who speaks the proposal as it is now is answered in its words, others in those from before.
#[tokio::test]
async fn renamed_members_have_the_name_that_the_client_knows() {
    let world = World::new();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (invited, mine) = (world.room(&bob, &[]).await, world.room(&ann, &[]).await);
    world.change(&invited, &bob, &ann, Membership::Invite).await;
    world.say(&mine, &ann, "one").await;
    for (state, name, other) in
        [(json!([]), "invite_state", "stripped_state"), (json!({}), "stripped_state", "invite_state")]
    {
        let told = Client::new(&world, &ann).ask(requiring(&state)).await;
        assert!(room(&told, &invited)[name].is_array() && room(&told, &invited)[other].is_null(), "{told}");
    }
    let mut client = Client::new(&world, &ann);
    client.ask(open(&mine, 1)).await;
    let more = client.ask(open(&mine, 2)).await;
    for name in ["expanded_timeline", "unstable_expanded_timeline"] {
        assert_eq!(room(&more, &mine)[name], json!(true), "{name}");
    }
}

/// However many different things are asked for, a connection remembers a bounded number of them.
#[tokio::test]
async fn what_was_asked_for_is_remembered_once_and_not_for_ever() {
    let world = World::new();
    let ann = world.user("ann").await;
    let rooms = [world.room(&ann, &[]).await, world.room(&ann, &[]).await];
    let mut client = Client::new(&world, &ann);
    let ask = |n: usize| requiring(&json!([["m.room.topic", n.to_string()]]));
    client.ask(ask(0)).await;
    for n in 0..600 {
        let answer = client.ask(ask(n / 2)).await;
        assert_eq!(shown(&answer, &[&rooms[0], &rooms[1]]), Vec::<usize>::new(), "nothing is new");
        let held = world.sync.0.connections.rules();
        assert!(held <= 202, "{held} rules after {n} requests");
    }
}

//! Profiles, aliases, the directory.

use hearth_accounts::NewAccount;

use crate::PublicRooms;

use super::*;

#[tokio::test]
async fn profiles_of_local_users_are_told() {
    let (world, friend) = (World::new().await, Other::friend());
    let account = NewAccount { localpart: Some("alice".into()), inhibit_login: true, ..NewAccount::default() };
    world.accounts.register(account).await.unwrap();
    let nid = world.rooms.ids().user(&alice());
    world.accounts.set_displayname(nid, Some("Alice".into())).await.unwrap();
    world.accounts.set_profile_field(nid, "m.tz", Some("\"Europe/Berlin\"".into())).await.unwrap();
    let profile = |query: &str| format!("{V1}/query/profile?user_id={query}");
    let all = friend.get(&world, &profile("@alice:hs.test")).await.ok();
    assert_eq!(all, json!({"displayname": "Alice", "m.tz": "Europe/Berlin"}));
    let one = friend.get(&world, &profile("@alice:hs.test&field=displayname")).await.ok();
    assert_eq!(one, json!({"displayname": "Alice"}));
    assert_eq!(friend.get(&world, &profile("@alice:hs.test&field=avatar_url")).await.ok(), json!({}));
    assert_eq!(friend.get(&world, &profile("@bob:hs.test")).await.verdict(), (404, "M_NOT_FOUND"));
    for user in ["@bob:other.test", "@bob:hs.test:http", "bob"] {
        assert_eq!(friend.get(&world, &profile(user)).await.verdict(), (400, "M_INVALID_PARAM"), "{user}");
    }
    assert_eq!(friend.get(&world, &format!("{V1}/query/profile")).await.verdict(), (400, "M_MISSING_PARAM"));
    assert_eq!(friend.get(&world, &format!("{V1}/query/shoe_size?x=1")).await.verdict(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn an_alias_leads_to_its_room_and_the_servers_in_it() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room(Preset::PublicChat).await;
    friend.join(&world, &room, "olga").await;
    let alias = ruma_common::room_alias_id!("#den:hs.test");
    world.rooms.create_alias(alias, &room, hearth_rooms::AliasBy::User(&alice())).await.unwrap();
    let query = |alias: &str| format!("{V1}/query/directory?room_alias={}", pct(alias));
    let found = friend.get(&world, &query("#den:hs.test")).await.ok();
    assert_eq!(found, json!({"room_id": room, "servers": ["hs.test", "other.test"]}));
    assert_eq!(friend.get(&world, &query("#none:hs.test")).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(friend.get(&world, &query("#den:other.test")).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(friend.get(&world, &query("den")).await.verdict(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn the_directory_is_open_only_if_the_operator_wants_that() {
    let friend = Other::friend();
    let closed = World::new().await;
    assert_eq!(friend.get(&closed, &format!("{V1}/publicRooms")).await.verdict(), (403, "M_FORBIDDEN"));
    let world = World::with(|settings| settings.public_rooms = PublicRooms::Open).await;
    for name in ["Oak", "Birch"] {
        let named =
            CreateRoom { name: Some(name.into()), visibility: RoomVisibility::Public, ..creation(Preset::PublicChat) };
        world.rooms.create(named).await.unwrap();
    }
    let all = friend.get(&world, &format!("{V1}/publicRooms?limit=0")).await.ok();
    assert_eq!(all["total_room_count_estimate"], 2);
    assert_eq!(all["chunk"].as_array().unwrap().len(), 2);
    let first = friend.get(&world, &format!("{V1}/publicRooms?limit=1")).await.ok();
    let next = first["next_batch"].as_str().unwrap();
    let second = friend.get(&world, &format!("{V1}/publicRooms?limit=1&since={}", pct(next))).await.ok();
    assert_ne!(first["chunk"][0]["room_id"], second["chunk"][0]["room_id"]);
    let search = json!({"filter": {"generic_search_term": "oak"}});
    let found = friend.post(&world, &format!("{V1}/publicRooms"), search).await.ok();
    assert_eq!(found["chunk"].as_array().unwrap().len(), 1);
    assert_eq!(found["chunk"][0]["name"], "Oak");
    assert_eq!(friend.get(&world, &format!("{V1}/publicRooms?since=x")).await.verdict(), (400, "M_INVALID_PARAM"));
}

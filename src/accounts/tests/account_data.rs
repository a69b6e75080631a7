//! Account data, push rules and filters.

use hearth_schema::Change;
use hearth_store::{Owner, Pos};
use ruma_common::push::{PredefinedOverrideRuleId, RuleKind, Ruleset};
use ruma_common::room_id;

use crate::testing::*;
use crate::{AccountDataError, AccountDataItem, NewAccountData};

fn item(room: &str, kind: &str, json: &str) -> AccountDataItem {
    AccountDataItem { room: room.into(), kind: kind.into(), json: json.into() }
}

fn global(kind: &str, json: &str) -> NewAccountData {
    NewAccountData { room: None, kind: kind.into(), json: json.into() }
}

#[tokio::test]
async fn items_are_kept_by_room_and_type() {
    let world = world();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let room = room_id!("!room:hs.test");
    let in_room = NewAccountData { room: Some(room.to_owned()), ..global("t", "{\"in\":\"room\"}") };
    world.accounts.set_account_data(ann.user, global("t", "{\"a\":1}")).await.unwrap();
    world.accounts.set_account_data(ann.user, in_room).await.unwrap();
    let get = |room| world.accounts.account_data(ann.user, room, "t");
    assert_eq!(get(None).await.unwrap().as_deref(), Some("{\"a\":1}"));
    assert_eq!(get(Some(room)).await.unwrap().as_deref(), Some("{\"in\":\"room\"}"));
    assert_eq!(get(Some(room_id!("!other:hs.test"))).await.unwrap(), None);
    assert_eq!(world.accounts.all_account_data(bob.user).await.unwrap(), []);
    let expected = [item("", "t", "{\"a\":1}"), item("!room:hs.test", "t", "{\"in\":\"room\"}")];
    assert_eq!(world.accounts.all_account_data(ann.user).await.unwrap(), expected);
}

#[tokio::test]
async fn changes_are_found_by_position_and_only_the_newest() {
    let world = world();
    let ann = world.user("ann").await;
    let mut positions = Vec::new();
    for (kind, json) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
        positions.push(world.accounts.set_account_data(ann.user, global(kind, json)).await.unwrap());
    }
    let since = |from, upto| world.accounts.account_data_since(ann.user, from, upto);
    let (b, a, c) = (item("", "b", "2"), item("", "a", "3"), item("", "c", "4"));
    assert_eq!(since(Pos::ZERO, Pos::MAX).await.unwrap(), [b.clone(), a.clone(), c.clone()]);
    assert_eq!(since(positions[1], Pos::MAX).await.unwrap(), [a.clone(), c.clone()]);
    assert_eq!(since(positions[1], positions[2]).await.unwrap(), [a]);
    assert_eq!(since(Pos::ZERO, positions[0]).await.unwrap(), [], "it has changed since");
    assert_eq!(since(positions[3], Pos::MAX).await.unwrap(), []);
    assert_eq!(since(Pos::MAX, Pos::ZERO).await.unwrap(), []);
}

#[tokio::test]
async fn many_changes_are_all_found() {
    let world = world();
    let ann = world.user("ann").await;
    for n in 0..300 {
        world.accounts.set_account_data(ann.user, global(&format!("t{n:03}"), "{\"n\":1}")).await.unwrap();
    }
    let found = world.accounts.account_data_since(ann.user, Pos::ZERO, Pos::MAX).await.unwrap();
    let expected: Vec<_> = (0..300).map(|n| item("", &format!("t{n:03}"), "{\"n\":1}")).collect();
    assert_eq!(found, expected);
    assert_eq!(world.accounts.all_account_data(ann.user).await.unwrap(), expected);
}

#[tokio::test]
async fn each_change_is_a_fact_of_the_users_lane() {
    let world = world();
    let ann = world.user("ann").await;
    let first = world.accounts.set_account_data(ann.user, global("a", "1")).await.unwrap();
    let second = world.accounts.set_account_data(ann.user, global("a", "1")).await.unwrap();
    let facts = world.store.tail(ann.user.lane(), Pos::ZERO, 10).await.unwrap();
    let body = Change::AccountData { user: ann.user }.to_bytes();
    let found: Vec<_> = facts.iter().map(|fact| (fact.pos, fact.body.to_vec())).collect();
    assert_eq!(found, [(first, body.clone()), (second, body)]);
}

#[tokio::test]
async fn a_deleted_item_is_told_once_and_then_is_not_there() {
    let world = world();
    let ann = world.user("ann").await;
    let room = room_id!("!room:hs.test");
    for (room, way) in [(None, "delete"), (Some(room), "delete"), (None, "{}"), (Some(room), " { } ")] {
        let data = NewAccountData { room: room.map(ToOwned::to_owned), ..global("a", "{\"x\":1}") };
        let before = world.accounts.set_account_data(ann.user, data.clone()).await.unwrap();
        if way == "delete" {
            assert!(world.accounts.delete_account_data(ann.user, room, "a").await.unwrap());
        } else {
            world.accounts.set_account_data(ann.user, NewAccountData { json: way.into(), ..data }).await.unwrap();
        }
        let since = world.accounts.account_data_since(ann.user, before, Pos::MAX).await.unwrap();
        let told = if way == "delete" { "{}" } else { way };
        assert_eq!(since, [item(room.map_or("", |room| room.as_str()), "a", told)]);
        assert_eq!(world.accounts.account_data(ann.user, room, "a").await.unwrap(), None, "{way}");
        assert_eq!(world.accounts.all_account_data(ann.user).await.unwrap(), [], "{way}");
        // There is nothing left to delete, and nobody is woken for it.
        assert!(!world.accounts.delete_account_data(ann.user, room, "a").await.unwrap());
    }
    assert!(!world.accounts.delete_account_data(ann.user, None, "b").await.unwrap());
}

fn tag(order: f64) -> serde_json::Map<String, serde_json::Value> {
    serde_json::Map::from_iter([("order".to_owned(), order.into())])
}

#[tokio::test]
async fn tags_are_changed_one_at_a_time() {
    let world = world();
    let ann = world.user("ann").await;
    let room = room_id!("!room:hs.test");
    let tags = || world.accounts.room_tags(ann.user, room);
    assert!(tags().await.unwrap().is_empty());
    for (name, order) in [("m.favourite", 0.25), ("u.work", 0.5), ("u.work", 0.75)] {
        assert!(world.accounts.set_room_tag(ann.user, room, (name, &tag(order))).await.unwrap().is_some());
    }
    assert_eq!(world.accounts.set_room_tag(ann.user, room, ("u.work", &tag(0.75))).await.unwrap(), None, "as before");
    assert!(world.accounts.remove_room_tag(ann.user, room, "m.favourite").await.unwrap().is_some());
    assert_eq!(world.accounts.remove_room_tag(ann.user, room, "m.favourite").await.unwrap(), None);
    let stored = world.accounts.account_data(ann.user, Some(room), "m.tag").await.unwrap();
    assert_eq!(stored.as_deref(), Some(r#"{"tags":{"u.work":{"order":0.75}}}"#));
    assert!(world.accounts.room_tags(ann.user, room_id!("!other:hs.test")).await.unwrap().is_empty());
    // Whatever else a client has put there stays.
    let odd = NewAccountData { room: Some(room.to_owned()), ..global("m.tag", r#"{"org.x":1,"tags":[]}"#) };
    world.accounts.set_account_data(ann.user, odd).await.unwrap();
    assert!(tags().await.unwrap().is_empty());
    world.accounts.set_room_tag(ann.user, room, ("a", &tag(1.0))).await.unwrap();
    let stored = world.accounts.account_data(ann.user, Some(room), "m.tag").await.unwrap();
    assert_eq!(stored.as_deref(), Some(r#"{"org.x":1,"tags":{"a":{"order":1.0}}}"#));
}

#[tokio::test]
async fn a_room_has_only_so_many_tags_with_short_names() {
    let world = world();
    let ann = world.user("ann").await;
    let room = room_id!("!room:hs.test");
    for bad in [String::new(), "x".repeat(256)] {
        let refused = world.accounts.set_room_tag(ann.user, room, (&bad, &tag(0.5))).await;
        assert!(matches!(refused, Err(AccountDataError::BadTag)), "{refused:?}");
    }
    for n in 0..crate::MAX_TAGS {
        world.accounts.set_room_tag(ann.user, room, (&format!("u.{n}"), &tag(0.5))).await.unwrap();
    }
    let refused = world.accounts.set_room_tag(ann.user, room, ("u.more", &tag(0.5))).await;
    assert!(matches!(refused, Err(AccountDataError::TooManyTags)), "{refused:?}");
    world.accounts.set_room_tag(ann.user, room, ("u.1", &tag(0.75))).await.unwrap();
    world.accounts.remove_room_tag(ann.user, room, "u.2").await.unwrap();
    world.accounts.set_room_tag(ann.user, room, ("u.more", &tag(0.5))).await.unwrap();
    let large = serde_json::Map::from_iter([("x".to_owned(), "x".repeat(70_000).into())]);
    let refused = world.accounts.set_room_tag(ann.user, room, ("u.1", &large)).await;
    assert!(matches!(refused, Err(AccountDataError::TooLarge(_))), "{refused:?}");
}

fn json(rules: &Ruleset) -> serde_json::Value {
    serde_json::to_value(rules).unwrap()
}

#[tokio::test]
async fn push_rules_are_the_defaults_until_they_are_changed() {
    let world = world();
    let ann = world.user("ann").await;
    let rules = world.accounts.push_rules(&ann.user_id).await.unwrap();
    assert_eq!(json(&rules), json(&Ruleset::server_default(&ann.user_id)));
    let content = world.accounts.push_rules_content(&ann.user_id).await.unwrap();
    let content: serde_json::Value = serde_json::from_str(&content).unwrap();
    assert_eq!(content["global"]["override"][0]["rule_id"], ".m.rule.master");

    let master_on = |rules: &mut Ruleset| {
        rules.set_enabled(RuleKind::Override, PredefinedOverrideRuleId::Master, true).unwrap();
        Ok::<_, AccountDataError>(())
    };
    let mut changed = rules.clone();
    master_on(&mut changed).unwrap();
    assert_ne!(json(&changed), json(&rules));
    world.accounts.change_push_rules(&ann.user_id, master_on).await.unwrap();
    assert_eq!(json(&world.accounts.push_rules(&ann.user_id).await.unwrap()), json(&changed));
    let content = world.accounts.push_rules_content(&ann.user_id).await.unwrap();
    let content: serde_json::Value = serde_json::from_str(&content).unwrap();
    assert_eq!(content["global"]["override"][0]["enabled"], true);
    let since = world.accounts.account_data_since(ann.user, Pos::ZERO, Pos::MAX).await.unwrap();
    assert_eq!(since.iter().map(|item| item.kind.as_str()).collect::<Vec<_>>(), ["m.push_rules"]);
}

#[tokio::test]
async fn the_same_filter_has_the_same_id() {
    let world = world();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let first = world.accounts.store_filter(ann.user, "{\"a\":1}").await.unwrap();
    let second = world.accounts.store_filter(ann.user, "{\"a\":2}").await.unwrap();
    assert_eq!((first.as_str(), second.as_str()), ("0", "1"));
    assert_eq!(world.accounts.store_filter(ann.user, "{\"a\":1}").await.unwrap(), first);
    assert_eq!(world.accounts.filter(ann.user, "1").await.unwrap().as_deref(), Some("{\"a\":2}"));
    for wrong in ["2", "", "x", "01", "+1", "-1", " 1", "4294967296", "{}"] {
        assert_eq!(world.accounts.filter(ann.user, wrong).await.unwrap(), None, "{wrong}");
    }
    assert_eq!(world.accounts.filter(bob.user, "0").await.unwrap(), None, "filters belong to their user");
}

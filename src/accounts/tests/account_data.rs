//! Account data, push rules and filters.

use hearth_schema::Change;
use hearth_store::{Owner, Pos};
use ruma_common::push::{PredefinedOverrideRuleId, RuleKind, Ruleset};
use ruma_common::room_id;

use crate::testing::*;
use crate::{AccountDataItem, NewAccountData};

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
        world.accounts.set_account_data(ann.user, global(&format!("t{n:03}"), "{}")).await.unwrap();
    }
    let found = world.accounts.account_data_since(ann.user, Pos::ZERO, Pos::MAX).await.unwrap();
    let expected: Vec<_> = (0..300).map(|n| item("", &format!("t{n:03}"), "{}")).collect();
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
async fn a_deleted_item_is_told_as_empty() {
    let world = world();
    let ann = world.user("ann").await;
    let before = world.accounts.set_account_data(ann.user, global("a", "{\"x\":1}")).await.unwrap();
    assert!(world.accounts.delete_account_data(ann.user, None, "a").await.unwrap());
    assert!(!world.accounts.delete_account_data(ann.user, None, "b").await.unwrap());
    let since = world.accounts.account_data_since(ann.user, before, Pos::MAX).await.unwrap();
    assert_eq!(since, [item("", "a", "{}")]);
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

    let mut changed = rules.clone();
    changed.set_enabled(RuleKind::Override, PredefinedOverrideRuleId::Master, true).unwrap();
    assert_ne!(json(&changed), json(&rules));
    world.accounts.set_push_rules(ann.user, changed.clone()).await.unwrap();
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

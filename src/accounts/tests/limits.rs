//! Every collection has a cap. Row G12 of the attack classes.

use hearth_store::Pos;
use ruma_common::RoomId;

use crate::testing::*;
use crate::{
    AccountDataError, FilterError, LoginError, MAX_ACCOUNT_DATA_BYTES, MAX_ACCOUNT_DATA_ENTRIES, MAX_DEVICES,
    MAX_FILTER_BYTES, MAX_FILTERS, NewAccountData,
};

fn data(kind: &str, json: String) -> NewAccountData {
    NewAccountData { room: None, kind: kind.into(), json }
}

#[tokio::test]
async fn a_user_has_at_most_500_devices() {
    let world = world();
    let ann = world.user("ann").await;
    for n in 1..MAX_DEVICES {
        world.token("ann", &format!("D{n}")).await;
    }
    assert!(matches!(world.login("ann", "ONE_MORE").await, Err(LoginError::TooManyDevices)));
    world.token("ann", "D7").await;
    assert_eq!(world.accounts.devices(ann.user).await.unwrap().len(), MAX_DEVICES);
    world.accounts.delete_devices(ann.user, &["D7".into()]).await.unwrap();
    world.token("ann", "ONE_MORE").await;
    // All of them at once are one batch.
    world.accounts.logout_all(ann.user).await.unwrap();
    assert_eq!(world.accounts.devices(ann.user).await.unwrap(), []);
}

#[tokio::test]
async fn account_data_is_bounded_in_size_and_number() {
    let world = world();
    let ann = world.user("ann").await;
    let set = |data| world.accounts.set_account_data(ann.user, data);
    set(data("big", "x".repeat(MAX_ACCOUNT_DATA_BYTES))).await.unwrap();
    let too_big = set(data("big", "x".repeat(MAX_ACCOUNT_DATA_BYTES + 1))).await;
    assert!(matches!(too_big, Err(AccountDataError::TooLarge(_))));
    assert!(matches!(set(data(&"t".repeat(256), "{}".into())).await, Err(AccountDataError::TooLarge(_))));
    for n in 1..MAX_ACCOUNT_DATA_ENTRIES {
        set(data(&format!("t{n}"), "{\"n\":1}".into())).await.unwrap();
    }
    assert!(matches!(set(data("one more", "{\"n\":1}".into())).await, Err(AccountDataError::TooMany)));
    set(data("t5", "{\"changed\":true}".into())).await.unwrap();
    let all = world.accounts.all_account_data(ann.user).await.unwrap();
    assert_eq!(all.len(), MAX_ACCOUNT_DATA_ENTRIES as usize);
    // Read markers do not count: who is in a thousand rooms can still read.
    let room = RoomId::parse("!room:hs.test").unwrap();
    set(NewAccountData { room: Some(room), ..data("m.fully_read", "{}".into()) }).await.unwrap();
    assert!(matches!(set(data("m.fully_read", "{\"n\":1}".into())).await, Err(AccountDataError::TooMany)));
    let since = world.accounts.account_data_since(ann.user, Pos::ZERO, Pos::MAX).await.unwrap();
    assert_eq!(since.len(), MAX_ACCOUNT_DATA_ENTRIES as usize + 1);
}

#[tokio::test]
async fn a_user_has_at_most_200_filters_of_16_kib() {
    let world = world();
    let ann = world.user("ann").await;
    let accounts = &world.accounts;
    let store = |json: String| async move { accounts.store_filter(ann.user, &json).await };
    assert!(matches!(store("x".repeat(MAX_FILTER_BYTES + 1)).await, Err(FilterError::TooLarge)));
    store("x".repeat(MAX_FILTER_BYTES)).await.unwrap();
    for n in 1..MAX_FILTERS {
        assert_eq!(store(format!("{{\"n\":{n}}}")).await.unwrap(), n.to_string());
    }
    assert!(matches!(store("{}".into()).await, Err(FilterError::TooMany)));
    assert_eq!(store("{\"n\":5}".into()).await.unwrap(), "5", "a known one is still found");
}

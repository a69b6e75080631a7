//! What is known of other servers.

use std::collections::BTreeMap;

use hearth_event::SigningKey;
use hearth_schema::{PeerKey, PeerKeyAnswer, PeerKeyAnswers, PeerKeys, PeerKeysRow};
use hearth_store::Lane;
use ruma_common::ServerName;

use super::*;

fn row(key: &str) -> PeerKeysRow {
    let key = PeerKey { key: key.to_owned(), valid_until: 1, retired: false };
    PeerKeysRow { keys: BTreeMap::from([("ed25519:a".to_owned(), key)]), fetched_at: 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_other_servers_are_keys_and_lie_in_their_lane() {
    let filled = filled().await;
    let name = "other.test";
    let lane = filled.ids.server_lane(<&ServerName>::try_from(name).expect("a name"));
    let good = SigningKey::from_seed([1; 32], "a").expect("a key").public_key_base64();
    filled.damage(|batch| batch.put_elsewhere::<PeerKeys>(&(lane, name.to_owned()), &row(&good))).await;
    assert_eq!(filled.broken().await, BTreeSet::new());
    let elsewhere = Lane::of(lane.number() ^ 1);
    filled.damage(|batch| batch.put_elsewhere::<PeerKeys>(&(elsewhere, name.to_owned()), &row(&good))).await;
    filled.breaks(Invariant::I3).await;
    filled.damage(|batch| batch.put_elsewhere::<PeerKeys>(&(lane, name.to_owned()), &row("AAAA"))).await;
    filled.breaks(Invariant::I13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_other_servers_are_signed_by_them() {
    let filled = filled().await;
    let lane = filled.ids.server_lane(<&ServerName>::try_from("other.test").expect("a name"));
    let row = PeerKeyAnswer { json: "{}".to_owned(), fetched_at: 1, valid_until: 2 };
    filled.damage(|batch| batch.put_elsewhere::<PeerKeyAnswers>(&(lane, "other.test".to_owned()), &row)).await;
    filled.breaks(Invariant::I13).await;
}

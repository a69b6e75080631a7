//! Invitations in numbers: whoever is invited a lot reads no more for what is new elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hearth_schema::Membership;

use super::counting::{CountingStore, reads_of_news};
use crate::testing::World;

/// Invitations of the one who is invited a lot.
const MANY: usize = 300;

#[tokio::test]
async fn many_invitations_do_not_make_other_news_dearer() {
    let store = CountingStore::default();
    let reads = Arc::clone(&store.reads);
    let world = World::on(Arc::new(store));
    let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
    let room = world.room(&eve, &[&alice, &bob]).await;
    for _ in 0..MANY {
        let spam = world.room(&eve, &[]).await;
        world.change(&spam, &eve, &alice, Membership::Invite).await;
    }
    let answer = world.now(&alice, None, "{}").await;
    assert_eq!(answer["rooms"]["invite"].as_object().expect("invitations").len(), MANY);
    let without = reads_of_news(&world, &reads, &bob, (&room, &eve)).await;
    let with = reads_of_news(&world, &reads, &alice, (&room, &eve)).await;
    assert!(with <= without, "{with} reads instead of {without}");
    assert!(reads.load(Ordering::Relaxed) > 0, "what is read is counted");
}

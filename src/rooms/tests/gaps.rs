//! Gaps in timelines, and how they are filled.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hearth_event::RoomVersion;
use hearth_schema::Membership;
use hearth_store::{Pos, Store, chaos, memory::MemoryStore};
use ruma_common::{OwnedEventId, RoomId};
use serde_json::json;

use super::fixture::{label, message, user};
use super::neighbour::{Town, event, event_after, name, other, raw};
use crate::{Direction, EventFilter, HistoryQuery};

async fn say(town: &Town, room_id: &RoomId, body: &str) -> OwnedEventId {
    town.there.rooms.send(message(room_id, &other("olga"), body, body)).await.expect("sent").event_id
}

/// `count` messages that `here` is not sent, and one that it is.
async fn gap(town: &Town, room_id: &RoomId, name: &str, count: usize) -> OwnedEventId {
    town.neighbour.forgetful.store(true, Ordering::Relaxed);
    for n in 0..count {
        say(town, room_id, &format!("{name} {n}")).await;
    }
    let after = say(town, room_id, &format!("after {name}")).await;
    Town::deliver(&town.there, &town.here, room_id, &[&after]).await;
    after
}

/// Everything that alice is shown who scrolls back, oldest first, and whether it needed more than `pages`.
async fn scrolled_back(town: &Town, room_id: &RoomId, (from, to): (Option<Pos>, Option<Pos>)) -> Vec<String> {
    let (direction, filter) = (Direction::Backward, EventFilter::default());
    let mut query = HistoryQuery { room_id: room_id.to_owned(), from, to, direction, limit: 3, filter };
    let mut shown = Vec::new();
    for _ in 0..200 {
        let page = town.here.rooms.messages(&user("alice"), &query).await.expect("a page");
        shown.extend(page.events.iter().map(|event| label(event)));
        query.from = page.end;
        if page.end.is_none() {
            shown.reverse();
            return shown;
        }
    }
    panic!("it never ends: {shown:?}");
}

async fn newest(town: &Town) -> Pos {
    town.here.rooms.view().await.expect("a view").frontier().base()
}

async fn open_gaps(town: &Town, room_id: &RoomId) -> usize {
    let view = town.here.rooms.view().await.expect("a view");
    town.here.rooms.open_gaps(&view, town.here.rooms.ids().room(room_id)).await.expect("readable").len()
}

fn backfills(town: &Town) -> usize {
    town.neighbour.asked.lock().expect("not poisoned").iter().filter(|asked| **asked == "backfill").count()
}

#[tokio::test]
async fn scrolling_back_over_a_gap_fills_it_in_order() {
    for version in ["1", "6", "12"] {
        let town = Town::new();
        let room_id = town.shared_room(RoomVersion::parse(version).expect("known")).await;
        say(&town, &room_id, "unheard of").await;
        let before = newest(&town).await;
        gap(&town, &room_id, "lost", 10).await;
        let after = newest(&town).await;
        let history = town.here.history(&room_id, &user("alice")).await;
        assert!(!history.contains(&"lost 9".to_owned()) && history.contains(&"after lost".to_owned()), "{history:?}");

        let there = town.there.history(&room_id, &other("olga")).await;
        assert_eq!(scrolled_back(&town, &room_id, (None, None)).await, there, "version {version}");
        assert_eq!(town.here.history(&room_id, &user("alice")).await, there, "and forward");
        // Who has what came after the gap is sent nothing again, and who has not is told that there is more.
        let view = town.here.rooms.view().await.expect("a view");
        let room = town.here.rooms.ids().room(&room_id);
        let timeline = |from, to| town.here.rooms.timeline(&view, room, (from, to), 50);
        assert!(timeline(after, newest(&town).await).await.expect("readable").events.is_empty());
        let page = timeline(before, after).await.expect("readable");
        assert_eq!(page.events.iter().map(|event| label(event)).collect::<Vec<_>>(), ["after lost"]);
        assert!(page.limited && page.gap);
        let missed = scrolled_back(&town, &room_id, (Some(page.prev), Some(before))).await;
        let at = there.iter().position(|label| label == "unheard of").expect("there");
        assert_eq!(missed, there[at..there.len() - 1], "what is between two syncs");
        assert_eq!(open_gaps(&town, &room_id).await, 0);
        let asked = backfills(&town);
        scrolled_back(&town, &room_id, (None, None)).await;
        assert_eq!(backfills(&town), asked, "nobody is asked about what is here");
    }
}

#[tokio::test]
async fn what_came_right_before_an_event_after_a_gap_is_fetched() {
    // As `GET /context` asks for it.
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let after = gap(&town, &room_id, "lost", 10).await;
    let (direction, filter) = (Direction::Backward, EventFilter::default());
    let pos = event(&town.here.rooms, &room_id, &after).await.expect("an event").pos;
    let from = Some(Pos::new(pos.get() - 1));
    let query = HistoryQuery { room_id: room_id.clone(), from, to: None, direction, limit: 5, filter };
    let page = town.here.rooms.messages(&user("alice"), &query).await.expect("a page");
    let shown: Vec<String> = page.events.iter().map(|event| label(event)).collect();
    assert_eq!(shown, ["lost 9", "lost 8", "lost 7", "lost 6", "lost 5"]);
    assert_eq!(backfills(&town), 2, "no more than it takes");
}

#[tokio::test]
async fn several_gaps_are_filled_each_in_its_place() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    for name in ["first", "second", "third"] {
        gap(&town, &room_id, name, 6).await;
    }
    assert_eq!(open_gaps(&town, &room_id).await, 3);
    let there = town.there.history(&room_id, &other("olga")).await;
    assert_eq!(scrolled_back(&town, &room_id, (None, None)).await, there);
    assert_eq!(open_gaps(&town, &room_id).await, 0);
}

#[tokio::test]
async fn gaps_are_filled_in_the_background() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    // Where there was none when it was looked there may be one the next time.
    town.here.rooms.heal_all().await.expect("readable");
    gap(&town, &room_id, "lost", 30).await;
    gap(&town, &room_id, "gone", 5).await;
    for _ in 0..4 {
        town.here.rooms.heal_all().await.expect("readable");
    }
    assert_eq!(open_gaps(&town, &room_id).await, 0);
    let (here, there) =
        (town.here.history(&room_id, &user("alice")).await, town.there.history(&room_id, &other("olga")).await);
    assert_eq!(here[here.len() - 37..], there[there.len() - 37..]);
}

#[tokio::test]
async fn a_gap_of_which_nobody_tells_is_passed_by_and_tried_again_later() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    gap(&town, &room_id, "lost", 3).await;
    town.neighbour.silent.store(true, Ordering::Relaxed);
    let asked = backfills(&town);
    let shown = scrolled_back(&town, &room_id, (None, None)).await;
    assert!(shown.contains(&"after lost".to_owned()) && !shown.contains(&"lost 2".to_owned()));
    assert!(shown.contains(&"m.room.member".to_owned()), "what is below the gap can be read: {shown:?}");
    town.neighbour.silent.store(false, Ordering::Relaxed);
    town.here.rooms.heal_all().await.expect("readable");
    assert_eq!(open_gaps(&town, &room_id).await, 1, "not so soon");
    town.here.clock.advance(Duration::from_secs(60));
    town.here.rooms.heal_all().await.expect("readable");
    assert_eq!(open_gaps(&town, &room_id).await, 0);
    assert!(backfills(&town) > asked);
    let there = town.there.history(&room_id, &other("olga")).await;
    assert_eq!(scrolled_back(&town, &room_id, (None, None)).await, there);
}

#[tokio::test]
async fn who_comes_back_can_read_what_was_said_meanwhile() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let alice = user("alice");
    let left = town.here.change(&room_id, (&alice, &alice), Membership::Leave).await.expect("left").event_id;
    Town::deliver(&town.here, &town.there, &room_id, &[&left]).await;
    for n in 0..6 {
        say(&town, &room_id, &format!("meanwhile {n}")).await;
    }
    town.join(&room_id, &alice).await;
    let there = town.there.history(&room_id, &other("olga")).await;
    assert_eq!(scrolled_back(&town, &room_id, (None, None)).await, there);
}

#[tokio::test]
async fn gaps_are_filled_on_a_bad_day() {
    let rates = chaos::ChaosRates { conflict: 20, expired: 0, ..chaos::ChaosRates::default() };
    let store: Arc<dyn Store> = Arc::new(chaos::ChaosStore::with_rates(MemoryStore::new(), 7, rates));
    let town = Town::on(store);
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    gap(&town, &room_id, "lost", 12).await;
    for _ in 0..20 {
        town.here.rooms.heal_all().await.expect("readable");
        town.here.clock.advance(Duration::from_secs(24 * 60 * 60));
    }
    assert_eq!(open_gaps(&town, &room_id).await, 0);
    let (here, there) =
        (town.here.history(&room_id, &user("alice")).await, town.there.history(&room_id, &other("olga")).await);
    assert_eq!(here[here.len() - 13..], there[there.len() - 13..]);
}

#[tokio::test]
async fn who_is_banned_does_not_speak_out_of_a_gap() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let (olga, eve) = (other("olga"), other("eve"));
    let join = town.there.change(&room_id, (&eve, &eve), Membership::Join).await.expect("join").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&join]).await;
    let depth = event(&town.there.rooms, &room_id, &join).await.expect("an event").pdu.depth();
    let (text, body) = (("m.room.message", None), |body: &str| json!({ "body": body }));
    let prev = [(join.to_string(), depth)];
    let late = event_after(&town.there, &room_id, &eve, text, body("out of the gap"), &prev).await;
    let ban = town.there.change(&room_id, (&olga, &eve), Membership::Ban).await.expect("ban").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&ban]).await;
    // Her server passes on what she says as if it had come before the ban, and somebody else follows it.
    town.there.rooms.receive(name(1), vec![raw(&late)]).await.expect("received");
    town.there.settled(&room_id).await;
    let prev = [(late.event_id().to_string(), late.depth())];
    let follower = event_after(&town.there, &room_id, &olga, text, body("I follow"), &prev).await;
    town.neighbour.forgetful.store(true, Ordering::Relaxed);
    town.here.rooms.receive(name(1), vec![raw(&follower)]).await.expect("received");
    town.here.settled(&room_id).await;
    assert_eq!(open_gaps(&town, &room_id).await, 1);
    town.here.rooms.heal_all().await.expect("readable");
    let shown = scrolled_back(&town, &room_id, (None, None)).await;
    assert!(shown.contains(&"I follow".to_owned()) && !shown.contains(&"out of the gap".to_owned()), "{shown:?}");
    assert!(backfills(&town) > 0);
}

#[tokio::test]
async fn what_lies_before_an_event_is_fetched_page_by_page() {
    // How many are missing, and how often they are asked for: a page is 20, and there are 10 at the most.
    for (missing, pages) in [(1, 1), (20, 1), (21, 2), (150, 8), (199, 10), (300, 10)] {
        let town = Town::new();
        let room_id = town.shared_room(RoomVersion::DEFAULT).await;
        for n in 0..missing {
            say(&town, &room_id, &format!("missing {n}")).await;
        }
        let after = say(&town, &room_id, "after").await;
        Town::deliver(&town.there, &town.here, &room_id, &[&after]).await;
        let asked = town.neighbour.asked.lock().expect("not poisoned").clone();
        let asked = asked.iter().filter(|asked| **asked == "missing_events").count();
        assert_eq!(asked, pages, "{missing} missing");
        let open = usize::from(missing > 200);
        assert_eq!(open_gaps(&town, &room_id).await, open, "{missing} missing");
        let here = town.here.history(&room_id, &user("alice")).await;
        let there = town.there.history(&room_id, &other("olga")).await;
        let here: Vec<_> = here.iter().filter(|label| label.starts_with("missing")).collect();
        let there: Vec<_> = there.iter().filter(|label| label.starts_with("missing")).collect();
        assert_eq!(here, there[missing - missing.min(200)..], "{missing} missing");
    }
}

#[tokio::test]
async fn who_tells_few_events_is_not_asked_again() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    town.neighbour.page.store(3, Ordering::Relaxed);
    for n in 0..30 {
        say(&town, &room_id, &format!("missing {n}")).await;
    }
    let after = say(&town, &room_id, "after").await;
    Town::deliver(&town.there, &town.here, &room_id, &[&after]).await;
    let asked = town.neighbour.asked.lock().expect("not poisoned").clone();
    assert_eq!(asked.iter().filter(|asked| **asked == "missing_events").count(), 1);
    assert_eq!(open_gaps(&town, &room_id).await, 1);
}

#[tokio::test]
async fn of_what_builds_on_nothing_the_state_is_not_asked_for_until_much_later() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let asked = || {
        let mut asked = std::mem::take(&mut *town.neighbour.asked.lock().expect("not poisoned"));
        asked.retain(|question| *question != "keys");
        asked
    };
    say(&town, &room_id, "left out").await;
    let baseless = say(&town, &room_id, "baseless").await;
    town.neighbour.nonsensical.store(true, Ordering::Relaxed);
    asked();
    Town::deliver(&town.there, &town.here, &room_id, &[&baseless]).await;
    assert_eq!(asked(), ["missing_events"]);

    town.neighbour.nonsensical.store(false, Ordering::Relaxed);
    town.neighbour.forgetful.store(true, Ordering::Relaxed);
    let soon = say(&town, &room_id, "soon").await;
    Town::deliver(&town.there, &town.here, &room_id, &[&soon]).await;
    assert_eq!(asked(), ["missing_events"]);
    assert!(event(&town.here.rooms, &room_id, &soon).await.is_none());

    town.here.clock.advance(Duration::from_secs(3600));
    let received = Town::deliver(&town.there, &town.here, &room_id, &[&soon]).await;
    assert_eq!(asked(), ["missing_events", "state", "event"], "{received:?}");
    assert!(event(&town.here.rooms, &room_id, &soon).await.is_some());
    assert!(event(&town.here.rooms, &room_id, &baseless).await.is_some());
}

#[tokio::test]
async fn who_stalls_when_asked_about_a_gap_puts_it_off_and_holds_up_no_join() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let after = gap(&town, &room_id, "lost", 3).await;
    let at = event(&town.here.rooms, &room_id, &after).await.expect("an event").pos;
    town.neighbour.stalling.lock().expect("not poisoned").insert(name(1).to_string());
    let room = town.here.rooms.ids().room(&room_id);
    let healing = town.here.rooms.heal_within(room, at, Duration::from_secs(2));
    tokio::pin!(healing);
    let joining = async {
        // It has begun to ask, and asks for as long as it may.
        tokio::task::yield_now().await;
        Town::join(&town, &room_id, &user("bob")).await;
    };
    tokio::select! {
        biased;
        healed = &mut healing => panic!("the join was not let in before: {healed:?}"),
        () = joining => {}
    }
    assert_eq!(healing.await.expect("readable"), crate::inbound::Backfilled::Nothing);
    assert_eq!(*town.neighbour.given_up.lock().expect("not poisoned"), [name(1)]);
    town.neighbour.stalling.lock().expect("not poisoned").clear();
    town.here.rooms.heal_all().await.expect("readable");
    assert_eq!(open_gaps(&town, &room_id).await, 1, "put off");
    town.here.clock.advance(Duration::from_secs(60));
    town.here.rooms.heal_all().await.expect("readable");
    assert_eq!(open_gaps(&town, &room_id).await, 0);
}

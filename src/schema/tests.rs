//! Round trips of every stored value, and rows that are not what their keyspace says.

use std::collections::BTreeSet;

use hearth_store::{Element, Keyspace, KeyspaceId, Pos, RawKey, Value, raw_key};
use proptest::option;
use proptest::prelude::*;
use ruma_common::{EventId, RoomAliasId, RoomId, UserId};

use crate::*;

fn encoded(value: &impl Value) -> Vec<u8> {
    let mut out = KeyBuf::default();
    value.encode(&mut out);
    assert!(out.holes.is_empty(), "committed positions leave no holes");
    out.bytes
}

/// What every stored value promises.
fn holds<V: Value + PartialEq + std::fmt::Debug>(value: &V) -> Result<(), TestCaseError> {
    let bytes = encoded(value);
    let decoded = V::decode(&bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(value), "round trip");
    prop_assert_eq!(&encoded(value), &bytes, "deterministic");
    for cut in 0..bytes.len() {
        // Must not panic; bodies that end with free bytes may still be valid, but never the same.
        let decoded = V::decode(&bytes[..cut]);
        prop_assert_ne!(decoded.as_ref(), Ok(value));
    }
    Ok(())
}

/// The same for values whose every byte is accounted for, with the version at `version_at`.
fn holds_exactly<V: Value + PartialEq + std::fmt::Debug>(value: &V, version_at: usize) -> Result<(), TestCaseError> {
    holds(value)?;
    let mut bytes = encoded(value);
    for cut in 0..bytes.len() {
        prop_assert!(V::decode(&bytes[..cut]).is_err(), "cut at {}", cut);
    }
    bytes.push(0);
    prop_assert!(V::decode(&bytes).is_err(), "bytes left over");
    bytes.pop();
    bytes[version_at] = bytes[version_at].wrapping_add(1);
    prop_assert!(V::decode(&bytes).is_err(), "another version");
    Ok(())
}

const PLAIN: usize = 0;
/// Behind the position.
const STAMPED: usize = 8;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,40}", "[\0\u{1}a]{0,6}", Just(String::new())]
}

fn position() -> impl Strategy<Value = Pos> {
    any::<u64>().prop_map(Pos::new)
}

fn ids() -> Ids {
    Ids::new([9; 32])
}

fn user_nid() -> impl Strategy<Value = UserNid> {
    any::<u32>().prop_map(|n| ids().user(&UserId::parse(format!("@u{n}:x")).unwrap()))
}

fn room_nid() -> impl Strategy<Value = RoomNid> {
    any::<u32>().prop_map(|n| ids().room(&RoomId::parse(format!("!r{n}:x")).unwrap()))
}

fn event_nid() -> impl Strategy<Value = EventNid> {
    (room_nid(), any::<u32>()).prop_map(|(room, n)| EventNid { room, n })
}

fn membership() -> impl Strategy<Value = Membership> {
    use Membership::{Ban, Invite, Join, Knock, Leave};
    prop::sample::select(vec![Join, Invite, Leave, Ban, Knock])
}

fn kind() -> impl Strategy<Value = ReceiptKind> {
    prop::sample::select(vec![ReceiptKind::Read, ReceiptKind::ReadPrivate])
}

fn tally() -> impl Strategy<Value = Tally> {
    (any::<u64>(), any::<u64>()).prop_map(|(notifying, highlighting)| Tally { notifying, highlighting })
}

fn subscription() -> impl Strategy<Value = Subscription> {
    prop::sample::select(vec![Subscription::Manual, Subscription::Automatic, Subscription::Ended])
}

fn stored_event() -> impl Strategy<Value = StoredEvent> {
    let source = prop::sample::select(vec![Source::Local, Source::Relayed, Source::Remote, Source::AfterGap]);
    let verdict =
        prop::sample::select(vec![Verdict::Accepted, Verdict::SoftFailed, Verdict::Rejected, Verdict::Outlier]);
    let number = || option::of(0..u32::MAX);
    let fixed = (position(), (verdict, source), any::<[u8; 16]>(), number(), number());
    let rest = (option::of((text(), text())), text(), prop::collection::vec(any::<u8>(), 0..200));
    (fixed, rest).prop_map(
        |((pos, (verdict, source), state, redacted_by, replaces_state), (transaction, event_id, json))| {
            let (state_before, event_id, json) = (StateId(state), event_id.into_boxed_str(), json.into());
            StoredEvent { pos, verdict, source, state_before, redacted_by, replaces_state, transaction, event_id, json }
        },
    )
}

fn room_head() -> impl Strategy<Value = RoomHead> {
    let extremity =
        (any::<u32>(), text(), any::<u64>()).prop_map(|(n, event_id, depth)| Extremity { n, event_id, depth });
    let numbers = any::<(u64, u32, u32, u32, u32)>();
    (numbers, any::<[u8; 16]>(), prop::collection::vec(extremity, 0..5)).prop_map(|(numbers, state, extremities)| {
        let (generation, next_event, next_state_key, joined_members, invited_members) = numbers;
        let state = StateId(state);
        RoomHead { generation, extremities, state, next_event, next_state_key, joined_members, invited_members }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn events_survive_the_round_trip(event in stored_event()) {
        holds(&event)?;
    }

    #[test]
    fn rows_of_rooms_survive_the_round_trip(
        head in room_head(),
        (room_id, version, created_at) in (text(), text(), any::<u64>()),
        (n, previous, joined) in (option::of(any::<u32>()), option::of(any::<u32>()), option::of(membership())),
        tally in tally(), event in event_nid(), user in user_nid(), node in prop::collection::vec(any::<u8>(), 0..99),
    ) {
        holds_exactly(&head, PLAIN)?;
        holds_exactly(&RoomMeta { room_id: room_id.clone(), version, created_at }, PLAIN)?;
        holds_exactly(&StateEntry { n: previous.unwrap_or(7), membership: joined }, PLAIN)?;
        holds_exactly(&StateLogEntry { n, previous }, PLAIN)?;
        holds_exactly(&tally, PLAIN)?;
        holds_exactly(&RoomTally { main: tally, threads: Tally::default(), thread: n }, PLAIN)?;
        holds_exactly(&Mention { thread: n }, PLAIN)?;
        let edit = previous.map(|n| Edit { origin_server_ts: created_at, event_id: room_id.clone(), n });
        let thread = n.map(|latest| ThreadSummary { latest, replies: latest / 2 });
        holds_exactly(&Aggregate { edit, thread, references: event.n }, PLAIN)?;
        holds_exactly(&event, PLAIN)?;
        holds_exactly(&event.room, PLAIN)?;
        holds_exactly(&StateKeyNid(event.n), PLAIN)?;
        holds_exactly(&Change::Event { event }, PLAIN)?;
        holds_exactly(&Change::Receipt { room: event.room, user }, PLAIN)?;
        holds_exactly(&Change::AccountData { user }, PLAIN)?;
        holds_exactly(&Change::Outside { user, room: event.room }, PLAIN)?;
        holds_exactly(&Change::ThreadSubscription { user }, PLAIN)?;
        holds(&RawNode(node))?;
    }

    #[test]
    fn rows_of_accounts_survive_the_round_trip(
        (user_id, device_id, json) in (text(), text(), text()),
        (some, other) in (option::of(text()), option::of(text())),
        (created_at, generation, next_filter, account_data) in any::<(u64, u64, u32, u32)>(),
        (deactivated, admin) in any::<(bool, bool)>(),
        fields in prop::collection::btree_map(text(), text(), 0..4),
        (uses_allowed, used, expires_at) in any::<(Option<u32>, u32, Option<u64>)>(),
    ) {
        let user = User {
            user_id: user_id.clone(), password_hash: some.clone(), created_at, deactivated, admin, next_filter,
            account_data, generation, account_data_rows: account_data,
            kind: if admin { AccountKind::User } else { AccountKind::Guest },
            moderation: Moderation { locked: admin, suspended: deactivated },
            user_type: other.clone(), accepted_terms: fields.clone(),
        };
        holds_exactly(&user, PLAIN)?;
        let token = some.as_ref().map(|token| ids().token(token));
        let status = some.clone();
        let spent = token.map(|token| SpentRefresh {
            token, access: some.as_ref().map(|_| token), access_expires_at: generation, at: created_at, nonce: [7; 32],
        });
        let refresh = token.map(|token| Refresh { family: token, current: token, expires_at: generation, spent });
        holds_exactly(&Device { display_name: other.clone(), token, created_at, refresh }, PLAIN)?;
        let pushed = other.clone();
        holds_exactly(&RefreshFamily { user_id: user_id.clone(), device_id: device_id.clone() }, PLAIN)?;
        holds_exactly(&ProfileRow { displayname: some, avatar_url: other, fields }, PLAIN)?;
        holds_exactly(&AccessToken { user_id: user_id.clone(), device_id: device_id.clone() }, PLAIN)?;
        holds_exactly(&RegistrationToken { uses_allowed, used, expires_at }, PLAIN)?;
        holds_exactly(&LoginToken { expires_at: generation }, PLAIN)?;
        holds_exactly(&NoticeRoom { room_id: device_id.clone() }, PLAIN)?;
        holds_exactly(&Filter { json: json.clone() }, PLAIN)?;
        let pusher = Pusher {
            kind: json.clone(), app_display_name: user_id.clone(), device_display_name: device_id.clone(),
            profile_tag: pushed, lang: json.clone(), data: json.clone(), device_id: device_id.clone(), created_at,
        };
        holds_exactly(&pusher, PLAIN)?;
        let of_event = ReportSubject::Event {
            room_id: device_id.clone(), event_id: json.clone(), sender: user_id.clone(),
        };
        let of_room = ReportSubject::Room { room_id: device_id.clone() };
        for subject in [of_event, of_room, ReportSubject::User { user_id: user_id.clone() }] {
            let (reporter, reason) = (user_id.clone(), json.clone());
            holds_exactly(&Report { at: created_at, reporter, subject, reason }, PLAIN)?;
        }
        holds_exactly(&PresenceRow { user_id: user_id.clone(), status_msg: status, last_active: expires_at }, PLAIN)?;
        holds_exactly(&AliasRow { alias: json, room_id: device_id, creator: user_id }, PLAIN)?;
    }

    #[test]
    fn rows_between_users_and_rooms_survive_the_round_trip(
        pos in position(), (room_id, thread, user_id) in (text(), text(), text()), kind in kind(),
        membership in membership(), (n, event_pos, ts) in any::<(u32, u64, u64)>(),
        (own, forgotten) in any::<(bool, bool)>(), tally in tally(), subscription in subscription(),
    ) {
        holds_exactly(&ReceiptName { kind, thread: thread.clone(), user_id: user_id.clone() }, PLAIN)?;
        holds_exactly(&Receipt { pos, event_id: room_id.clone(), n, event_pos, ts }, STAMPED)?;
        holds_exactly(&AccountDataEntry { pos, json: thread.clone() }, STAMPED)?;
        let (version, sender) = (thread.clone(), room_id.clone());
        let event = own.then(|| (user_id.clone(), vec![7; 9]));
        holds_exactly(&OutsideState { version, event, events: vec![thread.clone(), user_id.clone()] }, PLAIN)?;
        let (invitation, servers) = (forgotten.then(|| thread.clone()), vec![user_id.clone()]);
        holds_exactly(&Outside { pos, membership, sender, invitation, servers }, STAMPED)?;
        let n_here = own.then_some(n);
        holds_exactly(&UserRoom { pos, room_id: room_id.clone(), membership, n: n_here, own, forgotten }, STAMPED)?;
        holds_exactly(&ReadPoint { pos, main_pos: event_pos, main: tally, threads: tally }, STAMPED)?;
        holds_exactly(&ThreadRead { pos, tally }, STAMPED)?;
        holds_exactly(&ThreadSubscription { pos, subscription }, STAMPED)?;
        prop_assert_eq!(Position::decode(&encoded(&Position(pos))), Ok(Position(pos)));
        prop_assert!(Position::decode(&encoded(&Position(pos))[1..]).is_err());
    }

    #[test]
    fn staged_events_survive_the_round_trip(
        (origin, event_id, json) in (text(), text(), any::<Vec<u8>>()),
        wait in option::of(any::<(u64, u32, u64)>()),
    ) {
        let old = (origin.clone(), event_id.clone(), json.clone());
        let wait = wait.map(|(since, tries, tried_at)| StagedWait { since, tries, tried_at });
        let staged = StagedEvent { origin, event_id, json, wait };
        holds_exactly(&staged, PLAIN)?;
        // As it was stored before events could wait.
        let mut out = KeyBuf::default();
        hearth_store::encode_body(1, &old, &mut out);
        prop_assert_eq!(StagedEvent::decode(&out.bytes), Ok(StagedEvent { wait: None, ..staged }));
    }

    #[test]
    fn gaps_survive_the_round_trip(lowest in option::of(any::<u64>()), failures: u32, retry_at: u64) {
        holds_exactly(&Gap { lowest, failures, retry_at }, PLAIN)?;
    }

    #[test]
    fn delayed_events_survive_the_round_trip(
        (room_id, sender, event_type, content) in (text(), text(), text(), text()),
        (state_key, redacts, transaction) in (option::of(text()), option::of(text()), option::of(text())),
        (delay_ms, since, at, generation) in any::<(u64, u64, u64, u64)>(), ended in option::of(0..3_u8),
    ) {
        let finalised = ended.map(|how| Finalised { at, outcome: match how {
            0 => DelayedOutcome::Cancelled,
            1 => DelayedOutcome::Sent { event_id: room_id.clone() },
            _ => DelayedOutcome::Failed { why: DelayedFailure::Forbidden, message: sender.clone() },
        } });
        let entry = DelayedEntry { id: sender.clone(), at, transaction };
        let event = DelayedEvent { room_id, sender, event_type, state_key, content, redacts, delay_ms, since, finalised };
        holds_exactly(&event, PLAIN)?;
        let list = DelayedList { generation, scheduled: vec![entry.clone()], finalised: vec![entry] };
        holds_exactly(&list, PLAIN)?;
    }

    #[test]
    fn rows_of_other_servers_hold(
        keys in prop::collection::btree_map(text(), (text(), any::<u64>(), any::<bool>()), 0..3),
        json in text(), fetched_at: u64, valid_until: u64,
    ) {
        let key = |(id, (key, valid_until, retired))| (id, PeerKey { key, valid_until, retired });
        holds_exactly(&PeerKeysRow { keys: keys.into_iter().map(key).collect(), fetched_at }, PLAIN)?;
        holds_exactly(&PeerKeyAnswer { json, fetched_at, valid_until }, PLAIN)?;
    }

    #[test]
    fn what_transactions_came_to_holds(
        txn_id in text(), at: u64, results in prop::collection::vec((text(), option::of(text())), 0..4),
    ) {
        holds_exactly(&ReceivedTransaction { txn_id, at, results }, PLAIN)?;
    }

    #[test]
    fn what_leaves_survives_the_round_trip(
        (server_name, id) in (text(), text()), (at, pos, since, retry_at, newest) in any::<(u64, u64, u64, u64, u64)>(),
        failures in any::<u32>(), event in event_nid(), edus in prop::collection::vec(text(), 0..4),
    ) {
        holds_exactly(&Destination { server_name, newest }, PLAIN)?;
        holds_exactly(&Transaction { id, at, pdus: vec![QueuedPdu { pos, event }], edus }, PLAIN)?;
        holds_exactly(&BackOff { failures, since, retry_at }, PLAIN)?;
    }

    #[test]
    fn any_bytes_are_a_row_or_refused(
        keyspace in prop_oneof![prop::sample::select(ALL).prop_map(|def| def.id), any::<u16>().prop_map(KeyspaceId)],
        key in prop::collection::vec(any::<u8>(), 0..80), value in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let _ = decode_row(keyspace, &key, &value);
    }

    /// Nearer to the truth than noise: one byte of a sound row is wrong.
    #[test]
    fn a_damaged_row_never_panics(event in stored_event(), head in room_head(), room in room_nid(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let rows = [
            (Events::DEF.id, raw_key::<Events>(&(room, 7)).0, encoded(&event)),
            (RoomHeads::DEF.id, raw_key::<RoomHeads>(&(room,)).0, encoded(&head)),
        ];
        for (keyspace, key, value) in rows {
            let key = &key.0[RawKey::HEADER..];
            prop_assert_eq!(decode_row(keyspace, key, &value), Ok(()));
            let mut damaged = value.clone();
            damaged[at.index(value.len())] ^= 1_u8 << bit;
            let _ = decode_row(keyspace, key, &damaged);
            let mut long = key.to_vec();
            long.push(0);
            prop_assert!(decode_row(keyspace, &long, &value).is_err(), "a key with bytes left over");
            prop_assert!(decode_row(keyspace, &key[1..], &value).is_err(), "a key that is too short");
        }
    }

    #[test]
    fn owners_live_in_the_lane_of_their_first_byte(room in room_nid(), user in user_nid(), device in text()) {
        let mut bytes = KeyBuf::default();
        Element::encode(&user, &mut bytes);
        let (key, _) = raw_key::<Devices>(&(user, device));
        prop_assert_eq!(key.lane().number(), bytes.bytes[0]);
        prop_assert_eq!(key.keyspace(), Devices::DEF.id);
        prop_assert_eq!(hearth_store::Owner::lane(&room), raw_key::<Rooms>(&(room,)).0.lane());
    }
}

#[test]
fn every_keyspace_has_its_own_number_and_name() {
    let numbers: BTreeSet<_> = ALL.iter().map(|def| def.id).collect();
    let names: BTreeSet<_> = ALL.iter().map(|def| def.name).collect();
    assert_eq!((numbers.len(), names.len()), (ALL.len(), ALL.len()));
    assert!(ALL.iter().all(|def| def.id.0 >= 0x10), "numbers below 16 belong to the engines");
}

#[test]
fn a_pending_position_leaves_a_hole_at_the_start() {
    let mut batch = hearth_store::Batch::new(hearth_store::Lane::of(0));
    let pos = batch.next_pos();
    let mut out = KeyBuf::default();
    AccountDataEntry { pos, json: "{}".into() }.encode(&mut out);
    assert_eq!(out.holes.iter().map(|hole| (hole.offset, hole.slot)).collect::<Vec<_>>(), [(0, 0)]);
    assert_eq!(out.bytes[..8], [0; 8]);
}

#[test]
fn a_name_has_one_number_and_kinds_do_not_mix() {
    let ids = ids();
    let event = EventId::parse("$event:x").unwrap();
    assert_eq!(ids.event(&event), ids.event(&event));
    assert_ne!(ids.event(&event), Ids::new([8; 32]).event(&event), "another store, other numbers");
    let alias = RoomAliasId::parse("#a:x").unwrap();
    let numbers = [format!("{:?}", ids.alias(&alias)), format!("{:?}", ids.token("#a:x"))];
    assert_ne!(numbers[0].split('(').nth(1), numbers[1].split('(').nth(1));
    assert_ne!(ids.relation(&["a", "b"]), ids.relation(&["ab"]), "the parts of a relation do not run together");
}

#[test]
fn memberships_have_the_words_of_the_specification() {
    for word in ["join", "invite", "leave", "ban", "knock"] {
        assert_eq!(Membership::parse(word).map(Membership::as_str), Some(word));
    }
    assert_eq!(Membership::parse("Join"), None);
}

#[test]
fn the_greater_edit_is_the_more_recent_one() {
    let edit = |origin_server_ts, event_id: &str, n| Edit { origin_server_ts, event_id: event_id.into(), n };
    assert!(edit(2, "$a", 0) > edit(1, "$b", 1), "by time");
    assert!(edit(1, "$b", 0) > edit(1, "$a", 1), "then by ID");
}

//! Keys: order, round trip, prefix-freeness, ranges.

use proptest::prelude::*;

use crate::conformance::{Log, Mailbox, Owned};
use crate::keyspace::{raw_range, successor};
use crate::{
    DecodeError, Desc, Element, KeyBuf, KeyReader, Keyspace, Lane, Pos, Prefix, RawKey, TupleKey, Value, raw_key,
};

fn bytes(element: &impl Element) -> Vec<u8> {
    let mut out = KeyBuf::default();
    element.encode(&mut out);
    out.bytes
}

fn back<T: Element>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut input = KeyReader(bytes);
    let value = T::decode(&mut input)?;
    input.finish()?;
    Ok(value)
}

/// Everything an element promises, for two values and for any bytes.
fn holds<T: Element + Ord + Clone + std::fmt::Debug>(a: &T, b: &T, junk: &[u8]) -> Result<(), TestCaseError> {
    let (encoded_a, encoded_b) = (bytes(a), bytes(b));
    prop_assert_eq!(encoded_a.cmp(&encoded_b), a.cmp(b), "order");
    if a != b {
        prop_assert!(!encoded_a.starts_with(&encoded_b), "prefix-free");
    }
    prop_assert_eq!(&back::<T>(&encoded_a), &Ok(a.clone()), "round trip");
    for cut in 0..encoded_a.len() {
        prop_assert!(back::<T>(&encoded_a[..cut]).is_err(), "a cut encoding is refused");
    }
    // What decodes at all is the one encoding of what it decodes to.
    if let Ok(value) = back::<T>(junk) {
        prop_assert_eq!(bytes(&value), junk, "canonical");
    }
    Ok(())
}

/// Strings full of the bytes that escaping has to get right.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", "[\0\u{1}\u{7f}a]{0,8}", Just(String::new())]
}

fn junk() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..24),
        prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xFF), Just(b'a')], 0..12),
    ]
}

fn position() -> impl Strategy<Value = Pos> {
    prop_oneof![any::<u64>().prop_map(Pos::new), Just(Pos::ZERO), Just(Pos::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn integers_keep_their_promises(a in any::<(u64, u32, u16, u8)>(), b in any::<(u64, u32, u16, u8)>(), junk in junk()) {
        holds(&a.0, &b.0, &junk)?;
        holds(&a.1, &b.1, &junk)?;
        holds(&a.2, &b.2, &junk)?;
        holds(&a.3, &b.3, &junk)?;
        holds(&a.0.to_be_bytes(), &b.0.to_be_bytes(), &junk)?;
    }

    #[test]
    fn strings_keep_their_promises(a in text(), b in text(), junk in junk()) {
        holds(&a, &b, &junk)?;
    }

    #[test]
    fn positions_keep_their_promises(a in position(), b in position(), junk in junk()) {
        holds(&a, &b, &junk)?;
    }

    #[test]
    fn descending_numbers_sort_the_other_way(a in any::<u64>(), b in any::<u64>()) {
        prop_assert_eq!(bytes(&Desc(a)).cmp(&bytes(&Desc(b))), b.cmp(&a));
        prop_assert_eq!(back::<Desc<u64>>(&bytes(&Desc(a))), Ok(Desc(a)));
    }

    #[test]
    fn tuples_sort_by_their_elements(
        a in (any::<[u8; 4]>(), text(), position(), text(), any::<u32>()),
        b in (any::<[u8; 4]>(), text(), position(), text(), any::<u32>()),
    ) {
        let tuple = |(owner, one, two, three, four): (_, String, Pos, String, u32)| (Owned(owner), one, two, three, four);
        let (a, b) = (tuple(a), tuple(b));
        let encode = |key: &(Owned, String, Pos, String, u32)| {
            let mut out = KeyBuf::default();
            TupleKey::encode(key, &mut out);
            out.bytes
        };
        let (encoded_a, encoded_b) = (encode(&a), encode(&b));
        prop_assert_eq!(encoded_a.cmp(&encoded_b), a.cmp(&b));
        prop_assert!(a == b || !encoded_a.starts_with(&encoded_b));
        let mut input = KeyReader(&encoded_a);
        prop_assert_eq!(<(Owned, String, Pos, String, u32)>::decode(&mut input), Ok(a));
        prop_assert!(input.finish().is_ok());
    }

    #[test]
    fn a_prefix_range_holds_exactly_the_keys_with_the_prefix(
        keys in prop::collection::vec(((0..4_u8), (0..3_u8), "[a\0\u{1}b]{0,3}"), 0..40),
        lane in 0..4_u8, number in 0..3_u8, word in "[a\0\u{1}b]{0,3}",
    ) {
        let owner = Owned::new(lane, number);
        let range = |prefix: &dyn Fn() -> (Vec<u8>, Vec<u8>)| prefix();
        let by_owner = range(&|| raw_range::<Mailbox, _>(&(owner,)));
        let by_key = range(&|| raw_range::<Mailbox, _>(&(owner, word.clone())));
        for (lane, number, text) in keys {
            let key = (Owned::new(lane, number), text);
            let raw = raw_key::<Mailbox>(&key).0.0;
            let inside = |(start, end): &(Vec<u8>, Vec<u8>)| *start <= raw && raw < *end;
            prop_assert_eq!(inside(&by_owner), key.0 == owner);
            prop_assert_eq!(inside(&by_key), key == (owner, word.clone()));
            // Another keyspace of the same owner is never inside.
            let other = raw_key::<Log>(&(owner, Pos::new(u64::from(number)))).0.0;
            prop_assert!(other < by_owner.0 || other >= by_owner.1);
        }
    }

    #[test]
    fn the_successor_is_the_first_string_after_all_that_begin_alike(
        prefix in prop::collection::vec(prop_oneof![Just(0xFF_u8), any::<u8>()], 1..6), tail in junk(),
    ) {
        prop_assume!(prefix.iter().any(|byte| *byte != 0xFF));
        let end = successor(&prefix);
        prop_assert!([prefix.as_slice(), &tail].concat() < end);
        let mut before = end;
        let last = before.last_mut().expect("not empty");
        *last -= 1;
        prop_assert!(prefix.starts_with(&before), "nothing else lies between");
    }

    #[test]
    fn values_survive_the_round_trip_and_refuse_anything_else(a in text(), b in text(), n in any::<u32>(), junk in junk()) {
        let value = (a, b);
        let mut out = KeyBuf::default();
        value.encode(&mut out);
        prop_assert_eq!(<(String, String)>::decode(&out.bytes), Ok(value));
        for cut in 0..out.bytes.len() {
            prop_assert!(<(String, String)>::decode(&out.bytes[..cut]).is_err());
        }
        let mut stored = KeyBuf::default();
        Value::encode(&n, &mut stored);
        prop_assert_eq!(<u32 as Value>::decode(&stored.bytes), Ok(n));
        let _ = <String as Value>::decode(&junk);
        let _ = <(String, String) as Value>::decode(&junk);
    }
}

#[test]
fn keys_begin_with_lane_and_keyspace() {
    let (key, holes) = raw_key::<Log>(&(Owned::new(5, 1), Pos::pending(2)));
    assert_eq!(key.0[..RawKey::HEADER], [5, 0, 0x11]);
    assert_eq!((key.lane(), key.keyspace()), (Lane::of(5), Log::DEF.id));
    assert_eq!(holes, [crate::Hole { offset: 7, slot: 2 }]);
}

#[test]
fn the_lane_as_owner_takes_no_bytes() {
    let lane = Lane::of(17);
    let mut out = KeyBuf::default();
    TupleKey::encode(&(lane, 7_u32), &mut out);
    assert_eq!(out.bytes, 7_u32.to_be_bytes());
    assert_eq!(Prefix::<(Lane, u32)>::lane(&(lane,)), lane);
}

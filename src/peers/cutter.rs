//! A large JSON object, cut into pieces while its bytes arrive.
//!
//! The answer to a join is as large as a room: hundreds of megabytes of text, of which only one event at a time is of
//! interest. So the text is cut where the events end, and no more of it is held than one of them. The cutter only finds
//! the ends; each piece is then read as JSON by the usual parser, which decides whether it is any.

use std::fmt;

use serde_json::value::RawValue;

/// Bytes of one piece: an event has 64 KiB, and others may have added to it.
const MAX_PIECE: usize = 1 << 20;
/// Items of a list. No room has as many members.
const MAX_ITEMS: usize = 1_000_000;
/// Bytes of the name of a member of the object.
const MAX_NAME: usize = 1 << 10;

/// Where the object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// It is all there is.
    Bare,
    /// It is the second of two items, of which the first is of no interest.
    Pair,
}

/// What is cut out of the object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern {
    /// Members that are lists, of which each item is a piece. They must be there.
    pub lists: &'static [&'static str],
    /// Members that are a piece each.
    pub members: &'static [&'static str],
}

/// A part of the object.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Of which member.
    pub of: &'static str,
    /// The member, or an item of it.
    pub json: Box<RawValue>,
}

/// Why the text is not such an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutError {
    /// It is no JSON object.
    Malformed,
    /// It ends too early.
    Unfinished,
    /// What should be a list is none.
    NoList(&'static str),
    /// A list is not there.
    Missing(&'static str),
    /// A member is there twice.
    Twice(&'static str),
    /// A list has too many items.
    TooMany(&'static str),
    /// An item or a member is too large.
    TooLarge,
}

impl fmt::Display for CutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("it is no JSON object"),
            Self::Unfinished => f.write_str("it ends too early"),
            Self::NoList(name) => write!(f, "{name} is no list"),
            Self::Missing(name) => write!(f, "{name} is missing"),
            Self::Twice(name) => write!(f, "{name} is there twice"),
            Self::TooMany(name) => write!(f, "{name} has too many items"),
            Self::TooLarge => f.write_str("an item is too large"),
        }
    }
}

/// What comes next between the pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Pair,
    Other,
    AfterOther,
    Object,
    FirstName,
    Name,
    Colon,
    Value,
    AfterValue,
    FirstItem,
    Item,
    AfterItem,
    EndOfPair,
    End,
}

/// What to do with a member of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    List(&'static str),
    Member(&'static str),
    Skip,
}

/// What the value that is being read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Name,
    Piece(&'static str),
    Skipped,
}

/// Cuts one object.
#[derive(Debug)]
pub(crate) struct Cutter {
    pattern: Pattern,
    form: Form,
    place: Place,
    value: Option<(Reading, Value)>,
    member: Use,
    text: Vec<u8>,
    items: usize,
    seen: Vec<&'static str>,
}

impl Cutter {
    pub(crate) const fn new(pattern: Pattern, form: Form) -> Self {
        let place = match form {
            Form::Bare => Place::Object,
            Form::Pair => Place::Pair,
        };
        let member = Use::Skip;
        Self { pattern, form, place, value: None, member, text: Vec::new(), items: 0, seen: Vec::new() }
    }

    /// Takes the next bytes and gives the pieces that end in them.
    pub(crate) fn feed(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), CutError> {
        let mut rest = bytes;
        while let Some(byte) = rest.first() {
            if let Some((reading, mut value)) = self.value.take() {
                let end = value.end(rest);
                let (own, later) = rest.split_at(end.unwrap_or(rest.len()));
                self.keep(reading, own)?;
                rest = later;
                if end.is_some() {
                    pieces.extend(self.finish(reading)?);
                } else {
                    self.value = Some((reading, value));
                }
            } else if byte.is_ascii_whitespace() || self.step(*byte)? == Step::Taken {
                rest = &rest[1..];
            }
        }
        Ok(())
    }

    /// There are no more bytes.
    pub(crate) fn end(&self) -> Result<(), CutError> {
        if self.place != Place::End {
            return Err(CutError::Unfinished);
        }
        let missing = self.pattern.lists.iter().find(|name| !self.seen.contains(name));
        missing.map_or(Ok(()), |name| Err(CutError::Missing(name)))
    }

    fn keep(&mut self, reading: Reading, bytes: &[u8]) -> Result<(), CutError> {
        let most = match reading {
            Reading::Skipped => return Ok(()),
            Reading::Name => MAX_NAME,
            Reading::Piece(_) => MAX_PIECE,
        };
        if self.text.len() + bytes.len() > most {
            return Err(CutError::TooLarge);
        }
        self.text.extend_from_slice(bytes);
        Ok(())
    }

    /// What to do with a byte between values.
    fn step(&mut self, byte: u8) -> Result<Step, CutError> {
        self.place = match (self.place, byte) {
            (Place::Pair, b'[') => Place::Other,
            (Place::Other, _) => return Ok(self.begin(Reading::Skipped, byte)),
            (Place::AfterOther, b',') => Place::Object,
            (Place::Object, b'{') => Place::FirstName,
            (Place::FirstName | Place::AfterValue, b'}') => match self.form {
                Form::Bare => Place::End,
                Form::Pair => Place::EndOfPair,
            },
            (Place::EndOfPair, b']') => Place::End,
            (Place::FirstName | Place::Name, b'"') => return Ok(self.begin(Reading::Name, byte)),
            (Place::Colon, b':') => Place::Value,
            (Place::AfterValue, b',') => Place::Name,
            (Place::Value, _) => match self.member {
                Use::List(_) if byte == b'[' => Place::FirstItem,
                Use::List(name) => return Err(CutError::NoList(name)),
                Use::Member(name) => return Ok(self.begin(Reading::Piece(name), byte)),
                Use::Skip => return Ok(self.begin(Reading::Skipped, byte)),
            },
            (Place::FirstItem | Place::AfterItem, b']') => Place::AfterValue,
            (Place::AfterItem, b',') => Place::Item,
            (Place::FirstItem | Place::Item, _) => {
                let Use::List(name) = self.member else { return Err(CutError::Malformed) };
                self.items += 1;
                if self.items > MAX_ITEMS {
                    return Err(CutError::TooMany(name));
                }
                return Ok(self.begin(Reading::Piece(name), byte));
            }
            _ => return Err(CutError::Malformed),
        };
        Ok(Step::Taken)
    }

    /// The value that begins with `byte` is read next, with that byte.
    fn begin(&mut self, reading: Reading, byte: u8) -> Step {
        self.text.clear();
        self.value = Some((reading, Value::beginning_with(byte)));
        Step::Left
    }

    fn finish(&mut self, reading: Reading) -> Result<Option<Piece>, CutError> {
        match reading {
            Reading::Name => {
                let name: String = serde_json::from_slice(&self.text).map_err(|_| CutError::Malformed)?;
                self.member = self.named(&name)?;
                self.place = Place::Colon;
                Ok(None)
            }
            Reading::Skipped => {
                self.place = if self.place == Place::Other { Place::AfterOther } else { Place::AfterValue };
                Ok(None)
            }
            Reading::Piece(of) => {
                let list = matches!(self.member, Use::List(_));
                self.place = if list { Place::AfterItem } else { Place::AfterValue };
                let text = std::str::from_utf8(&self.text).map_err(|_| CutError::Malformed)?;
                let json = RawValue::from_string(text.to_owned()).map_err(|_| CutError::Malformed)?;
                Ok(Some(Piece { of, json }))
            }
        }
    }

    fn named(&mut self, name: &str) -> Result<Use, CutError> {
        let find = |names: &[&'static str]| names.iter().copied().find(|known| *known == name);
        let (list, member) = (find(self.pattern.lists), find(self.pattern.members));
        let Some(known) = list.or(member) else { return Ok(Use::Skip) };
        if self.seen.contains(&known) {
            return Err(CutError::Twice(known));
        }
        self.seen.push(known);
        self.items = 0;
        Ok(if list.is_some() { Use::List(known) } else { Use::Member(known) })
    }
}

/// Whether a byte is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Taken,
    Left,
}

/// How far a value has been read.
#[derive(Clone, Copy, Debug)]
struct Value {
    shape: Shape,
    depth: u32,
    in_text: bool,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// An object, a list or a string: it ends with its own last byte.
    Closed,
    /// A number or a word: it ends before whatever follows.
    Open,
}

impl Value {
    const fn beginning_with(byte: u8) -> Self {
        let shape = if matches!(byte, b'{' | b'[' | b'"') { Shape::Closed } else { Shape::Open };
        Self { shape, depth: 0, in_text: false, escaped: false }
    }

    /// Where in `bytes`, which go on with it, the value ends.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.shape == Shape::Open {
            return bytes.iter().position(|byte| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace());
        }
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
                if self.in_text || self.depth > 0 {
                    continue;
                }
                return Some(at + 1);
            }
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATTERN: Pattern = Pattern { lists: &["state", "auth_chain"], members: &["event"] };

    /// The pieces of `text` if it comes `step` bytes at a time.
    fn cut(text: &str, step: usize) -> Result<Vec<(&'static str, String)>, CutError> {
        cut_as(Form::Bare, text, step)
    }

    fn cut_as(form: Form, text: &str, step: usize) -> Result<Vec<(&'static str, String)>, CutError> {
        let (mut cutter, mut pieces) = (Cutter::new(PATTERN, form), Vec::new());
        for bytes in text.as_bytes().chunks(step) {
            cutter.feed(bytes, &mut pieces)?;
        }
        cutter.end()?;
        Ok(pieces.into_iter().map(|piece| (piece.of, piece.json.get().to_owned())).collect())
    }

    #[test]
    fn lists_and_members_come_out_in_pieces_however_they_arrive() {
        let text = r#" { "x" : {"state":[1,"]}\"",{}]}, "state":[ {"a":[1,{"b":"}]\\"}]} , 7,"q\"]", null ],"auth_chain" : [],
            "\u0065vent":{ "c":"\\" },"n":-1.5e3,"last":true } "#;
        let expected = vec![
            ("state", r#"{"a":[1,{"b":"}]\\"}]}"#.to_owned()),
            ("state", "7".to_owned()),
            ("state", r#""q\"]""#.to_owned()),
            ("state", "null".to_owned()),
            ("event", r#"{ "c":"\\" }"#.to_owned()),
        ];
        for step in [1, 2, 3, 7, text.len()] {
            assert_eq!(cut(text, step).as_ref(), Ok(&expected), "{step} bytes at a time");
        }
    }

    #[test]
    fn an_object_may_be_the_second_of_two() {
        let text = r#" [ 200 , {"state":[1],"auth_chain":[2]} ] "#;
        let expected = vec![("state", "1".to_owned()), ("auth_chain", "2".to_owned())];
        for step in [1, 1000] {
            assert_eq!(cut_as(Form::Pair, text, step).as_ref(), Ok(&expected));
            assert_eq!(cut_as(Form::Bare, text, step), Err(CutError::Malformed));
        }
        let object = r#"{"state":[1],"auth_chain":[2]}"#;
        for (text, error) in [
            (object.to_owned(), CutError::Malformed),
            (format!("[{object}]"), CutError::Malformed),
            (format!("[200,{object}"), CutError::Unfinished),
            (format!("[200,{object},1]"), CutError::Malformed),
            (format!("[200,[{object}]]"), CutError::Malformed),
        ] {
            assert_eq!(cut_as(Form::Pair, &text, 7), Err(error), "{text}");
        }
    }

    #[test]
    fn what_is_no_such_object_is_an_error() {
        for (text, error) in [
            ("", CutError::Unfinished),
            ("[]", CutError::Malformed),
            ("7", CutError::Malformed),
            (r#"{"state":[1]"#, CutError::Unfinished),
            (r#"{"state":[1],"auth_chain":[{]}"#, CutError::Malformed),
            (r#"{"state":[1],"auth_chain":[{"#, CutError::Unfinished),
            (r#"{"state":[1,],"auth_chain":[]}"#, CutError::Malformed),
            (r#"{"state":[,1],"auth_chain":[]}"#, CutError::Malformed),
            (r#"{"state":[1 2],"auth_chain":[]}"#, CutError::Malformed),
            (r#"{"state":[1],"auth_chain":[]}}"#, CutError::Malformed),
            (r#"{"state":[1],"auth_chain":[],}"#, CutError::Malformed),
            (r#"{"state" [1],"auth_chain":[]}"#, CutError::Malformed),
            (r#"{"state":{},"auth_chain":[]}"#, CutError::NoList("state")),
            (r#"{"state":null,"auth_chain":[]}"#, CutError::NoList("state")),
            (r#"{"state":[]}"#, CutError::Missing("auth_chain")),
            (r#"{"state":[],"auth_chain":[],"state":[]}"#, CutError::Twice("state")),
            (r#"{"state":[nul],"auth_chain":[]}"#, CutError::Malformed),
            (r#"{"state":[{"a":1,}],"auth_chain":[]}"#, CutError::Malformed),
        ] {
            for step in [1, 1000] {
                assert_eq!(cut(text, step), Err(error), "{text}");
            }
        }
    }

    #[test]
    fn pieces_and_lists_end_somewhere() {
        let text = |item: &str, times: usize| {
            let more = format!(",{item}").repeat(times - 1);
            format!(r#"{{"auth_chain":[],"state":[{item}{more}]}}"#)
        };
        let large = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert_eq!(cut(&text(&large(MAX_PIECE), 2), 4096).map(|pieces| pieces.len()), Ok(2));
        assert_eq!(cut(&text(&large(MAX_PIECE + 1), 1), 4096), Err(CutError::TooLarge));
        assert_eq!(cut(&text("1", MAX_ITEMS + 1), 1 << 20), Err(CutError::TooMany("state")));
        // What nobody asked for is not held.
        let skipped = format!(r#"{{"else":{},"state":[],"auth_chain":[]}}"#, large(3 * MAX_PIECE));
        assert_eq!(cut(&skipped, 4096), Ok(Vec::new()));
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_object_is_cut_as_a_parser_reads_it(
            state in proptest::collection::vec(value(), 0..5),
            chain in proptest::collection::vec(value(), 0..5),
            event in value(),
            other in value(),
            step in 1..50_usize,
        ) {
            let text = serde_json::json!({ "auth_chain": chain, "else": other, "event": event, "state": state });
            let text = serde_json::to_string_pretty(&text).expect("JSON");
            let pieces = cut(&text, step).expect("an object");
            let of = |name: &str| pieces.iter().filter(|(of, _)| *of == name)
                .map(|(_, text)| serde_json::from_str(text).expect("JSON")).collect::<Vec<serde_json::Value>>();
            prop_assert_eq!(of("state"), state);
            prop_assert_eq!(of("auth_chain"), chain);
            prop_assert_eq!(of("event"), vec![event]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut cutter = Cutter::new(PATTERN, Form::Bare);
            let mut start = br#"{"state":["#.to_vec();
            start.extend(bytes);
            // Whatever it says: it says it.
            let _ = cutter.feed(&start, &mut Vec::new());
            let _ = cutter.end();
        }
    }
}

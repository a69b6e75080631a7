//! `event_fields`: only the parts of events that a client has asked for.

use std::ops::RangeFrom;

use serde_json::{Map, Value};

/// Paths in one filter.
pub(crate) const MAX_FIELDS: usize = 256;

/// Paths into events, none of them within another.
///
/// See <https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFields(Vec<Vec<String>>);

impl EventFields {
    pub(crate) fn parse(paths: &[String]) -> Self {
        let mut paths: Vec<_> = paths.iter().map(|path| split(path)).collect();
        paths.sort_unstable();
        // What is within another path sorts after it, and is included already.
        paths.dedup_by(|path, before| path.starts_with(before));
        Self(paths)
    }

    /// Reduces the events in `out[range]`, JSON objects with commas between, to the wanted fields.
    pub(crate) fn apply(&self, out: &mut Vec<u8>, range: RangeFrom<usize>) {
        let list = [b"[", &out[range.clone()], b"]"].concat();
        // Old rooms have events with numbers that nobody can represent. A server may show more fields
        // than it was asked for.
        let Ok(events) = serde_json::from_slice::<Vec<Map<String, Value>>>(&list) else { return };
        out.truncate(range.start);
        for (i, event) in events.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            serde_json::to_writer(&mut *out, &self.pick(event)).expect("JSON can be written to memory");
        }
    }

    fn pick(&self, event: &Map<String, Value>) -> Map<String, Value> {
        let mut picked = Map::new();
        for path in &self.0 {
            copy(path, event, &mut picked);
        }
        picked
    }
}

fn copy(path: &[String], from: &Map<String, Value>, into: &mut Map<String, Value>) {
    let Some((name, rest)) = path.split_first() else { return };
    match from.get(name) {
        Some(value) if rest.is_empty() => drop(into.insert(name.clone(), value.clone())),
        Some(Value::Object(inner)) => {
            let known = into.remove(name);
            let mut part = if let Some(Value::Object(part)) = known { part } else { Map::new() };
            copy(rest, inner, &mut part);
            if !part.is_empty() {
                into.insert(name.clone(), Value::Object(part));
            }
        }
        _ => {}
    }
}

/// The names of a dot-separated path; `\.` and `\\` stand for themselves, other escapes do not exist.
fn split(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut chars = path.chars().peekable();
    while let Some(char) = chars.next() {
        let escaped = if char == '\\' { chars.next_if(|next| matches!(next, '.' | '\\')) } else { None };
        match (escaped, names.last_mut()) {
            (None, _) if char == '.' => names.push(String::new()),
            (escaped, Some(name)) => name.push(escaped.unwrap_or(char)),
            (_, None) => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn picked(paths: &[&str], event: &Value) -> Value {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let mut out = format!("[{event}").into_bytes();
        EventFields::parse(&paths).apply(&mut out, 1..);
        serde_json::from_slice(&out[1..]).expect("JSON")
    }

    #[test]
    fn paths_are_split_at_dots_that_are_not_escaped() {
        for (path, names) in [
            ("content.body", vec!["content", "body"]),
            (r"content.m\.relates_to", vec!["content", "m.relates_to"]),
            (r"content.m\\foo", vec!["content", r"m\foo"]),
            (r"a\x.b", vec![r"a\x", "b"]),
            (r"a\\.b", vec![r"a\", "b"]),
            (r"a\", vec![r"a\"]),
            ("", vec![""]),
            ("a..b", vec!["a", "", "b"]),
        ] {
            assert_eq!(split(path), names, "{path}");
        }
    }

    #[test]
    fn only_the_wanted_fields_stay() {
        let event = json!({"type": "t", "content": {"a": 1, "b": {"c": 2, "d": 3}, "m.x": 4}, "sender": "@a:x"});
        for (paths, expected) in [
            (vec!["type"], json!({"type": "t"})),
            (vec!["content.a", "content.b.c"], json!({"content": {"a": 1, "b": {"c": 2}}})),
            (vec!["content.b.c", "content", "content.a"], json!({"content": event["content"]})),
            (vec![r"content.m\.x", "type"], json!({"content": {"m.x": 4}, "type": "t"})),
            (vec!["content.m.x", "content.a.z", "nothing", "type.t"], json!({})),
        ] {
            assert_eq!(picked(&paths, &event), expected, "{paths:?}");
        }
    }

    #[test]
    fn lists_stay_lists_and_what_cannot_be_read_stays_whole() {
        let fields = EventFields::parse(&["a".to_owned()]);
        for (list, expected) in
            [(r#"{"a":1,"b":2},{"b":3}"#, r#"{"a":1},{}"#), ("", ""), (r#"{"b":1e999}"#, r#"{"b":1e999}"#)]
        {
            let mut out = list.as_bytes().to_vec();
            fields.apply(&mut out, 0..);
            assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
        }
    }
}

//! Values to bytes.

use std::io::Write as _;

use ruma_common::{CanonicalJsonObject, CanonicalJsonValue};

use super::{Json, Object};

/// The canonical bytes of `object`.
///
/// Spec: <https://spec.matrix.org/v1.19/appendices/#canonical-json>
pub fn canonical_json(object: &CanonicalJsonObject) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_map(object, &mut out);
    out
}

fn write_map(map: &CanonicalJsonObject, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(key, out);
        out.push(b':');
        write_value(value, out);
    }
    out.push(b'}');
}

fn write_value(value: &CanonicalJsonValue, out: &mut Vec<u8>) {
    match value {
        CanonicalJsonValue::Null => out.extend_from_slice(b"null"),
        CanonicalJsonValue::Bool(flag) => out.extend_from_slice(flag.to_string().as_bytes()),
        CanonicalJsonValue::Integer(int) => write_int((*int).into(), out),
        CanonicalJsonValue::String(text) => write_string(text, out),
        CanonicalJsonValue::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(item, out);
            }
            out.push(b']');
        }
        CanonicalJsonValue::Object(map) => write_map(map, out),
    }
}

impl Json {
    /// Appends the canonical form.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(flag) => out.extend_from_slice(flag.to_string().as_bytes()),
            Self::Int(int) => write_int(*int, out),
            Self::Number(text) => out.extend_from_slice(text.as_bytes()),
            Self::Str(text) => write_string(text, out),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(object) => object.write(out),
        }
    }
}

impl Object {
    /// Appends the canonical form.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.write_without(&[], out);
    }

    /// Appends the canonical form without the keys in `left_out`.
    pub(crate) fn write_without(&self, left_out: &[&str], out: &mut Vec<u8>) {
        out.push(b'{');
        let start = out.len();
        for (key, value) in self.iter() {
            if !left_out.contains(&key) {
                write_entry(key, start, out, |out| value.write(out));
            }
        }
        out.push(b'}');
    }

    /// The canonical form.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.write(&mut out);
        out
    }
}

/// Appends `"key":value`, after a comma unless it is the first entry of the object that began at `start`.
pub(crate) fn write_entry(key: &str, start: usize, out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    if out.len() > start {
        out.push(b',');
    }
    write_string(key, out);
    out.push(b':');
    value(out);
}

fn write_int(int: i64, out: &mut Vec<u8>) {
    write!(out, "{int}").expect("writing to memory does not fail");
}

/// Appends a string with the shortest escapes.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            0x08 => b"\\b",
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            0x0c => b"\\f",
            b'\r' => b"\\r",
            0x00..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..index]);
        if escape.is_empty() {
            write!(out, "\\u{byte:04x}").expect("writing to memory does not fail");
        } else {
            out.extend_from_slice(escape);
        }
        copied = index.saturating_add(1);
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

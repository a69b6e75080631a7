//! Bodies of values: a version byte, then postcard (compact, deterministic).

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{DecodeError, KeyBuf, Value};

/// Appends `version` and the body of `value`.
///
/// # Panics
/// If `value` cannot be serialised, which only a hand-written `Serialize` could cause.
pub fn encode_body<T: Serialize>(version: u8, value: &T, out: &mut KeyBuf) {
    out.bytes.push(version);
    let bytes = std::mem::take(&mut out.bytes);
    out.bytes = postcard::to_extend(value, bytes).expect("stored values are plain data");
}

/// Reads what [`encode_body`] wrote; the whole of `bytes` must be used.
///
/// # Errors
/// If the version is another or the body does not fit.
pub fn decode_body<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((found, body)) if *found == version => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(DecodeError("trailing bytes")),
            Err(_) => Err(DecodeError("not a body of this version")),
        },
        _ => Err(DecodeError("unknown version")),
    }
}

macro_rules! plain_values {
    ($($t:ty),+) => { $(impl Value for $t {
        fn encode(&self, out: &mut KeyBuf) { encode_body(1, self, out); }
        fn decode(bytes: &[u8]) -> Result<Self, DecodeError> { decode_body(1, bytes) }
    })+ };
}
plain_values!((), u32, String, (String, String));

/// The counter `old` (8 bytes, big-endian; absent counts as 0) plus `by`, held at the ends of its
/// range. `None` if `old` is no counter.
pub fn add_to_counter(old: Option<&[u8]>, by: i64) -> Option<[u8; 8]> {
    let old = match old {
        None => 0,
        Some(bytes) => i64::from_be_bytes(bytes.try_into().ok()?),
    };
    Some(old.saturating_add(by).to_be_bytes())
}

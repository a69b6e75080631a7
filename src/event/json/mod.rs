//! JSON as Matrix signs it.
//!
//! Hashes and signatures are over bytes, so two servers must make the same bytes of the same value:
//! keys sorted by code point, no spaces, shortest escapes, integers only. Room versions 1 to 5 never
//! said "integers only", and their rooms hold floats and large numbers that were signed; those are
//! kept in the one form that other servers give them.
//!
//! Spec: <https://spec.matrix.org/v1.19/appendices/#canonical-json>

mod number;
mod parse;
mod write;

use js_int::Int;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue};

pub use parse::{JsonError, JsonLimits, parse_canonical_object};
pub(crate) use parse::{Strictness, parse_object};
pub use write::canonical_json;
pub(crate) use write::{write_entry, write_string};

/// The largest integer of canonical JSON, 2^53 − 1.
pub(crate) const MAX_SAFE: i64 = (1 << 53) - 1;

/// A value whose objects are sorted and free of duplicate keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    /// A float or an integer beyond 64 bits, in canonical form; only in room versions 1 to 5.
    Number(Box<str>),
    Str(Box<str>),
    Array(Vec<Json>),
    Object(Object),
}

/// An object, sorted by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Object(Vec<(Box<str>, Json)>);

impl Object {
    /// The value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Json> {
        let found = self.0.binary_search_by(|(name, _)| name.as_ref().cmp(key)).ok()?;
        self.0.get(found).map(|(_, value)| value)
    }

    /// Takes `key` out.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Json> {
        let found = self.0.binary_search_by(|(name, _)| name.as_ref().cmp(key)).ok()?;
        Some(self.0.remove(found).1)
    }

    /// Sets `key`.
    pub(crate) fn insert(&mut self, key: &str, value: Json) {
        match self.0.binary_search_by(|(name, _)| name.as_ref().cmp(key)) {
            Ok(found) => self.0[found].1 = value,
            Err(place) => self.0.insert(place, (key.into(), value)),
        }
    }

    /// Keys and values in order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// Keeps what `keep` says yes to.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&str, &mut Json) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }

    /// The text of `key`, if it is text.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Json::as_str)
    }
}

impl Json {
    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    pub(crate) fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    pub(crate) fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }
}

impl From<CanonicalJsonObject> for Object {
    fn from(map: CanonicalJsonObject) -> Self {
        // A BTreeMap of strings is in the order of its bytes, which is the order of code points.
        Self(map.into_iter().map(|(key, value)| (key.into_boxed_str(), value.into())).collect())
    }
}

impl From<CanonicalJsonValue> for Json {
    fn from(value: CanonicalJsonValue) -> Self {
        match value {
            CanonicalJsonValue::Null => Self::Null,
            CanonicalJsonValue::Bool(flag) => Self::Bool(flag),
            CanonicalJsonValue::Integer(int) => Self::Int(int.into()),
            CanonicalJsonValue::String(text) => Self::Str(text.into_boxed_str()),
            CanonicalJsonValue::Array(items) => Self::Array(items.into_iter().map(Into::into).collect()),
            CanonicalJsonValue::Object(map) => Self::Object(map.into()),
        }
    }
}

/// A number that canonical JSON cannot hold.
#[derive(Debug)]
pub(crate) struct NotCanonical;

impl TryFrom<Json> for CanonicalJsonValue {
    type Error = NotCanonical;

    fn try_from(value: Json) -> Result<Self, NotCanonical> {
        Ok(match value {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Bool(flag),
            Json::Int(int) => Self::Integer(Int::new(int).ok_or(NotCanonical)?),
            Json::Number(_) => return Err(NotCanonical),
            Json::Str(text) => Self::String(text.into_string()),
            Json::Array(items) => Self::Array(items.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?),
            Json::Object(object) => Self::Object(object.try_into()?),
        })
    }
}

impl TryFrom<Object> for CanonicalJsonObject {
    type Error = NotCanonical;

    fn try_from(object: Object) -> Result<Self, NotCanonical> {
        object.0.into_iter().map(|(key, value)| Ok((key.into_string(), value.try_into()?))).collect()
    }
}

#[cfg(test)]
mod tests;

//! Path segments and query parameters.

use std::borrow::Cow;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use crate::error::ApiError;

/// The path's segments, percent-decoded once, in the order of the route.
pub(crate) struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(_) => Err(ApiError::invalid_param("an identifier in the path is not valid")),
        }
    }
}

/// The query string, decoded.
pub(crate) struct Query {
    /// Names and values, one behind the other.
    text: String,
    /// Where in `text` a name begins, where its value does, and where that ends.
    pairs: Vec<[usize; 3]>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self::read(parts.uri.query()))
    }
}

impl Query {
    /// The parameters of a query string without its `?`: `application/x-www-form-urlencoded`.
    pub(crate) fn read(query: Option<&str>) -> Self {
        let query = query.unwrap_or_default();
        let mut read = Self { text: String::with_capacity(query.len()), pairs: Vec::new() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let begin = read.text.len();
            decode(name, &mut read.text);
            let middle = read.text.len();
            decode(value, &mut read.text);
            read.pairs.push([begin, middle, read.text.len()]);
        }
        read
    }

    /// Names and values, in their order.
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|&[begin, middle, end]| (&self.text[begin..middle], &self.text[middle..end]))
    }

    /// The first value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All values of `name`, in their order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs().filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The value of `name`, which must be there.
    ///
    /// # Errors
    /// `M_MISSING_PARAM`
    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::missing_param(name))
    }

    /// The value of `name` as a `T`.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` if it is there and no `T`.
    pub(crate) fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.get(name).map(|value| value.parse().map_err(|_| invalid(name))).transpose()
    }

    /// The value of `name` as one of `choices`.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` if it is there and none of them.
    pub(crate) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let find = |value| choices.iter().find(|(word, _)| *word == value).map(|(_, choice)| *choice);
        self.get(name).map(|value| find(value).ok_or_else(|| invalid(name))).transpose()
    }
}

/// Appends what a name or value of a query string stands for. Each poll brings a filter that is full of escapes.
fn decode(text: &str, out: &mut String) {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return out.push_str(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match (first, after) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|digits| (digits, after)),
            _ => None,
        };
        let (byte, after) = match escaped {
            Some(((high, low), after)) => (high * 16 + low, after),
            None if *first == b'+' => (b' ', after),
            // Also of an escape that is none.
            None => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    out.push_str(&String::from_utf8_lossy(&bytes));
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// 400 `M_INVALID_PARAM` for the parameter `name`.
pub(crate) fn invalid(name: &str) -> ApiError {
    ApiError::invalid_param(format!("\"{name}\" has a value that is not valid"))
}

/// The value of `name` in a raw query string: for the one parameter that every request may have.
pub(crate) fn find<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The value of the key `name` of a body, which must be there.
///
/// # Errors
/// `M_MISSING_PARAM`
pub(crate) fn required<T>(value: Option<T>, name: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::missing_param(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reads_like_the_url_standard(query: &str) {
        let decoded: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let read = Query::read(Some(query));
        let ours: Vec<_> = read.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(ours, decoded, "{query}");
    }

    #[test]
    fn odd_query_strings_are_what_the_url_standard_says() {
        for query in
            ["", "a", "a=", "=b", "=", "a=b=c", "a&&b=1&", "&", "a%3Db=c", "x+y=1&x=y", "%zz=1", "%", "ü=ä&%C3=1"]
        {
            reads_like_the_url_standard(query);
        }
    }

    proptest! {
        #[test]
        fn query_strings_are_what_the_url_standard_says(query in "([a-cü=&+%]|%[0-9a-fA-Fg]{1,2}){0,40}") {
            reads_like_the_url_standard(&query);
        }
    }

    #[test]
    fn query_values_are_decoded_once() {
        let query = Query::read(Some("via=a.example&via=b%2Eexample&q=x%252F+y&limit=12&bare"));
        assert_eq!(query.get("via"), Some("a.example"), "the first one");
        assert_eq!(query.get("q"), Some("x%2F y"));
        assert_eq!(query.get("bare"), Some(""));
        assert_eq!(query.parse::<u32>("limit").unwrap(), Some(12));
        assert_eq!(query.parse::<u32>("absent").unwrap(), None);
        query.parse::<u32>("q").unwrap_err();
        query.required("absent").unwrap_err();
    }
}

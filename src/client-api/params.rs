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

/// The query string.
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self::read(parts.uri.query()))
    }
}

impl Query {
    /// The parameters of a query string without its `?`.
    pub(crate) fn read(query: Option<&str>) -> Self {
        Self(query.map_or_else(Vec::new, |query| pairs(query).collect()))
    }

    /// The first value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of `name`, in their order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
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

/// The pairs of a query string. Few of them have anything to decode.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let is_plain = |text: &str| !text.bytes().any(|byte| byte == b'%' || byte == b'+');
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = is_plain(pair).then(|| (name.to_owned(), value.to_owned()));
        plain.or_else(|| {
            let (name, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
            Some((name.into_owned(), value.into_owned()))
        })
    })
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
    use super::*;

    #[test]
    fn plain_pairs_are_what_the_others_are() {
        for query in
            ["", "a", "a=", "=b", "=", "a=b=c", "a&&b=1&", "&", "a%3Db=c", "x+y=1&x=y", "%zz=1", "%", "ü=ä&%C3=1"]
        {
            let decoded: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
            assert_eq!(pairs(query).collect::<Vec<_>>(), decoded, "{query}");
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

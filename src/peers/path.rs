//! Paths of requests.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What is unreserved in a URI stays; everything else is signed and sent in one form.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `/_matrix/federation/<endpoint>` and each of `segments`, encoded.
pub fn federation_path(endpoint: &str, segments: &[&str]) -> String {
    let mut path = format!("/_matrix/federation/{endpoint}");
    for segment in segments {
        // Writing to a text does not fail.
        let _ = write!(path, "/{}", utf8_percent_encode(segment, ENCODED));
    }
    path
}

/// `path` with `parameters`, encoded.
pub fn with_query<'a>(mut path: String, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    for (n, (name, value)) in parameters.into_iter().enumerate() {
        let _ = write!(path, "{}{name}={}", if n == 0 { '?' } else { '&' }, utf8_percent_encode(value, ENCODED));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_reserved_is_encoded() {
        let made =
            with_query(federation_path("v1/event", &["$a/b+c?d#e%"]), [("ver", "1"), ("room_alias", "#ä b&c:x")]);
        assert_eq!(made, "/_matrix/federation/v1/event/%24a%2Fb%2Bc%3Fd%23e%25?ver=1&room_alias=%23%C3%A4%20b%26c%3Ax");
        assert_eq!(federation_path("v1/x", &["..", "~-_."]), "/_matrix/federation/v1/x/../~-_.");
    }
}

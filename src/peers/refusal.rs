//! What another server says when it says no, made fit to be shown.

use hearth_rooms::remote::RemoteError;
use http::StatusCode;
use ruma_common::ServerName;
use serde_json::Value;

const MAX_ERRCODE: usize = 64;
const MAX_ERROR: usize = 256;

/// The refusal in an answer with `status` and `body`.
///
/// Nothing else of the answer is kept: a client must never take another server's `soft_logout` or `retry_after_ms` for
/// ours.
pub(crate) fn refused(server: &ServerName, status: StatusCode, body: &[u8]) -> RemoteError {
    let Said { errcode, error, .. } = said(status, body);
    RemoteError::Refused { server: server.to_owned(), status: status.as_u16(), errcode, error }
}

/// What a server says with an error.
pub(crate) struct Said {
    /// `M_UNKNOWN` if it says none.
    pub errcode: String,
    /// Cut to a sane length and without control characters.
    pub error: String,
    /// `retry_after_ms`, whatever it is.
    pub retry_after_ms: Option<u64>,
}

/// What the answer with `status` and `body` says.
pub(crate) fn said(status: StatusCode, body: &[u8]) -> Said {
    // Proxies answer with HTML: then the status has to tell.
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default();
    let errcode = Some(text("errcode")).filter(|errcode| is_errcode(errcode)).unwrap_or("M_UNKNOWN").to_owned();
    let error = clean(text("error"));
    let error = if error.is_empty() { format!("HTTP status {}", status.as_u16()) } else { error };
    Said { errcode, error, retry_after_ms: said.get("retry_after_ms").and_then(Value::as_u64) }
}

fn is_errcode(text: &str) -> bool {
    (1..=MAX_ERRCODE).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The beginning of `text` without what does not show.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MAX_ERROR).collect()
}

#[cfg(test)]
mod tests {
    use ruma_common::server_name;

    use super::*;

    fn parts(body: &str) -> (String, String) {
        match refused(server_name!("a.example"), StatusCode::BAD_GATEWAY, body.as_bytes()) {
            RemoteError::Refused { errcode, error, status: 502, .. } => (errcode, error),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_refusal_is_cut_and_cleaned() {
        let plain = parts(r#"{"errcode":"M_FORBIDDEN","error":"No\u0000 \u001b[31mway","soft_logout":true}"#);
        assert_eq!(plain, ("M_FORBIDDEN".to_owned(), "No [31mway".to_owned()));
        let unknown = ("M_UNKNOWN".to_owned(), "HTTP status 502".to_owned());
        for odd in ["", "<html>", "{}", "[]", r#"{"errcode":"a b\n"}"#, r#"{"errcode":7,"error":7}"#] {
            assert_eq!(parts(odd), unknown, "{odd}");
        }
        let (errcode, error) = parts(&format!(r#"{{"errcode":"{}","error":"{}"}}"#, "A".repeat(65), "ä".repeat(9999)));
        assert_eq!((errcode.as_str(), error.chars().count()), ("M_UNKNOWN", MAX_ERROR));
    }
}

//! Asking a room's policy server to sign an event.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#post_matrixpolicyv1sign>

use std::time::Duration;

use hearth_event::{POLICY_KEY_ID, Pdu};
use hearth_rooms::remote::{PolicyAnswer, PolicyRefusal, RemoteError};
use http::{Method, StatusCode};
use ruma_common::ServerName;
use serde_json::Value;

use crate::refusal::{clean, refused, said};
use crate::{Outgoing, Peers};

const PATH: &str = "/_matrix/policy/v1/sign";
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 << 10;
/// Bytes of a signature in base64, and some to spare.
const MAX_SIGNATURE: usize = 128;
/// How long a client is told to wait at the most, whatever the policy server says.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);

impl Peers {
    /// `POST /_matrix/policy/v1/sign`
    pub(crate) async fn ask_policy_server(&self, via: &ServerName, event: &Pdu) -> Result<PolicyAnswer, RemoteError> {
        let request = self.with_body(Method::POST, via, PATH.to_owned(), event.json().clone());
        let raw = self.answer(Outgoing { max_bytes: MAX_ANSWER, ..request }).await?;
        if raw.status.is_success() {
            let invalid = |why: &str| RemoteError::Invalid { server: via.to_owned(), why: why.to_owned() };
            let body: Value = serde_json::from_slice(&raw.body).map_err(|error| invalid(&clean(&error.to_string())))?;
            let signature = body.get(via.as_str()).and_then(|keys| keys.get(POLICY_KEY_ID)?.as_str());
            let signature = signature.filter(|signature| signature.len() <= MAX_SIGNATURE);
            return signature
                .map(|signature| PolicyAnswer::Signed(signature.to_owned()))
                .ok_or_else(|| invalid("there is no signature of its own in the answer"));
        }
        match raw.status.as_u16() {
            400 | 403 | 404 | 429 => Ok(PolicyAnswer::Refused(refusal(raw.status, &raw.body))),
            _ => Err(refused(via, raw.status, &raw.body)),
        }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> PolicyRefusal {
    let said = said(status, body);
    let wait = said.retry_after_ms.filter(|_| status == StatusCode::TOO_MANY_REQUESTS);
    PolicyRefusal {
        status: status.as_u16(),
        errcode: said.errcode,
        error: said.error,
        retry_after: wait.map(|wait| Duration::from_millis(wait).min(MAX_WAIT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_policy_server_said() {
        let body = br#"{"errcode":"M_LIMIT_EXCEEDED","error":"slow down","retry_after_ms":1500,"soft_logout":true}"#;
        let (errcode, error) = ("M_LIMIT_EXCEEDED".to_owned(), "slow down".to_owned());
        let limited = refusal(StatusCode::TOO_MANY_REQUESTS, body);
        let retry_after = Some(Duration::from_millis(1500));
        assert_eq!(limited, PolicyRefusal { status: 429, errcode, error, retry_after });
        assert_eq!(refusal(StatusCode::BAD_REQUEST, body).retry_after, None);
    }

    #[test]
    fn nobody_is_told_to_wait_for_ever() {
        for (said, wait) in [
            (r#"{"retry_after_ms":9223372036854775808}"#, Some(MAX_WAIT)),
            (r#"{"retry_after_ms":-1}"#, None),
            (r#"{"retry_after_ms":"5"}"#, None),
            ("<html>", None),
        ] {
            let refusal = refusal(StatusCode::TOO_MANY_REQUESTS, said.as_bytes());
            assert_eq!((refusal.retry_after, refusal.errcode.as_str()), (wait, "M_UNKNOWN"), "{said}");
        }
    }
}

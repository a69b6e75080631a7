//! Transactions.

use std::collections::BTreeMap;

use bytes::Bytes;
use hearth_rooms::remote::RemoteError;
use http::Method;
use ruma_common::{EventId, OwnedEventId, ServerName};
use serde_json::Value;

use crate::path::federation_path;
use crate::peers::LARGE;
use crate::refusal::clean;
use crate::{Outgoing, Patience, Peers};

/// What the other server made of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionAnswer {
    /// PDUs that it did not take, and why.
    pub refused: BTreeMap<OwnedEventId, String>,
}

impl Peers {
    /// `PUT /_matrix/federation/v1/send/{txnId}`, without waiting because of earlier failures: the queue has waited.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#transactions>
    ///
    /// # Errors
    /// If it was not taken: the same transaction has to be sent again, with the same `txn_id`.
    pub async fn transaction(
        &self,
        destination: &ServerName,
        txn_id: &str,
        body: Bytes,
    ) -> Result<TransactionAnswer, RemoteError> {
        let request = self.with_body(Method::PUT, destination, federation_path("v1/send", &[txn_id]), body);
        let answer = self.tell(Outgoing { patience: Patience::Probe, max_bytes: LARGE, ..request }).await?;
        Ok(read(&answer))
    }
}

/// With status 200 the transaction was taken, whatever else the answer says: what cannot be read of it is no refusal.
fn read(answer: &[u8]) -> TransactionAnswer {
    // A proxy says what it likes, and some servers nothing at all.
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let pdus = answer.get("pdus").and_then(Value::as_object);
    let errors = pdus.into_iter().flatten().filter_map(|(event_id, result)| {
        let error = result.get("error")?.as_str()?;
        Some((EventId::parse(event_id).ok()?, clean(error)))
    });
    TransactionAnswer { refused: errors.collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_not_taken_is_told() {
        let answer = json!({ "pdus": { "$a": {}, "$b": { "error": "no\n" }, "c": { "error": "odd" }, "$d": 7 } });
        let refused = BTreeMap::from([(EventId::parse("$b").expect("an ID"), "no".to_owned())]);
        assert_eq!(read(answer.to_string().as_bytes()), TransactionAnswer { refused });
        for nothing in ["", "{}", "[]", "\"\"", "{\"pdus\":[]}", "{\"pdus\":{\"$a\":{\"error\":", "<html>", "\u{0}"] {
            assert_eq!(read(nothing.as_bytes()), TransactionAnswer::default(), "{nothing}");
        }
    }
}

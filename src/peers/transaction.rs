//! Transactions.

use std::collections::BTreeMap;

use bytes::Bytes;
use hearth_rooms::remote::RemoteError;
use ruma_common::{OwnedEventId, ServerName};

use crate::Peers;

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
    #[expect(clippy::unused_async, reason = "no network yet")]
    pub async fn transaction(
        &self,
        destination: &ServerName,
        txn_id: &str,
        body: Bytes,
    ) -> Result<TransactionAnswer, RemoteError> {
        let _ = (destination, txn_id, body);
        Err(RemoteError::Off)
    }
}

//! `PUT /send/{txnId}`: transactions.
//!
//! A server repeats a transaction until it is answered, so the same one may come while it is still being taken, and
//! again after a restart. Those of one server are taken one after the other, and what each came to is remembered.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::{EarlierTransaction, Received};
use parking_lot::Mutex;
use ruma_common::OwnedServerName;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::edus::RawEdu;
use crate::error::ApiError;
use crate::params::Segments;
use crate::signed::Signed;
use crate::{Api, body, reply};

/// PDUs of a transaction, §"Transactions".
const MAX_PDUS: usize = 50;
/// EDUs of a transaction.
const MAX_EDUS: usize = 100;
/// Bytes of a transaction's name.
const MAX_TXN_BYTES: usize = 255;
/// Transactions of one server that wait while another of it is taken.
const MAX_WAITING: usize = 8;
/// How long a server waits before it tries again, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// A transaction. That it says who sent it does not matter: the request says so with a signature.
#[derive(Deserialize)]
struct Transaction {
    #[serde(default)]
    pdus: AtMost<MAX_PDUS>,
    #[serde(default)]
    edus: AtMost<MAX_EDUS>,
}

/// A list that is given up as soon as it is too long.
#[derive(Default)]
struct AtMost<const N: usize>(Vec<Box<RawValue>>);

impl<'de, const N: usize> Deserialize<'de> for AtMost<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<const N: usize>;
        impl<'de, const N: usize> Visitor<'de> for Items<N> {
            type Value = AtMost<N>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a list of at most {N}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AtMost<N>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == N {
                        return Err(A::Error::custom("the list is too long"));
                    }
                    items.push(item);
                }
                Ok(AtMost(items))
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

/// Whose turn it is, by server.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<OwnedServerName, Arc<tokio::sync::Mutex<()>>>>);

/// A place in a server's queue, which is gone when nobody has one.
struct Turn<'t> {
    turns: &'t Turns,
    origin: OwnedServerName,
    queue: Arc<tokio::sync::Mutex<()>>,
}

impl Turns {
    /// A place in the queue of `origin`; `None`: it is full.
    fn queue(&self, origin: &OwnedServerName) -> Option<Turn<'_>> {
        let mut queues = self.0.lock();
        let queue = Arc::clone(queues.entry(origin.clone()).or_default());
        let turn = Turn { turns: self, origin: origin.clone(), queue };
        // One count is the table's, one is this place's own.
        let waiting = Arc::strong_count(&turn.queue) - 1;
        drop(queues);
        Some(turn).filter(|_| waiting <= MAX_WAITING)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queues = self.turns.0.lock();
        if Arc::strong_count(&self.queue) <= 2 {
            queues.remove(&self.origin);
        }
    }
}

/// `PUT /send/{txnId}`
pub(crate) async fn send(
    State(api): State<Arc<Api>>,
    Segments(txn_id): Segments<String>,
    Signed { origin, body }: Signed,
) -> Result<Response, ApiError> {
    if txn_id.len() > MAX_TXN_BYTES {
        return Err(ApiError::invalid_param("the transaction ID is too long"));
    }
    let transaction: Transaction = body::parse(&body)?;
    let turn = api.turns.queue(&origin).ok_or_else(|| ApiError::busy(RETRY_MS))?;
    let now = turn.queue.lock().await;
    let place = match api.rooms.received_before(&origin, &txn_id).await? {
        EarlierTransaction::Known(results) => return Ok(answer(results)),
        EarlierTransaction::New(place) => place,
    };
    let Transaction { pdus: AtMost(pdus), edus: AtMost(edus) } = transaction;
    let results = if pdus.is_empty() { Vec::new() } else { api.rooms.receive(&origin, pdus).await? };
    for edu in edus {
        // One that is none is nobody's loss.
        if let Ok(edu) = serde_json::from_str::<RawEdu>(edu.get()) {
            api.edus.accept(&origin, edu).await;
        }
    }
    api.rooms.remember_received(place, &txn_id, &results).await?;
    drop(now);
    Ok(answer(results))
}

fn answer(results: Vec<Received>) -> Response {
    let mut pdus = Map::new();
    for Received { event_id, result } in results {
        let outcome = result.err().map_or_else(|| json!({}), |why| json!({ "error": why }));
        pdus.insert(event_id.to_string(), outcome);
    }
    reply::json(&Value::Object(Map::from_iter([("pdus".to_owned(), Value::Object(pdus))])))
}

//! Raw JSON of another server → verified events.

use std::collections::BTreeMap;

use hearth_event::{Checked, PublicKeys, RoomVersion, Verified};
use hearth_store::StoreError;
use ruma_common::{OwnedEventId, OwnedServerName, RoomId};

use crate::intake::Rooms;
use crate::remote::{KeyWish, RawPdu};

/// Events that one thread checks without making room for others.
const INLINE: usize = 64;

/// What became of one raw event.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Its ID, if it has the form of an event.
    pub event_id: Option<OwnedEventId>,
    /// The event; otherwise why not.
    pub event: Result<Verified, String>,
}

/// Checks and verifies `raw`, all of which must be of one room: `result[i]` belongs to `raw[i]`.
///
/// # Errors
/// If the store fails: then nothing is known of an event that lacks keys.
pub(crate) async fn admit(
    rooms: &Rooms,
    room_id: &RoomId,
    version: RoomVersion,
    raw: Vec<RawPdu>,
) -> Result<Vec<Admitted>, StoreError> {
    let checked = spread(raw, move |raw| hearth_event::check(raw.get().as_bytes(), version)).await;
    let wishes = wishes(checked.iter().flatten());
    let keys = if wishes.is_empty() { PublicKeys::default() } else { rooms.0.remote.keys(&wishes).await? };
    let room_id = room_id.to_owned();
    let admitted = spread(checked, move |checked| {
        let checked = match checked {
            Ok(checked) => checked,
            Err(error) => return Admitted { event_id: None, event: Err(error.to_string()) },
        };
        let event_id = checked.event_id().to_owned();
        let event = checked.verify(&keys).map_err(|error| error.to_string()).and_then(|event| {
            let here = event.pdu().room_id() == room_id;
            if here { Ok(event) } else { Err("the event belongs to another room".to_owned()) }
        });
        Admitted { event_id: Some(event_id), event }
    });
    Ok(admitted.await)
}

/// The keys that `checked` were signed with.
pub(crate) fn wishes<'a>(checked: impl Iterator<Item = &'a Checked>) -> Vec<KeyWish> {
    let mut wishes: BTreeMap<OwnedServerName, KeyWish> = BTreeMap::new();
    for event in checked {
        for server in event.signers() {
            let wish = wishes.entry(server.clone()).or_insert_with(|| KeyWish {
                server: server.clone(),
                key_ids: Vec::new(),
                at: 0,
            });
            wish.at = wish.at.max(event.time());
            for key_id in event.key_ids(server.as_str()) {
                if !wish.key_ids.iter().any(|known| known == key_id) {
                    wish.key_ids.push(key_id.to_owned());
                }
            }
        }
    }
    wishes.into_values().collect()
}

/// Runs `work` on every item, on all cores if there are many: `result[i]` belongs to `items[i]`.
async fn spread<T, U, F>(items: Vec<T>, work: F) -> Vec<U>
where
    T: Send + 'static,
    U: Send + 'static,
    F: Fn(T) -> U + Clone + Send + 'static,
{
    if items.len() <= INLINE {
        return items.into_iter().map(work).collect();
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let size = items.len().div_ceil(cores);
    let mut parts = Vec::new();
    let mut rest = items.into_iter();
    loop {
        let part: Vec<T> = rest.by_ref().take(size).collect();
        if part.is_empty() {
            break;
        }
        let work = work.clone();
        parts.push(tokio::task::spawn_blocking(move || part.into_iter().map(work).collect::<Vec<U>>()));
    }
    let mut out = Vec::new();
    for part in parts {
        match part.await {
            Ok(done) => out.extend(done),
            // A panic in there is one of ours and goes on here.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    out
}

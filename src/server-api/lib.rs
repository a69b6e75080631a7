//! The server-server API: reads a signed request, calls one use-case, renders its answer.
//!
//! Nothing is decided here but HTTP: which status and errcode a refusal gets, how large a body may be, what a path
//! means, how often a server may ask. Who asks is for [`hearth_peers::Peers::authenticate`] to say, and what they may
//! know for the use-cases. One file per group of endpoints, named as in the
//! [specification](https://spec.matrix.org/v1.19/server-server-api/).

mod binding;
mod body;
mod edge;
mod edus;
mod error;
mod events;
mod exchange;
mod handshakes;
mod invite;
mod keys;
mod limits;
mod params;
mod public_rooms;
mod query;
mod reply;
mod routes;
mod send;
mod settings;
mod signed;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use hearth_accounts::Accounts;
use hearth_base::Clock;
use hearth_peers::{Memory, Peers};
use hearth_rooms::Rooms;
use tokio_util::sync::CancellationToken;

pub use edus::{EduSink, NoEdus, RawEdu};
pub use limits::Caller;
pub use settings::{FirstHandshakes, PublicRooms, ServerApiSettings, ServerRates};

use edge::FailureIds;
use limits::Limits;
use send::Turns;

/// What the endpoints work with.
pub struct ServerApi {
    /// Rooms.
    pub rooms: Rooms,
    /// Accounts, for profiles.
    pub accounts: Arc<Accounts>,
    /// Who asks, and keys.
    pub peers: Peers,
    /// Takes what is no event.
    pub edus: Arc<dyn EduSink>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What the operator decides.
    pub settings: ServerApiSettings,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
}

/// All of that, and what belongs to the API alone.
struct Api {
    rooms: Rooms,
    accounts: Arc<Accounts>,
    peers: Peers,
    edus: Arc<dyn EduSink>,
    clock: Arc<dyn Clock>,
    settings: ServerApiSettings,
    shutdown: CancellationToken,
    failures: FailureIds,
    limits: Limits,
    memory: Memory,
    turns: Turns,
}

/// Every endpoint, and answers for all other paths below `/_matrix/federation` and `/_matrix/key`. It has no fallback,
/// so that it can be merged into a router that has one.
pub fn router(parts: ServerApi) -> Router {
    let ServerApi { rooms, accounts, peers, edus, clock, settings, shutdown } = parts;
    let failures = FailureIds::new(clock.now().0);
    let limits = Limits::new(settings.rates, clock.clone());
    let (memory, turns) = (Memory::new(settings.bodies_bytes), Turns::default());
    let api = Api { rooms, accounts, peers, edus, clock, settings, shutdown, failures, limits, memory, turns };
    routes::routes(Arc::new(api))
}

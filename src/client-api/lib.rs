//! The client-server API: reads a request, calls one use-case, renders its answer.
//!
//! Nothing is decided here but HTTP: which status and errcode a refusal gets, how large and how deep
//! a body may be, what a path means. One file per group of endpoints, named as in the
//! [specification](https://spec.matrix.org/v1.19/client-server-api/).

mod accounts;
mod auth;
mod body;
mod compress;
mod discovery;
mod edge;
mod elsewhere;
mod error;
mod limits;
mod params;
mod presence;
mod reply;
mod rooms;
mod routes;
mod services;
mod settings;
mod sliding;
mod standing;
mod sync;
#[cfg(test)]
mod tests;
mod tokens;
mod uia;

use std::sync::Arc;

use axum::Router;
use hearth_accounts::Accounts;
use hearth_base::Clock;
use hearth_rooms::Rooms;
use hearth_sync::Sync;
use tokio_util::sync::CancellationToken;

pub use elsewhere::{Elsewhere, Lookup, Nowhere};
pub use limits::{ClientAddress, Peer, RateLimits, TrustedProxies};
pub use settings::{ClientApiSettings, Contact, Notices, Support};

use edge::FailureIds;
use elsewhere::Profiles;
use limits::Limits;

/// What the endpoints work with.
pub struct ClientApi {
    /// Rooms.
    pub rooms: Rooms,
    /// Accounts.
    pub accounts: Arc<Accounts>,
    /// `/sync`.
    pub sync: Sync,
    /// Other servers.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What the operator decides.
    pub settings: Arc<ClientApiSettings>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
}

/// All of that, and what belongs to the API alone.
struct Api {
    rooms: Rooms,
    accounts: Arc<Accounts>,
    sync: Sync,
    elsewhere: Arc<dyn Elsewhere>,
    clock: Arc<dyn Clock>,
    settings: Arc<ClientApiSettings>,
    shutdown: CancellationToken,
    failures: FailureIds,
    profiles: Profiles,
    limits: Limits,
}

/// Every endpoint, and answers for all other paths.
pub fn router(parts: ClientApi) -> Router {
    let ClientApi { rooms, accounts, sync, elsewhere, clock, settings, shutdown } = parts;
    let failures = FailureIds::new(clock.now().0);
    let limits = Limits::new(&settings, clock.clone());
    routes::routes(Arc::new(Api {
        rooms,
        accounts,
        sync,
        elsewhere,
        clock,
        settings,
        shutdown,
        failures,
        profiles: Profiles::default(),
        limits,
    }))
}

//! Listeners: from accepted sockets to requests, with a bound for everything a peer can drag out.
//!
//! The problem: hyper serves a connection well, but a peer decides how long it takes: it can open
//! thousands of sockets, send one header byte a minute, send half a body, or never read the answer.
//! Here every connection has a slot, an [`activity::Activity`] that knows what it is waiting for
//! since when, and a task that ends it when that takes too long.

mod activity;
mod body;
mod connection;
mod listener;
mod slots;
mod tls;
mod wakes;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hearth_base::Supervisor;
use hearth_settings::Settings;

pub(crate) use connection::HttpLimits;
use listener::Accepted;
pub(crate) use listener::Listener;
pub(crate) use slots::Slots;
pub(crate) use tls::{Certificate, keep_renewed};

/// How long to wait when no socket can be accepted (usually: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl HttpLimits {
    /// As the operator wants them.
    pub(crate) fn from_settings(settings: &Settings) -> Self {
        Self {
            request_head: settings.limits.request_head.as_usize(),
            header_deadline: settings.limits.header_deadline,
            idle_deadline: settings.limits.idle_deadline,
            http2_streams: settings.limits.http2_streams,
        }
    }
}

/// Serves `router` on `listener` until `supervisor` stops; then connections finish what they do.
///
/// `slots` is shared by all listeners: so many connections are open at once, and so many of one client.
pub(crate) fn listen(
    supervisor: &Supervisor,
    listener: Listener,
    router: Router,
    limits: HttpLimits,
    slots: Arc<Slots>,
) {
    let connections = supervisor.clone();
    let stopping = supervisor.stopping();
    let accept = async move {
        let server = Arc::new(connection::Server::new(router, limits, connections.stopping()));
        loop {
            // A slot first: what does not fit waits in the kernel's queue, which is bounded too.
            let place = slots.vacant().await;
            match listener.accept().await {
                Ok(accepted) => {
                    let peer = accepted.peer();
                    let Some(slot) = slots.take(place, peer) else { continue };
                    let server = server.clone();
                    connections.spawn("connection", async move {
                        match accepted {
                            Accepted::Tcp(socket, _) => server.serve(socket, peer).await,
                            Accepted::Unix(socket) => server.serve(socket, peer).await,
                            Accepted::Tls(socket, _, tls) => server.serve_tls(socket, peer, &tls).await,
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    supervisor.spawn("listener", async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = accept => {}
        }
    });
}

#[cfg(test)]
mod flood_tests;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod tests;

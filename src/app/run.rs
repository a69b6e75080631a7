//! The server's life: open, serve, stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hearth_base::{Supervisor, start_logging};
use hearth_settings::{Address, Listen, Settings};
use hearth_store::{Batch, Durability, Lane, Store as _};
use hearth_store_rocks::RocksStore;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Code, Failure};
use crate::graph::{Graph, trusted_proxies};
use crate::notify::{Notify, watchdog_interval};
use crate::open::{self, Rollback};
use crate::serve::{Certificate, HttpLimits, Listener, Slots, keep_renewed, listen};
use crate::{admin, dev, files, http, signing_key};

/// How often histograms are folded, so that their samples do not pile up between two scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// How long background tasks may take to stop once no request is open.
const TASKS_PATIENCE: Duration = Duration::from_secs(1);
/// Connections to the metrics listener.
const ADMIN_CONNECTIONS: usize = 16;

/// How this run was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode<'a> {
    /// What to do if acknowledged writes are missing.
    pub(crate) rollback: Rollback,
    /// The configuration file, if it is the development one: then people are told what to do next.
    pub(crate) development: Option<&'a Path>,
}

/// Runs the server until it is told to stop.
pub(crate) fn run(settings: &Settings, mode: Mode<'_>) -> Result<(), Failure> {
    start_logging(&settings.log.level.0, settings.log.format).map_err(|error| Failure::new(Code::Unusable, error))?;
    log_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("hearth")
        .build()
        .map_err(|error| Failure::new(Code::Io, format!("cannot start threads: {error}")))?;
    let outcome = serve(&runtime, settings, mode);
    if let Err(failure) = &outcome {
        tracing::error!(%failure, "the server cannot go on");
    }
    // Whatever still runs has been told to stop, waited for and named in the log.
    runtime.shutdown_background();
    outcome
}

fn serve(runtime: &Runtime, settings: &Settings, mode: Mode<'_>) -> Result<(), Failure> {
    open::prepare_directory(settings)?;
    let metrics = admin::start_metrics()?;
    // The ports first: of two servers started by mistake, the second says so at once.
    let certificate = certificate(settings)?;
    let clients = runtime.block_on(bind_clients(settings, certificate.as_ref()))?;
    let operators = settings.listen.metrics.as_ref().map(|address| runtime.block_on(bind(settings, address)));
    let operators = operators.transpose()?;
    let key = signing_key::load(settings, &hearth_base::SystemRandom)?;
    let store = open::store(settings, mode.rollback)?;
    runtime.block_on(async {
        // Before anybody is told that we run: whoever stops us then must not kill us.
        let mut signals = Signals::listen()?;
        let hangup = Signals::of(SignalKind::hangup())?;
        let (requests, tasks) = (Supervisor::new(), Supervisor::new());
        let graph = Graph::build(settings, &store, key, &requests, &tasks).await?;
        let limits = HttpLimits::from_settings(settings);
        let slots = slots(settings);
        for listener in clients {
            listen(&requests, listener, http::observed(graph.router.clone()), limits, slots.clone());
        }
        graph.reachable(settings, &requests);
        if let Some(listener) = operators {
            let slots = Slots::new(ADMIN_CONNECTIONS);
            let router = admin::router(metrics.clone(), requests.stopping());
            // Of the tasks, not of the requests: metrics and health can be asked for during a shutdown.
            listen(&tasks, listener, router, limits, slots);
        }
        keep_up(&tasks, metrics);
        keep_renewed(&tasks, certificate, hangup);
        let notify = Arc::new(Notify::from_environment());
        watch_over(&tasks, &store, &notify);
        announce(settings, mode);
        notify.ready();
        let failed = tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "stopping");
                None
            }
            why = failure(store.failed()) => Some(why),
        };
        if let Some(why) = failed {
            // What the disk has is known only after a restart: nothing more may be answered, and
            // closing the store could write on top of the damage.
            tracing::error!(%why, "the store failed; exiting at once");
            std::process::exit(Code::Io as i32);
        }
        notify.stopping();
        tokio::spawn(async move {
            signals.next().await;
            tracing::warn!("asked again: exiting at once");
            std::process::exit(130);
        });
        stop(settings, requests, tasks, graph, store).await
    })
}

/// What the listeners with TLS show, if there are any.
fn certificate(settings: &Settings) -> Result<Option<Arc<Certificate>>, Failure> {
    let Listen { tls_certificate: Some(certificate), tls_key: Some(key), .. } = &settings.listen else {
        return Ok(None);
    };
    if settings.listen.client_tls.is_empty() {
        tracing::warn!("there is a TLS certificate, but listen.client_tls names no address that would show it");
        return Ok(None);
    }
    let loaded = Certificate::load(certificate.clone(), key.clone());
    loaded.map(Some).map_err(|error| Failure::new(Code::Unusable, format!("TLS: {error}")))
}

async fn bind_clients(settings: &Settings, certificate: Option<&Arc<Certificate>>) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Vec::new();
    for address in &settings.listen.client {
        listeners.push(bind(settings, address).await?);
    }
    if let Some(certificate) = certificate {
        let acceptor = certificate.acceptor().map_err(|error| Failure::new(Code::Unusable, error))?;
        for address in &settings.listen.client_tls {
            listeners.push(bind(settings, address).await?.with_tls(acceptor.clone()));
        }
    }
    Ok(listeners)
}

async fn bind(settings: &Settings, address: &Address) -> Result<Listener, Failure> {
    Listener::bind(address, settings.listen.unix_mode).await.map_err(|error| {
        let code = if error.kind() == std::io::ErrorKind::AddrInUse { Code::Busy } else { Code::Io };
        Failure::new(code, format!("cannot listen on {address}: {error}"))
    })
}

/// Requests first, because they need everything else; the store last.
async fn stop(
    settings: &Settings,
    requests: Supervisor,
    tasks: Supervisor,
    graph: Graph,
    store: Arc<RocksStore>,
) -> Result<(), Failure> {
    if let Err(left) = requests.shutdown(settings.limits.shutdown).await {
        tracing::warn!(tasks = ?left.0, "requests were cut off");
    }
    graph.stop().await;
    if let Err(left) = tasks.shutdown(TASKS_PATIENCE).await {
        tracing::warn!(tasks = ?left.0, "background tasks were cut off");
    }
    let closed = tokio::task::spawn_blocking(move || store.shutdown()).await;
    match closed {
        Ok(Ok(())) => {
            tracing::info!("stopped");
            Ok(())
        }
        Ok(Err(error)) => Err(Failure::new(Code::Io, format!("closing the store: {error}"))),
        Err(error) => Err(Failure::new(Code::Io, format!("closing the store: {error}"))),
    }
}

fn announce(settings: &Settings, mode: Mode<'_>) {
    let Listen { client, client_tls, .. } = &settings.listen;
    let addresses: Vec<_> = client.iter().chain(client_tls).map(ToString::to_string).collect();
    tracing::info!(server_name = settings.server.name, listen = addresses.join(","), "serving");
    if let Some(file) = mode.development {
        let port = client.iter().find_map(Address::port).unwrap_or(8008);
        if let Err(error) = crate::print(&dev::welcome(&format!("http://localhost:{port}"), file)) {
            tracing::warn!(%error, "cannot say what to do next");
        }
    }
}

/// Places for the connections of clients and of other servers.
fn slots(settings: &Settings) -> Arc<Slots> {
    let all = files::connections(settings.listen.max_connections);
    if !settings.rate_limits.enabled {
        return Slots::new(all);
    }
    let most = usize::try_from(settings.rate_limits.address_connections).unwrap_or(usize::MAX);
    Slots::shared(all, most, trusted_proxies(settings))
}

fn keep_up(tasks: &Supervisor, metrics: metrics_exporter_prometheus::PrometheusHandle) {
    let stopping = tasks.stopping();
    tasks.spawn("metrics", async move {
        let mut tick = hearth_base::ticks(METRICS_UPKEEP);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = tick.tick() => metrics.run_upkeep(),
            }
        }
    });
}

/// Tells systemd that we are alive: only what has gone through the runtime and the committer counts.
fn watch_over(tasks: &Supervisor, store: &Arc<RocksStore>, notify: &Arc<Notify>) {
    let Some(interval) = watchdog_interval() else { return };
    let (store, notify, stopping) = (store.clone(), notify.clone(), tasks.stopping());
    tasks.spawn("watchdog", async move {
        let mut tick = tokio::time::interval(interval);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = tick.tick() => {}
            }
            let mut nothing = Batch::new(Lane::of(0));
            nothing.durability = Durability::Relaxed;
            match store.commit(nothing).await {
                // A full disk is no reason to be killed: reads go on.
                Ok(_) | Err(hearth_store::CommitError::Full) => notify.alive(),
                Err(error) => tracing::warn!(%error, "the store did not answer the watchdog"),
            }
        }
    });
}

/// Waits until the store has failed for good.
async fn failure(mut failed: watch::Receiver<Option<Arc<str>>>) -> Arc<str> {
    match failed.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_else(|| "unknown".into()),
        // The committer is gone without a word, which is a failure too.
        Err(_) => "the committer has ended".into(),
    }
}

/// The signals that stop a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self { terminate: Self::of(SignalKind::terminate())?, interrupt: Self::of(SignalKind::interrupt())? })
    }

    fn of(kind: SignalKind) -> Result<Signal, Failure> {
        signal(kind).map_err(|error| Failure::new(Code::Io, format!("signals: {error}")))
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Panics become log lines. Their message may quote what was being handled, so it is at `debug`.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, "panic");
        let text = panic.payload().downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
        tracing::debug!(message = text.unwrap_or("not a text"), "message of the panic");
    }));
}

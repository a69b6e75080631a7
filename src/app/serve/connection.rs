//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use futures::TryFutureExt as _;
use hearth_client_api::Peer;
use http::header::CONNECTION;
use http::{HeaderValue, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::activity::Activity;
use super::body::{Answer, Question};
use super::wakes::Wakes;
use super::watched::Watched;

/// How many headers a request may have.
const MAX_HEADERS: usize = 100;

/// Bytes of a body that nobody wanted and that may be read all the same, so that the connection can be used again.
const READ_ON: u64 = 16 << 10;

/// Bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpLimits {
    /// Largest request head, in bytes.
    pub(crate) request_head: usize,
    /// How long a request's head may take.
    pub(crate) header_deadline: Duration,
    /// How long nothing may happen.
    pub(crate) idle_deadline: Duration,
    /// Requests that an HTTP/2 connection may have open.
    pub(crate) http2_streams: u32,
}

/// What all connections of a listener share.
pub(super) struct Server {
    router: Router,
    limits: HttpLimits,
    stopping: CancellationToken,
    builder: Arc<Builder<TokioExecutor>>,
}

impl Server {
    pub(super) fn new(router: Router, limits: HttpLimits, stopping: CancellationToken) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        // Deadlines are ours (see `Activity`): hyper's would count waiting for the next request as
        // reading its head.
        builder.http1().header_read_timeout(None).max_buf_size(limits.request_head).max_headers(MAX_HEADERS);
        builder
            .http2()
            .max_concurrent_streams(limits.http2_streams)
            .max_header_list_size(u32::try_from(limits.request_head).unwrap_or(u32::MAX));
        Self { router, limits, stopping, builder: Arc::new(builder) }
    }

    /// Does the handshake on `socket`, then serves it. A handshake may take as long as a request's head.
    pub(super) async fn serve_tls(&self, socket: TcpStream, peer: Peer, tls: &TlsAcceptor) {
        let handshake = tokio::time::timeout(self.limits.header_deadline, tls.accept(socket));
        let done = tokio::select! {
            () = self.stopping.cancelled() => return,
            done = handshake => done,
        };
        match done {
            Ok(Ok(socket)) => self.serve(socket, peer).await,
            // Scanners and clients of other times: nobody has to act on one.
            Ok(Err(error)) => tracing::trace!(%error, "a TLS handshake failed"),
            Err(_) => tracing::trace!("a TLS handshake took too long"),
        }
    }

    /// Serves `socket` until it is closed, idle for too long, or the server stops.
    pub(super) fn serve<S>(&self, socket: S, peer: Peer) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, limits, stopping) = (self.router.clone(), self.limits, self.stopping.clone());
        let builder = self.builder.clone();
        async move {
            let activity = Activity::begin(Instant::now());
            let io = Watched::new(TokioIo::new(socket), activity.clone());
            let requests = activity.clone();
            let service = service_fn(move |request| answer(router.clone(), &requests, peer, request));
            let connection = builder.serve_connection(io, service);
            let mut connection = pin!(connection);
            let due = || activity.due(limits.header_deadline, limits.idle_deadline);
            // Looking is put off as long as nothing can be overdue: most connections wait, and waking each of many
            // every few seconds would be all that the server does.
            let shortest = limits.header_deadline.min(limits.idle_deadline);
            let mut look = pin!(tokio::time::sleep(shortest));
            let mut end = pin!(stopping.cancelled());
            let mut listens: Option<Waker> = None;
            let mut closing = false;
            let wakes = Wakes::new();
            loop {
                let mut poll = |context: &mut Context<'_>| {
                    // Who waits for the end of the server is asked again only at the end, not with every request.
                    let is_told = listens.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
                    if !closing && (!is_told || stopping.is_cancelled()) {
                        listens = Some(context.waker().clone());
                        if end.as_mut().poll(context).is_ready() {
                            return Poll::Ready(Step::Stop);
                        }
                    }
                    let polled = connection.as_mut().poll(context);
                    // Who was told to close gets the time to do so.
                    if let Some(due) = due().map(Into::into).filter(|due| !closing && *due < look.deadline()) {
                        look.as_mut().reset(due);
                    }
                    // After the reset: a timer that nobody has polled since wakes nobody.
                    match (polled, look.as_mut().poll(context)) {
                        (Poll::Ready(_), _) => Poll::Ready(Step::Ended),
                        (Poll::Pending, Poll::Ready(())) => Poll::Ready(Step::Look),
                        (Poll::Pending, Poll::Pending) => Poll::Pending,
                    }
                };
                match poll_fn(|context| wakes.poll(context, &mut poll)).await {
                    // Most errors are peers that went away; nobody has to act on one.
                    Step::Ended => return,
                    Step::Stop => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Step::Look => {
                        let now = Instant::now();
                        match activity.overdue(now, limits.header_deadline, limits.idle_deadline) {
                            None => {}
                            Some(reason) if activity.is_http2() && !closing => {
                                tracing::trace!(?reason, "telling a connection to close");
                                closing = true;
                                connection.as_mut().graceful_shutdown();
                            }
                            Some(reason) => return tracing::trace!(?reason, "closing a connection"),
                        }
                        let next = if closing { Some(now + shortest / 4) } else { due() };
                        let soonest = now + Duration::from_millis(1);
                        look.as_mut().reset(next.map_or(now + limits.idle_deadline, |next| next.max(soonest)).into());
                    }
                }
            }
        }
    }
}

/// What woke the task of a connection.
enum Step {
    Ended,
    Stop,
    Look,
}

fn answer(
    mut router: Router,
    activity: &Arc<Activity>,
    peer: Peer,
    mut request: http::Request<Incoming>,
) -> impl Future<Output = Result<http::Response<Answer>, Infallible>> + Send + use<> {
    let open = activity.request(request.version());
    let activity = (request.version() < Version::HTTP_2).then(|| Arc::clone(activity));
    request.extensions_mut().insert(peer);
    let request = request.map(|body| match &activity {
        Some(activity) => Body::new(Question::new(body, activity)),
        // Ends a request by itself without ending the connection.
        None => Body::new(body),
    });
    // No `async` block, which would hold the router's future twice.
    router.call(request).map_ok(move |mut response| {
        if activity.is_some_and(|activity| activity.unread() > READ_ON) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|inner| Answer { inner, _open: open })
    })
}

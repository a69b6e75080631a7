//! Requests to other servers, as HTTP.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::Memory;
use crate::connect::Connector;
use crate::name::Authority;

/// What this server calls itself.
pub(crate) const AGENT: &str = concat!("Hearth/", env!("CARGO_PKG_VERSION"));
/// Headers of an answer, and their bytes.
pub(crate) const MAX_HEADERS: usize = 100;
pub(crate) const MAX_HEADER_BYTES: usize = 64 << 10;
/// How long a connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(25);
/// Connections to one server that are kept.
const MAX_IDLE: usize = 4;

/// A request that is ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub authority: Authority,
    pub method: Method,
    pub path_and_query: String,
    pub authorization: Option<String>,
    pub body: Option<Bytes>,
    pub max_bytes: usize,
}

/// An answer, of any status.
#[derive(Debug)]
pub(crate) struct Raw {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    Unreachable(String),
    Invalid(String),
}

/// The memory that answers take: those that are as large as rooms leave place for all others.
#[derive(Clone, Debug)]
pub(crate) struct Memories {
    pub pages: Memory,
    pub rooms: Memory,
}

/// Bytes of a page of events: 100 of 64 KiB, and what proxies and old servers add to them.
pub(crate) const MAX_PAGE: usize = 16 << 20;
/// Bytes of all pages that are read at a time.
const PAGES: usize = 256 << 20;

impl Memories {
    /// `room` is the largest answer there may be.
    pub(crate) fn new(room: usize) -> Self {
        Self { pages: Memory::new(PAGES), rooms: Memory::new(room.saturating_mul(2)) }
    }
}

/// Sends requests over connections that it keeps for a while.
pub(crate) struct HttpClient<C = Connector> {
    client: Client<C, Full<Bytes>>,
    memories: Memories,
}

impl<C: Connect + Clone + Send + Sync + 'static> HttpClient<C> {
    pub(crate) fn new(connector: C, memories: Memories) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_headers(MAX_HEADERS)
            .http1_max_buf_size(MAX_HEADER_BYTES)
            .http2_max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
            .build(connector);
        Self { client, memories }
    }

    /// The caller sets a deadline.
    pub(crate) async fn send(&self, ready: &Ready) -> Result<Raw, Failed> {
        let memory = if ready.max_bytes > MAX_PAGE { &self.memories.rooms } else { &self.memories.pages };
        read(self.open(ready).await?, ready.max_bytes, memory).await
    }

    /// The same, but the body of the answer is still to be read, unless it is compressed: see [`check_plain`].
    pub(crate) async fn open(&self, ready: &Ready) -> Result<Response<Incoming>, Failed> {
        let answer = match self.client.request(request(ready)?).await {
            // The other side closed a connection that was kept, while the request was on its way. Every request between
            // servers may be repeated.
            Err(error) if was_cut(&error) => self.client.request(request(ready)?).await,
            answer => answer,
        };
        answer.map_err(|error| Failed::Unreachable(reason(&error)))
    }

    /// Reads an answer that is no more than a page, as far as `max_bytes`.
    pub(crate) async fn rest(&self, answer: Response<Incoming>, max_bytes: usize) -> Result<Raw, Failed> {
        read(answer, max_bytes, &self.memories.pages).await
    }
}

fn request(ready: &Ready) -> Result<Request<Full<Bytes>>, Failed> {
    let Ready { authority, path_and_query, .. } = ready;
    let mut request = Request::builder()
        .method(ready.method.clone())
        .uri(format!("https://{authority}{path_and_query}"))
        .header(HOST, authority.to_string())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT_ENCODING, "identity");
    if let Some(authorization) = &ready.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    if ready.body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(ready.body.clone().unwrap_or_default()));
    request.map_err(|error| Failed::Invalid(format!("the request cannot be sent: {error}")))
}

/// No compression was asked for: a small answer that unpacks to a large one is an old trick.
pub(crate) fn check_plain(answer: &Response<Incoming>) -> Result<(), Failed> {
    if answer.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Failed::Invalid("it is compressed".to_owned()));
    }
    Ok(())
}

async fn read(answer: Response<Incoming>, max_bytes: usize, memory: &Memory) -> Result<Raw, Failed> {
    check_plain(&answer)?;
    let (head, body) = answer.into_parts();
    let (mut body, mut growing) = (Limited::new(body, max_bytes), memory.begin());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Failed::Invalid(format!("it is larger than {max_bytes} bytes")),
            None => Failed::Unreachable(reason(&*error)),
        })?;
        let Ok(chunk) = frame.into_data() else { continue };
        // That is no fault of the other server: it is not left alone for it.
        growing.push(&chunk).map_err(|full| Failed::Invalid(full.to_string()))?;
    }
    Ok(Raw { status: head.status, headers: head.headers, body: growing.finish() })
}

/// The connection ended before there was any answer.
fn was_cut(error: &hyper_util::client::legacy::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        }
        source = error.source();
    }
    false
}

/// What happened, in the words of the innermost error.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

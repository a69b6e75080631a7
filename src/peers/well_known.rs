//! Whom a server name stands for: `/.well-known/matrix/server`.
//!
//! Anybody can make this server ask anybody, so all of it is bounded: bytes, time, redirects, and how often.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_base::{Clock, Millis};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use moka::sync::Cache;
use ruma_common::ServerName;
use tokio::time::timeout;

use crate::client::{AGENT, MAX_HEADER_BYTES, MAX_HEADERS, reason};
use crate::connect::Connector;
use crate::flights::Flights;
use crate::name::{Authority, Host};

const PATH: &str = "/.well-known/matrix/server";
/// Names whose answers are remembered.
const MAX_NAMES: u64 = 50_000;
/// Bytes of the file.
const MAX_BYTES: usize = 50 << 10;
const MAX_REDIRECTS: usize = 3;
/// With all redirects.
const DEADLINE: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = HOUR;
const USUAL: Duration = HOUR.saturating_mul(24);
const LONGEST: Duration = HOUR.saturating_mul(48);
/// How long there is no file after the first failure; it doubles with each one, up to an hour.
const FIRST_FAILURE: Duration = Duration::from_secs(300);

/// Asks, and remembers.
pub(crate) struct WellKnown {
    client: Client<Connector, Empty<Bytes>>,
    clock: Arc<dyn Clock>,
    known: Cache<String, Known>,
    flights: Flights<String>,
}

/// Why there is no usable file.
#[derive(Clone, Debug)]
pub(crate) struct NoFile {
    pub why: String,
    pub served: Served,
}

/// Whether somebody meant to have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    Nothing,
    Something,
}

/// What was found, or that nothing was.
#[derive(Clone)]
struct Known {
    delegated: Option<Authority>,
    until: Millis,
    failures: u32,
}

impl WellKnown {
    /// `connector` is one for web servers.
    pub(crate) fn new(connector: Connector, clock: Arc<dyn Clock>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .http1_max_headers(MAX_HEADERS)
            .http1_max_buf_size(MAX_HEADER_BYTES)
            .http2_max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
            .build(connector);
        Self { client, clock, known: Cache::new(MAX_NAMES), flights: Flights::new() }
    }

    /// Whom to speak to as `server`: the name that goes into the `Host` header and has to be on the certificate. `None`:
    /// nobody can be called so.
    pub(crate) async fn authority(&self, server: &ServerName) -> Option<Authority> {
        let own = Authority::parse(server.as_str())?;
        match (&own.host, own.port) {
            (Host::Name(name), None) => Some(self.delegated(name).await.unwrap_or(own)),
            _ => Some(own),
        }
    }

    async fn delegated(&self, host: &str) -> Option<Authority> {
        let name = host.to_ascii_lowercase();
        if let Some(known) = self.fresh(&name) {
            return known.delegated;
        }
        let _turn = self.flights.turn(name.clone()).await;
        if let Some(known) = self.fresh(&name) {
            return known.delegated;
        }
        let now = self.clock.now();
        let known = match self.ask(host).await {
            Ok((delegated, lifetime)) => Known { delegated: Some(delegated), until: now.plus(lifetime), failures: 0 },
            Err(NoFile { why, .. }) => {
                tracing::debug!(host, why, "no usable /.well-known/matrix/server");
                let failures = self.known.get(&name).map_or(0, |known| known.failures);
                let pause = FIRST_FAILURE.saturating_mul(1 << failures.min(8)).min(HOUR);
                Known { delegated: None, until: now.plus(pause), failures: failures.saturating_add(1) }
            }
        };
        self.known.insert(name, known.clone());
        known.delegated
    }

    fn fresh(&self, name: &str) -> Option<Known> {
        self.known.get(name).filter(|known| self.clock.now() < known.until)
    }

    /// What the file says, and for how long.
    pub(crate) async fn ask(&self, host: &str) -> Result<(Authority, Duration), NoFile> {
        let late = || NoFile { why: "it takes too long".to_owned(), served: Served::Nothing };
        timeout(DEADLINE, self.follow(host)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn follow(&self, host: &str) -> Result<(Authority, Duration), NoFile> {
        let nothing = |why: String| NoFile { why, served: Served::Nothing };
        let wrong = |why: String| NoFile { why, served: Served::Something };
        let uri = format!("https://{host}{PATH}").parse();
        let mut uri: Uri = uri.map_err(|_| nothing("the name cannot be asked".to_owned()))?;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.get(&uri).await.map_err(nothing)?;
            if answer.status().is_redirection() {
                uri = redirected(&uri, answer.headers()).map_err(wrong)?;
                continue;
            }
            if answer.status() != 200 {
                return Err(nothing(format!("HTTP status {}", answer.status().as_u16())));
            }
            return read(answer).await.map_err(wrong);
        }
        Err(wrong("too many redirects".to_owned()))
    }

    async fn get(&self, uri: &Uri) -> Result<Response<Incoming>, String> {
        let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let request = Request::get(uri)
            .header(HOST, host)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT_ENCODING, "identity")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        self.client.request(request).await.map_err(|error| reason(&error))
    }
}

async fn read(answer: Response<Incoming>) -> Result<(Authority, Duration), String> {
    let (head, body) = answer.into_parts();
    if head.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err("it is compressed".to_owned());
    }
    let body = Limited::new(body, MAX_BYTES).collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((delegation(&body)?, lifetime(&head.headers)))
}

fn delegation(body: &[u8]) -> Result<Authority, String> {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(rename = "m.server")]
        server: String,
    }
    let file: File = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Authority::parse(&file.server).ok_or_else(|| "m.server is no server name".to_owned())
}

/// How long an answer with `headers` is good.
fn lifetime(headers: &HeaderMap) -> Duration {
    let said = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut lifetime = USUAL;
    for directive in said.flat_map(|value| value.split(',')).map(|text| text.trim().to_ascii_lowercase()) {
        if directive == "no-store" || directive == "no-cache" {
            return SHORTEST;
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            // More digits than a number has are more than the longest.
            let digits = seconds.trim_matches('"');
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                lifetime = digits.parse().map_or(LONGEST, Duration::from_secs);
            }
        }
    }
    lifetime.clamp(SHORTEST, LONGEST)
}

/// Where an answer with `headers` to a request to `from` points.
fn redirected(from: &Uri, headers: &HeaderMap) -> Result<Uri, String> {
    let wrong = || "a redirect that cannot be followed".to_owned();
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(wrong)?;
    let location = location.split('#').next().unwrap_or_default();
    let same = from.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let absolute = match location {
        path if path.starts_with("//") => format!("https:{path}"),
        path if path.starts_with('/') => format!("https://{same}{path}"),
        other => other.to_owned(),
    };
    let uri: Uri = absolute.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    // Names, ports and addresses only: neither user names nor addresses in disguise.
    let known = Authority::parse(authority.as_str()).is_some();
    (uri.scheme_str() == Some("https") && known).then_some(uri).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &http::header::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn lifetimes_are_clamped() {
        for (values, hours) in [
            (&[][..], 24),
            (&["max-age=0"], 1),
            (&["no-store"], 1),
            (&["max-age=100000, no-cache"], 1),
            (&["public, max-age=7200"], 2),
            (&["public", "Max-Age=7200"], 2),
            (&["max-age=10000000"], 48),
            (&["max-age=99999999999999999999999"], 48),
            (&["max-age=-1"], 24),
            (&["max-age=soon"], 24),
        ] {
            assert_eq!(lifetime(&headers(&CACHE_CONTROL, values)), HOUR * hours, "{values:?}");
        }
    }

    #[test]
    fn redirects_stay_on_https_and_name_servers() {
        let from: Uri = "https://a.example/.well-known/matrix/server".parse().expect("a URI");
        let to =
            |location: &'static str| redirected(&from, &headers(&LOCATION, &[location])).map(|uri| uri.to_string());
        assert_eq!(to("/other"), Ok("https://a.example/other".to_owned()));
        assert_eq!(to("//b.example/other"), Ok("https://b.example/other".to_owned()));
        assert_eq!(to("https://b.example:8443/x?y#z"), Ok("https://b.example:8443/x?y".to_owned()));
        for wrong in
            ["http://a.example/", "https://u@b.example/", "other", "", "ftp://b/", "https://127.1/", "https://"]
        {
            to(wrong).expect_err(wrong);
        }
        redirected(&from, &HeaderMap::new()).expect_err("nowhere");
    }

    #[test]
    fn the_file_names_a_server() {
        let named = |server: &str| delegation(format!("{{\"m.server\":{server}}}").as_bytes()).map(|to| to.to_string());
        assert_eq!(named("\"b.example:443\""), Ok("b.example:443".to_owned()));
        for wrong in ["\"b.example/path\"", "\"u@b\"", "\"b:0\"", "\"bücher\"", "\"..\"", "\"\"", "7", "null", "[]"] {
            named(wrong).expect_err(wrong);
        }
        for wrong in ["", "[]", "{}", "<html>", "{\"m.server\":\"a\"} x"] {
            delegation(wrong.as_bytes()).expect_err(wrong);
        }
    }
}

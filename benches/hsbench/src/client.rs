//! Thin client-server API client: one HTTP/1.1 keep-alive pool, no TLS.

use reqwest::Method;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

pub(crate) struct Hs {
    base: String,
    http: reqwest::Client,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) enum Fail {
    /// 404/405/501 without a Matrix error, or M_UNRECOGNIZED.
    Unsupported(String),
    Other(String),
}

pub(crate) type Res<T> = Result<T, Fail>;

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fail::Unsupported(s) => write!(f, "unsupported: {s}"),
            Fail::Other(s) => write!(f, "{s}"),
        }
    }
}

impl Reply {
    pub(crate) fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
    fn fail(&self, what: &str) -> Fail {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(300).collect();
        let errcode = self.json()["errcode"].as_str().unwrap_or("").to_owned();
        let msg = format!("{what}: HTTP {} {text}", self.status);
        let missing = matches!(self.status, 404 | 405 | 501) && errcode.is_empty();
        if errcode == "M_UNRECOGNIZED" || missing { Fail::Unsupported(msg) } else { Fail::Other(msg) }
    }
}

/// A logged-in device.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) device: String,
    pub(crate) password: String,
}

impl User {
    pub(crate) fn localpart(&self) -> &str {
        self.id[1..].split(':').next().unwrap_or("")
    }
}

/// Percent-encodes one path segment or query value.
pub(crate) fn pct(s: &str) -> String {
    let mut out = String::with_capacity(s.len() * 2);
    for b in s.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b as char);
        } else {
            write!(out, "%{b:02X}").expect("a string takes every text");
        }
    }
    out
}

impl Hs {
    pub(crate) fn new(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .http1_only()
            .tcp_nodelay(true)
            .no_proxy()
            .pool_max_idle_per_host(usize::MAX)
            .timeout(Duration::from_secs(120))
            .build()
            .expect("http client");
        Hs { base: base.trim_end_matches('/').to_owned(), http }
    }

    /// Sends one request; any HTTP status is a `Reply`.
    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<(&str, Vec<u8>)>,
    ) -> Res<Reply> {
        let mut r = self.http.request(method, format!("{}{}", self.base, path));
        if let Some(t) = token {
            r = r.bearer_auth(t);
        }
        if let Some((ctype, b)) = body {
            r = r.header("content-type", ctype).body(b);
        }
        let resp = r.send().await.map_err(|e| Fail::Other(format!("{path}: {e:?}")))?;
        let status = resp.status().as_u16();
        let body = resp.bytes().await.map_err(|e| Fail::Other(format!("{path}: {e:?}")))?;
        Ok(Reply { status, body: body.to_vec() })
    }

    /// Sends JSON and fails on anything but 2xx.
    pub(crate) async fn json(&self, method: Method, path: &str, token: &str, body: &Value) -> Res<Reply> {
        let bytes = serde_json::to_vec(body).expect("json");
        let r = self.raw(method, path, Some(token), Some(("application/json", bytes))).await?;
        if r.ok() { Ok(r) } else { Err(r.fail(path)) }
    }
    pub(crate) async fn get(&self, path: &str, token: &str) -> Res<Reply> {
        let r = self.raw(Method::GET, path, Some(token), None).await?;
        if r.ok() { Ok(r) } else { Err(r.fail(path)) }
    }
    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> Res<Reply> {
        self.json(Method::POST, path, token, body).await
    }
    pub(crate) async fn put(&self, path: &str, token: &str, body: &Value) -> Res<Reply> {
        self.json(Method::PUT, path, token, body).await
    }
    pub(crate) async fn upload(&self, path: &str, token: &str, data: Vec<u8>) -> Res<Reply> {
        let r = self.raw(Method::POST, path, Some(token), Some(("application/octet-stream", data))).await?;
        if r.ok() { Ok(r) } else { Err(r.fail(path)) }
    }

    /// Interactive registration: m.login.dummy, or m.login.registration_token.
    pub(crate) async fn register_uia(&self, name: &str, pass: &str, reg_token: Option<&str>) -> Res<User> {
        let path = "/_matrix/client/v3/register";
        let mut body = json!({"username": name, "password": pass,
            "initial_device_display_name": "hsbench"});
        for _ in 0..5 {
            let bytes = serde_json::to_vec(&body).expect("json");
            let r = self.raw(Method::POST, path, None, Some(("application/json", bytes))).await?;
            let v = r.json();
            if r.ok() {
                return user_of(&v, pass).ok_or_else(|| r.fail(path));
            }
            if r.status != 401 || v["session"].is_null() {
                return Err(r.fail(path));
            }
            let done: Vec<&str> = v["completed"].as_array().into_iter().flatten().filter_map(|s| s.as_str()).collect();
            let usable = |s: &str| s == "m.login.dummy" || (s == "m.login.registration_token" && reg_token.is_some());
            let stage = v["flows"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|f| f["stages"].as_array())
                .filter(|st| st.iter().all(|s| usable(s.as_str().unwrap_or(""))))
                .flat_map(|st| st.iter().filter_map(|s| s.as_str()))
                .find(|s| !done.contains(s))
                .ok_or_else(|| Fail::Other(format!("no usable registration flow in {v}")))?;
            body["auth"] = if stage == "m.login.dummy" {
                json!({"type": stage, "session": v["session"]})
            } else {
                json!({"type": stage, "session": v["session"], "token": reg_token})
            };
        }
        Err(Fail::Other("registration did not end".into()))
    }

    pub(crate) async fn login(&self, name: &str, pass: &str) -> Res<User> {
        let path = "/_matrix/client/v3/login";
        let body = json!({"type": "m.login.password", "password": pass,
            "identifier": {"type": "m.id.user", "user": name}});
        let bytes = serde_json::to_vec(&body).expect("json");
        let r = self.raw(Method::POST, path, None, Some(("application/json", bytes))).await?;
        if !r.ok() {
            return Err(r.fail(path));
        }
        user_of(&r.json(), pass).ok_or_else(|| r.fail(path))
    }

    /// Creates a room and gives its ID.
    pub(crate) async fn create_room(&self, u: &User, body: &Value) -> Res<String> {
        let r = self.post("/_matrix/client/v3/createRoom", &u.token, body).await?;
        Ok(r.json()["room_id"].as_str().unwrap_or("").to_owned())
    }
    pub(crate) async fn join(&self, u: &User, room: &str) -> Res<()> {
        let p = format!("/_matrix/client/v3/join/{}", pct(room));
        self.post(&p, &u.token, &json!({})).await.map(|_| ())
    }
    pub(crate) async fn send(&self, u: &User, room: &str, txn: &str, content: &Value) -> Res<String> {
        let p = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{txn}", pct(room));
        let r = self.put(&p, &u.token, content).await?;
        Ok(r.json()["event_id"].as_str().unwrap_or("").to_owned())
    }
    /// `/sync`; `query` starts with `&` or is empty.
    pub(crate) async fn sync(&self, u: &User, since: Option<&str>, timeout: u64, query: &str) -> Res<Reply> {
        let s = since.map(|s| format!("&since={}", pct(s))).unwrap_or_default();
        let p = format!("/_matrix/client/v3/sync?timeout={timeout}{s}{query}");
        self.get(&p, &u.token).await
    }
}

fn user_of(v: &Value, pass: &str) -> Option<User> {
    Some(User {
        id: v["user_id"].as_str()?.to_owned(),
        token: v["access_token"].as_str()?.to_owned(),
        device: v["device_id"].as_str().unwrap_or("").to_owned(),
        password: pass.to_owned(),
    })
}

//! JSON over HTTP as a test wants it: any status is an answer, a lost connection is not.

use std::fmt::Write as _;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// Requests to one server.
#[derive(Clone)]
pub struct Api {
    base: String,
    http: reqwest::Client,
}

/// A registered user with one device.
#[derive(Clone, Debug)]
pub struct User {
    /// `@name:server`.
    pub id: String,
    /// The name alone.
    pub name: String,
    /// The device that registering or logging in made.
    pub device: String,
    /// Its access token.
    pub token: String,
    /// What it was registered with.
    pub password: String,
}

/// One request, not yet sent.
#[must_use]
pub struct Request {
    what: String,
    builder: reqwest::RequestBuilder,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Method and path, for messages.
    pub what: String,
    /// HTTP status.
    pub status: u16,
    pub(crate) version: reqwest::Version,
    /// HTTP headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
    /// The body as JSON, null if it is none.
    pub body: Value,
}

impl Api {
    /// Requests to `base`, such as `http://127.0.0.1:8008`.
    pub fn new(base: &str) -> Self {
        // A server that refuses a request before it has read the body closes the connection, and a
        // kept one could be used again before the client notices.
        Self::over(base, reqwest::Client::builder().pool_max_idle_per_host(0))
    }

    /// The same over HTTP/2 from the first byte.
    pub fn http2(base: &str) -> Self {
        Self::over(base, reqwest::Client::builder().http2_prior_knowledge())
    }

    fn over(base: &str, builder: reqwest::ClientBuilder) -> Self {
        let builder = builder.no_proxy().tcp_nodelay(true).timeout(Duration::from_secs(60));
        let http = builder.build().expect("a client without TLS can always be built");
        Self { base: base.trim_end_matches('/').to_owned(), http }
    }

    /// Any method on any path (with its query).
    pub fn request(&self, method: Method, path: &str) -> Request {
        Request { what: format!("{method} {path}"), builder: self.http.request(method, format!("{}{path}", self.base)) }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    /// PUT.
    pub fn put(&self, path: &str) -> Request {
        self.request(Method::PUT, path)
    }

    /// POST.
    pub fn post(&self, path: &str) -> Request {
        self.request(Method::POST, path)
    }

    /// Registers `name` through the two requests of the dummy flow.
    pub async fn register(&self, name: &str, password: &str) -> Result<User, String> {
        let path = "/_matrix/client/v3/register";
        let mut body = json!({"username": name, "password": password});
        let flows = self.post(path).json(&body).try_send().await?.expect_status(401)?;
        body["auth"] = json!({"type": "m.login.dummy", "session": flows.body["session"]});
        let answer = self.post(path).json(&body).try_send().await?.expect_status(200)?;
        answer.user(name, password)
    }

    /// Logs in by password, on a new device.
    pub async fn login(&self, name: &str, password: &str) -> Result<User, String> {
        let body = json!({"type": "m.login.password", "password": password,
            "identifier": {"type": "m.id.user", "user": name}});
        let answer = self.post("/_matrix/client/v3/login").json(&body).try_send().await?.expect_status(200)?;
        answer.user(name, password)
    }
}

impl Request {
    /// With this access token.
    pub fn token(mut self, token: &str) -> Self {
        self.builder = self.builder.bearer_auth(token);
        self
    }

    /// As this user.
    pub fn by(self, user: &User) -> Self {
        self.token(&user.token)
    }

    /// With a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.text(body.to_string())
    }

    /// With a body that claims to be JSON, whatever it is.
    pub fn text(self, body: impl Into<Vec<u8>>) -> Self {
        self.body_of_type("application/json", body)
    }

    /// With any body; no type is sent if it is empty.
    pub fn body_of_type(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        if !content_type.is_empty() {
            self.builder = self.builder.header("content-type", content_type);
        }
        self.builder = self.builder.body(body.into());
        self
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    /// The answer, or why none came.
    pub async fn try_send(self) -> Result<Answer, String> {
        let lost = |error: reqwest::Error| format!("{}: {error:?}", self.what);
        let response = self.builder.send().await.map_err(lost)?;
        let (status, headers, version) = (response.status().as_u16(), response.headers().clone(), response.version());
        let text = response.text().await.map_err(lost)?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { what: self.what, status, version, headers, text, body })
    }

    /// The answer.
    pub async fn send(self) -> Answer {
        self.try_send().await.unwrap_or_else(|lost| panic!("no answer to {lost}"))
    }

    /// The body of a 200.
    pub async fn ok(self) -> Value {
        self.send().await.expect_status(200).unwrap_or_else(|other| panic!("{other}")).body
    }
}

impl Answer {
    /// This answer if it has that status, else a description of it.
    pub fn expect_status(self, status: u16) -> Result<Self, String> {
        if self.status == status {
            return Ok(self);
        }
        let text: String = self.text.chars().take(500).collect();
        Err(format!("{}: wanted {status}, got {} {text}", self.what, self.status))
    }

    /// The Matrix error code, empty if there is none.
    pub fn errcode(&self) -> &str {
        self.body["errcode"].as_str().unwrap_or("")
    }

    /// The protocol that brought it, such as `HTTP/1.1`.
    pub fn version(&self) -> String {
        format!("{:?}", self.version)
    }

    /// A header's value, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    fn user(&self, name: &str, password: &str) -> Result<User, String> {
        let field = |key: &str| {
            let value = self.body[key].as_str().ok_or_else(|| format!("{}: no {key} in {}", self.what, self.text))?;
            Ok::<_, String>(value.to_owned())
        };
        Ok(User {
            id: field("user_id")?,
            name: name.to_owned(),
            device: field("device_id")?,
            token: field("access_token")?,
            password: password.to_owned(),
        })
    }
}

/// `text` as one path segment or query value.
pub fn pct(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes every text");
        }
    }
    out
}

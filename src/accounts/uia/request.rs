//! What a client sends: the request to authenticate, and its attempt at a stage.

use hearth_base::Secret;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Stage, UiaError};
use crate::Requester;

/// The request that is to be authenticated. A session serves one such request only.
#[derive(Clone, Debug)]
pub struct UiaRequest<'a> {
    /// What is to be done, which decides the flows.
    pub operation: UiaOperation<'a>,
    /// The HTTP method.
    pub method: &'a str,
    /// The path with its parameters.
    pub path: &'a str,
    /// Its body.
    pub body: RequestDigest,
}

/// What needs user-interactive authentication.
#[derive(Clone, Copy, Debug)]
pub enum UiaOperation<'a> {
    /// Making an account.
    Register,
    /// Something that a stolen access token alone must not be able to do.
    Account(&'a Requester),
}

/// Stands for a request's body without `auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDigest([u8; 32]);

impl RequestDigest {
    /// Of a parsed body. Neither the order of keys nor `auth` matters.
    pub fn of(body: &Value) -> Self {
        let mut hasher = Sha256::new();
        match body {
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().filter(|(key, _)| *key != "auth").collect();
                members.sort_unstable_by_key(|(key, _)| *key);
                absorb_members(&mut hasher, &members);
            }
            other => absorb(&mut hasher, other),
        }
        Self(hasher.finalize().into())
    }

    /// For requests whose body may change between stages: clients ask `/register` for its flows with
    /// an empty body, and nothing of anybody can be stolen there.
    pub const fn unbound() -> Self {
        Self([0; 32])
    }
}

/// Each value is preceded by its kind and its length, so that no two bodies look alike. The parser
/// has bounded the depth.
fn absorb(hasher: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hasher.update(b"n"),
        Value::Bool(yes) => hasher.update(if *yes { b"t" } else { b"f" }),
        Value::Number(number) => absorb_text(hasher, b'i', &number.to_string()),
        Value::String(text) => absorb_text(hasher, b's', text),
        Value::Array(items) => {
            absorb_length(hasher, b'a', items.len());
            for item in items {
                absorb(hasher, item);
            }
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            absorb_members(hasher, &members);
        }
    }
}

fn absorb_members(hasher: &mut Sha256, members: &[(&String, &Value)]) {
    absorb_length(hasher, b'o', members.len());
    for (key, value) in members {
        absorb_text(hasher, b'k', key);
        absorb(hasher, value);
    }
}

fn absorb_text(hasher: &mut Sha256, kind: u8, text: &str) {
    absorb_length(hasher, kind, text.len());
    hasher.update(text.as_bytes());
}

fn absorb_length(hasher: &mut Sha256, kind: u8, length: usize) {
    hasher.update([kind]);
    hasher.update((length as u64).to_be_bytes());
}

/// A client's `auth` object.
#[derive(Clone, Debug)]
pub struct UiaAttempt {
    /// The session, if the client has one.
    pub session: Option<String>,
    /// The stage it tries; `None`: it asks how things stand.
    pub stage: Option<StageData>,
}

/// What a client shows at a stage.
#[derive(Clone, Debug)]
pub enum StageData {
    /// Nothing.
    Dummy,
    /// That the policies are accepted.
    Terms,
    /// A registration token.
    RegistrationToken(String),
    /// A password, and whose the client says it is.
    Password {
        /// A localpart or a user ID.
        user: String,
        /// The password.
        password: Secret<String>,
    },
    /// A stage that this server does not have, or one without its data.
    Unsupported,
}

impl StageData {
    /// Which stage it is for.
    pub const fn stage(&self) -> Option<Stage> {
        match self {
            Self::Dummy => Some(Stage::Dummy),
            Self::Terms => Some(Stage::Terms),
            Self::RegistrationToken(_) => Some(Stage::RegistrationToken),
            Self::Password { .. } => Some(Stage::Password),
            Self::Unsupported => None,
        }
    }

    fn parse(kind: &str, auth: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match kind {
            "m.login.dummy" => Self::Dummy,
            "m.login.terms" => Self::Terms,
            "m.login.registration_token" => text(&auth["token"]).map_or(Self::Unsupported, Self::RegistrationToken),
            "m.login.password" => {
                let identifier = &auth["identifier"];
                // Old clients say `user`; other identifiers than users are not known here.
                let user = match identifier["type"].as_str() {
                    Some("m.id.user") => text(&identifier["user"]),
                    Some(_) => None,
                    None => text(&auth["user"]),
                };
                let password = text(&auth["password"]).map(Secret::new);
                match (user, password) {
                    (Some(user), Some(password)) => Self::Password { user, password },
                    _ => Self::Unsupported,
                }
            }
            _ => Self::Unsupported,
        }
    }
}

impl UiaAttempt {
    /// Reads the member `auth` of a request's body. Absent, `null` and `{}` are no attempt.
    ///
    /// # Errors
    /// [`UiaError::BadAuth`] if it is no object, or its `session` or `type` no string.
    pub fn parse(auth: Option<&Value>) -> Result<Option<Self>, UiaError> {
        let auth = match auth {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(members)) if members.is_empty() => return Ok(None),
            Some(auth @ Value::Object(_)) => auth,
            Some(_) => return Err(UiaError::BadAuth),
        };
        let text = |name: &str| match &auth[name] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.as_str())),
            _ => Err(UiaError::BadAuth),
        };
        let stage = text("type")?.map(|kind| StageData::parse(kind, auth));
        Ok(Some(Self { session: text("session")?.map(str::to_owned), stage }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_digest_ignores_auth_and_order_and_nothing_else() {
        let digest = |text: &str| RequestDigest::of(&serde_json::from_str(text).unwrap());
        let base = digest(r#"{"a":1,"b":{"x":[1,2],"auth":1}}"#);
        assert_eq!(base, digest(r#"{"b":{"auth":1,"x":[1,2]},"auth":{"session":"s"},"a":1}"#));
        for other in [
            "{}",
            "[]",
            r#"{"a":1}"#,
            r#"{"a":"1","b":{"x":[1,2],"auth":1}}"#,
            r#"{"a":1,"b":{"x":[2,1],"auth":1}}"#,
            r#"{"a":1,"b":{"x":[1,2]}}"#,
            r#"{"a":1,"b":{"x":[[1],2],"auth":1}}"#,
        ] {
            assert_ne!(base, digest(other), "{other}");
        }
        assert_ne!(digest("{}"), RequestDigest::unbound());
    }

    #[test]
    fn auth_is_an_object_or_nothing() {
        for nothing in [json!(null), json!({})] {
            assert!(UiaAttempt::parse(Some(&nothing)).unwrap().is_none());
        }
        assert!(UiaAttempt::parse(None).unwrap().is_none());
        for bad in [json!([]), json!("s"), json!(1), json!({"session": 1}), json!({"type": []})] {
            assert!(matches!(UiaAttempt::parse(Some(&bad)), Err(UiaError::BadAuth)), "{bad}");
        }
        let poll = UiaAttempt::parse(Some(&json!({"session": "s"}))).unwrap().unwrap();
        assert_eq!(poll.session.as_deref(), Some("s"));
        assert!(poll.stage.is_none());
    }

    #[test]
    fn a_stage_without_its_data_is_unsupported() {
        let stage = |auth: Value| UiaAttempt::parse(Some(&auth)).unwrap().unwrap().stage.unwrap().stage();
        assert_eq!(stage(json!({"type": "m.login.dummy"})), Some(Stage::Dummy));
        assert_eq!(stage(json!({"type": "m.login.registration_token"})), None);
        assert_eq!(stage(json!({"type": "m.login.registration_token", "token": "t"})), Some(Stage::RegistrationToken));
        let user = json!({"type": "m.id.user", "user": "ann"});
        let password =
            |identifier: Value| json!({"type": "m.login.password", "identifier": identifier, "password": "p"});
        assert_eq!(stage(password(user)), Some(Stage::Password));
        assert_eq!(stage(password(json!({"type": "m.id.thirdparty", "user": "ann"}))), None);
        assert_eq!(stage(json!({"type": "m.login.password", "user": "ann", "password": "p"})), Some(Stage::Password));
        assert_eq!(stage(json!({"type": "m.login.password", "user": "ann", "password": 5})), None);
        assert_eq!(stage(json!({"type": "m.login.sso"})), None);
    }
}

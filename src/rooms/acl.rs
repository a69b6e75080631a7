//! Which servers a room keeps out: `m.room.server_acl`.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms>

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_schema::{RoomNid, StateId};
use hearth_store::{StoreError, View};
use ruma_common::ServerName;
use serde_json::Value;

use crate::intake::Rooms;

/// The type of the event.
const SERVER_ACL: &str = "m.room.server_acl";

/// The content of an `m.room.server_acl`, ready to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerAcl {
    allow: Globs,
    deny: Globs,
    denies_ip_literals: bool,
}

impl ServerAcl {
    /// From the content of the event. Members write these events, so anything may be in them: a list that is none is
    /// empty, and an empty `allow` keeps everybody out.
    pub fn parse(content: &[u8]) -> Self {
        let content = serde_json::from_slice::<Value>(content).unwrap_or(Value::Null);
        Self {
            allow: Globs::parse(&content["allow"]),
            deny: Globs::parse(&content["deny"]),
            denies_ip_literals: content["allow_ip_literals"] == Value::Bool(false),
        }
    }

    /// Whether `server` may take part. Its port does not count.
    pub fn allows(&self, server: &ServerName) -> bool {
        if self.denies_ip_literals && server.is_ip_literal() {
            return false;
        }
        let host = server.host().to_ascii_lowercase();
        !self.deny.matches(&host) && self.allow.matches(&host)
    }
}

/// Names with `*` and `?`, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Globs {
    /// `*`
    all: bool,
    exact: BTreeSet<String>,
    /// Each once: rooms have lists that say the same a thousand times.
    patterns: BTreeSet<String>,
}

impl Globs {
    fn parse(list: &Value) -> Self {
        let mut globs = Self::default();
        for text in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let text = text.to_ascii_lowercase();
            if !text.is_empty() && text.bytes().all(|byte| byte == b'*') {
                globs.all = true;
            } else if text.contains(['*', '?']) {
                globs.patterns.insert(text);
            } else {
                globs.exact.insert(text);
            }
        }
        globs
    }

    fn matches(&self, host: &str) -> bool {
        self.all || self.exact.contains(host) || self.patterns.iter().any(|pattern| matches(pattern, host))
    }
}

/// `*` is any run of characters, also none; `?` is one. Never worse than the product of both lengths.
fn matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.as_bytes(), host.as_bytes());
    let (mut p, mut h) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while h < host.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p + 1, h));
                p += 1;
            }
            (Some(byte), _) if *byte == b'?' || *byte == host[h] => {
                p += 1;
                h += 1;
            }
            (_, Some((after, from))) => {
                p = after;
                h = from + 1;
                star = Some((after, from + 1));
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl Rooms {
    /// The list of a state of the room; `None`: everybody may take part.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn server_acl(
        &self,
        view: &View,
        room: RoomNid,
        state: StateId,
    ) -> Result<Option<Arc<ServerAcl>>, StoreError> {
        let found = self.state_lookup(view, room, state, &[(SERVER_ACL, "")]).await?;
        let Some(Some(n)) = found.first().copied() else { return Ok(None) };
        let events = self.events(view, room, &[n]).await?;
        Ok(events.first().map(|event| Arc::new(ServerAcl::parse(event.pdu.content_json()))))
    }

    /// Whether the room's current state lets `server` take part.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn acl_allows(&self, view: &View, room: RoomNid, server: &ServerName) -> Result<bool, StoreError> {
        let event = self.current_event(view, room, SERVER_ACL, "").await?;
        Ok(event.is_none_or(|event| ServerAcl::parse(event.pdu.content_json()).allows(server)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allows(content: &Value, server: &str) -> bool {
        ServerAcl::parse(content.to_string().as_bytes()).allows(<&ServerName>::try_from(server).expect("a name"))
    }

    #[test]
    fn hosts_match_without_case_and_port() {
        let acl = json!({ "allow": ["*"], "deny": ["*.Evil.test", "evil.test", "b?d.test"] });
        for (server, allowed) in [
            ("good.test", true),
            ("good.test:8448", true),
            ("EVIL.test", false),
            ("evil.test:8448", false),
            ("deep.sub.evil.test", false),
            ("notevil.test", true),
            ("bad.test", false),
            ("bd.test", true),
            ("1.2.3.4", true),
        ] {
            assert_eq!(allows(&acl, server), allowed, "{server}");
        }
    }

    #[test]
    fn address_literals_can_be_kept_out() {
        let acl = json!({ "allow": ["*"], "allow_ip_literals": false });
        for server in ["1.2.3.4", "1.2.3.4:8448", "[::1]", "[2001:db8::1]:8448"] {
            assert!(!allows(&acl, server), "{server}");
        }
        assert!(allows(&acl, "example.test"));
        assert!(allows(&json!({ "allow": ["*"], "allow_ip_literals": "no" }), "1.2.3.4"), "no boolean says nothing");
    }

    #[test]
    fn what_is_no_list_lets_nobody_in() {
        for content in [json!({}), json!({ "allow": "*" }), json!({ "allow": [7, null] }), json!([]), json!(null)] {
            assert!(!allows(&content, "example.test"), "{content}");
        }
        assert!(!allows(&json!({ "allow": ["*"], "deny": ["*"] }), "example.test"), "deny comes first");
    }

    #[test]
    fn stars_do_not_cost_more_than_their_product() {
        let pattern = "*a".repeat(100) + "b";
        assert!(!matches(&pattern, &"a".repeat(200)));
        assert!(matches(&pattern, &("a".repeat(200) + "b")));
    }
}

//! Server access control lists: which servers a room talks to.
//!
//! Whoever may set the list writes its patterns, so they must cost the same whatever they are: all of them together
//! are one automaton, whose states are bits, and a name of n characters is n steps of it. The list of a room is
//! compiled when it is first asked for.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms>

mod patterns;

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_schema::{RoomNid, StateId};
use hearth_store::{StoreError, View};
use parking_lot::Mutex;
use ruma_common::ServerName;
use serde_json::Value;

use crate::gather::damaged;
use crate::intake::Rooms;
use patterns::Patterns;

/// The type of the event.
const SERVER_ACL: &str = "m.room.server_acl";
/// Lists that are kept compiled.
const MAX_LISTS: usize = 1024;

/// Which event a compiled list is of: its room and number, and what has redacted it.
type Of = (RoomNid, u32, Option<u32>);

/// Compiled lists.
#[derive(Default)]
pub(crate) struct AclCache(Mutex<BTreeMap<Of, Arc<ServerAcl>>>);

/// The content of an `m.room.server_acl`, compiled.
#[derive(Debug)]
pub struct ServerAcl {
    allow: Patterns,
    deny: Patterns,
    ip_literals: IpLiterals,
}

/// What is done with servers whose names are addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IpLiterals {
    LikeOthers,
    Denied,
}

impl ServerAcl {
    /// Members write these events, so anything may be in them: a list that is none is empty, and an event without
    /// `allow` lets nobody in.
    pub fn of(content: &Value) -> Self {
        let list = |key: &str| {
            let entries = content.get(key).and_then(Value::as_array);
            Patterns::new(entries.into_iter().flatten().filter_map(Value::as_str))
        };
        let denied = content.get("allow_ip_literals").and_then(Value::as_bool) == Some(false);
        let ip_literals = if denied { IpLiterals::Denied } else { IpLiterals::LikeOthers };
        Self { allow: list("allow"), deny: list("deny"), ip_literals }
    }

    /// Whether `server` may take part. Its port does not count.
    pub fn allows(&self, server: &ServerName) -> bool {
        if self.ip_literals == IpLiterals::Denied && server.is_ip_literal() {
            return false;
        }
        let host = server.host().to_ascii_lowercase();
        !self.deny.matches(&host) && self.allow.matches(&host)
    }
}

impl Rooms {
    /// Whether the room's current access control list lets `server` take part.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn acl_allows(&self, view: &View, room: RoomNid, server: &ServerName) -> Result<bool, StoreError> {
        let Some(entry) = self.current_entry(view, room, SERVER_ACL, "").await? else { return Ok(true) };
        Ok(self.compiled(view, room, entry.n).await?.allows(server))
    }

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
        match found.into_iter().next().flatten() {
            Some(n) => self.compiled(view, room, n).await.map(Some),
            None => Ok(None),
        }
    }

    async fn compiled(&self, view: &View, room: RoomNid, n: u32) -> Result<Arc<ServerAcl>, StoreError> {
        let event = self.events(view, room, &[n]).await?.pop();
        let event = event.ok_or_else(|| damaged("Events", "no event"))?;
        let of = (room, n, event.redacted_by);
        if let Some(acl) = self.0.acls.0.lock().get(&of) {
            return Ok(Arc::clone(acl));
        }
        let content: Value =
            serde_json::from_slice(event.pdu.content_json()).map_err(|error| damaged("Events", error.to_string()))?;
        let acl = Arc::new(ServerAcl::of(&content));
        let mut cache = self.0.acls.0.lock();
        if cache.len() >= MAX_LISTS {
            cache.clear();
        }
        cache.insert(of, Arc::clone(&acl));
        Ok(acl)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn allows(acl: &Value, server: &str) -> bool {
        ServerAcl::of(acl).allows(<&ServerName>::try_from(server).expect("a server name"))
    }

    #[test]
    fn denied_before_allowed_and_nobody_by_default() {
        let acl = json!({"allow": ["*"], "deny": ["evil.example", "*.evil.example", "e?il.test"]});
        for (server, expected) in [
            ("good.example", true),
            ("evil.example", false),
            ("EVIL.example", false),
            ("evil.example:8448", false),
            ("a.b.evil.example:1", false),
            ("notevil.example", true),
            ("evil.example.org", true),
            ("exil.test", false),
            ("eil.test", true),
            ("1.2.3.4", true),
            ("[::1]:8448", true),
        ] {
            assert_eq!(allows(&acl, server), expected, "{server}");
        }
    }

    #[test]
    fn a_list_of_the_wrong_form_lets_nobody_in() {
        for acl in [json!({}), json!({"allow": "*"}), json!({"allow": null}), json!({"allow": [1, ["*"]]})] {
            assert!(!allows(&acl, "good.example"), "{acl}");
        }
        assert!(allows(&json!({"allow": ["*", 5], "deny": "good.example"}), "good.example"));
    }

    #[test]
    fn addresses_are_refused_only_if_it_says_so() {
        for (flag, expected) in
            [(json!(true), true), (json!(false), false), (json!("false"), true), (json!(null), true)]
        {
            let acl = json!({"allow": ["*"], "allow_ip_literals": flag});
            for server in ["1.2.3.4", "1.2.3.4:80", "[::1]", "[2001:db8::1]:8448"] {
                assert_eq!(allows(&acl, server), expected, "{server} {acl}");
            }
            assert!(allows(&acl, "1.2.3.example"));
        }
        assert!(!allows(&json!({"allow": ["*"], "deny": ["1.2.3.*"]}), "1.2.3.4:80"));
    }

    #[test]
    fn patterns_are_case_insensitive() {
        assert!(!allows(&json!({"allow": ["*"], "deny": ["*.Evil.EXAMPLE"]}), "a.evil.example"));
    }

    /// Ten thousand patterns that are bad for a matcher that goes back, and a thousand servers.
    #[test]
    fn hostile_patterns_cost_no_more_than_others() {
        let deny: Vec<String> = (0..10_000).map(|i| format!("*a*a*a*b{i}")).collect();
        let acl = ServerAcl::of(&json!({"allow": ["*"], "deny": deny}));
        let began = Instant::now();
        for i in 0..1000 {
            let server = format!("{}.s{i}.example", "a".repeat(60));
            assert!(acl.allows(<&ServerName>::try_from(server.as_str()).expect("a server name")));
        }
        // Without optimisation; with it, it is a fiftieth.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}

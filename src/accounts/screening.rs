//! Whom a user does not want to hear from: ignored users, and invitations that are not wanted.
//!
//! Both are account data that clients write and the server has to obey, on every answer: so what was
//! read is kept in memory, and the commit that changes it empties its place before anybody is told.
//! Keys of a wrong type count as absent, as the specification asks, because clients may store anything.
//!
//! See <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>,
//! <https://spec.matrix.org/v1.19/client-server-api/#invite-permission> and
//! [MSC4155](https://github.com/matrix-org/matrix-spec-proposals/pull/4155).

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use hearth_schema::{AccountData, IGNORED_USERS, Ids, NidHasher, UserNid, ignored_users};
use hearth_store::StoreError;
use parking_lot::Mutex;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use ruma_common::{OwnedUserId, UserId};
use serde_json::Value;

use crate::Accounts;
use crate::error::damaged;

/// Account data that decides about invitations: the stable name, and those of the proposals.
const PERMISSIONS: [&str; 3] = [
    "m.invite_permission_config",
    "org.matrix.msc4155.invite_permission_config",
    "org.matrix.msc4380.invite_permission_config",
];
/// Users whose lists are kept in memory.
const CACHED_USERS: u64 = 20_000;
/// Those that the cache makes room for at once; more grow it.
const EXPECTED: usize = 256;
/// Inviters whose verdict is kept with a user's lists.
const CACHED_VERDICTS: usize = 1_000;

/// What becomes of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteVerdict {
    /// It is shown.
    Welcome,
    /// It is sent as if nothing were, and not shown.
    Hidden,
    /// Whoever invites is told that it is not wanted.
    Blocked,
}

/// A user's lists, read.
#[derive(Debug, Default)]
pub struct Screening {
    ignored: HashSet<String>,
    permissions: Vec<Permissions>,
    verdicts: Mutex<HashMap<OwnedUserId, InviteVerdict>>,
}

impl Screening {
    /// Whether events of `sender` are left out; `state_key` is the event's. State is always shown, or
    /// the room would look different to this user.
    pub fn hides(&self, sender: &UserId, state_key: Option<&str>) -> bool {
        state_key.is_none() && self.ignores(sender)
    }

    /// Whether the user ignores anybody at all.
    pub fn ignores_anybody(&self) -> bool {
        !self.ignored.is_empty()
    }

    /// Whether the user ignores `other`.
    pub fn ignores(&self, other: &UserId) -> bool {
        !self.ignored.is_empty() && self.ignored.contains(other.as_str())
    }

    /// What becomes of an invitation by `inviter`.
    pub fn invite_from(&self, inviter: &UserId) -> InviteVerdict {
        if self.permissions.is_empty() {
            return if self.ignores(inviter) { InviteVerdict::Hidden } else { InviteVerdict::Welcome };
        }
        if let Some(known) = self.verdicts.lock().get(inviter) {
            return *known;
        }
        let verdict = self.judge(inviter);
        // Patterns may be many and slow, and one who invites often is judged once.
        let mut verdicts = self.verdicts.lock();
        if verdicts.len() >= CACHED_VERDICTS {
            verdicts.clear();
        }
        verdicts.insert(inviter.to_owned(), verdict);
        verdict
    }

    fn judge(&self, inviter: &UserId) -> InviteVerdict {
        let mut verdict = InviteVerdict::Welcome;
        for permissions in &self.permissions {
            match permissions.judge(inviter) {
                InviteVerdict::Blocked => return InviteVerdict::Blocked,
                InviteVerdict::Hidden => verdict = InviteVerdict::Hidden,
                InviteVerdict::Welcome => {}
            }
        }
        if self.ignores(inviter) { InviteVerdict::Hidden } else { verdict }
    }

    /// `ignored`, and as many `permissions` as there are. Clients write what they like: what has another
    /// shape says nothing.
    fn read(ignored: Option<&Value>, permissions: &[Value]) -> Self {
        let permissions = permissions.iter().map(Permissions::read).collect();
        Self { ignored: ignored.map(ignored_users).unwrap_or_default(), permissions, verdicts: Mutex::default() }
    }
}

/// One account's `m.invite_permission_config`.
#[derive(Debug)]
struct Permissions {
    blocks_all: bool,
    users: Lists,
    servers: Lists,
}

impl Permissions {
    fn read(content: &Value) -> Self {
        let blocks_all = content.get("default_action").and_then(Value::as_str) == Some("block");
        let lists = |suffix: &str| {
            if content.get("enabled").and_then(Value::as_bool) == Some(false) {
                return Lists::default();
            }
            let patterns = |word: &str| Patterns::read(content.get(format!("{word}_{suffix}")));
            Lists { allowed: patterns("allowed"), hidden: patterns("ignored"), blocked: patterns("blocked") }
        };
        Self { blocks_all, users: lists("users"), servers: lists("servers") }
    }

    /// What is said of a user comes before what is said of its server.
    fn judge(&self, inviter: &UserId) -> InviteVerdict {
        if self.blocks_all {
            return InviteVerdict::Blocked;
        }
        let server = inviter.server_name().as_str();
        let of_user = self.users.judge(inviter.as_str());
        of_user.or_else(|| self.servers.judge(server)).unwrap_or(InviteVerdict::Welcome)
    }
}

#[derive(Debug, Default)]
struct Lists {
    allowed: Patterns,
    hidden: Patterns,
    blocked: Patterns,
}

impl Lists {
    fn judge(&self, name: &str) -> Option<InviteVerdict> {
        let lists = [
            (&self.allowed, InviteVerdict::Welcome),
            (&self.hidden, InviteVerdict::Hidden),
            (&self.blocked, InviteVerdict::Blocked),
        ];
        lists.into_iter().find(|(list, _)| list.contain(name)).map(|(_, verdict)| verdict)
    }
}

/// Names, and globs in which `*` is any run of characters and `?` any one.
#[derive(Debug, Default)]
struct Patterns {
    names: HashSet<String>,
    globs: Vec<String>,
}

impl Patterns {
    fn read(list: Option<&Value>) -> Self {
        let texts = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let (globs, names): (Vec<_>, Vec<_>) = texts.partition(|text| text.contains(['*', '?']));
        Self {
            names: names.into_iter().map(str::to_owned).collect(),
            globs: globs.into_iter().map(str::to_owned).collect(),
        }
    }

    fn contain(&self, name: &str) -> bool {
        self.names.contains(name) || self.globs.iter().any(|pattern| glob(pattern, name))
    }
}

/// Never worse than the product of both lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(b'?') => (p, t) = (p + 1, t + 1),
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Lists by user. As in `sessions`: a look-up that read before a commit must not be kept after it.
pub(crate) struct ScreeningCache {
    by_user: Cache<UserNid, Arc<Screening>, UnitWeighter, BuildHasherDefault<NidHasher>>,
    epoch: Mutex<u64>,
}

impl ScreeningCache {
    pub(crate) fn new() -> Self {
        let by_user = Cache::with(
            EXPECTED,
            CACHED_USERS,
            UnitWeighter,
            BuildHasherDefault::default(),
            DefaultLifecycle::default(),
        );
        Self { by_user, epoch: Mutex::new(0) }
    }

    fn keep(&self, epoch: u64, user: UserNid, screening: &Arc<Screening>) {
        let now = self.epoch.lock();
        if *now == epoch {
            self.by_user.insert(user, Arc::clone(screening));
        }
    }

    /// To be called when new lists are durable and before anybody is told.
    pub(crate) fn forget(&self, user: UserNid) {
        // Under the lock: whoever sees the new epoch must not find the old lists.
        let mut epoch = self.epoch.lock();
        *epoch += 1;
        self.by_user.remove(&user);
    }
}

/// One user's lists, kept by who asks for them again and again.
#[derive(Debug, Default)]
pub struct KnownScreening(Mutex<Option<(u64, Arc<Screening>)>>);

/// Whether account data of this room (`""`: global) and type is read here.
pub(crate) fn decides(room: &str, kind: &str) -> bool {
    room.is_empty() && (kind == IGNORED_USERS || PERMISSIONS.contains(&kind))
}

/// Whether `json`, to be stored as global account data of this type, makes `user` ignore itself.
pub(crate) fn ignores_itself(ids: &Ids, user: UserNid, kind: &str, json: &str) -> bool {
    let is_user = |name: &String| <&UserId>::try_from(name.as_str()).is_ok_and(|id| ids.user(id) == user);
    // The caller has parsed it.
    kind == IGNORED_USERS && serde_json::from_str(json).is_ok_and(|content| ignored_users(&content).iter().any(is_user))
}

impl Accounts {
    /// The same as [`Self::screening`], cheaper while nobody changes such a list; `known` is only for this user.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn screening_kept(&self, user: UserNid, known: &KnownScreening) -> Result<Arc<Screening>, StoreError> {
        let epoch = *self.screenings.epoch.lock();
        if let Some((_, screening)) = known.0.lock().as_ref().filter(|(read, _)| *read == epoch) {
            return Ok(Arc::clone(screening));
        }
        let screening = Box::pin(self.screening(user)).await?;
        *known.0.lock() = Some((epoch, Arc::clone(&screening)));
        Ok(screening)
    }

    /// Whom `user` does not want to hear from.
    ///
    /// # Errors
    /// If the store cannot be read: a list that is damaged must not let in whom it blocks.
    pub async fn screening(&self, user: UserNid) -> Result<Arc<Screening>, StoreError> {
        if let Some(known) = self.screenings.by_user.get(&user) {
            return Ok(known);
        }
        let epoch = *self.screenings.epoch.lock();
        let kinds = std::iter::once(IGNORED_USERS).chain(PERMISSIONS);
        let keys: Vec<_> = kinds.map(|kind| (user, String::new(), kind.to_owned())).collect();
        let (mut ignored, mut permissions) = (None, Vec::new());
        for ((.., kind), row) in keys.iter().zip(self.view().await?.get_many::<AccountData>(&keys).await?) {
            let Some(row) = row else { continue };
            let content: Value = serde_json::from_str(&row.json).map_err(|error| damaged("AccountData", error))?;
            if kind == IGNORED_USERS {
                ignored = Some(content);
            } else {
                permissions.push(content);
            }
        }
        let screening = Arc::new(Screening::read(ignored.as_ref(), &permissions));
        self.screenings.keep(epoch, user, &screening);
        Ok(screening)
    }
}

#[cfg(test)]
mod tests {
    use ruma_common::user_id;
    use serde_json::json;

    use super::InviteVerdict::{Blocked, Hidden, Welcome};
    use super::*;

    fn screening(ignored: &Value, permissions: &[Value]) -> Screening {
        Screening::read(Some(ignored), permissions)
    }

    #[test]
    fn messages_of_ignored_users_are_hidden_and_their_state_is_not() {
        let lists = screening(&json!({"ignored_users": {"@bob:x": {}}}), &[]);
        assert!(lists.hides(user_id!("@bob:x"), None));
        assert!(!lists.hides(user_id!("@bob:x"), Some("")));
        assert!(!lists.hides(user_id!("@ann:x"), None));
        assert_eq!(lists.invite_from(user_id!("@bob:x")), Hidden);
        assert_eq!(lists.invite_from(user_id!("@ann:x")), Welcome);
    }

    #[test]
    fn what_is_no_list_ignores_nobody() {
        for wrong in [json!({}), json!([]), json!({"ignored_users": ["@bob:x"]}), json!({"ignored_users": null})] {
            assert!(!screening(&wrong, &[]).ignores(user_id!("@bob:x")), "{wrong}");
        }
    }

    #[test]
    fn users_come_before_servers_and_allowing_before_hiding_before_blocking() {
        let lists = json!({
            "allowed_users": ["@friend:bad.x", "@both:x"], "ignored_users": ["@both:x", "@odd-?:*"],
            "blocked_users": ["@both:x", "@odd-*:*", "@foe:good.x"],
            "allowed_servers": ["good.x"], "ignored_servers": ["quiet.x"], "blocked_servers": ["*.x", "quiet.x"],
        });
        for (inviter, verdict) in [
            ("@friend:bad.x", Welcome),
            ("@both:x", Welcome),
            ("@odd-1:good.x", Hidden),
            ("@odd-12:good.x", Blocked),
            ("@foe:good.x", Blocked),
            ("@ann:good.x", Welcome),
            ("@ann:quiet.x", Hidden),
            ("@ann:bad.x", Blocked),
            ("@ann:y", Welcome),
        ] {
            let inviter = UserId::parse(inviter).unwrap();
            let lists = screening(&json!({}), std::slice::from_ref(&lists));
            assert_eq!(lists.invite_from(&inviter), verdict, "{inviter}");
            assert_eq!(lists.invite_from(&inviter), verdict, "{inviter} again");
        }
    }

    #[test]
    fn blocking_by_default_blocks_everybody_and_wrong_values_nobody() {
        let blocks = |json: Value| screening(&json!({}), &[json]).invite_from(user_id!("@bob:x"));
        assert_eq!(blocks(json!({"default_action": "block"})), Blocked);
        assert_eq!(blocks(json!({"default_action": "block", "allowed_users": ["@bob:x"]})), Blocked);
        for wrong in [
            json!({"default_action": "Block"}),
            json!({"default_action": true}),
            json!({"blocked_users": null, "blocked_servers": "x"}),
            json!({"enabled": false, "blocked_users": ["@bob:x"]}),
            json!({}),
        ] {
            assert_eq!(blocks(wrong.clone()), Welcome, "{wrong}");
        }
        let both = [json!({"ignored_users": ["@bob:x"]}), json!({"default_action": "block"})];
        assert_eq!(screening(&json!({}), &both).invite_from(user_id!("@bob:x")), Blocked);
    }
}

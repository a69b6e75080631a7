//! How often somebody may do something.
//!
//! The problem: guessing passwords, making accounts and flooding rooms cost an attacker one request
//! each, and must not cost the others their server. Whoever is logged in is counted as a user,
//! wherever the request comes from; everything that comes before that is counted by address; and all
//! requests of one address together have a generous bound, so that no path is without any.
//!
//! A failed log-in is counted for the account and for the address. An attempt takes its token before
//! the password is checked and gets it back if it was right: so a thousand attempts at once are no
//! more than a thousand in a row.

mod address;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hearth_base::{Buckets, Clock, Rate};
use hearth_schema::UserNid;
use http::{Extensions, HeaderMap, Method};

pub use address::{ClientAddress, Peer, TrustedProxies};

use crate::ClientApiSettings;
use crate::error::ApiError;
use crate::routes::behind_prefix;

/// Buckets that are remembered at once: some 10 MiB when all are in use.
const CAPACITY: usize = 1 << 17;
/// Bytes of a user name that are looked at; no account has a longer one.
const NAME_BYTES: usize = 255;

/// What is allowed to whom. `None`: as much as they like.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimits {
    /// Attempts to log in, by address.
    pub login: Option<Rate>,
    /// Wrong passwords, by account.
    pub failed_login_account: Option<Rate>,
    /// Wrong passwords, by address.
    pub failed_login_address: Option<Rate>,
    /// Requests to register, by address.
    pub registration: Option<Rate>,
    /// Questions about user names and registration tokens, by address.
    pub lookup: Option<Rate>,
    /// Events sent, by user.
    pub sending: Option<Rate>,
    /// Rooms joined, knocked at and made, by user.
    pub joins: Option<Rate>,
    /// Users invited, by user.
    pub invites: Option<Rate>,
    /// Reports of what is inappropriate, by user.
    pub reports: Option<Rate>,
    /// Everything else, by user.
    pub user: Option<Rate>,
    /// All requests, by address.
    pub address: Option<Rate>,
}

/// One of [`RateLimits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rule {
    Login,
    FailedLoginAccount,
    FailedLoginAddress,
    Registration,
    Lookup,
    Sending,
    Joins,
    Invites,
    Reports,
    User,
    Address,
}

impl RateLimits {
    const fn rate(&self, rule: Rule) -> Option<Rate> {
        match rule {
            Rule::Login => self.login,
            Rule::FailedLoginAccount => self.failed_login_account,
            Rule::FailedLoginAddress => self.failed_login_address,
            Rule::Registration => self.registration,
            Rule::Lookup => self.lookup,
            Rule::Sending => self.sending,
            Rule::Joins => self.joins,
            Rule::Invites => self.invites,
            Rule::Reports => self.reports,
            Rule::User => self.user,
            Rule::Address => self.address,
        }
    }
}

/// Who is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    /// Somebody on this machine.
    Local,
    V4([u8; 4]),
    /// The first 64 bits: whoever has one such address usually has all of them.
    V6(u128),
    User(UserNid),
    /// The hash of a name that somebody tries to log in with, whether or not there is such an account.
    Name(u64),
}

impl From<ClientAddress> for Who {
    fn from(ClientAddress(address): ClientAddress) -> Self {
        match address {
            None => Self::Local,
            Some(IpAddr::V4(v4)) => Self::V4(v4.octets()),
            Some(IpAddr::V6(v6)) => Self::V6(v6.to_bits() >> 64),
        }
    }
}

/// Routes that have a rule of their own: method, path behind the prefix, rule.
const RULES: &[(Method, &str, Rule)] = &[
    (Method::POST, "/login", Rule::Login),
    (Method::POST, "/register", Rule::Registration),
    (Method::GET, "/_synapse/admin/v1/register", Rule::Registration),
    (Method::POST, "/_synapse/admin/v1/register", Rule::Registration),
    (Method::GET, "/register/available", Rule::Lookup),
    (Method::GET, "/_matrix/client/v1/register/m.login.registration_token/validity", Rule::Lookup),
    (Method::PUT, "/rooms/{room_id}/send/{type}/{txn}", Rule::Sending),
    (Method::PUT, "/rooms/{room_id}/delayed_event/{type}/{txn}", Rule::Sending),
    (
        Method::PUT,
        "/_matrix/client/unstable/org.matrix.msc4140/rooms/{room_id}/delayed_event/{type}/{txn}",
        Rule::Sending,
    ),
    (Method::PUT, "/rooms/{room_id}/redact/{event_id}/{txn}", Rule::Sending),
    (Method::PUT, "/rooms/{room_id}/state/{type}", Rule::Sending),
    (Method::PUT, "/rooms/{room_id}/state/{type}/", Rule::Sending),
    (Method::PUT, "/rooms/{room_id}/state/{type}/{state_key}", Rule::Sending),
    (Method::POST, "/createRoom", Rule::Joins),
    (Method::POST, "/join/{room}", Rule::Joins),
    (Method::POST, "/knock/{room}", Rule::Joins),
    (Method::POST, "/rooms/{room_id}/join", Rule::Joins),
    (Method::POST, "/rooms/{room_id}/upgrade", Rule::Joins),
    (Method::POST, "/rooms/{room_id}/invite", Rule::Invites),
    (Method::POST, "/rooms/{room_id}/report", Rule::Reports),
    (Method::POST, "/rooms/{room_id}/report/{event_id}", Rule::Reports),
    (Method::POST, "/users/{user_id}/report", Rule::Reports),
];

/// The rule for a route; [`Rule::User`] for all that have none of their own.
fn rule_of(method: &Method, extensions: &Extensions) -> Rule {
    let path = behind_prefix(extensions);
    let found = RULES.iter().find(|(with, of, _)| *of == path && with == method);
    found.map_or(Rule::User, |(_, _, rule)| *rule)
}

/// All buckets, and what they are filled with.
pub(crate) struct Limits {
    rates: Option<RateLimits>,
    proxies: TrustedProxies,
    clock: Arc<dyn Clock>,
    buckets: Buckets<(Rule, Who)>,
    names: RandomState,
    warned: AtomicBool,
}

impl Limits {
    pub(crate) fn new(settings: &ClientApiSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            rates: settings.rate_limits,
            proxies: settings.trusted_proxies.clone(),
            clock,
            buckets: Buckets::new(CAPACITY),
            names: RandomState::new(),
            warned: AtomicBool::new(false),
        }
    }

    /// The client of a request.
    pub(crate) fn client(&self, extensions: &Extensions, headers: &HeaderMap) -> ClientAddress {
        let peer = extensions.get::<Peer>().copied().unwrap_or_default();
        if self.rates.is_some() && self.proxies.ignores(peer, headers) && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?peer,
                "a peer that listen.trusted_proxies does not name sends X-Forwarded-For: if it is your proxy, name it, \
                 or all its clients share one rate limit"
            );
        }
        self.proxies.client(peer, headers)
    }

    /// Counts a request for its address, before anything is done for it.
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED`
    pub(crate) fn arrived(
        &self,
        method: &Method,
        extensions: &Extensions,
        address: ClientAddress,
    ) -> Result<(), ApiError> {
        if self.rates.is_none() {
            return Ok(());
        }
        self.take(Rule::Address, address.into(), 1)?;
        match rule_of(method, extensions) {
            rule @ (Rule::Login | Rule::Registration | Rule::Lookup) => self.take(rule, address.into(), 1),
            _ => Ok(()),
        }
    }

    /// Counts a request for its user, before anything but looking at the access token is done for it.
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED`
    pub(crate) fn authenticated(
        &self,
        method: &Method,
        extensions: &Extensions,
        user: UserNid,
    ) -> Result<(), ApiError> {
        if self.rates.is_none() {
            return Ok(());
        }
        match rule_of(method, extensions) {
            rule @ (Rule::Sending | Rule::Joins | Rule::Invites | Rule::Reports) => self.take(rule, Who::User(user), 1),
            _ => self.take(Rule::User, Who::User(user), 1),
        }
    }

    /// Counts `count` invitations that come with another request.
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED`
    pub(crate) fn inviting(&self, user: UserNid, count: usize) -> Result<(), ApiError> {
        match u32::try_from(count) {
            Ok(0) => Ok(()),
            Ok(count) => self.take(Rule::Invites, Who::User(user), count),
            Err(_) => self.take(Rule::Invites, Who::User(user), u32::MAX),
        }
    }

    /// Counts a room that is entered by another request than those for that.
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED`
    pub(crate) fn joining(&self, user: UserNid) -> Result<(), ApiError> {
        self.take(Rule::Joins, Who::User(user), 1)
    }

    /// Counts an attempt at the password of `user` (a localpart or a user ID), which counts as wrong
    /// unless [`PasswordAttempt::was_not_wrong`].
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED`
    pub(crate) fn password_attempt(
        &self,
        user: &str,
        address: Option<ClientAddress>,
    ) -> Result<PasswordAttempt<'_>, ApiError> {
        let account = self.name(user);
        self.take(Rule::FailedLoginAccount, account, 1)?;
        if let Some(address) = address
            && let Err(refused) = self.take(Rule::FailedLoginAddress, address.into(), 1)
        {
            self.give_back(Rule::FailedLoginAccount, account);
            return Err(refused);
        }
        Ok(PasswordAttempt { limits: self, account, address: address.map(Who::from) })
    }

    /// All spellings of one account are one: `ann`, `Ann`, `@ann:example.org`.
    fn name(&self, user: &str) -> Who {
        let local = user.strip_prefix('@').map_or(user, |id| id.split(':').next().unwrap_or(id));
        let bytes = local.as_bytes();
        let small = bytes[..bytes.len().min(NAME_BYTES)].to_ascii_lowercase();
        Who::Name(self.names.hash_one(small))
    }

    fn take(&self, rule: Rule, who: Who, count: u32) -> Result<(), ApiError> {
        let Some(rate) = self.rates.as_ref().and_then(|rates| rates.rate(rule)) else { return Ok(()) };
        self.buckets.take((rule, who), rate, count, self.clock.now()).map_err(ApiError::limit_exceeded)
    }

    fn give_back(&self, rule: Rule, who: Who) {
        if let Some(rate) = self.rates.as_ref().and_then(|rates| rates.rate(rule)) {
            self.buckets.give_back((rule, who), rate);
        }
    }
}

/// An attempt at a password. Dropped, it was a wrong one: so is one whose client did not wait.
#[must_use]
pub(crate) struct PasswordAttempt<'a> {
    limits: &'a Limits,
    account: Who,
    address: Option<Who>,
}

impl PasswordAttempt<'_> {
    /// The password was right, or was not looked at.
    pub(crate) fn was_not_wrong(self) {
        self.limits.give_back(Rule::FailedLoginAccount, self.account);
        if let Some(address) = self.address {
            self.limits.give_back(Rule::FailedLoginAddress, address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_for_routes_that_exist() {
        let paths = crate::routes::paths();
        for (_, path, _) in RULES {
            let prefix = if path.starts_with("/_") { "" } else { crate::routes::PREFIXES[0] };
            let whole = format!("{prefix}{path}");
            assert!(paths.contains(&whole), "no route is named {whole}");
        }
    }

    #[test]
    fn addresses_of_version_6_count_by_64_bits() {
        let who = |text: &str| Who::from(ClientAddress(Some(text.parse().unwrap())));
        assert_eq!(who("2001:db8:0:1::1"), who("2001:db8:0:1:ffff::2"));
        assert_ne!(who("2001:db8:0:1::1"), who("2001:db8:0:2::1"));
        assert_ne!(who("203.0.113.1"), who("203.0.113.2"));
    }
}

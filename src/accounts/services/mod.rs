//! Application services: bridges and bots that act as users of their own
//! ([spec](https://spec.matrix.org/v1.19/application-service-api/)).
//!
//! The operator registers them in files, which the program reads at its start. Here is the one place
//! that knows all of them: who asks with a service's token, whom a service may act as, and which names
//! are a service's alone. What a service does as a user goes the way of every user, and so do the
//! limits and refusals of that user.

mod acting;
mod namespace;
mod registration;
mod users;

use std::collections::HashMap;
use std::sync::Arc;

use hearth_base::Secret;
use hearth_schema::{Ids, NidMap, TokenKey};
use ruma_common::{DeviceId, OwnedDeviceId, OwnedUserId, RoomAliasId, UserId};

pub use acting::{Acting, ActingError};
pub use namespace::{Claim, Namespaces};
pub use registration::RegistrationError;
pub use users::{PutDevice, ServiceLoginError};

/// Services that may be registered.
pub const MAX_SERVICES: usize = 256;

/// Whether the requests of a service's users are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimit {
    /// As those of everybody.
    AsUsers,
    /// They are not.
    Lifted,
}

/// An application service, as its registration says.
pub struct Service {
    id: String,
    url: Option<String>,
    as_token: Secret<String>,
    hs_token: Secret<String>,
    sender: OwnedUserId,
    users: Namespaces,
    aliases: Namespaces,
    rooms: Namespaces,
    rate_limit: RateLimit,
    protocols: Vec<String>,
    receives_ephemeral: bool,
    client_name: String,
}

impl Service {
    /// Its ID, which never changes.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is told of events; `None`: nowhere.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// What this server shows to it.
    pub const fn hs_token(&self) -> &Secret<String> {
        &self.hs_token
    }

    /// The user that it acts as unless it names another.
    pub fn sender(&self) -> &UserId {
        &self.sender
    }

    /// User IDs that it claims, beside its sender's.
    pub const fn users(&self) -> &Namespaces {
        &self.users
    }

    /// Aliases that it claims.
    pub const fn aliases(&self) -> &Namespaces {
        &self.aliases
    }

    /// Room IDs that it claims.
    pub const fn rooms(&self) -> &Namespaces {
        &self.rooms
    }

    /// Networks that it connects to.
    pub fn protocols(&self) -> &[String] {
        &self.protocols
    }

    /// Whether it wants to be told of typing, receipts and presence.
    pub const fn receives_ephemeral(&self) -> bool {
        self.receives_ephemeral
    }

    /// Whether `user`, who must be local, is one that it may act as.
    pub fn has_user(&self, user: &UserId) -> bool {
        self.sender == user || self.users.contains(user.as_str())
    }

    /// Whether its requests as `user` are counted. Those of its sender never are.
    pub fn rate_limit(&self, user: &UserId) -> RateLimit {
        if self.sender == user { RateLimit::Lifted } else { self.rate_limit }
    }

    /// Whether requests that it makes as nobody yet are counted, such as those to register.
    pub const fn own_rate_limit(&self) -> RateLimit {
        self.rate_limit
    }
}

/// By its ID: registrations have different ones.
impl PartialEq for Service {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Service {}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("id", &self.id).field("sender", &self.sender).finish_non_exhaustive()
    }
}

/// Two registrations that cannot both hold. The words hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServicesError {
    /// They have something in common that must tell them apart.
    #[error("the services \"{first}\" and \"{second}\" have the same \"{key}\": each must have its own")]
    Same { key: &'static str, first: String, second: String },
    /// There are more than anybody needs.
    #[error("more than {MAX_SERVICES} services")]
    TooMany,
}

/// What a registration says under one key.
type Told = fn(&Service) -> &str;

/// All registered services.
#[derive(Clone, Debug, Default)]
pub struct Services(Arc<[Arc<Service>]>);

impl Services {
    /// All of `services`.
    ///
    /// # Errors
    /// If two of them could be mistaken for each other.
    pub fn new(services: Vec<Service>) -> Result<Self, ServicesError> {
        if services.len() > MAX_SERVICES {
            return Err(ServicesError::TooMany);
        }
        let keys: [(&'static str, Told); 4] = [
            ("id", |service| &service.id),
            ("as_token", |service| service.as_token.expose()),
            ("hs_token", |service| service.hs_token.expose()),
            ("sender_localpart", |service| service.sender.localpart()),
        ];
        for (key, value) in keys {
            let mut seen = HashMap::new();
            for service in &services {
                if let Some(first) = seen.insert(value(service), service) {
                    let (first, second) = (first.id.clone(), service.id.clone());
                    return Err(ServicesError::Same { key, first, second });
                }
            }
        }
        Ok(Self(services.into_iter().map(Arc::new).collect()))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `user` is claimed by a service alone that is not `by`.
    pub fn reserves_user(&self, user: &UserId, by: Option<&Service>) -> bool {
        self.others(by).any(|service| service.sender == user || service.users.contains_exclusively(user.as_str()))
    }

    /// Whether `alias` is claimed by a service alone that is not `by`.
    pub fn reserves_alias(&self, alias: &RoomAliasId, by: Option<&Service>) -> bool {
        self.others(by).any(|service| service.aliases.contains_exclusively(alias.as_str()))
    }

    fn others<'a>(&'a self, by: Option<&'a Service>) -> impl Iterator<Item = &'a Arc<Service>> {
        self.iter().filter(move |service| by.is_none_or(|by| by.id != service.id))
    }
}

/// Services by their tokens. Keyed by a keyed hash, as users' tokens are: how long a look-up takes tells
/// nothing about a token.
pub(crate) struct ServiceTable {
    pub(crate) all: Services,
    by_token: NidMap<TokenKey, Arc<Service>>,
}

impl ServiceTable {
    pub(crate) fn new(all: Services, ids: &Ids) -> Self {
        let by_token = all.iter().map(|service| (ids.token(service.as_token.expose()), Arc::clone(service)));
        Self { by_token: by_token.collect(), all }
    }

    pub(crate) fn get(&self, token: TokenKey) -> Option<&Arc<Service>> {
        self.by_token.get(&token)
    }
}

/// What a request is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// A device, by its own access token.
    Device(OwnedDeviceId),
    /// A service that acts as the user.
    Service {
        /// Which one.
        service: Arc<Service>,
        /// The user's device that it acts as, if it names one.
        device_id: Option<OwnedDeviceId>,
    },
}

impl Client {
    /// The device, if there is one.
    pub fn device_id(&self) -> Option<&DeviceId> {
        match self {
            Self::Device(device_id) => Some(device_id),
            Self::Service { device_id, .. } => device_id.as_deref(),
        }
    }

    /// The service, if one acts.
    pub fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::Device(_) => None,
            Self::Service { service, .. } => Some(service),
        }
    }

    /// What tells this client from the others of its user, for what is remembered of each: transactions,
    /// members that it was sent, its presence. The device's ID; for a service that names no device, a
    /// name of the service, which no device has.
    pub fn name(&self) -> &DeviceId {
        match self {
            Self::Device(device_id) | Self::Service { device_id: Some(device_id), .. } => device_id,
            Self::Service { service, device_id: None } => service.client_name.as_str().into(),
        }
    }
}

impl From<&str> for Client {
    fn from(device_id: &str) -> Self {
        Self::Device(device_id.into())
    }
}

#[cfg(test)]
mod tests {
    use ruma_common::{room_alias_id, server_name, user_id};
    use serde_json::json;

    use super::*;
    use crate::testing::service;

    #[test]
    fn two_services_with_the_same_secret_or_name_are_refused() {
        let changed = |key: &str, value: &str| {
            let mut document = service("two");
            document[key] = json!(value);
            let read = |document| Service::from_registration(document, server_name!("hs.test")).unwrap();
            Services::new(vec![read(&service("one")), read(&document)]).map(drop)
        };
        assert_eq!(changed("unknown", "x"), Ok(()));
        let text = |key: &str| service("one")[key].as_str().unwrap().to_owned();
        for key in ["id", "as_token", "hs_token", "sender_localpart"] {
            let Err(error) = changed(key, &text(key)) else { panic!("{key} may be the same") };
            assert!(matches!(&error, ServicesError::Same { key: same, .. } if *same == key), "{error}");
            assert!(!error.to_string().contains("0123456789"), "{error}");
        }
    }

    #[test]
    fn names_claimed_by_one_service_alone_are_for_nobody_else() {
        let read = |id| Service::from_registration(&service(id), server_name!("hs.test")).unwrap();
        let services = Services::new(vec![read("one"), read("two")]).unwrap();
        let [one, two] = [0, 1].map(|at| services.0[at].clone());
        let ghost = user_id!("@_one_ann:hs.test");
        assert!(services.reserves_user(ghost, None));
        assert!(services.reserves_user(ghost, Some(&two)));
        assert!(!services.reserves_user(ghost, Some(&one)));
        assert!(!services.reserves_user(user_id!("@ann:hs.test"), None));
        let alias = room_alias_id!("#_one_room:hs.test");
        assert!(!services.reserves_alias(alias, Some(&one)));
        assert!(services.reserves_alias(alias, Some(&two)));
        assert!(services.reserves_alias(alias, None));
        assert!(!services.reserves_alias(room_alias_id!("#room:hs.test"), None));
    }

    #[test]
    fn a_service_without_device_is_told_from_every_device() {
        let read = |id| Arc::new(Service::from_registration(&service(id), server_name!("hs.test")).unwrap());
        let without = |id| Client::Service { service: read(id), device_id: None };
        assert_ne!(without("one").name(), without("two").name());
        assert_eq!(without("one").device_id(), None);
        let request = crate::DeviceRequest { device_id: Some(without("one").name().to_owned()), ..Default::default() };
        crate::register::check_device(&request).expect_err("no device is called so");
        let with = Client::Service { service: read("one"), device_id: Some("PHONE".into()) };
        assert_eq!(with.name(), Client::from("PHONE").name());
    }
}

//! Application services: as whom they act, and what only they may do
//! ([spec](https://spec.matrix.org/v1.19/application-service-api/#client-server-api-extensions)).

use std::sync::Arc;

use hearth_accounts::{Acting, ActingError, Client, RateLimit, Requester, Service};
use hearth_base::Millis;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri};
use ruma_common::RoomAliasId;

use crate::error::ApiError;
use crate::params::{Query, invalid};
use crate::standing::{Routes, names};
use crate::{Api, auth, routes, standing};

/// What is no service's to do: the management of an account, for which its user is asked, and the end of
/// a session, which a service does not have.
const NOT_FOR_SERVICES: Routes = &[
    (Method::POST, "/account/deactivate"),
    (Method::POST, "/account/password"),
    (Method::POST, "/logout"),
    (Method::POST, "/_matrix/client/v1/login/get_token"),
];

/// What a service does as a user that it names.
const ONLY_AS_USER: Routes =
    &[(Method::GET, "/sync"), (Method::POST, "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync")];

/// The largest integer in canonical JSON.
const MAX_TIMESTAMP: u64 = (1 << 53) - 1;

/// Who makes a request that carries the token of `service`.
///
/// # Errors
/// If the service may not act so, or the user may not make this request, or too many.
pub(crate) async fn requester(api: &Api, service: &Arc<Service>, parts: &Parts) -> Result<Requester, ApiError> {
    let query = Query::read(parts.uri.query());
    let acting = Acting { user_id: query.get("user_id"), device_id: query.get("device_id") };
    let requester = api.accounts.act(service, acting).await?;
    if service.rate_limit(&requester.user_id) == RateLimit::AsUsers {
        api.limits.authenticated(&parts.method, &parts.extensions, requester.user)?;
    }
    standing::check(requester.standing, parts)?;
    let route = routes::behind_prefix(&parts.extensions);
    if names(NOT_FOR_SERVICES, &parts.method, route) {
        return Err(ApiError::forbidden("an application service cannot do this for a user"));
    }
    if acting.user_id.is_none() && names(ONLY_AS_USER, &parts.method, route) {
        return Err(ApiError::forbidden("an application service syncs as a user that it names with \"user_id\""));
    }
    Ok(requester)
}

/// The service whose token a request to register or to log in carries.
///
/// # Errors
/// 401 if it carries none, or one that is no service's.
pub(crate) fn shown<'a>(api: &'a Api, auth::Token(token): &auth::Token) -> Result<&'a Arc<Service>, ApiError> {
    let token = token.as_ref().ok_or_else(auth::missing_token)?;
    let unknown = || auth::unknown_token("this is not the token of an application service").with("soft_logout", false);
    api.accounts.service(token.expose()).ok_or_else(unknown)
}

/// Whether a request with this head is not counted for its address: a service sends it that has no limit.
pub(crate) fn is_unlimited(api: &Api, headers: &HeaderMap, uri: &Uri) -> bool {
    if api.accounts.services().is_empty() {
        return false;
    }
    let token = auth::token(headers, uri, &api.settings);
    let service = token.and_then(|token| api.accounts.service(&token));
    service.is_some_and(|service| service.own_rate_limit() == RateLimit::Lifted)
}

/// Whether what the requester does is counted.
pub(crate) fn is_counted(requester: &Requester) -> bool {
    let limit = requester.client.service().map(|service| service.rate_limit(&requester.user_id));
    limit != Some(RateLimit::Lifted)
}

/// What `ts` says of an event that a service sends; nothing for everybody else.
///
/// # Errors
/// `M_INVALID_PARAM` if no event could say so.
pub(crate) fn timestamp(requester: &Requester, query: &Query) -> Result<Option<Millis>, ApiError> {
    if requester.client.service().is_none() {
        return Ok(None);
    }
    match query.parse::<u64>("ts")? {
        Some(ts) if ts > MAX_TIMESTAMP => Err(invalid("ts")),
        ts => Ok(ts.map(Millis)),
    }
}

/// Whether the requester may make `alias`, as far as services claim aliases.
///
/// # Errors
/// `M_EXCLUSIVE`
pub(crate) fn may_make_alias(api: &Api, requester: &Requester, alias: &RoomAliasId) -> Result<(), ApiError> {
    let by = requester.client.service().map(|service| &**service);
    if by.is_some_and(|service| !service.aliases().contains(alias.as_str())) {
        return Err(exclusive("the application service does not have this alias"));
    }
    may_remove_alias(api, requester, alias)
}

/// Whether the requester may remove `alias`, as far as services claim aliases.
///
/// # Errors
/// `M_EXCLUSIVE`
pub(crate) fn may_remove_alias(api: &Api, requester: &Requester, alias: &RoomAliasId) -> Result<(), ApiError> {
    let by = requester.client.service().map(|service| &**service);
    if api.accounts.services().reserves_alias(alias, by) {
        return Err(exclusive("an application service has this alias"));
    }
    Ok(())
}

/// Whether `alias` is the requester's because it acts for the service that has it.
pub(crate) fn has_alias(requester: &Requester, alias: &RoomAliasId) -> bool {
    let Client::Service { service, .. } = &requester.client else { return false };
    service.aliases().contains_exclusively(alias.as_str())
}

/// 400 `M_EXCLUSIVE`
pub(crate) fn exclusive(message: &'static str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "M_EXCLUSIVE", message)
}

impl From<ActingError> for ApiError {
    fn from(error: ActingError) -> Self {
        match error {
            ActingError::OtherUser | ActingError::NotRegistered => Self::forbidden(error.to_string()),
            ActingError::Deactivated => Self::new(StatusCode::FORBIDDEN, "M_USER_DEACTIVATED", error.to_string()),
            ActingError::UnknownDevice => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN_DEVICE", error.to_string()),
            ActingError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_services_may_not_use_are_written_as_the_router_has_them() {
        let paths = routes::paths();
        for (_, path) in NOT_FOR_SERVICES.iter().chain(ONLY_AS_USER) {
            let prefix = if path.starts_with("/_") { "" } else { routes::PREFIXES[0] };
            assert!(paths.contains(&format!("{prefix}{path}")), "{path}");
        }
    }
}

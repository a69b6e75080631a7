//! Policies that whoever registers has to accept
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#terms-of-service-at-registration)).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::Accounts;

/// One policy in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What the policy is, such as `terms_of_service`.
    pub id: String,
    /// The same in all languages.
    pub version: String,
    /// Such as `en`.
    pub language: String,
    /// Where to read it.
    pub url: String,
    /// What to call it in that language.
    pub name: String,
}

/// The `params` of the stage `m.login.terms`.
pub(crate) fn params(policies: &[Policy]) -> Value {
    let mut by_id: Map<String, Value> = Map::new();
    for policy in policies {
        let entry = by_id.entry(policy.id.clone()).or_insert_with(|| json!({ "version": policy.version }));
        entry[policy.language.as_str()] = json!({ "name": policy.name, "url": policy.url });
    }
    json!({ "policies": by_id })
}

impl Accounts {
    /// The versions that somebody who registers now accepts, by policy.
    pub(crate) fn terms_in_force(&self) -> BTreeMap<String, String> {
        self.settings.policies.iter().map(|policy| (policy.id.clone(), policy.version.clone())).collect()
    }
}

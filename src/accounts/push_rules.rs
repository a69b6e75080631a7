//! Push rules: the server's defaults until the user changes something.

use hearth_schema::{AccountData, UserNid};
use hearth_store::{StoreError, View};
use ruma_common::UserId;
use ruma_common::push::Ruleset;
use serde::{Deserialize, Serialize};

use crate::error::damaged;
use crate::{AccountDataError, Accounts};

const TYPE: &str = "m.push_rules";

/// Content of `m.push_rules`.
#[derive(Serialize, Deserialize)]
struct PushRules {
    global: Ruleset,
}

impl Accounts {
    /// The push rules of a local user.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn push_rules(&self, user_id: &UserId) -> Result<Ruleset, StoreError> {
        push_rules(&self.view().await?, self.ids.user(user_id), user_id).await
    }

    /// The content of the event `m.push_rules` as /sync sends it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn push_rules_content(&self, user_id: &UserId) -> Result<String, StoreError> {
        let stored = self.account_data(self.ids.user(user_id), None, TYPE).await?;
        stored.map_or_else(|| content(Ruleset::server_default(user_id)), Ok)
    }

    /// Changes the push rules of a local user with nothing in between, so that of two devices that
    /// change different rules none undoes the other's. `change` is called again, on the newer rules,
    /// if somebody else was faster.
    ///
    /// # Errors
    /// Those of `change`, and if the rules are as before.
    pub async fn change_push_rules<E, F>(&self, user_id: &UserId, change: F) -> Result<(), E>
    where
        E: From<AccountDataError>,
        F: Fn(&mut Ruleset) -> Result<(), E> + Send + Sync,
    {
        let edit = |stored: Option<&str>| {
            let mut rules =
                stored.map_or_else(|| Ok(Ruleset::server_default(user_id)), parse).map_err(AccountDataError::from)?;
            change(&mut rules)?;
            Ok::<_, E>(Some(content(rules).map_err(AccountDataError::from)?))
        };
        self.edit_account_data(self.ids.user(user_id), (None, TYPE), edit).await.map(drop)
    }
}

/// The push rules of the local user `user_id`, whose number is `user`, in `view`.
///
/// # Errors
/// If the store cannot be read.
pub async fn push_rules(view: &View, user: UserNid, user_id: &UserId) -> Result<Ruleset, StoreError> {
    match view.get::<AccountData>(&(user, String::new(), TYPE.to_owned())).await? {
        None => Ok(Ruleset::server_default(user_id)),
        Some(row) => parse(&row.json),
    }
}

fn parse(json: &str) -> Result<Ruleset, StoreError> {
    let rules: PushRules = serde_json::from_str(json).map_err(|error| damaged("AccountData", error))?;
    Ok(rules.global)
}

fn content(rules: Ruleset) -> Result<String, StoreError> {
    serde_json::to_string(&PushRules { global: rules }).map_err(|error| damaged("AccountData", error))
}

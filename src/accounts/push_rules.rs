//! Push rules: the server's defaults until the user changes something.

use hearth_schema::{AccountData, UserNid};
use hearth_store::{Pos, StoreError, View};
use ruma_common::UserId;
use ruma_common::push::Ruleset;
use serde::{Deserialize, Serialize};

use crate::error::damaged;
use crate::{AccountDataError, Accounts, NewAccountData};

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

    /// Replaces the push rules of a local user and gives the position of the change.
    ///
    /// # Errors
    /// If they are as before.
    pub async fn set_push_rules(&self, user: UserNid, rules: Ruleset) -> Result<Pos, AccountDataError> {
        let data = NewAccountData { room: None, kind: TYPE.to_owned(), json: content(rules)? };
        self.set_account_data(user, data).await
    }
}

/// The push rules of the local user `user_id`, whose number is `user`, in `view`.
///
/// # Errors
/// If the store cannot be read.
pub async fn push_rules(view: &View, user: UserNid, user_id: &UserId) -> Result<Ruleset, StoreError> {
    match view.get::<AccountData>(&(user, String::new(), TYPE.to_owned())).await? {
        None => Ok(Ruleset::server_default(user_id)),
        Some(row) => {
            let rules: PushRules = serde_json::from_str(&row.json).map_err(|error| damaged("AccountData", error))?;
            Ok(rules.global)
        }
    }
}

fn content(rules: Ruleset) -> Result<String, StoreError> {
    serde_json::to_string(&PushRules { global: rules }).map_err(|error| damaged("AccountData", error))
}

//! Account data as events.

use hearth_accounts::{AccountDataItem, Requester, all_account_data};
use hearth_store::{StoreError, View};
use serde_json::Value;

use crate::json::{self, Parts};

const PUSH_RULES: &str = "m.push_rules";

/// Everything that the user has, and the push rules, which are there from the beginning.
pub(crate) async fn all(view: &View, who: &Requester) -> Result<Vec<AccountDataItem>, StoreError> {
    let mut items = all_account_data(view, who.user).await?;
    if !items.iter().any(|item| item.room.is_empty() && item.kind == PUSH_RULES) {
        let rules = hearth_accounts::push_rules(view, who.user, &who.user_id).await?;
        let rules = serde_json::to_string(&rules).map_err(|error| StoreError::Corrupt {
            keyspace: "AccountData",
            detail: format!("push rules: {error}").into(),
        })?;
        let json = format!("{{\"global\":{rules}}}");
        items.push(AccountDataItem { room: String::new(), kind: PUSH_RULES.to_owned(), json });
    }
    Ok(items)
}

/// The content of a stored item. All that is stored was JSON when it came.
pub(crate) fn content(json: &str) -> Result<Value, StoreError> {
    serde_json::from_str(json)
        .map_err(|error| StoreError::Corrupt { keyspace: "AccountData", detail: error.to_string().into() })
}

/// Appends the array of events.
pub(crate) fn write_items<'i>(items: impl Iterator<Item = &'i AccountDataItem>, out: &mut Vec<u8>) {
    let mut list = Parts::open(b'[', out);
    for item in items {
        let out = list.part(out);
        out.extend_from_slice(b"{\"content\":");
        out.extend_from_slice(item.json.as_bytes());
        out.extend_from_slice(b",\"type\":");
        json::string(&item.kind, out);
        out.push(b'}');
    }
    out.push(b']');
}

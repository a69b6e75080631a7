//! Whom a user ignores, as the user's account data says.

use std::collections::HashSet;

use serde_json::Value;

/// The type of the global account data that names them.
pub const IGNORED_USERS: &str = "m.ignored_user_list";

/// The IDs of the users whom the content of such an item names.
///
/// Clients write what they like: what is no list ignores nobody. What has come to the server as JSON and is none any
/// more is damage, which is for the caller to tell.
/// See <https://spec.matrix.org/v1.19/client-server-api/#mignored_user_list>.
pub fn ignored_users(content: &Value) -> HashSet<String> {
    match content.get("ignored_users") {
        Some(Value::Object(users)) => users.keys().cloned().collect(),
        _ => HashSet::new(),
    }
}

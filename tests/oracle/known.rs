//! Differences that are there for a reason. Whatever is not listed fails the test.

use hearth_event::RoomVersion;
use serde_json::Value;

use crate::Case;

/// Why our answer to `case` and `theirs` (`raw`, before it was brought to our shape) may differ.
pub(crate) fn reason(_version: RoomVersion, _case: &Case, _theirs: &Value, _raw: &Value) -> Option<&'static str> {
    None
}

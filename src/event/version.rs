//! Room versions as data.

use ruma_common::RoomVersionId;
use ruma_common::room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion, RoomVersionRules};

/// A room version that this server knows: 1 to 12.
///
/// Spec: <https://spec.matrix.org/v1.19/rooms/>
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RoomVersion(u8);

static RULES: [RoomVersionRules; 12] = [
    RoomVersionRules::V1,
    RoomVersionRules::V2,
    RoomVersionRules::V3,
    RoomVersionRules::V4,
    RoomVersionRules::V5,
    RoomVersionRules::V6,
    RoomVersionRules::V7,
    RoomVersionRules::V8,
    RoomVersionRules::V9,
    RoomVersionRules::V10,
    RoomVersionRules::V11,
    RoomVersionRules::V12,
];

static NAMES: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

impl RoomVersion {
    /// The version of new rooms.
    pub const DEFAULT: Self = Self(12);

    /// The version called `name`, if this server knows it.
    pub fn parse(name: &str) -> Option<Self> {
        let index = NAMES.iter().position(|known| *known == name)?;
        u8::try_from(index).ok().and_then(|index| index.checked_add(1)).map(Self)
    }

    /// Every version that this server knows, oldest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=12).map(Self)
    }

    /// Its name in `m.room.create`.
    pub fn as_str(self) -> &'static str {
        NAMES[self.index()]
    }

    /// Its name as a ruma type.
    pub fn id(self) -> RoomVersionId {
        RoomVersionId::try_from(self.as_str()).expect("ruma knows versions 1 to 12")
    }

    /// What holds in rooms of this version.
    pub fn rules(self) -> &'static RoomVersionRules {
        &RULES[self.index()]
    }

    /// Events carry their own `event_id`, and name others as pairs of ID and hashes (versions 1 and 2).
    pub(crate) fn has_event_id_field(self) -> bool {
        self.rules().event_id_format == EventIdFormatVersion::V1
    }

    /// `prev_events` and `auth_events` hold pairs of ID and hashes (versions 1 and 2).
    pub(crate) fn refers_by_pairs(self) -> bool {
        self.rules().events_reference_format == EventsReferenceFormatVersion::V1
    }

    /// The room ID is the create event's hash (from version 12).
    pub fn room_id_is_create_hash(self) -> bool {
        self.rules().authorization.room_create_event_id_as_room_id
    }

    /// `redacts` lies in the content of a redaction (from version 11).
    pub(crate) fn redacts_in_content(self) -> bool {
        self.rules().redaction.content_field_redacts
    }

    /// Numbers must be integers within ±(2^53 − 1), and keys unique (from version 6).
    pub(crate) fn strict_json(self) -> bool {
        self.rules().authorization.strict_canonical_json
    }

    /// The limits of names are held to in bytes (from version 11).
    pub(crate) fn counts_bytes(self) -> bool {
        self.0 >= 11
    }

    fn index(self) -> usize {
        usize::from(self.0.saturating_sub(1))
    }
}

impl Default for RoomVersion {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl std::fmt::Display for RoomVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::RoomVersion;

    #[test]
    fn knows_versions_one_to_twelve_and_no_other() {
        let names: Vec<_> = RoomVersion::all().map(RoomVersion::as_str).collect();
        assert_eq!(names.len(), 12);
        for name in names {
            assert_eq!(RoomVersion::parse(name).map(RoomVersion::as_str), Some(name));
        }
        for unknown in ["", "0", "01", "13", "1.0", " 1", "org.matrix.msc2870"] {
            assert_eq!(RoomVersion::parse(unknown), None, "{unknown}");
        }
        assert_eq!(RoomVersion::DEFAULT.as_str(), "12");
    }
}

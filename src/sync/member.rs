//! Member events.

use hearth_rooms::RoomEvent;
use hearth_schema::Membership;

/// `m.room.member`
pub(crate) const MEMBER: &str = "m.room.member";

/// The membership that a member event gives.
pub(crate) fn membership(event: &RoomEvent) -> Option<Membership> {
    #[derive(serde::Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        membership: std::borrow::Cow<'a, str>,
    }
    // The auth rules let no other content pass; for what is not a member event there is no answer.
    let content = serde_json::from_str::<Content<'_>>(event.pdu.content().get()).ok()?;
    Membership::parse(&content.membership)
}

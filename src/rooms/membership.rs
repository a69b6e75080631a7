//! From a wish about somebody's membership to a member event.

use hearth_schema::Membership;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedUserId};

use crate::MembershipError;
use crate::command::{MemberProfile, MembershipChange};
use crate::plan::{Intent, PlanError, Planner, membership_of};

/// Keys of a member event's content that are the server's to say.
const RESERVED: [&str; 3] = ["membership", AUTHORISED_BY, "third_party_invite"];
/// The member on whose word somebody has joined a restricted room.
pub(crate) const AUTHORISED_BY: &str = "join_authorised_via_users_server";

/// What a member event says besides what the change does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Additions {
    /// What the client wants in it.
    pub content: CanonicalJsonObject,
    /// On whose word the target joins.
    pub authorised_by: Option<OwnedUserId>,
}

/// What a request comes to on the planned state.
pub(crate) enum Wanted {
    Event(Box<Intent>),
    /// It is so already, by this event.
    Already(OwnedEventId),
    Refuse(MembershipError),
}

pub(crate) fn wanted(planner: &Planner, change: &MembershipChange, additions: &Additions) -> Result<Wanted, PlanError> {
    let current = planner.state_event("m.room.member", change.target.as_str())?;
    let membership = current.and_then(membership_of);
    if let Some(needed) = change.only_from.filter(|needed| membership != Some(*needed)) {
        let why = format!("{} is not in membership {}", change.target, needed.as_str());
        return Ok(Wanted::Refuse(MembershipError::NotInState(why)));
    }
    let already = match (change.membership, membership) {
        // Joining again may change the profile; leaving or being banned twice changes nothing.
        (Membership::Join, _) => false,
        (Membership::Leave, Some(Membership::Ban)) if change.only_from.is_none() && change.sender != change.target => {
            // A kick must not lift a ban.
            let why = format!("{} is banned", change.target);
            return Ok(Wanted::Refuse(crate::SendError::Forbidden(why).into()));
        }
        (Membership::Leave, Some(Membership::Leave)) if change.sender != change.target => {
            let why = format!("{} is not in the room", change.target);
            return Ok(Wanted::Refuse(crate::SendError::Forbidden(why).into()));
        }
        (wanted, Some(has)) => wanted == has && (wanted != Membership::Invite),
        (Membership::Leave, None) => {
            let why = format!("{} is not in the room", change.target);
            return Ok(Wanted::Refuse(MembershipError::NotInState(why)));
        }
        _ => false,
    };
    if let (true, Some(current)) = (already, current) {
        return Ok(Wanted::Already(current.event_id().to_owned()));
    }
    let intent = Intent {
        sender: change.sender.clone(),
        event_type: "m.room.member".into(),
        state_key: Some(change.target.to_string()),
        content: content(change, additions),
        redacts: None,
        origin_server_ts: None,
    };
    if let Some(event_id) = planner.same_state(&intent)? {
        return Ok(Wanted::Already(event_id));
    }
    Ok(Wanted::Event(Box::new(intent)))
}

pub(crate) fn content(change: &MembershipChange, additions: &Additions) -> CanonicalJsonObject {
    let mut content = member_content(change.membership, &change.profile);
    for (key, value) in &additions.content {
        if !RESERVED.contains(&key.as_str()) {
            content.insert(key.clone(), value.clone());
        }
    }
    if let Some(member) = &additions.authorised_by {
        content.insert(AUTHORISED_BY.into(), CanonicalJsonValue::String(member.to_string()));
    }
    if let Some(reason) = &change.reason {
        content.insert("reason".into(), CanonicalJsonValue::String(reason.clone()));
    }
    if change.is_direct.is_some() {
        content.insert("is_direct".into(), CanonicalJsonValue::Bool(true));
    }
    content
}

/// The content of a member event.
pub(crate) fn member_content(membership: Membership, profile: &MemberProfile) -> CanonicalJsonObject {
    let text = |text: &str| CanonicalJsonValue::String(text.to_owned());
    let mut content = CanonicalJsonObject::new();
    content.insert("membership".into(), text(membership.as_str()));
    if matches!(membership, Membership::Join | Membership::Invite | Membership::Knock) {
        if let Some(name) = &profile.displayname {
            content.insert("displayname".into(), text(name));
        }
        if let Some(url) = &profile.avatar_url {
            content.insert("avatar_url".into(), text(url));
        }
    }
    content
}

//! From a wish about somebody's membership to a member event.

use hearth_schema::Membership;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedUserId};

use crate::command::{MemberProfile, MembershipChange};
use crate::plan::{Context, Intent, PlanError, Planner, membership_of};
use crate::{MembershipError, SendError};

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

/// What `change` comes to. That it cannot be or is so already is told only to whom the rules would let bring it
/// about ([`told`]).
pub(crate) fn wanted(
    planner: &Planner,
    (change, additions): (&MembershipChange, &Additions),
    context: &Context<'_>,
) -> Result<Wanted, PlanError> {
    let current = planner.state_event("m.room.member", change.target.as_str())?;
    let intent = Intent {
        sender: change.sender.clone(),
        event_type: "m.room.member".into(),
        state_key: Some(change.target.to_string()),
        content: content(change, additions),
        redacts: None,
        origin_server_ts: None,
    };
    let answer = match (standing(change, current.and_then(membership_of)), current) {
        (Standing::Refused(error), _) => Some(Wanted::Refuse(error)),
        (Standing::Already, Some(current)) => Some(Wanted::Already(current.event_id().to_owned())),
        _ => planner.same_state(&intent)?.map(Wanted::Already),
    };
    match answer {
        Some(answer) => told(planner, intent, answer, context),
        None => Ok(Wanted::Event(Box::new(intent))),
    }
}

/// `answer`, which says how something stands in the room, if the rules would let the sender of `intent` bring that
/// about: anybody may ask, and who may not do it must not learn it. One's own membership is one's own to know.
pub(crate) fn told(
    planner: &Planner,
    intent: Intent,
    answer: Wanted,
    context: &Context<'_>,
) -> Result<Wanted, PlanError> {
    if !intent.is_own_membership() {
        planner.draft(intent, context)?;
    }
    Ok(answer)
}

/// How a change stands to the membership that the target has.
enum Standing {
    /// There is something to change.
    Open,
    Already,
    Refused(MembershipError),
}

fn standing(change: &MembershipChange, membership: Option<Membership>) -> Standing {
    let not_in_state = |why| Standing::Refused(MembershipError::NotInState(why));
    let forbidden = |why| Standing::Refused(SendError::Forbidden(why).into());
    if let Some(needed) = change.only_from.filter(|needed| membership != Some(*needed)) {
        return not_in_state(format!("{} is not in membership {}", change.target, needed.as_str()));
    }
    let of_other = change.sender != change.target;
    match (change.membership, membership) {
        // Joining again may change the profile; leaving or being banned twice changes nothing.
        (Membership::Join, _) => Standing::Open,
        // A kick must not lift a ban.
        (Membership::Leave, Some(Membership::Ban)) if change.only_from.is_none() && of_other => {
            forbidden(format!("{} is banned", change.target))
        }
        (Membership::Leave, Some(Membership::Leave)) if of_other => {
            forbidden(format!("{} is not in the room", change.target))
        }
        (Membership::Leave, None) => not_in_state(format!("{} is not in the room", change.target)),
        (wanted, Some(has)) if wanted == has && wanted != Membership::Invite => Standing::Already,
        _ => Standing::Open,
    }
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

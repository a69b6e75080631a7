//! What users have said that they do not want: events of ignored users, and invitations.

use std::sync::Arc;

use hearth_accounts::{InviteVerdict, Requester};
use hearth_rooms::RoomEvent;
use hearth_schema::Membership;
use http::StatusCode;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, UserId};

use crate::Api;
use crate::error::ApiError;
use crate::services::is_counted;

/// Leaves out events of users whom the requester ignores, but not their state events.
pub(crate) async fn drop_ignored(
    api: &Api,
    requester: &Requester,
    events: &mut Vec<Arc<RoomEvent>>,
) -> Result<(), ApiError> {
    let screening = api.accounts.screening(requester.user).await?;
    events.retain(|event| !screening.hides(event.sender(), event.state_key()));
    Ok(())
}

/// Asks whether `target` takes invitations of `inviter`.
///
/// # Errors
/// 403 `M_INVITE_BLOCKED` if not.
pub(crate) async fn may_invite(api: &Api, inviter: &UserId, target: &UserId) -> Result<(), ApiError> {
    let screening = api.accounts.screening(api.rooms.ids().user(target)).await?;
    match screening.invite_from(inviter) {
        // Whoever is ignored is not told.
        InviteVerdict::Welcome | InviteVerdict::Hidden => Ok(()),
        InviteVerdict::Blocked => {
            let message = format!("{target} does not take invitations");
            Err(ApiError::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", message))
        }
    }
}

/// The same for a state event, if it is an invitation, which then counts as one.
///
/// # Errors
/// 403 `M_INVITE_BLOCKED`, 429 `M_LIMIT_EXCEEDED`
pub(crate) async fn may_set(
    api: &Api,
    sender: &Requester,
    (event_type, state_key): (&str, &str),
    content: &CanonicalJsonObject,
) -> Result<(), ApiError> {
    let invites = event_type == "m.room.member"
        && matches!(content.get("membership"), Some(CanonicalJsonValue::String(word)) if word == Membership::Invite.as_str());
    match <&UserId>::try_from(state_key) {
        Ok(target) if invites => {
            if is_counted(sender) {
                api.limits.inviting(sender.user, 1)?;
            }
            may_invite(api, &sender.user_id, target).await
        }
        // What is no user ID is refused by the auth rules.
        _ => Ok(()),
    }
}

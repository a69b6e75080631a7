//! What users have said that they do not want: events of ignored users, and invitations.

use std::sync::Arc;

use hearth_accounts::{InviteVerdict, Requester};
use hearth_rooms::RoomEvent;
use http::StatusCode;
use ruma_common::UserId;

use crate::Api;
use crate::error::ApiError;

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

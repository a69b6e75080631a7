//! Promises about accounts.

use hearth_schema::{
    AccessToken, AccessTokens, AccountData, AccountDataLog, Device, Devices, LoginTokens, NoticeRoom, NoticeRooms,
    RefreshFamilies, RefreshFamily, Rooms, TokenKey, User, UserNid, Users,
};
use hearth_store::{Keyspace, Pos, StoreError};
use ruma_common::{RoomId, UserId};

use super::report::{Invariant, Violation};
use super::{Context, Finding};

type Checked = Result<Finding, StoreError>;

#[expect(clippy::unnecessary_wraps, reason = "what a check returns, so that it reads as one")]
fn broken<K: Keyspace>(invariant: Invariant, detail: String) -> Finding {
    Some(Violation { invariant, keyspace: K::DEF.name, detail })
}

pub(super) fn user(context: &Context, user: UserNid, row: &User) -> Finding {
    let named = <&UserId>::try_from(row.user_id.as_str()).is_ok_and(|id| context.ids.user(id) == user);
    if !named {
        return broken::<Users>(Invariant::I3, format!("{user:?} is not {}", row.user_id));
    }
    match &row.password_hash {
        Some(hash) if !is_argon2id(hash) => {
            broken::<Users>(Invariant::I14, format!("the password of {} is not stored as Argon2id", row.user_id))
        }
        Some(_) if row.deactivated => {
            broken::<Users>(Invariant::I14, format!("{} is deactivated and has a password", row.user_id))
        }
        _ => None,
    }
}

/// `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
fn is_argon2id(hash: &str) -> bool {
    let is_base64 = |text: &str, least: usize| {
        text.len() >= least && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
    };
    let parts: Vec<_> = hash.split('$').collect();
    match parts.as_slice() {
        ["", "argon2id", "v=19", costs, salt, hash] => {
            let costs: Vec<_> = costs.split(',').filter_map(|cost| cost.split_once('=')).collect();
            let names: Vec<_> = costs.iter().map(|(name, _)| *name).collect();
            names == ["m", "t", "p"]
                && costs.iter().all(|(_, cost)| cost.parse::<u32>().is_ok())
                && is_base64(salt, 11)
                && is_base64(hash, 16)
        }
        _ => false,
    }
}

pub(super) async fn device(context: &Context, user: UserNid, device: &str, row: &Device) -> Checked {
    let Some(account) = context.view.get::<Users>(&(user,)).await? else {
        return Ok(broken::<Devices>(Invariant::I13, format!("{device} of {user:?} has no account")));
    };
    for token in access_tokens(row) {
        let speaks_for = context.view.get::<AccessTokens>(&(token,)).await?;
        if !speaks_for.is_some_and(|found| found.user_id == account.user_id && found.device_id == device) {
            let detail = format!("the token of {device} of {} is another's", account.user_id);
            return Ok(broken::<Devices>(Invariant::I13, detail));
        }
    }
    if let Some(refresh) = &row.refresh {
        let family = context.view.get::<RefreshFamilies>(&(refresh.family,)).await?;
        if !family.is_some_and(|found| found.user_id == account.user_id && found.device_id == device) {
            let detail = format!("the refresh tokens of {device} of {} are another's", account.user_id);
            return Ok(broken::<Devices>(Invariant::I13, detail));
        }
    }
    Ok(None)
}

/// The tokens that speak for a device: its own, and the one before until that is used.
fn access_tokens(device: &Device) -> impl Iterator<Item = TokenKey> {
    let spent = device.refresh.as_ref().and_then(|refresh| refresh.spent.as_ref());
    device.token.into_iter().chain(spent.and_then(|spent| spent.access))
}

pub(super) async fn refresh_family(context: &Context, key: TokenKey, row: RefreshFamily) -> Checked {
    let Ok(user_id) = <&UserId>::try_from(row.user_id.as_str()) else {
        return Ok(broken::<RefreshFamilies>(Invariant::I13, format!("{key:?} has no user")));
    };
    let device = context.view.get::<Devices>(&(context.ids.user(user_id), row.device_id.clone())).await?;
    if device.and_then(|device| device.refresh).is_some_and(|refresh| refresh.family == key) {
        return Ok(None);
    }
    Ok(broken::<RefreshFamilies>(Invariant::I13, format!("{key:?} of {user_id} has no device {}", row.device_id)))
}

pub(super) async fn access_token(context: &Context, key: TokenKey, row: AccessToken) -> Checked {
    let Ok(user_id) = <&UserId>::try_from(row.user_id.as_str()) else {
        return Ok(broken::<AccessTokens>(Invariant::I13, format!("{key:?} has no user")));
    };
    let device = context.view.get::<Devices>(&(context.ids.user(user_id), row.device_id.clone())).await?;
    if device.is_some_and(|device| access_tokens(&device).any(|token| token == key)) {
        return Ok(None);
    }
    // It would go on working after the log-out of its device.
    Ok(broken::<AccessTokens>(Invariant::I13, format!("{key:?} of {user_id} has no device {}", row.device_id)))
}

pub(super) async fn login_token(context: &Context, user: UserNid) -> Checked {
    let account = context.view.get::<Users>(&(user,)).await?;
    if account.is_some_and(|row| !row.deactivated) {
        return Ok(None);
    }
    Ok(broken::<LoginTokens>(Invariant::I13, format!("a token logs in as {user:?}, who has no account")))
}

pub(super) async fn notice_room(context: &Context, user: UserNid, row: &NoticeRoom) -> Checked {
    let Ok(room_id) = <&RoomId>::try_from(row.room_id.as_str()) else {
        return Ok(broken::<NoticeRooms>(Invariant::I13, format!("the notices of {user:?} have no room")));
    };
    if context.view.get::<Rooms>(&(context.ids.room(room_id),)).await?.is_some() {
        return Ok(None);
    }
    Ok(broken::<NoticeRooms>(Invariant::I13, format!("the notices of {user:?} are in {room_id}, which is not here")))
}

pub(super) async fn account_data(context: &Context, user: UserNid, name: (String, String), pos: Pos) -> Checked {
    if context.view.get::<AccountDataLog>(&(user, pos)).await?.as_ref() == Some(&name) {
        return Ok(None);
    }
    Ok(broken::<AccountData>(Invariant::I13, format!("{name:?} of {user:?} is not in the log at {pos:?}")))
}

pub(super) async fn account_data_log(context: &Context, user: UserNid, pos: Pos, name: (String, String)) -> Checked {
    let entry = context.view.get::<AccountData>(&(user, name.0, name.1)).await?;
    if entry.is_some_and(|entry| entry.pos == pos) {
        return Ok(None);
    }
    Ok(broken::<AccountDataLog>(Invariant::I13, format!("{pos:?} of {user:?} has no entry")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_argon2id_in_phc_form_is_a_stored_password() {
        let good = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21l$MTIzNDU2Nzg5MDEyMzQ1Njc4OTA";
        assert!(is_argon2id(good));
        for wrong in ["wonderland", "", "$2b$12$abc", &good.replace("argon2id", "argon2i"), &good.replace("m=", "x=")] {
            assert!(!is_argon2id(wrong), "{wrong}");
        }
    }
}

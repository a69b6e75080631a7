//! Damage to what renews access tokens: a token that is left over would outlive its log-out, and one
//! that is lost would end a session.

use hearth_schema::{
    AccessToken, Device, Devices, LoginToken, LoginTokens, NoticeRoom, NoticeRooms, Refresh, RefreshFamilies,
    RefreshFamily, SpentRefresh, TokenKey,
};
use hearth_store::Order;

use super::*;

const ALICE: &str = "@alice:hearth.test";

/// Alice's device, with refresh tokens as after one refresh, and what belongs to it.
struct Refreshed {
    filled: Filled,
    id: String,
    device: Device,
    family: TokenKey,
    before: TokenKey,
}

impl Refreshed {
    async fn new() -> Self {
        let filled = filled().await;
        let view = View::latest(&*filled.store).await.expect("readable");
        let mut devices = view.page::<Devices, _>(&(filled.user,), Order::Ascending, 1).await.expect("readable");
        let ((_, id), device) = devices.pop().expect("logged in");
        let token = |text: &str| filled.ids.token(text);
        let (family, before) = (token("family"), token("before"));
        let spent =
            SpentRefresh { token: token("spent"), access: Some(before), access_expires_at: 2, at: 1, nonce: [7; 32] };
        let refresh = Refresh { family, current: token("current"), expires_at: 3, spent: Some(spent) };
        let device = Device { refresh: Some(refresh), ..device };
        let row = RefreshFamily { user_id: ALICE.into(), device_id: id.clone() };
        let access = AccessToken { user_id: ALICE.into(), device_id: id.clone() };
        filled
            .damage(|batch| {
                batch.put_elsewhere::<Devices>(&(filled.user, id.clone()), &device);
                batch.put_elsewhere::<RefreshFamilies>(&(family,), &row);
                batch.put_elsewhere::<AccessTokens>(&(before,), &access);
            })
            .await;
        Self { filled, id, device, family, before }
    }

    async fn breaks(self, change: impl FnOnce(&Self, &mut Batch)) {
        self.filled.damage(|batch| change(&self, batch)).await;
        self.filled.breaks(Invariant::I13).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_has_been_refreshed_is_clean() {
    assert_eq!(Refreshed::new().await.filled.broken().await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_family_is_told() {
    Refreshed::new().await.breaks(|it, batch| batch.delete_elsewhere::<RefreshFamilies>(&(it.family,))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_of_another_device_is_told() {
    let row = RefreshFamily { user_id: ALICE.into(), device_id: "GONE".into() };
    Refreshed::new().await.breaks(|it, batch| batch.put_elsewhere::<RefreshFamilies>(&(it.family,), &row)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_that_no_device_knows_is_told() {
    Refreshed::new()
        .await
        .breaks(|it, batch| {
            let row = RefreshFamily { user_id: ALICE.into(), device_id: it.id.clone() };
            batch.put_elsewhere::<RefreshFamilies>(&(it.filled.ids.token("left over"),), &row);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_of_nobody_is_told() {
    let row = RefreshFamily { user_id: "alice".into(), device_id: "GONE".into() };
    Refreshed::new().await.breaks(|it, batch| batch.put_elsewhere::<RefreshFamilies>(&(it.family,), &row)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_access_token_of_before_is_told() {
    Refreshed::new().await.breaks(|it, batch| batch.delete_elsewhere::<AccessTokens>(&(it.before,))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_of_before_that_has_ended_is_told() {
    Refreshed::new()
        .await
        .breaks(|it, batch| {
            let mut device = it.device.clone();
            if let Some(spent) = device.refresh.as_mut().and_then(|refresh| refresh.spent.as_mut()) {
                spent.access = None;
            }
            batch.put_elsewhere::<Devices>(&(it.filled.user, it.id.clone()), &device);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_token_of_nobody_and_notices_without_a_room_are_told() {
    let refreshed = Refreshed::new().await;
    let nobody = refreshed.filled.ids.user(<&UserId>::try_from("@nobody:hearth.test").expect("an ID"));
    refreshed
        .breaks(|it, batch| {
            let key = (nobody, it.filled.ids.token("x"));
            batch.put_elsewhere::<LoginTokens>(&key, &LoginToken { expires_at: 1 });
        })
        .await;
    let row = NoticeRoom { room_id: "!gone:hearth.test".into() };
    Refreshed::new().await.breaks(|it, batch| batch.put_elsewhere::<NoticeRooms>(&(it.filled.user,), &row)).await;
}

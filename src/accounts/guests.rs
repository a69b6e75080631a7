//! Guests: accounts without name and password for those who only look around
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#guest-access)). What a guest may do is for
//! the API to say; a guest who registers keeps the account.

use hearth_schema::{AccountKind, User, Users};
use hearth_store::Batch;
use ruma_common::OwnedUserId;

use crate::error::damaged;
use crate::register::{DeviceRequest, Grant, NewAccount, RegisterError, Registered, check_device, lane};
use crate::write::Attempts;
use crate::{Accounts, Requester};

impl Accounts {
    /// Makes a guest and logs it in. Its device cannot refresh its token, which does not expire.
    ///
    /// # Errors
    /// If there is no guest.
    pub async fn register_guest(&self, device_name: Option<String>) -> Result<Registered, RegisterError> {
        if !self.settings.guests {
            return Err(RegisterError::NoGuests);
        }
        let device = DeviceRequest { display_name: device_name, ..DeviceRequest::default() };
        check_device(&device).map_err(RegisterError::InvalidDevice)?;
        let account = NewAccount { device, ..NewAccount::default() };
        self.create(&account, None, Grant { kind: AccountKind::Guest, ..Grant::default() }).await
    }

    /// The guest who shows `token` and wants to become a user; `None`: the token is nobody's, or that
    /// of a user, or of a guest with another name than `localpart`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn guest(
        &self,
        token: &str,
        localpart: Option<&str>,
    ) -> Result<Option<Requester>, hearth_store::StoreError> {
        let requester = self.authenticate(token).await?;
        Ok(requester.filter(|requester| {
            requester.standing.kind == AccountKind::Guest
                && !requester.standing.moderation.locked
                && localpart.is_some_and(|name| name.eq_ignore_ascii_case(requester.user_id.localpart()))
        }))
    }

    /// Makes a guest a user with the password and the device of `account`. The guest's sessions go on.
    ///
    /// # Errors
    /// If the guest is still a guest.
    pub async fn upgrade_guest(&self, guest: &Requester, account: NewAccount) -> Result<Registered, RegisterError> {
        check_device(&account.device).map_err(RegisterError::InvalidDevice)?;
        self.check_open(account.registration_token.as_deref()).await?;
        let password_hash = self.hash_wished(&account).await?;
        let reserved = self.reserve_registration_token(account.registration_token.as_deref()).await?;
        let result = self.try_upgrade(guest, &account, password_hash).await;
        if result.is_err() {
            self.give_back(reserved).await;
        }
        result
    }

    async fn try_upgrade(
        &self,
        guest: &Requester,
        account: &NewAccount,
        password_hash: Option<String>,
    ) -> Result<Registered, RegisterError> {
        let user = guest.user;
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let row = view.get::<Users>(&(user,)).await?;
            let row = row.filter(|row| row.kind == AccountKind::Guest && !row.deactivated);
            // Somebody was faster.
            let row = row.ok_or(RegisterError::UserInUse)?;
            let user_id = OwnedUserId::try_from(row.user_id.as_str()).map_err(|error| damaged("Users", error))?;
            let mut batch = Batch::new(lane(user));
            let session = if account.inhibit_login {
                None
            } else {
                let plan = self.plan_session(&view, &user_id, &account.device).await.map_err(RegisterError::from)?;
                batch = plan.batch;
                Some(plan.session)
            };
            let upgraded = User {
                kind: AccountKind::User,
                password_hash: password_hash.clone(),
                accepted_terms: self.terms_in_force(),
                generation: row.generation + 1,
                ..row.clone()
            };
            batch.check::<Users>(&(user,), Some(&row));
            batch.put::<Users>(&(user,), &upgraded);
            // This forgets the tokens of a device that has logged in again, too.
            if attempts.commit_standing(self, batch).await?.is_some() {
                return Ok(Registered { user_id, session });
            }
        }
    }
}

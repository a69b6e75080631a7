//! The rules for `m.room.member`.

use ed25519_dalek::VerifyingKey;
use ruma_common::UserId;

use super::facts::{Facts, Member, ThirdPartyInvite};
use super::power::Field;
use super::{Rejection, Room, reject};
use crate::Pdu;
use crate::key::verify_bytes;

/// A change of membership: of `target` by the sender of `pdu`.
struct Change<'a> {
    room: &'a Room<'a>,
    pdu: &'a Pdu,
    target: &'a UserId,
    member: &'a Member,
}

pub(super) fn check_member(room: &Room<'_>, pdu: &Pdu) -> Result<(), Rejection> {
    let Some(state_key) = pdu.state_key() else { return reject("a membership has a state key") };
    let Ok(target) = <&UserId>::try_from(state_key) else {
        return reject("the state key of a membership is a user ID");
    };
    let Facts::Member(member) = pdu.facts() else { return reject("a membership has content") };
    let change = Change { room, pdu, target, member };
    let knocking = room.version.rules().authorization.knocking;
    match member.membership.as_deref() {
        Some("join") => change.join(),
        Some("invite") => change.invite(),
        Some("leave") => change.leave(),
        Some("ban") => change.ban(),
        Some("knock") if knocking => change.knock(),
        _ => reject("the membership is not known"),
    }
}

impl Change<'_> {
    fn is_own(&self) -> bool {
        self.pdu.sender() == self.target
    }

    fn sender_is_joined(&self) -> bool {
        self.room.membership(self.pdu.sender()).as_deref() == Some("join")
    }

    fn join(&self) -> Result<(), Rejection> {
        let rules = &self.room.version.rules().authorization;
        if let [only] = self.pdu.prev_events()
            && only == self.room.create.event_id()
            && self.room.creator() == Some(self.target.as_str())
        {
            return Ok(());
        }
        if !self.is_own() {
            return reject("nobody joins for another user");
        }
        let membership = self.room.membership(self.target);
        let membership = membership.as_deref();
        if membership == Some("ban") {
            return reject("the user is banned from the room");
        }
        let is_in = matches!(membership, Some("join" | "invite"));
        match self.room.join_rule().as_deref() {
            Some("public") => Ok(()),
            Some("restricted") if rules.restricted_join_rule && is_in => Ok(()),
            Some("restricted") if rules.restricted_join_rule => self.join_authorised(),
            Some("knock_restricted") if rules.knock_restricted_join_rule && is_in => Ok(()),
            Some("knock_restricted") if rules.knock_restricted_join_rule => self.join_authorised(),
            Some("invite") if is_in => Ok(()),
            Some("knock") if rules.knocking && is_in => Ok(()),
            _ => reject("the user is not invited to the room"),
        }
    }

    /// Into a restricted room, by the word of somebody who is in it.
    fn join_authorised(&self) -> Result<(), Rejection> {
        let Some(Ok(authorised_by)) = &self.member.authorised_by else {
            return reject("the join names nobody who authorised it");
        };
        if self.room.membership_of(authorised_by).as_deref() != Some("join") {
            return reject("the user who authorised the join is not in the room");
        }
        let levels = self.room.levels();
        if levels.user(authorised_by)? < levels.field(Field::Invite)? {
            return reject("the user who authorised the join may not invite");
        }
        Ok(())
    }

    fn invite(&self) -> Result<(), Rejection> {
        if let Some(invite) = &self.member.third_party_invite {
            return self.invite_by_third_party(invite);
        }
        if !self.sender_is_joined() {
            return reject("the sender is not in the room");
        }
        match self.room.membership(self.target).as_deref() {
            Some("join") => return reject("the user is in the room already"),
            Some("ban") => return reject("the user is banned from the room"),
            _ => {}
        }
        let levels = self.room.levels();
        if levels.user(self.pdu.sender().as_str())? < levels.field(Field::Invite)? {
            return reject("the sender's power level is too low to invite");
        }
        Ok(())
    }

    fn invite_by_third_party(&self, invite: &ThirdPartyInvite) -> Result<(), Rejection> {
        if self.room.membership(self.target).as_deref() == Some("ban") {
            return reject("the user is banned from the room");
        }
        let (Some(mxid), Some(token)) = (&invite.mxid, &invite.token) else {
            return reject("a third-party invite is signed for a user and has a token");
        };
        if mxid != self.target.as_str() {
            return reject("the third-party invite is for another user");
        }
        let Some(offer) = (self.room.state)("m.room.third_party_invite", token) else {
            return reject("the room has no such third-party invite");
        };
        if offer.sender() != self.pdu.sender() {
            return reject("the third-party invite was made by another user");
        }
        let Facts::ThirdPartyInvite(keys) = offer.facts() else {
            return reject("the room has no such third-party invite");
        };
        let keys = keys.iter().filter_map(|key| VerifyingKey::from_bytes(key).ok());
        for key in keys {
            if invite.signatures.iter().any(|signature| verify_bytes(&key, signature, &invite.message)) {
                return Ok(());
            }
        }
        reject("the third-party invite is not signed by its identity server")
    }

    fn leave(&self) -> Result<(), Rejection> {
        let knocking = self.room.version.rules().authorization.knocking;
        if self.is_own() {
            return match self.room.membership(self.target).as_deref() {
                Some("join" | "invite") => Ok(()),
                Some("knock") if knocking => Ok(()),
                _ => reject("the user is not in the room"),
            };
        }
        if !self.sender_is_joined() {
            return reject("the sender is not in the room");
        }
        let levels = self.room.levels();
        let own = levels.user(self.pdu.sender().as_str())?;
        if self.room.membership(self.target).as_deref() == Some("ban") && own < levels.field(Field::Ban)? {
            return reject("the sender's power level is too low to lift a ban");
        }
        if own < levels.field(Field::Kick)? || own <= levels.user(self.target.as_str())? {
            return reject("the sender's power level is too low to remove the user");
        }
        Ok(())
    }

    fn ban(&self) -> Result<(), Rejection> {
        if !self.sender_is_joined() {
            return reject("the sender is not in the room");
        }
        let levels = self.room.levels();
        let own = levels.user(self.pdu.sender().as_str())?;
        if own < levels.field(Field::Ban)? || own <= levels.user(self.target.as_str())? {
            return reject("the sender's power level is too low to ban the user");
        }
        Ok(())
    }

    fn knock(&self) -> Result<(), Rejection> {
        let restricted = self.room.version.rules().authorization.knock_restricted_join_rule;
        match self.room.join_rule().as_deref() {
            Some("knock") => {}
            Some("knock_restricted") if restricted => {}
            _ => return reject("the room does not take knocks"),
        }
        if !self.is_own() {
            return reject("nobody knocks for another user");
        }
        match self.room.membership(self.target).as_deref() {
            Some("ban") => reject("the user is banned from the room"),
            Some("join" | "invite") => reject("the user is invited or in the room already"),
            _ => Ok(()),
        }
    }
}

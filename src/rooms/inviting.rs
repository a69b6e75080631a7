//! Inviting users of other servers.
//!
//! Their server sees an invitation first and adds its signature; only then the event becomes part of the room. The room
//! is not held up meanwhile: the event is made on the room's end as it is at that moment, beside the room's task, and
//! when it comes back it enters the room as an event of any other server does, wherever the end is then.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_event::{Pdu, check, with_countersignature};
use hearth_store::{StoreError, View};
use ruma_common::{CanonicalJsonValue, OwnedUserId, ServerName, UserId};
use serde_json::value::RawValue;

use crate::command::{MembershipChange, SendEvent, Sent};
use crate::gather::gather;
use crate::intake::{Ask, Rooms};
use crate::membership::{Additions, Wanted};
use crate::outside::describing;
use crate::plan::{Context, PlanError, Planner};
use crate::remote::{InviteOut, KeyWish, RawPdu, RemoteError};
use crate::task::wanted;
use crate::{MembershipError, SendError};

/// Loads before a plan must succeed.
const MAX_LOADS: u32 = 24;
/// Signatures of one server that are looked at.
const MAX_SIGNATURES: usize = 8;

/// An invitation that is signed by this server and not yet in the room.
struct Drafted {
    pdu: Pdu,
    /// What describes the room.
    state: Vec<RawPdu>,
}

/// What asking for an invitation comes to before another server is asked.
enum Draft {
    New(Box<Drafted>),
    Already(Sent),
}

impl Rooms {
    /// The user of another server whom `event` invites.
    pub(crate) fn invited_elsewhere(&self, event: &SendEvent) -> Option<OwnedUserId> {
        let invites = event.event_type == "m.room.member"
            && matches!(event.content.get("membership"), Some(CanonicalJsonValue::String(word)) if word == "invite");
        // What is no user ID fails by the auth rules.
        let user = event.state_key.as_deref().filter(|_| invites).and_then(|key| <&UserId>::try_from(key).ok())?;
        (!self.is_local(user)).then(|| user.to_owned())
    }

    /// Invites `user` of another server by a member event that the client wrote.
    pub(crate) async fn invite_by_event(&self, event: SendEvent, user: OwnedUserId) -> Result<Sent, MembershipError> {
        self.invite_through(Ask::Event(event), user.server_name()).await
    }

    /// Invites a user of another server.
    pub(crate) async fn invite_by_change(
        &self,
        change: MembershipChange,
        additions: Additions,
    ) -> Result<Sent, MembershipError> {
        let server = change.target.server_name().to_owned();
        self.invite_through(Ask::Membership(change, additions), &server).await
    }

    async fn invite_through(&self, ask: Ask, server: &ServerName) -> Result<Sent, MembershipError> {
        let drafted = match self.draft_invite(&ask).await? {
            Draft::New(drafted) => *drafted,
            Draft::Already(sent) => return Ok(sent),
        };
        let Drafted { pdu, state } = drafted;
        let invite = InviteOut { version: pdu.version(), event: pdu, invite_room_state: state };
        let answer = match self.0.remote.invite(server, &invite).await {
            Err(RemoteError::Off) => {
                let why = "the user is on another server, and this one does not federate";
                return Err(SendError::Forbidden(why.into()).into());
            }
            answer => answer?,
        };
        let pdu = self.countersigned(&invite.event, &answer, server).await?.map_err(|why| {
            let server = server.to_owned();
            RemoteError::Invalid { server, why }
        })?;
        let event_id = pdu.event_id().to_owned();
        let entered = self.enter_countersigned(server, pdu).await?;
        Ok(Sent { event_id, pos: entered.pos })
    }

    /// The invitation as the room's end would take it now.
    async fn draft_invite(&self, ask: &Ask) -> Result<Draft, MembershipError> {
        let room_id = match ask {
            Ask::Event(event) => &event.room_id,
            Ask::Membership(change, _) => &change.room_id,
        };
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        if self.room(&view, room).await?.is_none() {
            return Err(SendError::UnknownRoom.into());
        }
        let version = self.version(&view, room).await?;
        let mut planner = Planner::new_room(room, Some(room_id.clone()), version);
        planner.new_room = false;
        planner.head = self.head(&view, room).await?;
        let pdu = match self.plan_invite(&view, &mut planner, ask).await? {
            Ok(pdu) => pdu,
            Err(sent) => return Ok(Draft::Already(sent)),
        };
        let pdu = self.policed(&view, room, pdu).await?;
        let described = describing(self, &view, room, Some(pdu.sender())).await?;
        let raw = |event: &Arc<crate::RoomEvent>| raw(&event.pdu);
        let state: Result<Vec<RawPdu>, SendError> = described.iter().map(raw).collect();
        Ok(Draft::New(Box::new(Drafted { pdu, state: state? })))
    }

    /// The planned event; `Err`: it is so already.
    async fn plan_invite(
        &self,
        view: &View,
        planner: &mut Planner,
        ask: &Ask,
    ) -> Result<Result<Pdu, Sent>, MembershipError> {
        let (caches, room) = (&self.0.caches, planner.room);
        let nodes = |id| caches.node(room, id);
        let context = Context { signer: &self.0.signer, now: self.0.clock.now(), nodes: &nodes };
        for _ in 0..MAX_LOADS {
            let result = match wanted(planner, ask, &context) {
                Ok(Wanted::Event(intent)) => planner.plan(*intent, &context),
                Ok(Wanted::Refuse(error)) => return Err(error),
                Ok(Wanted::Already(event_id)) => return Ok(Err(Sent { event_id, pos: hearth_store::Pos::ZERO })),
                Err(error) => Err(error),
            };
            match result {
                Ok(invitation) => return Ok(Ok(invitation.pdu)),
                Err(PlanError::Need(need)) => gather(view, planner, need).await?,
                Err(PlanError::Refused(error)) => return Err(error.into()),
            }
        }
        Err(SendError::Internal("the plan needs ever more".into()).into())
    }

    /// Our event with the signature that `server` gave to it. Of what it answers nothing else is taken. Otherwise why the
    /// answer is no good.
    ///
    /// # Errors
    /// If the store fails.
    async fn countersigned(
        &self,
        ours: &Pdu,
        answer: &RawPdu,
        server: &ServerName,
    ) -> Result<Result<Pdu, String>, StoreError> {
        let signatures = match signatures_on(ours, answer, server) {
            Ok(signatures) => signatures,
            Err(why) => return Ok(Err(why)),
        };
        let wish = KeyWish {
            server: server.to_owned(),
            key_ids: signatures.keys().cloned().collect(),
            at: ours.origin_server_ts(),
        };
        let keys = self.0.remote.keys(&[wish]).await?;
        let mut failed = "it did not sign the invitation".to_owned();
        for (key_id, signature) in signatures.iter().take(MAX_SIGNATURES) {
            match with_countersignature(ours, server, (key_id, signature), &keys) {
                Ok(pdu) => return Ok(Ok(pdu)),
                Err(error) => failed = error.to_string(),
            }
        }
        Ok(Err(failed))
    }
}

/// The signatures that `server` gave to `ours`, by key ID; otherwise why the answer is no good.
fn signatures_on(ours: &Pdu, answer: &RawPdu, server: &ServerName) -> Result<BTreeMap<String, String>, String> {
    let checked = check(answer.get().as_bytes(), ours.version()).map_err(|error| error.to_string())?;
    if checked.event_id() != ours.event_id() {
        return Err("it signed another event than the invitation".to_owned());
    }
    signatures_of(answer, server).map_err(|error| error.to_string())
}

/// The signatures of `server`, by key ID.
fn signatures_of(event: &RawPdu, server: &ServerName) -> Result<BTreeMap<String, String>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Signed {
        signatures: BTreeMap<String, BTreeMap<String, String>>,
    }
    let mut signed: Signed = serde_json::from_str(event.get())?;
    Ok(signed.signatures.remove(server.as_str()).unwrap_or_default())
}

fn raw(pdu: &Pdu) -> Result<RawPdu, SendError> {
    let text = String::from_utf8(pdu.json().to_vec()).map_err(|error| SendError::Internal(error.to_string()))?;
    RawValue::from_string(text).map_err(|error| SendError::Internal(error.to_string()))
}

//! Knocking on rooms that this server is not in, and turning down invitations or taking back knocks there.

use std::time::Duration;

use hearth_event::{EventDraft, Pdu, RoomVersion};
use hearth_schema::{Membership, Outside, OutsideState, UserRoom};
use hearth_store::{CommitError, Pos};
use ruma_common::{OwnedServerName, ServerName};

use super::damage::Remains;
use super::{MAX_SERVERS, MAX_TRIES, NewOutside, is_pending, stripped};
use crate::command::{MembershipChange, Sent};
use crate::intake::Rooms;
use crate::joining::more_telling;
use crate::membership::{Additions, content};
use crate::remote::{Handshake, RemoteError};
use crate::{MembershipError, SendError};

/// How long all servers together may take to hear of a leave; after it the user is out all the same.
const LEAVE_PATIENCE: Duration = Duration::from_secs(20);
/// Servers that are asked to pass on a leave.
const LEAVE_CANDIDATES: usize = 5;

impl Rooms {
    /// Turns down an invitation, or takes back a knock, through one of `candidates`. If none of them helps, the user is
    /// out all the same: nobody can be held to an invitation by a server that is gone.
    pub(crate) async fn leave_elsewhere(
        &self,
        change: &MembershipChange,
        additions: &Additions,
        candidates: &[OwnedServerName],
    ) -> Result<Sent, MembershipError> {
        let view = self.view().await?;
        let (user, room) = (self.ids().user(&change.target), self.ids().room(&change.room_id));
        let remains = self.remains(&view, (user, room), change).await?;
        // Versions 1 and 2 look alike, so whoever told of the room may have meant the other.
        let version = remains.version.filter(|version| !matches!(version.as_str(), "1" | "2"));
        let told = async {
            for via in candidates.iter().take(LEAVE_CANDIDATES) {
                let event = self.own_event(Handshake::Leave, via, (change, additions), version).await;
                let sent = match event {
                    Ok(event) => self.0.remote.send_leave(via, &event).await.map(|()| event),
                    Err(error) => Err(error),
                };
                match sent {
                    Ok(event) => return Some(event),
                    Err(error) => {
                        tracing::debug!(room_id = %change.room_id, %via, %error, "a server does not pass on a leave");
                    }
                }
            }
            None
        };
        let event = tokio::time::timeout(LEAVE_PATIENCE, told).await.unwrap_or_default();
        let event = if event.is_some() {
            event
        } else {
            tracing::info!(room_id = %change.room_id, "no server was told that an invitation was turned down");
            self.leave_of_our_own(change, additions, &remains)
        };
        self.ended(change, event, remains).await
    }

    /// A leave that no other server gets to see: for the user, whose other devices must learn of it.
    fn leave_of_our_own(&self, change: &MembershipChange, additions: &Additions, remains: &Remains) -> Option<Pdu> {
        // Nobody else sees it, so any version does where the room's cannot be read.
        let version = remains.version.unwrap_or(RoomVersion::DEFAULT);
        let invitation = remains.invitation.clone();
        let draft = EventDraft {
            room_id: Some(change.room_id.clone()),
            event_type: "m.room.member".into(),
            state_key: Some(change.target.to_string()),
            sender: change.target.clone(),
            content: content(change, additions),
            origin_server_ts: self.0.clock.now().0,
            prev_events: invitation.iter().cloned().collect(),
            auth_events: invitation.into_iter().collect(),
            depth: 1,
            redacts: None,
        };
        let signer = &self.0.signer;
        // What cannot be made into an event is only not shown as one.
        hearth_event::build(draft, version, &signer.server_name, &signer.key).ok()
    }

    async fn ended(
        &self,
        change: &MembershipChange,
        event: Option<Pdu>,
        Remains { outside, state, invitation, event_id, .. }: Remains,
    ) -> Result<Sent, MembershipError> {
        let (user, room) = (self.ids().user(&change.target), self.ids().room(&change.room_id));
        let new = event.as_ref().map(|event| event.event_id().to_owned());
        let event_id = new.or(invitation).or(event_id);
        let event_id = event_id.ok_or_else(|| SendError::Internal("a membership without any event".into()))?;
        for _ in 0..MAX_TRIES {
            let view = self.view().await?;
            let row = self.membership(&view, user, room).await?;
            let Some(row) = row.filter(is_pending) else { return Ok(Sent { event_id, pos: Pos::ZERO }) };
            let outside =
                Outside { membership: Membership::Leave, sender: change.target.to_string(), ..outside.clone() };
            let version = event.as_ref().map_or_else(|| state.version.clone(), |event| event.version().as_str().into());
            let event = event.as_ref().map(|event| (event.event_id().to_string(), event.json().to_vec()));
            let state = OutsideState { version, event, ..state.clone() };
            match self.keep_member(Some(&row), change, outside, state).await {
                Ok(pos) => return Ok(Sent { event_id, pos }),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(SendError::from(error).into()),
            }
        }
        Err(SendError::Busy.into())
    }

    /// Knocks through one of `candidates`.
    pub(crate) async fn knock_elsewhere(
        &self,
        change: &MembershipChange,
        additions: &Additions,
        candidates: &[OwnedServerName],
    ) -> Result<Sent, MembershipError> {
        let view = self.view().await?;
        let (user, room) = (self.ids().user(&change.target), self.ids().room(&change.room_id));
        if let Some(row) = self.membership(&view, user, room).await?
            && row.membership == Membership::Invite
        {
            return Err(SendError::Forbidden("you are invited to this room already".into()).into());
        }
        let mut failed = None;
        for via in candidates {
            match self.knock_through(via, change, additions).await {
                Ok((event, events)) => return self.knocked(change, via, (event, events), candidates).await,
                Err(error) => failed = Some(more_telling(failed, error)),
            }
        }
        match failed {
            None | Some(RemoteError::Off) => Err(SendError::UnknownRoom.into()),
            Some(error) => Err(error.into()),
        }
    }

    async fn knock_through(
        &self,
        via: &ServerName,
        change: &MembershipChange,
        additions: &Additions,
    ) -> Result<(Pdu, Vec<String>), RemoteError> {
        let event = self.own_event(Handshake::Knock, via, (change, additions), None).await?;
        let described = self.0.remote.send_knock(via, &event).await?;
        // The knock has been sent, so whatever describes the room badly is only not shown.
        Ok((event, stripped::shown(&described, &change.room_id)))
    }

    async fn knocked(
        &self,
        change: &MembershipChange,
        via: &ServerName,
        (event, events): (Pdu, Vec<String>),
        candidates: &[OwnedServerName],
    ) -> Result<Sent, MembershipError> {
        let event_id = event.event_id().to_owned();
        let servers = std::iter::once(via.to_string()).chain(candidates.iter().map(ToString::to_string));
        let mut servers: Vec<String> = servers.collect();
        servers.dedup();
        servers.truncate(MAX_SERVERS);
        let outside = Outside {
            pos: Pos::ZERO,
            membership: Membership::Knock,
            sender: change.target.to_string(),
            invitation: None,
            servers,
        };
        let state = OutsideState {
            version: event.version().as_str().to_owned(),
            event: Some((event_id.to_string(), event.json().to_vec())),
            events,
        };
        let (user, room) = (self.ids().user(&change.target), self.ids().room(&change.room_id));
        for _ in 0..MAX_TRIES {
            let before = self.membership(&self.view().await?, user, room).await?;
            // Whoever answered the knock was faster.
            if before.as_ref().is_some_and(|row| matches!(row.membership, Membership::Invite | Membership::Join)) {
                return Ok(Sent { event_id, pos: Pos::ZERO });
            }
            match self.keep_member(before.as_ref(), change, outside.clone(), state.clone()).await {
                Ok(pos) => return Ok(Sent { event_id, pos }),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(SendError::from(error).into()),
            }
        }
        Err(SendError::Busy.into())
    }

    async fn keep_member(
        &self,
        before: Option<&UserRoom>,
        change: &MembershipChange,
        outside: Outside,
        state: OutsideState,
    ) -> Result<Pos, CommitError> {
        let new = NewOutside { user: &change.target, room_id: &change.room_id, outside, state };
        self.keep_outside(before, new).await
    }
}

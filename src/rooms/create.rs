//! `POST /createRoom`: all events of a new room in one commit.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use hearth_base::Millis;
use hearth_event::RoomVersion;
use hearth_schema::{Membership, PublicRooms, RoomMeta, RoomNid, Rooms as RoomRows};
use hearth_store::{Batch, CommitError, Owner};
use ruma_common::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, ServerName, UserId,
};
use serde_json::json;

use crate::command::{CreateRoom, MembershipChange, Preset, RoomVisibility};
use crate::intake::Rooms;
use crate::membership::member_content;
use crate::persist::{Attached, Target, move_head, persist};
use crate::plan::{Context, Intent, PlanError, Planned, Planner};
use crate::query::RoomEvent;
use crate::{CreateError, SendError};

/// Events of a new room at the most; each invitation is one.
const MAX_EVENTS: usize = 1_000;
/// Characters of a room ID's random part (107 bits).
const ID_LENGTH: usize = 18;
/// Users of other servers who are invited at once.
const INVITES_AT_ONCE: usize = 8;
/// So long a client waits for users of other servers to be invited.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a room is planned again because its ID is taken.
const MAX_TRIES: u64 = 16;

impl Rooms {
    /// Creates a room with everything that was asked for, or nothing. Users of other servers are invited once it
    /// exists; those whose servers take long are invited after this returns.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub async fn create(&self, create: CreateRoom) -> Result<OwnedRoomId, CreateError> {
        let rooms = self.clone();
        // In a task of its own: a client that goes away must not leave a room without those it was made for. It does
        // not know the room's ID, so it can only make another one.
        let task = self.0.tasks.spawn(async move { rooms.create_and_invite(create).await });
        task.await.map_err(|error| SendError::Internal(error.to_string()))?
    }

    async fn create_and_invite(&self, create: CreateRoom) -> Result<OwnedRoomId, CreateError> {
        if create.invite.len() + create.initial_state.len() > MAX_EVENTS {
            return Err(CreateError::InvalidRoomState("too many invitations or state events".into()));
        }
        if create.alias.as_ref().is_some_and(|alias| alias.server_name() != self.0.signer.server_name) {
            return Err(CreateError::BadAlias("the alias belongs to another server".into()));
        }
        let version = create.version.unwrap_or(self.0.settings.default_version);
        let new = NewRoom {
            version,
            intents: intents(&create, version, &self.0.signer.server_name)?,
            visibility: create.visibility,
            alias: create.alias.as_deref().map(|alias| (alias, &*create.creator)),
        };
        // Times are whole milliseconds, and a room is made in less than one. What a client's clock showed when it asked
        // lies before the room all the same, and what it shows with the answer after it: so `timestamp_to_event` finds
        // what happened on that side.
        self.after(self.0.clock.now()).await;
        let (room_id, created_at) = self.make_room(new).await?;
        self.after(created_at).await;
        let invites = self.invites_elsewhere(create, &room_id);
        if !invites.is_empty() {
            let all = stream::iter(invites).buffer_unordered(INVITES_AT_ONCE).collect::<()>();
            // Most are there when the client hears of the room. The others come later: a server that does not answer
            // holds up nobody.
            if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, self.0.tasks.spawn(all)).await {
                tracing::error!(%room_id, %error, "inviting users of other servers to a new room broke off");
            }
        }
        Ok(room_id)
    }

    /// Waits for a later millisecond than `than`, for two at the most.
    async fn after(&self, than: Millis) {
        if self.0.clock.now() <= than {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The invitations of users of other servers to a room that exists now, each to be awaited.
    fn invites_elsewhere(&self, create: CreateRoom, room_id: &RoomId) -> Vec<impl Future<Output = ()> + Send + use<>> {
        let elsewhere = create.invite.into_iter().filter(|(user, _)| !self.is_local(user));
        let changes = elsewhere.map(|(target, profile)| MembershipChange {
            room_id: room_id.to_owned(),
            sender: create.creator.clone(),
            target,
            membership: Membership::Invite,
            only_from: None,
            reason: None,
            profile,
            is_direct: create.is_direct,
        });
        changes.map(|change| self.clone().invite_to_new(change)).collect()
    }

    /// Nobody can be told any more that somebody cannot be invited: an error would make the client create the room
    /// again.
    async fn invite_to_new(self, change: MembershipChange) {
        let (room_id, user) = (change.room_id.clone(), change.target.clone());
        match self.0.unless_stopping(Box::pin(self.change_membership(change))).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::info!(%room_id, %user, %error, "a user of another server could not be invited to a new room");
            }
            None => tracing::info!(%room_id, %user, "not invited to a new room: the server is shutting down"),
        }
    }

    /// Makes the room that `new` describes, or nothing: its ID, and `origin_server_ts` of its events.
    pub(crate) async fn make_room(&self, new: NewRoom<'_>) -> Result<(OwnedRoomId, Millis), CreateError> {
        // Version 12 names a room after its create event, so two alike in one millisecond would be one
        // room: whoever comes second is created a millisecond later.
        for later in 0..MAX_TRIES {
            let now = self.0.clock.now().plus(Duration::from_millis(later));
            let plan = self.plan_room(&new, now)?;
            let taken = self.view().await?.get::<RoomRows>(&(plan.room,)).await?.is_some();
            if !taken && self.try_create(&new, &plan).await? == Outcome::Created {
                return Ok((plan.room_id, now));
            }
        }
        Err(SendError::Busy.into())
    }

    async fn try_create(&self, new: &NewRoom<'_>, plan: &RoomPlan) -> Result<Outcome, CreateError> {
        let Some((alias, creator)) = new.alias else { return Ok(self.commit_room(new.visibility, plan).await?) };
        // The alias lives in another lane, so it is taken first: an alias of a room that does not
        // exist counts as free, hence a crash in between leaves nothing behind. Until the room does exist,
        // the claim keeps others from it.
        let claim = self.0.alias_claims.claim(alias)?;
        let row = self.take_alias(&claim, &plan.room_id, creator).await?;
        let outcome = self.commit_room(new.visibility, plan).await;
        if !matches!(outcome, Ok(Outcome::Created)) {
            match self.drop_alias(alias, &row, plan.room).await {
                // What is not ours any more is not ours to remove.
                Ok(()) | Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(SendError::from(error).into()),
            }
        }
        Ok(outcome?)
    }

    fn plan_room(&self, new: &NewRoom<'_>, now: Millis) -> Result<RoomPlan, CreateError> {
        let version = new.version;
        let room_id = match version.rules().room_id_format {
            ruma_common::room_version_rules::RoomIdFormatVersion::V1 => Some(self.random_room_id()?),
            _ => None,
        };
        // Version 12 names the room after its create event; until then the number is of no use.
        let placeholder = self.ids().room(room_id.as_deref().unwrap_or(&PLACEHOLDER));
        let mut planner = Planner::new_room(placeholder, room_id, version);
        let nothing = |_| None;
        let context = Context { signer: &self.0.signer, now, nodes: &nothing };
        let mut events = Vec::with_capacity(new.intents.len());
        for intent in &new.intents {
            events.push(planner.plan(intent.clone(), &context).map_err(refused)?);
        }
        let room_id = planner.room_id.clone().ok_or_else(|| SendError::Internal("a room without an ID".into()))?;
        let room = self.ids().room(&room_id);
        Ok(RoomPlan { room, room_id, version, events, planner, created_at: now.0 })
    }

    async fn commit_room(&self, visibility: RoomVisibility, plan: &RoomPlan) -> Result<Outcome, SendError> {
        let mut batch = Batch::new(plan.room.lane());
        let meta = RoomMeta {
            room_id: plan.room_id.to_string(),
            version: plan.version.as_str().to_owned(),
            created_at: plan.created_at,
        };
        batch.check_absent::<RoomRows>(&(plan.room,));
        batch.put::<RoomRows>(&(plan.room,), &meta);
        move_head(&mut batch, plan.room, None, &plan.planner.head);
        if visibility == RoomVisibility::Public {
            batch.put::<PublicRooms>(&(plan.room.lane(), plan.room), &meta.room_id);
        }
        let signer = &self.0.signer;
        let target = Target { room: plan.room, ids: &signer.ids, server_name: &signer.server_name };
        let positions: Vec<_> =
            plan.events.iter().map(|event| persist(&mut batch, &target, event, &Attached::default())).collect();
        let committed = match self.0.store.commit(batch).await {
            Ok(committed) => committed,
            Err(CommitError::Conflict(_)) => return Ok(Outcome::Taken),
            Err(error) => return Err(error.into()),
        };
        for (event, pos) in plan.events.iter().zip(positions) {
            let pos = committed.resolve(pos);
            let id = hearth_schema::EventNid { room: plan.room, n: event.n };
            let event = RoomEvent::planned(plan.room, pos, event, None);
            self.0.caches.keep_event(id, &Arc::new(event), pos);
        }
        Ok(Outcome::Created)
    }

    fn random_room_id(&self) -> Result<OwnedRoomId, SendError> {
        let text = format!("!{}:{}", self.0.random.alphanumeric(ID_LENGTH), self.0.signer.server_name);
        OwnedRoomId::try_from(text).map_err(|error| SendError::Internal(error.to_string()))
    }
}

static PLACEHOLDER: std::sync::LazyLock<OwnedRoomId> =
    std::sync::LazyLock::new(|| RoomId::parse("!new").expect("a valid room ID"));

/// A room to make: its events in order, the first of them `m.room.create`.
pub(crate) struct NewRoom<'a> {
    pub version: RoomVersion,
    pub intents: Vec<Intent>,
    pub visibility: RoomVisibility,
    /// An alias to take with it, and for whom.
    pub alias: Option<(&'a RoomAliasId, &'a UserId)>,
}

/// What became of a planned room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Created,
    /// There is a room of this ID already.
    Taken,
}

/// A room that exists once its batch is durable.
struct RoomPlan {
    room: RoomNid,
    room_id: OwnedRoomId,
    version: RoomVersion,
    events: Vec<Planned>,
    planner: Planner,
    created_at: u64,
}

fn refused(error: PlanError) -> CreateError {
    match error {
        PlanError::Refused(SendError::Forbidden(why) | SendError::BadContent(why)) => {
            CreateError::InvalidRoomState(why)
        }
        PlanError::Refused(other) => other.into(),
        PlanError::Need(need) => SendError::Internal(format!("a new room needs {need:?}")).into(),
    }
}

/// The events of a new room in the order that the specification gives.
/// Users of other servers are invited afterwards.
fn intents(create: &CreateRoom, version: RoomVersion, own: &ServerName) -> Result<Vec<Intent>, CreateError> {
    let preset = create.preset.unwrap_or(match create.visibility {
        RoomVisibility::Public => Preset::PublicChat,
        RoomVisibility::Private => Preset::PrivateChat,
    });
    let state = |event_type: &str, content: CanonicalJsonObject| Intent {
        sender: create.creator.clone(),
        event_type: event_type.to_owned(),
        state_key: Some(String::new()),
        content,
        redacts: None,
        origin_server_ts: None,
    };
    let member =
        |user: &OwnedUserId, content| Intent { state_key: Some(user.to_string()), ..state("m.room.member", content) };
    let mut out = vec![
        state("m.room.create", create_content(create, preset, version)?),
        member(&create.creator, member_content(Membership::Join, &create.profile)),
        state("m.room.power_levels", power_levels(create, preset, version)),
    ];
    if let Some(alias) = &create.alias {
        out.push(state("m.room.canonical_alias", object(json!({ "alias": alias }))));
    }
    let set_anyway = |event_type: &str| {
        create.initial_state.iter().any(|event| event.event_type == event_type && event.state_key.is_empty())
    };
    let (join_rule, guests) = match preset {
        Preset::PrivateChat | Preset::TrustedPrivateChat => ("invite", true),
        // Where nothing says so, guests may not join.
        Preset::PublicChat => ("public", false),
    };
    for (event_type, content) in [
        ("m.room.join_rules", json!({ "join_rule": join_rule })),
        ("m.room.history_visibility", json!({ "history_visibility": "shared" })),
        ("m.room.guest_access", json!({ "guest_access": "can_join" })),
    ] {
        if !set_anyway(event_type) && (guests || event_type != "m.room.guest_access") {
            out.push(state(event_type, object(content)));
        }
    }
    for event in &create.initial_state {
        if event.event_type == "m.room.create" || event.event_type == "m.room.member" {
            return Err(CreateError::InvalidRoomState(format!("initial_state may not set {}", event.event_type)));
        }
        let state_key = Some(event.state_key.clone());
        out.push(Intent { state_key, ..state(&event.event_type, event.content.clone()) });
    }
    if let Some(name) = &create.name {
        out.push(state("m.room.name", object(json!({ "name": name }))));
    }
    if let Some(topic) = &create.topic {
        let text = json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic, "mimetype": "text/plain" }] } });
        out.push(state("m.room.topic", object(text)));
    }
    for (user, profile) in create.invite.iter().filter(|(user, _)| user.server_name() == own) {
        let mut content = member_content(Membership::Invite, profile);
        if create.is_direct.is_some() {
            content.insert("is_direct".into(), CanonicalJsonValue::Bool(true));
        }
        out.push(member(user, content));
    }
    Ok(out)
}

fn create_content(
    create: &CreateRoom,
    preset: Preset,
    version: RoomVersion,
) -> Result<CanonicalJsonObject, CreateError> {
    let mut content = with_version(create.creation_content.clone(), &create.creator, version);
    if privileged_creators(version) && preset == Preset::TrustedPrivateChat {
        let named = match content.remove("additional_creators") {
            Some(CanonicalJsonValue::Array(named)) => named,
            None => Vec::new(),
            Some(_) => return Err(CreateError::InvalidRoomState("additional_creators must be a list".into())),
        };
        let invited = create.invite.iter().map(|(user, _)| CanonicalJsonValue::String(user.to_string()));
        let mut all = named.clone();
        all.extend(invited.filter(|user| !named.contains(user)));
        content.insert("additional_creators".into(), CanonicalJsonValue::Array(all));
    }
    Ok(content)
}

/// The content of a create event with what every room's says: its version, and its creator where the
/// version asks for that.
pub(crate) fn with_version(
    mut content: CanonicalJsonObject,
    creator: &UserId,
    version: RoomVersion,
) -> CanonicalJsonObject {
    content.insert("room_version".into(), CanonicalJsonValue::String(version.as_str().to_owned()));
    if version.rules().authorization.use_room_create_sender {
        content.remove("creator");
    } else {
        content.insert("creator".into(), CanonicalJsonValue::String(creator.to_string()));
    }
    content
}

fn power_levels(create: &CreateRoom, preset: Preset, version: RoomVersion) -> CanonicalJsonObject {
    let mut users = serde_json::Map::new();
    if !privileged_creators(version) {
        users.insert(create.creator.to_string(), json!(100));
        if preset == Preset::TrustedPrivateChat {
            users.extend(create.invite.iter().map(|(user, _)| (user.to_string(), json!(100))));
        }
    }
    let invite = if preset == Preset::PublicChat { 50 } else { 0 };
    let tombstone = if privileged_creators(version) { 150 } else { 100 };
    let mut content = object(json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": tombstone,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": invite,
    }));
    if let Some(overrides) = &create.power_level_content_override {
        content.extend(overrides.clone());
    }
    content
}

/// From version 12 on creators stand above all power levels and may not be listed in them.
pub(crate) fn privileged_creators(version: RoomVersion) -> bool {
    version.rules().authorization.explicitly_privilege_room_creators
}

/// A JSON object that this module has written itself.
pub(crate) fn object(value: serde_json::Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        _ => unreachable!("the literals above are objects of strings and small integers"),
    }
}

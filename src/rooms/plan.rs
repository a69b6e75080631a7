//! Judging a new local event and working out what it changes: pure, and the only place that does.
//!
//! A [`Planner`] holds the room's head as it will be once everything submitted is durable. Planning
//! needs some rows of the current state and some trie nodes; what is not at hand is a [`Need`], which
//! the caller loads before it calls again. Nothing is changed by a plan that fails.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_base::Millis;
use hearth_event::{BuildError, EventDraft, Pdu, RoomVersion, SigningKey};
use hearth_schema::{Extremity, Ids, Membership, NodeId, RoomHead, RoomNid, StateEntry, StateId, StateKeyNid};
use ruma_common::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, UserId,
};

use crate::SendError;
use crate::relation;
use crate::state::{self, Node};

/// `prev_events` an event may have.
const MAX_PREV_EVENTS: usize = 20;
/// The largest integer in canonical JSON.
const MAX_DEPTH: u64 = (1 << 53) - 1;

/// A place in the room's state: event type and state key.
pub(crate) type StateSlot = (String, String);

/// What is known of one place of the current state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// Its number, once the room has one.
    pub nid: Option<StateKeyNid>,
    /// Its entry, if it has one.
    pub entry: Option<StateEntry>,
    /// The entry's event.
    pub pdu: Option<Pdu>,
}

/// What must be loaded before a plan can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Slots(Vec<StateSlot>),
    Node(NodeId),
}

/// Why there is no plan.
#[derive(Debug)]
pub(crate) enum PlanError {
    Need(Need),
    Refused(SendError),
}

impl Draft {
    /// The event.
    pub(crate) const fn pdu(&self) -> &Pdu {
        &self.0
    }

    /// The same.
    pub(crate) fn into_pdu(self) -> Pdu {
        self.0
    }
}

impl From<SendError> for PlanError {
    fn from(error: SendError) -> Self {
        Self::Refused(error)
    }
}

/// An event that somebody wants in the room.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    pub sender: OwnedUserId,
    pub event_type: String,
    pub state_key: Option<String>,
    pub content: CanonicalJsonObject,
    pub redacts: Option<OwnedEventId>,
    /// `None`: now.
    pub origin_server_ts: Option<Millis>,
}

impl Intent {
    /// Whether somebody changes their own membership.
    pub(crate) fn is_own_membership(&self) -> bool {
        self.event_type == "m.room.member" && self.state_key.as_deref() == Some(self.sender.as_str())
    }
}

/// A signed event that the auth rules allow on the planned head, which has not moved on to it.
#[derive(Clone, Debug)]
pub(crate) struct Draft(Pdu);

/// An event that the room will have once its batch is durable.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// The head that the plan stands on.
    pub head_before: RoomHead,
    pub pdu: Pdu,
    pub n: u32,
    pub state_before: StateId,
    pub state: Option<PlannedState>,
}

/// What a state event changes.
#[derive(Clone, Debug)]
pub(crate) struct PlannedState {
    pub slot: StateSlot,
    pub nid: StateKeyNid,
    /// The number was given by this plan.
    pub new_nid: bool,
    pub previous: Option<StateEntry>,
    pub membership: Option<Membership>,
    /// The state after it.
    pub root: StateId,
    /// Nodes to store.
    pub nodes: Vec<(NodeId, Arc<Node>, Vec<u8>)>,
}

/// What planning may use besides the planner.
pub(crate) struct Context<'a> {
    pub signer: &'a Signer,
    pub now: Millis,
    pub nodes: &'a (dyn state::Source + Sync),
}

/// Who signs for this server.
#[derive(Clone)]
pub(crate) struct Signer {
    pub server_name: OwnedServerName,
    pub key: Arc<SigningKey>,
    pub ids: Ids,
}

/// A room's planned future.
pub(crate) struct Planner {
    pub room: RoomNid,
    /// Empty until the create event of a version 12 room is made.
    pub room_id: Option<OwnedRoomId>,
    pub version: RoomVersion,
    pub head: RoomHead,
    pub slots: HashMap<StateSlot, Slot>,
    /// Nodes of plans that are not durable yet.
    pub fresh_nodes: HashMap<NodeId, Arc<Node>>,
    /// Relations of plans that are not durable yet.
    pub relations: relation::Pending,
    /// The room is being created: what is not in `slots` does not exist.
    pub new_room: bool,
}

impl Planner {
    /// A room that does not exist yet.
    pub(crate) fn new_room(room: RoomNid, room_id: Option<OwnedRoomId>, version: RoomVersion) -> Self {
        let head = RoomHead {
            generation: 0,
            extremities: Vec::new(),
            state: StateId::EMPTY,
            next_event: 0,
            next_state_key: 0,
            joined_members: 0,
            invited_members: 0,
        };
        Self {
            room,
            room_id,
            version,
            head,
            slots: HashMap::new(),
            fresh_nodes: HashMap::new(),
            relations: relation::Pending::default(),
            new_room: true,
        }
    }

    /// What is known of a place of the state; `Ok(None)`: it is empty.
    pub(crate) fn slot(&self, event_type: &str, state_key: &str) -> Result<Option<&Slot>, PlanError> {
        let key = (event_type.to_owned(), state_key.to_owned());
        match self.slots.get(&key) {
            Some(slot) => Ok(Some(slot)),
            None if self.new_room => Ok(None),
            None => Err(PlanError::Need(Need::Slots(vec![key]))),
        }
    }

    /// The event at a place of the state.
    pub(crate) fn state_event(&self, event_type: &str, state_key: &str) -> Result<Option<&Pdu>, PlanError> {
        Ok(self.slot(event_type, state_key)?.and_then(|slot| slot.pdu.as_ref()))
    }

    /// The event that already says what `intent` wants to say: sending the same state again changes
    /// nothing, so it gives the event that is there.
    pub(crate) fn same_state(&self, intent: &Intent) -> Result<Option<OwnedEventId>, PlanError> {
        let Some(state_key) = &intent.state_key else { return Ok(None) };
        let Some(pdu) = self.state_event(&intent.event_type, state_key)? else { return Ok(None) };
        let same = pdu.sender() == intent.sender && same_content(pdu, &intent.content);
        Ok(same.then(|| pdu.event_id().to_owned()))
    }

    /// Whether `user` is joined.
    pub(crate) fn is_joined(&self, user: &UserId) -> Result<bool, PlanError> {
        let member = self.state_event("m.room.member", user.as_str())?;
        Ok(member.and_then(membership_of) == Some(Membership::Join))
    }

    /// Judges `intent` on the planned head and, if it may happen, moves the head on.
    pub(crate) fn plan(&mut self, intent: Intent, context: &Context<'_>) -> Result<Planned, PlanError> {
        let draft = self.draft(intent, context)?;
        self.place(&draft, context)
    }

    /// Judges `intent` on the planned head, which stays where it is.
    pub(crate) fn draft(&self, intent: Intent, context: &Context<'_>) -> Result<Draft, PlanError> {
        let auth = self.auth_events(&intent)?;
        if let Some(state_key) = &intent.state_key {
            self.slot(&intent.event_type, state_key)?;
        }
        let pdu = self.build(intent, &auth, context)?;
        self.judge(&pdu)?;
        Ok(Draft(pdu))
    }

    /// Moves the head on to what was drafted on it.
    pub(crate) fn place(&mut self, Draft(pdu): &Draft, context: &Context<'_>) -> Result<Planned, PlanError> {
        let pdu = pdu.clone();
        let n = self.head.next_event;
        let (head_before, state_before) = (self.head.clone(), self.head.state);
        let state = match pdu.state_key().map(str::to_owned) {
            None => None,
            Some(state_key) => Some(self.plan_state(&pdu, state_key, n, context)?),
        };
        self.advance(&pdu, n, state.as_ref());
        Ok(Planned { head_before, pdu, n, state_before, state })
    }

    /// The state events that authorise `intent`.
    fn auth_events(&self, intent: &Intent) -> Result<Vec<Pdu>, PlanError> {
        let wanted = hearth_event::auth_types(
            self.version,
            &intent.event_type,
            &intent.sender,
            intent.state_key.as_deref(),
            &intent.content,
        )
        .map_err(|error| SendError::BadContent(error.to_string()))?;
        // Asked for even where the version does not list it: the rules read it.
        let needed = wanted.iter().cloned().chain([("m.room.create".to_owned(), String::new())]);
        if !self.new_room {
            let missing: Vec<_> = needed.filter(|key| !self.slots.contains_key(key)).collect();
            if !missing.is_empty() {
                return Err(PlanError::Need(Need::Slots(missing)));
            }
        }
        Ok(wanted.iter().filter_map(|key| self.slots.get(key)?.pdu.clone()).collect())
    }

    fn build(&self, intent: Intent, auth: &[Pdu], context: &Context<'_>) -> Result<Pdu, PlanError> {
        let extremities = self.head.extremities.iter().rev().take(MAX_PREV_EVENTS);
        let mut prev_events = Vec::with_capacity(self.head.extremities.len().min(MAX_PREV_EVENTS));
        let mut depth = 0;
        for extremity in extremities {
            let id = OwnedEventId::try_from(extremity.event_id.as_str())
                .map_err(|error| SendError::Internal(format!("stored extremity: {error}")))?;
            prev_events.push(id);
            depth = extremity.depth.max(depth);
        }
        let draft = EventDraft {
            room_id: self.room_id.clone(),
            event_type: intent.event_type,
            state_key: intent.state_key,
            sender: intent.sender,
            content: intent.content,
            origin_server_ts: intent.origin_server_ts.unwrap_or(context.now).0,
            prev_events,
            auth_events: auth.iter().map(|pdu| pdu.event_id().to_owned()).collect(),
            depth: depth.saturating_add(1).min(MAX_DEPTH),
            redacts: intent.redacts,
        };
        hearth_event::build(draft, self.version, &context.signer.server_name, &context.signer.key).map_err(|error| {
            PlanError::Refused(match error {
                BuildError::TooLarge { .. } | BuildError::FieldTooLong { .. } => SendError::TooLarge,
                other => SendError::BadContent(other.to_string()),
            })
        })
    }

    pub(crate) fn judge(&self, pdu: &Pdu) -> Result<(), PlanError> {
        let forbidden =
            |rejection: hearth_event::Rejection| PlanError::Refused(SendError::Forbidden(rejection.to_string()));
        let create = match self.state_event("m.room.create", "")? {
            Some(create) => create,
            None if pdu.event_type() == "m.room.create" => {
                return hearth_event::check_auth_events(self.version, pdu, &[]).map_err(forbidden);
            }
            None => return Err(SendError::Internal("the room has no create event".into()).into()),
        };
        // Everything the rules may ask for is an auth event of this one, and those are loaded.
        let state = |event_type: &str, state_key: &str| {
            self.slots.get(&(event_type.to_owned(), state_key.to_owned())).and_then(|slot| slot.pdu.clone())
        };
        hearth_event::check_auth(self.version, pdu, create, &state).map_err(forbidden)
    }

    /// What the state event `pdu` changes; its place has been loaded.
    pub(crate) fn plan_state(
        &self,
        pdu: &Pdu,
        state_key: String,
        n: u32,
        context: &Context<'_>,
    ) -> Result<PlannedState, PlanError> {
        let slot = (pdu.event_type().to_owned(), state_key);
        let known = self.slots.get(&slot).cloned().unwrap_or_default();
        let nid = known.nid.unwrap_or(StateKeyNid(self.head.next_state_key));
        let nodes = |id: NodeId| self.fresh_nodes.get(&id).cloned().or_else(|| context.nodes.node(id));
        let edited = state::update(&nodes, &context.signer.ids, self.head.state, &[(nid.0, Some(n))])
            .map_err(|missing| PlanError::Need(Need::Node(missing.0)))?;
        Ok(PlannedState {
            membership: (slot.0 == "m.room.member").then(|| membership_of(pdu)).flatten(),
            slot,
            nid,
            new_nid: known.nid.is_none(),
            previous: known.entry,
            root: edited.root.ok_or_else(|| SendError::Internal("a state with an entry has a root".into()))?,
            nodes: edited.nodes,
        })
    }

    /// Moves the head past a judged event.
    pub(crate) fn advance(&mut self, pdu: &Pdu, n: u32, state: Option<&PlannedState>) {
        let head = &mut self.head;
        head.generation += 1;
        head.next_event += 1;
        // An event follows the newest ends; where there are more than it may name, the others stay ends.
        let left = head.extremities.len().saturating_sub(MAX_PREV_EVENTS);
        head.extremities.truncate(left);
        head.extremities.push(Extremity { n, event_id: pdu.event_id().to_string(), depth: pdu.depth() });
        if self.room_id.is_none() {
            self.room_id = Some(pdu.room_id().to_owned());
        }
        let Some(state) = state else { return };
        head.state = state.root;
        head.next_state_key += u32::from(state.new_nid);
        let before = state.previous.and_then(|entry| entry.membership);
        count(&mut head.joined_members, Membership::Join, before, state.membership);
        count(&mut head.invited_members, Membership::Invite, before, state.membership);
        for (id, node, _) in &state.nodes {
            self.fresh_nodes.insert(*id, Arc::clone(node));
        }
        let entry = StateEntry { n, membership: state.membership };
        let slot = Slot { nid: Some(state.nid), entry: Some(entry), pdu: Some(pdu.clone()) };
        self.slots.insert(state.slot.clone(), slot);
    }
}

pub(crate) fn count(members: &mut u32, kind: Membership, before: Option<Membership>, after: Option<Membership>) {
    if before == Some(kind) {
        *members = members.saturating_sub(1);
    }
    if after == Some(kind) {
        *members = members.saturating_add(1);
    }
}

/// The membership that a member event gives.
pub(crate) fn membership_of(pdu: &Pdu) -> Option<Membership> {
    #[derive(serde::Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        membership: std::borrow::Cow<'a, str>,
    }
    // A member event without one does not pass the auth rules, so it never gets here.
    let content: Content<'_> = serde_json::from_str(pdu.content().get()).ok()?;
    Membership::parse(&content.membership)
}

fn same_content(pdu: &Pdu, content: &CanonicalJsonObject) -> bool {
    serde_json::from_str::<CanonicalJsonValue>(pdu.content().get())
        .is_ok_and(|stored| matches!(stored, CanonicalJsonValue::Object(stored) if stored == *content))
}

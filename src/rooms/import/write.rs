//! The rows of a room that was not here before.

use std::collections::HashMap;

use hearth_event::Pdu;
use hearth_schema::{
    CurrentState, Events, Membership, RoomHead, RoomMeta, RoomNid, Rooms as RoomRows, Source, StateEntry, StateId,
    StateKeyNames, StateKeyNid, UserRoom, UserRoomLog, UserRooms,
};
use hearth_store::{Batch, Order, Owner, Pos, StoreError, View};
use ruma_common::{OwnedEventId, UserId};

use super::ImportError;
use super::told::{Place, Told};
use crate::SendError;
use crate::graph::Graph;
use crate::inbound::{Outlier, put_outliers};
use crate::intake::Rooms;
use crate::persist::{Attached, Target, came_inside, move_head, persist};
use crate::plan::{Planned, PlannedState, count, membership_of};

/// Bytes of events in one batch, about.
const CHUNK_BYTES: usize = 1 << 20;
/// Rows of the current state in one batch.
const CHUNK_ROWS: usize = 8192;

impl Rooms {
    /// Writes the room; gives the position of the join.
    pub(super) async fn write_room(&self, room: RoomNid, told: &Told) -> Result<Pos, ImportError> {
        let graph = Graph::latest(self, room, told.version).await?;
        let mut head = self.first_free(&graph.view, room).await?;
        self.write_events(room, told, &mut head).await?;
        let graph = Graph::latest(self, room, told.version).await?;
        let (state, entries) = self.write_state(&graph, told, &mut head).await?;
        self.make_exist(&graph, told, head, (state, &entries)).await
    }

    /// A head that gives out no number that an earlier join, cut off, has left behind.
    async fn first_free(&self, view: &View, room: RoomNid) -> Result<RoomHead, StoreError> {
        let event = view.page::<Events, _>(&(room,), Order::Descending, 1).await?;
        let place = view.page::<StateKeyNames, _>(&(room,), Order::Descending, 1).await?;
        Ok(RoomHead {
            generation: 0,
            extremities: Vec::new(),
            state: StateId::EMPTY,
            next_event: event.first().map_or(0, |((_, n), _)| n + 1),
            next_state_key: place.first().map_or(0, |((_, nid), _)| nid.0 + 1),
            joined_members: 0,
            invited_members: 0,
        })
    }

    async fn write_events(&self, room: RoomNid, told: &Told, head: &mut RoomHead) -> Result<(), ImportError> {
        let outliers: Vec<Outlier> = told
            .judged
            .iter()
            .map(|(pdu, why)| Outlier { pdu: pdu.clone(), rejected: why.clone(), state_before: StateId::EMPTY })
            .collect();
        let mut rest = outliers.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|outlier| {
                bytes += outlier.pdu.json().len() + 256;
                bytes <= CHUNK_BYTES
            });
            let (now, later) = rest.split_at(fits.count().max(1).min(rest.len()));
            let graph = Graph::latest(self, room, told.version).await?;
            let mut batch = Batch::new(room.lane());
            put_outliers(&graph, &mut batch, head, now).await?;
            self.0.store.commit(batch).await?;
            rest = later;
        }
        Ok(())
    }

    /// Writes the current state without our join; gives its root and its entries.
    async fn write_state(
        &self,
        graph: &Graph,
        told: &Told,
        head: &mut RoomHead,
    ) -> Result<(StateId, HashMap<Place, StateEntry>), ImportError> {
        let room = graph.room;
        let ids: Vec<OwnedEventId> = told.state.values().cloned().collect();
        let numbers: HashMap<_, _> = graph.numbers(&ids).await?.into_iter().collect();
        let pdus: HashMap<&str, &Pdu> = told.events().map(|pdu| (pdu.event_id().as_str(), pdu)).collect();
        let places: Vec<Place> = told.state.keys().cloned().collect();
        let nids = graph.state_keys(&places).await?;
        let mut entries = HashMap::with_capacity(places.len());
        let mut changes = Vec::with_capacity(places.len());
        for (place, nid) in places.into_iter().zip(nids) {
            let id = told.state.get(&place);
            let n = id.and_then(|id| numbers.get(id)).copied();
            let (Some(nid), Some(n)) = (nid, n) else {
                return Err(SendError::Internal("an event of the state was not stored".into()).into());
            };
            let pdu = id.and_then(|id| pdus.get(id.as_str()));
            let membership = pdu.filter(|_| place.0 == "m.room.member").and_then(|pdu| membership_of(pdu));
            count(&mut head.joined_members, Membership::Join, None, membership);
            count(&mut head.invited_members, Membership::Invite, None, membership);
            changes.push((nid.0, Some(n)));
            entries.insert(place, StateEntry { n, membership });
        }
        let (state, nodes) = graph.changed(StateId::EMPTY, &changes).await?;
        graph.save(nodes).await?;
        let mut batch = Batch::new(room.lane());
        batch.delete_prefix::<CurrentState, _>(&(room,));
        let mut rows = 0;
        for ((kind, key), entry) in &entries {
            batch.put::<CurrentState>(&(room, kind.clone(), key.clone()), entry);
            rows += 1;
            if rows % CHUNK_ROWS == 0 {
                let full = std::mem::replace(&mut batch, Batch::new(room.lane()));
                self.0.store.commit(full).await?;
            }
        }
        self.0.store.commit(batch).await?;
        Ok((state, entries))
    }

    /// The batch after which the room is there.
    async fn make_exist(
        &self,
        graph: &Graph,
        told: &Told,
        mut head: RoomHead,
        (before, entries): (StateId, &HashMap<Place, StateEntry>),
    ) -> Result<Pos, ImportError> {
        let room = graph.room;
        let planned = self.planned_join(graph, told, &mut head, (before, entries)).await?;
        let mut batch = Batch::new(room.lane());
        let meta = RoomMeta {
            room_id: told.join.room_id().to_string(),
            version: told.version.as_str().to_owned(),
            created_at: self.0.clock.now().0,
        };
        batch.check_absent::<RoomRows>(&(room,));
        batch.put::<RoomRows>(&(room,), &meta);
        move_head(&mut batch, room, None, &head);
        let signer = &self.0.signer;
        let target = Target { room, ids: &signer.ids, server_name: &signer.server_name };
        let attached = Attached { source: Source::Remote, ..Attached::default() };
        let pos = persist(&mut batch, &target, &planned, &attached);
        self.write_local_members(&mut batch, (room, &meta), told, entries);
        let committed = self.0.store.commit(batch).await?;
        self.0.auth_edges.forget(room);
        Ok(committed.resolve(pos))
    }

    async fn planned_join(
        &self,
        graph: &Graph,
        told: &Told,
        head: &mut RoomHead,
        (before, entries): (StateId, &HashMap<Place, StateEntry>),
    ) -> Result<Planned, ImportError> {
        let join = &told.join;
        let slot: Place = (join.event_type().to_owned(), join.state_key().unwrap_or_default().to_owned());
        let known = graph.state_keys(std::slice::from_ref(&slot)).await?.into_iter().next().flatten();
        let nid = known.unwrap_or(StateKeyNid(head.next_state_key));
        let n = head.next_event;
        let (after, nodes) = graph.changed(before, &[(nid.0, Some(n))]).await?;
        let previous = entries.get(&slot).copied();
        let membership = membership_of(join);
        let head_before = head.clone();
        head.generation += 1;
        head.next_event += 1;
        head.next_state_key += u32::from(known.is_none());
        head.state = after;
        head.extremities =
            vec![hearth_schema::Extremity { n, event_id: join.event_id().to_string(), depth: join.depth() }];
        let was = previous.and_then(|entry| entry.membership);
        count(&mut head.joined_members, Membership::Join, was, membership);
        count(&mut head.invited_members, Membership::Invite, was, membership);
        let state = PlannedState { slot, nid, new_nid: known.is_none(), previous, membership, root: after, nodes };
        Ok(Planned { head_before, pdu: join.clone(), n, state_before: before, state: Some(state) })
    }

    /// Other local users whom the room knows: invited, banned, knocking.
    fn write_local_members(
        &self,
        batch: &mut Batch,
        (room, meta): (RoomNid, &RoomMeta),
        told: &Told,
        entries: &HashMap<Place, StateEntry>,
    ) {
        let joining = told.join.sender();
        let pos = batch.next_pos();
        for ((kind, key), entry) in entries {
            let (Some(membership), "m.room.member") = (entry.membership, kind.as_str()) else { continue };
            let Ok(user_id) = <&UserId>::try_from(key.as_str()) else { continue };
            // Who left long ago need not be told again.
            if user_id == joining || !self.is_own_user(user_id) || membership == Membership::Leave {
                continue;
            }
            let user = self.ids().user(user_id);
            let row = UserRoom {
                pos,
                room_id: meta.room_id.clone(),
                membership,
                n: Some(entry.n),
                own: membership == Membership::Join || membership == Membership::Knock,
                forgotten: false,
            };
            batch.put_elsewhere::<UserRooms>(&(user, room), &row);
            came_inside(batch, (user, room));
            batch.put_elsewhere::<UserRoomLog>(&(user, pos), &room);
        }
    }

    fn is_own_user(&self, user: &UserId) -> bool {
        user.server_name() == self.0.signer.server_name
    }
}

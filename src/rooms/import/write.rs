//! The rows of a room that was not here before.

use std::collections::HashMap;

use hearth_schema::{
    CurrentState, Membership, RoomHead, RoomMeta, RoomNid, Rooms as RoomRows, Source, StateEntry, StateId, StateKeyNid,
    UserRoom, UserRoomLog, UserRooms,
};
use hearth_store::{Batch, Owner, Pos};
use ruma_common::{OwnedEventId, UserId};

use super::ImportError;
use super::told::{Place, Told};
use crate::SendError;
use crate::graph::Graph;
use crate::intake::Rooms;
use crate::persist::{Attached, Target, came_inside, move_head, persist};
use crate::plan::{Planned, PlannedState, count, membership_of};

/// Rows of the current state in one batch.
const CHUNK_ROWS: usize = 8192;

impl Rooms {
    /// Makes a room of what is stored of it; gives the position of the join. Nobody else writes to it meanwhile.
    pub(super) async fn write_room(&self, graph: &Graph, told: &Told, mut head: RoomHead) -> Result<Pos, ImportError> {
        let (state, entries) = self.write_trie(graph, told).await?;
        for entry in entries.values() {
            count(&mut head.joined_members, Membership::Join, None, entry.membership);
            count(&mut head.invited_members, Membership::Invite, None, entry.membership);
        }
        self.write_current(graph.room, &entries).await?;
        self.make_exist(graph, told, head, (state, &entries)).await
    }

    /// Stores the state without our join; gives its root and its entries.
    pub(super) async fn write_trie(
        &self,
        graph: &Graph,
        told: &Told,
    ) -> Result<(StateId, HashMap<Place, StateEntry>), ImportError> {
        let ids: Vec<OwnedEventId> = told.state.values().map(|(id, _)| id.clone()).collect();
        let numbers: HashMap<_, _> = graph.numbers(&ids).await?.into_iter().collect();
        let places: Vec<Place> = told.state.keys().cloned().collect();
        let nids = graph.state_keys(&places).await?;
        let mut entries = HashMap::with_capacity(places.len());
        let mut changes = Vec::with_capacity(places.len());
        for ((place, nid), (id, membership)) in places.into_iter().zip(nids).zip(told.state.values()) {
            let (Some(nid), Some(n)) = (nid, numbers.get(id).copied()) else {
                return Err(SendError::Internal("an event of the state was not stored".into()).into());
            };
            changes.push((nid.0, Some(n)));
            entries.insert(place, StateEntry { n, membership: *membership });
        }
        let (state, nodes) = graph.changed(StateId::EMPTY, &changes).await?;
        graph.save(nodes).await?;
        Ok((state, entries))
    }

    async fn write_current(&self, room: RoomNid, entries: &HashMap<Place, StateEntry>) -> Result<(), ImportError> {
        let mut batch = Batch::new(room.lane());
        batch.delete_prefix::<CurrentState, _>(&(room,));
        let mut rows = 0;
        for ((kind, key), entry) in entries {
            batch.put::<CurrentState>(&(room, kind.clone(), key.clone()), entry);
            rows += 1;
            if rows % CHUNK_ROWS == 0 {
                let full = std::mem::replace(&mut batch, Batch::new(room.lane()));
                self.0.store.commit(full).await?;
            }
        }
        self.0.store.commit(batch).await?;
        Ok(())
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

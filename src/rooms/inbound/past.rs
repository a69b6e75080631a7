//! Places in the timeline for events that came to light late: from before a join, or from a gap.
//!
//! They change no state and wake nobody: they were there all the time. But they relate to others, others relate to them,
//! redactions among them take effect, and an end of the room before a gap that they fill may be none any more.
//!
//! They are placed from the newest down, so that after a crash in between what is placed joins on what was here, and the
//! next page goes on from there. Events that concern nobody else share a batch; each of the others has one of its own,
//! because what it changes may be a row of another of them.

use hearth_event::Pdu;
use hearth_schema::{EventNid, Events, Gap, Gaps, StateId, StoredEvent, Timeline, Verdict};
use hearth_store::{Batch, Owner, Pos, View};

use super::ends::{self, Late};
use super::extras::Extras;
use super::{Entered, Past};
use crate::SendError;
use crate::gather::{damaged, parse};
use crate::graph::Graph;
use crate::persist::move_head;
use crate::task::RoomTask;

/// An event on its way to its place.
struct Placed {
    n: u32,
    pos: Pos,
    pdu: Pdu,
    stored: StoredEvent,
    extras: Extras,
}

impl RoomTask {
    /// Gives stored events their places in the timeline.
    pub(super) async fn place_past(&mut self, past: &Past) -> Result<Entered, SendError> {
        // From the newest down.
        let places = (1..).map_while(|i| past.before.get().checked_sub(i).filter(|pos| *pos > 0)).map(Pos::new);
        let all: Vec<(u32, Pos)> = past.numbers.iter().rev().copied().zip(places).collect();
        let mut rest = all.as_slice();
        let mut last = Pos::ZERO;
        while !rest.is_empty() {
            let view = View::latest(&*self.rooms.store).await?;
            self.with_planner(&view).await?;
            let graph = self.graph(view);
            let (now, taken) = self.next_late(&graph, rest).await?;
            let lowest = rest.get(taken - 1).map(|(_, pos)| *pos);
            last = self.place_late(&now, past.gap.zip(lowest), &graph).await?;
            rest = &rest[taken..];
        }
        Ok(Entered { pos: last, state_before: StateId::EMPTY })
    }

    /// The first of `rest` that can be one batch, and how many of `rest` are done with them.
    async fn next_late(&mut self, graph: &Graph, rest: &[(u32, Pos)]) -> Result<(Vec<Placed>, usize), SendError> {
        let keys: Vec<_> = rest.iter().map(|(n, _)| (self.room, *n)).collect();
        let rows = graph.view.get_many::<Events>(&keys).await?;
        let mut now: Vec<Placed> = Vec::new();
        for (i, ((n, pos), row)) in rest.iter().zip(rows).enumerate() {
            let mut stored = row.ok_or_else(|| damaged("Events", format!("event {n} is absent")))?;
            // It may have come by another way meanwhile.
            if stored.verdict != Verdict::Outlier {
                continue;
            }
            let pdu: Pdu = parse(&stored, self.version)?;
            stored.replaces_state = replaced(graph, &pdu, stored.state_before).await?;
            let extras = self.extras_at(graph, (&pdu, *n, stored.state_before), Some(*pos)).await?;
            let alone = !extras.is_empty();
            if alone && !now.is_empty() {
                return Ok((now, i));
            }
            now.push(Placed { n: *n, pos: *pos, pdu, stored, extras });
            if alone {
                return Ok((now, i + 1));
            }
        }
        Ok((now, rest.len()))
    }

    /// One batch; gives its position.
    async fn place_late(
        &mut self,
        events: &[Placed],
        filled: Option<(Pos, Pos)>,
        graph: &Graph,
    ) -> Result<Pos, SendError> {
        let room = self.room;
        let head = self.with_planner(&graph.view).await?.head.clone();
        let mut after = head.clone();
        after.generation += 1;
        let known = if filled.is_some() { Late::Followed } else { Late::Perhaps };
        let late: Vec<&Pdu> = events.iter().map(|late| &late.pdu).collect();
        if let Some(left) = ends::linked(graph, &head, &late, known).await? {
            after.extremities = left;
        }
        let mut batch = Batch::new(room.lane());
        for Placed { n, pos, stored, extras, .. } in events {
            let mut stored = StoredEvent { pos: *pos, verdict: Verdict::Accepted, ..stored.clone() };
            if let Some((by, json)) = extras.redacted.clone().filter(|_| stored.redacted_by.is_none()) {
                (stored.redacted_by, stored.json) = (Some(by), json);
            }
            batch.put::<Events>(&(room, *n), &stored);
            batch.put::<Timeline>(&(room, *pos), n);
            extras.persist(&mut batch, room, *n, *pos);
        }
        if let Some((gap, lowest)) = filled {
            let row = Gap { lowest: Some(lowest.get()), ..Gap::default() };
            batch.put::<Gaps>(&(room.lane(), room, gap), &row);
        }
        let mark = batch.next_pos();
        move_head(&mut batch, room, Some(&head), &after);
        let committed = self.rooms.store.commit(batch).await?;
        let pos = committed.resolve(mark);
        for n in events.iter().flat_map(|late| std::iter::once(late.n).chain(late.extras.rewritten())) {
            self.rooms.caches.forget_redacted(EventNid { room, n }, pos);
        }
        if let Some(planner) = &mut self.planner {
            if events.iter().any(|late| late.extras.rewritten().next().is_some()) {
                planner.slots.clear();
            }
            planner.head = after;
        }
        Ok(pos)
    }
}

/// The event that was in the place of `pdu` in the state before it. That a room's visibility was another one once is known
/// by this.
async fn replaced(graph: &Graph, pdu: &Pdu, before: StateId) -> Result<Option<u32>, SendError> {
    let Some(state_key) = pdu.state_key() else { return Ok(None) };
    let (view, rooms, room) = (&graph.view, &graph.rooms, graph.room);
    match rooms.state_place(view, room, pdu.event_type(), state_key).await? {
        Some(place) => Ok(rooms.state_number(view, room, before, place).await?),
        None => Ok(None),
    }
}

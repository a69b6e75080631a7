//! One room of an answer.

use std::collections::HashSet;
use std::sync::Arc;

use hearth_rooms::RoomEvent;
use hearth_schema::{Membership, RoomNid};
use hearth_store::{Pos, StoreError};

use super::compose::Slide;
use super::connection::SentRoom;
use super::list::Ruled;
use super::request::Names;
use super::required::RequiredState;
use super::write::RoomJson;
use crate::answer::Answer;
use crate::filter::{Filter, Members, RoomSection};
use crate::member::MEMBER;
use crate::state::{Changes, Delta, Head, Wanted};
use crate::stay::Stay;
use crate::timeline::{Check, Page};

/// What became of a room.
pub(super) struct Told {
    pub room: RoomNid,
    pub room_id: String,
    /// `None`: nothing is new.
    pub json: Option<Vec<u8>>,
    /// What the connection has then.
    pub sent: SentRoom,
    /// The timeline.
    pub events: Vec<Arc<RoomEvent>>,
}

/// State that changes what is said of a room beside it.
const SUMMED_UP: [&str; 4] = [MEMBER, "m.room.name", "m.room.avatar", "m.room.canonical_alias"];

/// A joined room in the making.
struct Joined<'j> {
    answer: &'j Answer<'j>,
    ruled: &'j Ruled<'j>,
    stay: &'j Stay,
    /// `None`: the client is to forget what it knows of the room.
    known: Option<&'j SentRoom>,
    page: Page,
    changes: Changes,
    /// Members that the timeline needs, if that is asked for.
    needed: HashSet<String>,
}

impl Slide<'_> {
    /// What is new of a room; `None`: nothing, as one can tell without a look.
    pub(super) async fn room(&self, ruled: &Ruled<'_>) -> Result<Option<Told>, StoreError> {
        let mut known = self.sent.rooms.get(&ruled.room);
        if known.is_some_and(|known| !self.may_differ(ruled, known)) {
            return Ok(None);
        }
        let filter = filter(ruled);
        let row = &ruled.standing.row;
        let mut answer = self.answer(&filter, known.map(|known| known.upto));
        let Some(mut stay) = answer.stay(ruled.room, row).await? else { return Ok(None) };
        if known.is_some() && stay.membership == Membership::Join && !stay.continuous {
            // It was away, or at the door: what the client has does not join on.
            (known, answer) = (None, self.answer(&filter, None));
            let Some(anew) = answer.stay(ruled.room, row).await? else { return Ok(None) };
            stay = anew;
        }
        let is_new = known.is_none_or(|known| stay.pos > known.upto);
        match stay.membership {
            Membership::Join => self.joined(&answer, ruled, (&stay, known)).await.map(Some),
            Membership::Invite | Membership::Knock if is_new => {
                if stay.membership == Membership::Invite && answer.is_unwanted(ruled.room, &stay).await? {
                    return Ok(None);
                }
                let stripped = answer.stripped_list(ruled.room, &stay).await?;
                Ok(stripped.map(|stripped| self.outside(ruled, (&stay, known), &stripped)))
            }
            Membership::Leave | Membership::Ban if is_new => self.left(&answer, ruled, (&stay, known)).await,
            _ => Ok(None),
        }
    }

    /// Whether there may be anything new, by what is in memory.
    fn may_differ(&self, ruled: &Ruled<'_>, known: &SentRoom) -> bool {
        let row = &ruled.standing.row;
        if row.pos > known.upto {
            return true;
        }
        if row.membership != Membership::Join {
            return false;
        }
        let (live, upto) = (ruled.standing.live.as_ref(), known.upto);
        live.is_none_or(|live| live.has_events(upto) || live.has_state(upto) || live.has_receipts(upto))
            || self.is_dm(ruled) != known.is_dm
            || ruled.limit > known.limit
            || ruled.required.exceeds(&known.required)
    }

    pub(super) fn is_dm(&self, ruled: &Ruled<'_>) -> bool {
        self.direct.contains(&ruled.standing.row.room_id)
    }

    /// What a room is remembered as, when all of it up to the end of the answer is known.
    fn remembered(&self, ruled: &Ruled<'_>, known: Option<&SentRoom>) -> SentRoom {
        SentRoom {
            upto: self.until,
            limit: ruled.limit,
            required: ruled.required.clone(),
            members: known.map_or_else(Arc::default, |known| Arc::clone(&known.members)),
            is_dm: self.is_dm(ruled),
            counts: (0, 0),
            receipts: known.and_then(|known| known.receipts),
            typing: known.map_or(0, |known| known.typing),
            account_data: known.is_some_and(|known| known.account_data),
        }
    }

    /// A room that the user is invited to, or has knocked on.
    fn outside(&self, ruled: &Ruled<'_>, (stay, known): (&Stay, Option<&SentRoom>), stripped: &[u8]) -> Told {
        let mut json = RoomJson::open(ruled, stay.membership, known);
        if self.is_dm(ruled) {
            json.flag("is_dm");
        }
        let name = match self.body.names() {
            Names::Current => "stripped_state",
            // Also of knocks: clients tell them apart by the user's own member event.
            Names::Older => "invite_state",
        };
        json.raw(name, stripped);
        json.number("bump_stamp", stay.pos.get());
        told(ruled, Some(json.close()), self.remembered(ruled, known))
    }

    async fn joined(
        &self,
        answer: &Answer<'_>,
        ruled: &Ruled<'_>,
        (stay, known): (&Stay, Option<&SentRoom>),
    ) -> Result<Told, StoreError> {
        let (room, live) = (ruled.room, ruled.standing.live.as_deref());
        let room_id = &ruled.standing.row.room_id;
        let has_grown = known.is_some_and(|known| ruled.limit > known.limit);
        let page = if has_grown {
            answer.page((room, room_id, live), (Pos::ZERO, self.until), Check::Visibility).await?
        } else {
            answer.joined_page(room, room_id, stay, live).await?
        };
        let changes = match known {
            Some(known) if live.is_none_or(|live| live.has_state(known.upto)) => {
                answer.changes(room, known.upto).await?
            }
            _ => Changes::default(),
        };
        let needed = if ruled.required.is_lazy() { needed_members(&page) } else { HashSet::new() };
        let joined = Joined { answer, ruled, stay, known, page, changes, needed };
        self.write_joined(joined).await
    }

    async fn write_joined(&self, joined: Joined<'_>) -> Result<Told, StoreError> {
        let Joined { answer, ruled, stay, known, page, .. } = &joined;
        let (room, live) = (ruled.room, ruled.standing.live.as_deref());
        let head = if known.is_none() { Some(answer.head(room).await?) } else { None };
        let state = self.joined_state(&joined, head.as_ref()).await?;
        let removed = self.removed_state(&joined);
        let counts = answer.counts(room, live).await?.total();
        let mut sent = self.remembered(ruled, *known);
        sent.counts = counts;
        sent.limit = match known {
            _ if page.limited => ruled.limit,
            Some(known) if ruled.limit <= known.limit => known.limit,
            // All of it: there is nothing before this.
            _ => usize::MAX,
        };
        let is_summed_up = known.is_none() || joined.changes.touch(self.until, &SUMMED_UP);
        let has_news =
            !page.events.is_empty() || page.limited || !state.is_empty() || !removed.is_empty() || is_summed_up;
        if known.is_some_and(|known| !has_news && known.counts == counts && known.is_dm == sent.is_dm) {
            return Ok(told(ruled, None, sent));
        }
        if page.limited {
            // The client forgets its members, because it is not told of all that have changed.
            sent.members = Arc::default();
        }
        let members = state.iter().chain(&page.events).filter(|event| event.event_type() == MEMBER);
        sent.members = sent.members_with(members.filter_map(|event| event.state_key()));
        let mut json = RoomJson::open(ruled, Membership::Join, *known);
        if is_summed_up && let Some(summary) = answer.summary(room, stay, head.as_ref()).await? {
            self.write_summary(room, (&summary, &joined.changes.removed(self.until)), &mut json).await?;
        }
        if known.map_or(sent.is_dm, |known| known.is_dm != sent.is_dm) {
            json.raw("is_dm", if sent.is_dm { b"true" } else { b"false" });
        }
        json.state(answer, room, (&state, &removed)).await?;
        json.timeline(answer, room, (page, stay)).await?;
        let oldest = page.events.first().map(|event| event.pos);
        if known.zip(oldest).is_some_and(|(known, oldest)| oldest <= known.upto) {
            json.flag("expanded_timeline");
            json.flag("unstable_expanded_timeline");
        }
        json.number("num_live", self.live_events(page));
        json.number("notification_count", counts.0);
        json.number("highlight_count", counts.1);
        if let Some(bump) = self.bump(room, (page, *known)).await? {
            json.number("bump_stamp", bump.get());
        }
        let told = told(ruled, Some(json.close()), sent);
        Ok(Told { events: joined.page.events, ..told })
    }

    /// Events that came after the answer before this one.
    fn live_events(&self, page: &Page) -> u64 {
        let before = self.sent.until;
        let live = page.events.iter().filter(|event| before > Pos::ZERO && event.pos > before).count();
        u64::try_from(live).unwrap_or(u64::MAX)
    }

    /// Wanted places that have nothing any more, as can happen when the states of servers are resolved.
    fn removed_state<'j>(&self, joined: &'j Joined<'_>) -> Vec<(&'j str, &'j str)> {
        let Joined { ruled, page, .. } = joined;
        let required = &ruled.required;
        let all_members = required.is_lazy() && !page.limited;
        let mut removed = joined.changes.removed(self.until);
        removed.retain(|(kind, key)| required.matches(kind, key) || (all_members && *kind == MEMBER));
        removed
    }

    /// The wanted state of a room that the user is in: all, or what changed and what the client does not have.
    async fn joined_state(&self, joined: &Joined<'_>, head: Option<&Head>) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let Joined { answer, ruled, page, changes, needed, .. } = joined;
        let required = &ruled.required;
        let Some(known) = joined.known else {
            let mut events = self.whole_state(joined, head).await?;
            events.retain(|event| is_required(required, event, needed));
            return Ok(events);
        };
        // After a gap the client has no members any more.
        let has = |user: &String| !page.limited && known.members.contains(user.as_str());
        let missing: Vec<String> = needed.iter().filter(|user| !has(user)).cloned().collect();
        let missing_set: HashSet<String> = missing.iter().cloned().collect();
        let wanted = Wanted::Users(missing);
        let delta = Delta { page, changes, wanted: &wanted, until: self.until };
        let mut events = answer.changed_state(ruled.room, delta).await?;
        // Without a gap the client can keep its list of members.
        let all_changed = required.is_lazy() && !page.limited;
        events.retain(|event| {
            is_required(required, event, &missing_set) || (all_changed && event.event_type() == MEMBER)
        });
        if required.exceeds(&known.required) {
            let seen: HashSet<u32> = events.iter().map(|event| event.n).collect();
            let mut more = self.whole_state(joined, None).await?;
            let none = HashSet::new();
            more.retain(|event| {
                !seen.contains(&event.n)
                    && is_required(required, event, &none)
                    && !is_required(&known.required, event, &none)
            });
            events.extend(more);
        }
        Ok(events)
    }

    /// The state at the end of the answer, with no other members than may be wanted.
    async fn whole_state(&self, joined: &Joined<'_>, head: Option<&Head>) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let Joined { answer, ruled, page, needed, .. } = joined;
        let read;
        let head = if let Some(head) = head {
            head
        } else {
            read = answer.head(ruled.room).await?;
            &read
        };
        let wanted = wanted_members(&ruled.required, needed);
        answer.whole_state(ruled.room, page, ruled.standing.live.as_deref(), (&wanted, head)).await
    }

    /// A room that the user has left: up to the leave and not a byte after it.
    async fn left(
        &self,
        answer: &Answer<'_>,
        ruled: &Ruled<'_>,
        (stay, known): (&Stay, Option<&SentRoom>),
    ) -> Result<Option<Told>, StoreError> {
        let room = ruled.room;
        let mut json = RoomJson::open(ruled, stay.membership, known);
        let mut events = Vec::new();
        if let Some(n) = stay.n {
            let room_id = &ruled.standing.row.room_id;
            let mut page = answer.page((room, room_id, None), (stay.known, stay.pos), Check::Visibility).await?;
            // The client may have an older stretch of the room: what it is given now does not join on.
            page.limited |= !stay.continuous && stay.been_in && known.is_some();
            let needed = if ruled.required.is_lazy() { needed_members(&page) } else { HashSet::new() };
            let wanted = wanted_members(&ruled.required, &needed);
            let mut state = if stay.continuous {
                let changes = answer.changes(room, answer.since_pos()).await?;
                let delta = Delta { page: &page, changes: &changes, wanted: &wanted, until: stay.pos };
                answer.changed_state(room, delta).await?
            } else if answer.was_joined(room, stay).await? {
                answer.left_state(room, &page, stay.pos, &wanted).await?
            } else {
                // Who never was in is told of the own leave.
                answer.load_state(room, &[n]).await?
            };
            state.retain(|event| is_required(&ruled.required, event, &needed));
            json.state(answer, room, (&state, &[])).await?;
            json.timeline(answer, room, (&page, stay)).await?;
            json.number("num_live", self.live_events(&page));
            events = page.events;
        } else {
            let outside = self.rooms.outside_room(&self.view, (self.who.user, room), stay.pos).await?;
            let Some(outside) = outside else { return Ok(None) };
            if let Some(event) = outside.event {
                json.raw("timeline", &[b"[", event.as_slice(), b"]"].concat());
            }
        }
        json.number("bump_stamp", stay.pos.get());
        Ok(Some(Told { events, ..told(ruled, Some(json.close()), self.remembered(ruled, known)) }))
    }
}

/// The members to be loaded: those of the rules, and those that the timeline needs.
fn wanted_members(required: &RequiredState, needed: &HashSet<String>) -> Wanted {
    if required.has_all_members() {
        return Wanted::All;
    }
    let named = required.members();
    let users: HashSet<&str> = named.chain(needed.iter().map(String::as_str)).collect();
    Wanted::Users(users.into_iter().map(str::to_owned).collect())
}

/// Whether the entry of the state is wanted, by the rules or because the timeline needs it.
fn is_required(required: &RequiredState, event: &RoomEvent, needed: &HashSet<String>) -> bool {
    let key = event.state_key().unwrap_or_default();
    required.matches(event.event_type(), key) || (event.event_type() == MEMBER && needed.contains(key))
}

/// What a room's answer is asked for with.
fn filter(ruled: &Ruled<'_>) -> Filter {
    let members = if ruled.required.has_all_members() { Members::All } else { Members::Lazy };
    Filter {
        timeline: RoomSection { limit: Some(ruled.limit), ..RoomSection::default() },
        state: RoomSection { members, ..RoomSection::default() },
        ..Filter::default()
    }
}

/// Senders of a timeline, and whom its member events are about.
fn needed_members(page: &Page) -> HashSet<String> {
    let senders = page.events.iter().map(|event| event.sender().to_string());
    let members = page.events.iter().filter(|event| event.event_type() == MEMBER);
    senders.chain(members.filter_map(|event| event.state_key().map(str::to_owned))).collect()
}

fn told(ruled: &Ruled<'_>, json: Option<Vec<u8>>, sent: SentRoom) -> Told {
    Told { room: ruled.room, room_id: ruled.standing.row.room_id.clone(), json, sent, events: Vec::new() }
}

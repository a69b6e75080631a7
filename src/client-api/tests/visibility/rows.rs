//! One row for every endpoint that shows events: what it may show, by the model.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::super::*;
use super::children;
use super::model::{Access, Memory, State};
use super::room::Stage;

/// A reader before a stage.
pub(super) struct Reading<'s> {
    pub(super) stage: &'s Stage,
    pub(super) name: &'static str,
    pub(super) person: &'s Person,
    pub(super) access: Access,
    pub(super) visible: BTreeSet<usize>,
    pub(super) known: BTreeSet<usize>,
    /// Numbers of events by ID and by mark.
    pub(super) ids: HashMap<&'s str, usize>,
    marks: HashMap<String, usize>,
    problems: RefCell<Vec<String>>,
}

/// Asks one endpoint in all ways and notes what is wrong.
type Check = for<'r> fn(&'r Reading<'_>) -> LocalBoxFuture<'r, ()>;

/// Endpoints, named as their routes, and what is checked of each.
pub(super) const ROWS: &[(&str, Check)] = &[
    ("/_matrix/client/v3/rooms/{room_id}/messages", |r| messages(r).boxed_local()),
    ("/_matrix/client/v3/rooms/{room_id}/event/{event_id}", |r| event(r).boxed_local()),
    ("/_matrix/client/v3/events/{event_id}", |r| event_of_any_room(r).boxed_local()),
    ("/_matrix/client/v3/events", |r| events(r).boxed_local()),
    ("/_matrix/client/v3/initialSync", |r| initial_sync(r).boxed_local()),
    ("/_matrix/client/v3/rooms/{room_id}/initialSync", |r| room_initial_sync(r).boxed_local()),
    ("/_matrix/client/v3/rooms/{room_id}/context/{event_id}", |r| context(r).boxed_local()),
    ("/_matrix/client/v1/rooms/{room_id}/relations/{event_id}", |r| {
        children::relations(r, children::ANY).boxed_local()
    }),
    ("/_matrix/client/v1/rooms/{room_id}/relations/{event_id}/{rel_type}", |r| {
        children::relations(r, children::BY_RELATION).boxed_local()
    }),
    ("/_matrix/client/v1/rooms/{room_id}/relations/{event_id}/{rel_type}/{event_type}", |r| {
        children::relations(r, children::BY_TYPE).boxed_local()
    }),
    ("/_matrix/client/v1/rooms/{room_id}/threads", |r| children::threads(r).boxed_local()),
    ("/_matrix/client/v3/rooms/{room_id}/state", |r| state(r).boxed_local()),
    ("/_matrix/client/v3/rooms/{room_id}/state/{type}", |r| one_state(r, "").boxed_local()),
    ("/_matrix/client/v3/rooms/{room_id}/state/{type}/", |r| one_state(r, "/").boxed_local()),
    ("/_matrix/client/v3/rooms/{room_id}/state/{type}/{state_key}", |r| member_state(r).boxed_local()),
    ("/_matrix/client/v3/rooms/{room_id}/members", |r| members(r).boxed_local()),
    ("/_matrix/client/v3/rooms/{room_id}/joined_members", |r| joined_members(r).boxed_local()),
    ("/_matrix/client/v1/rooms/{room_id}/timestamp_to_event", |r| at_time(r).boxed_local()),
    ("/_matrix/client/v3/sync", |r| sync(r).boxed_local()),
    (super::sliding::ROUTE, |r| super::sliding::sliding(r).boxed_local()),
    ("/_matrix/client/v1/room_summary/{room}", |r| summary(r).boxed_local()),
    ("/_matrix/client/v3/publicRooms", |r| directory(r).boxed_local()),
];

impl<'s> Reading<'s> {
    pub(super) fn new(stage: &'s Stage, name: &'static str) -> Self {
        let (history, person) = (&stage.history, stage.person(name));
        let memory = if name == "forgot" { Memory::Forgotten } else { Memory::Kept };
        let access = history.access(&person.id, memory);
        let events = || history.events.iter().enumerate();
        Self {
            stage,
            name,
            person,
            access,
            visible: history.visible(&person.id, access),
            known: history.known(&person.id, access),
            ids: events().map(|(i, event)| (event["event_id"].as_str().unwrap(), i)).collect(),
            marks: events().flat_map(|(i, event)| marks(&event["content"]).into_iter().map(move |m| (m, i))).collect(),
            problems: RefCell::default(),
        }
    }

    /// What is wrong with one row.
    pub(super) async fn check(&self, check: Check) -> Vec<String> {
        check(self).await;
        self.problems.take()
    }

    pub(super) fn problem(&self, what: &str) {
        self.problems.borrow_mut().push(format!("{} ({:?}): {what}", self.name, self.access));
    }

    pub(super) fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, got: &T, wanted: &T) {
        if got != wanted {
            self.problem(&format!("{what}: {got:?} instead of {wanted:?}"));
        }
    }

    /// Nothing anywhere in the answer is of an event that is not `allowed`.
    pub(super) fn no_leak(&self, what: &str, answer: &Value, allowed: &BTreeSet<usize>) {
        for mark in marks(answer) {
            match self.marks.get(&mark) {
                Some(event) if allowed.contains(event) => {}
                Some(event) => self.problem(&format!("{what}: leaks {}", self.describe(*event))),
                None => self.problem(&format!("{what}: has {mark}, of no event")),
            }
        }
    }

    pub(super) fn describe(&self, event: usize) -> String {
        let event_type = &self.stage.history.events[event]["type"];
        format!("event {event}, {}", event_type.as_str().unwrap_or_default())
    }

    /// Numbers of the events of a list.
    pub(super) fn numbers(&self, events: &Value) -> Vec<usize> {
        let events = events.as_array().into_iter().flatten();
        events.map(|event| self.ids[event["event_id"].as_str().expect("an event has an ID")]).collect()
    }

    pub(super) fn event_id(&self, event: usize) -> String {
        pct(self.stage.history.events[event]["event_id"].as_str().unwrap())
    }

    async fn ask(&self, prefix: &str, path: &str) -> Answer {
        self.stage.world.raw(Method::GET, &format!("{prefix}{path}"), Some(self.person), "").await
    }

    pub(super) async fn ask_room(&self, prefix: &str, path: &str) -> Answer {
        self.ask(prefix, &in_room(&self.stage.room, path)).await
    }

    /// The status that somebody without any access gets, or 200.
    pub(super) fn status(&self) -> u16 {
        if self.access == Access::Nothing { 403 } else { 200 }
    }
}

/// Every mark in the text of `value`.
fn marks(value: &Value) -> Vec<String> {
    let text = value.to_string();
    text.split("mark-").skip(1).map(|rest| rest.split('-').next().unwrap_or_default().to_owned()).collect()
}

pub(super) const V1: &str = "/_matrix/client/v1";

async fn messages(r: &Reading<'_>) {
    let forward: Vec<usize> = r.visible.iter().copied().collect();
    let backward: Vec<usize> = r.visible.iter().rev().copied().collect();
    let lazy = pct(r#"{"lazy_load_members":true}"#);
    for (query, wanted) in [
        ("dir=f&limit=1000".to_owned(), &forward),
        ("dir=b&limit=1000".to_owned(), &backward),
        (format!("dir=f&limit=1000&filter={lazy}"), &forward),
    ] {
        let answer = r.ask_room(CLIENT, &format!("messages?{query}")).await;
        r.same(&query, &answer.status.as_u16(), &r.status());
        r.same(&query, &r.numbers(&answer.body["chunk"]), wanted);
        r.same_bundles(&query, &answer.body["chunk"]);
        r.no_leak(&query, &answer.body, &r.known);
    }
}

async fn event(r: &Reading<'_>) {
    for event in 0..r.stage.history.events.len() {
        let answer = r.ask_room(CLIENT, &format!("event/{}", r.event_id(event))).await;
        one_event(r, event, &answer);
    }
}

async fn event_of_any_room(r: &Reading<'_>) {
    for event in 0..r.stage.history.events.len() {
        let answer = r.ask(CLIENT, &format!("/events/{}", r.event_id(event))).await;
        one_event(r, event, &answer);
    }
}

fn one_event(r: &Reading<'_>, event: usize, answer: &Answer) {
    let wanted = if r.visible.contains(&event) { 200 } else { 404 };
    r.same(&r.describe(event), &answer.status.as_u16(), &wanted);
    r.no_leak(&r.describe(event), &answer.body, &r.known);
    if wanted == 200 {
        r.same_bundles(&r.describe(event), &json!([answer.body]));
    }
}

async fn context(r: &Reading<'_>) {
    for event in 0..r.stage.history.events.len() {
        let what = r.describe(event);
        let answer = r.ask_room(CLIENT, &format!("context/{}?limit=1000", r.event_id(event))).await;
        r.no_leak(&what, &answer.body, &r.known);
        if !r.visible.contains(&event) {
            r.same(&what, &answer.status.as_u16(), &404);
            continue;
        }
        r.same(&what, &answer.status.as_u16(), &200);
        let before = r.visible.range(..event).rev().copied().collect();
        let after: Vec<usize> = r.visible.range(event + 1..).copied().collect();
        r.same(&format!("before {what}"), &r.numbers(&answer.body["events_before"]), &before);
        r.same(&format!("after {what}"), &r.numbers(&answer.body["events_after"]), &after);
        r.same_bundles(&what, &json!([answer.body["event"]]));
        r.same_bundles(&format!("before {what}"), &answer.body["events_before"]);
        r.same_bundles(&format!("after {what}"), &answer.body["events_after"]);
        // The state after the last event that is shown; none of it may be news.
        let alone = r.ask_room(CLIENT, &format!("context/{}?limit=0", r.event_id(event))).await;
        r.no_leak(&format!("state at {what}"), &alone.body, &r.known);
    }
}

async fn state(r: &Reading<'_>) {
    let answer = r.ask_room(CLIENT, "state").await;
    r.same("status", &answer.status.as_u16(), &r.status());
    r.no_leak("state", &answer.body, &r.known);
    r.same("state", &r.numbers(&answer.body).into_iter().collect(), &r.state_numbers(|_| true));
}

impl Reading<'_> {
    fn state_numbers(&self, wanted: impl Fn(&str) -> bool) -> BTreeSet<usize> {
        let state = self.stage.history.state(self.access).into_iter().flatten();
        state.filter(|((kind, _), _)| wanted(kind)).map(|(_, event)| *event).collect()
    }

    /// Asks for one place of the state.
    async fn place(&self, kind: &str, key: &str, path: &str) {
        let state = self.stage.history.state(self.access);
        let wanted = state.map(|state| state.get(&(kind.to_owned(), key.to_owned())).copied());
        let status = match wanted {
            None => 403,
            Some(None) => 404,
            Some(Some(_)) => 200,
        };
        let answer = self.ask_room(CLIENT, &format!("{path}?format=event")).await;
        self.same(path, &answer.status.as_u16(), &status);
        self.no_leak(path, &answer.body, &self.known);
        if let Some(Some(wanted)) = wanted.filter(|_| answer.status == StatusCode::OK) {
            self.same(path, &self.numbers(&json!([answer.body])), &vec![wanted]);
        }
        let content = self.ask_room(CLIENT, path).await;
        self.same(path, &content.status.as_u16(), &status);
        self.no_leak(path, &content.body, &self.known);
    }
}

async fn one_state(r: &Reading<'_>, end: &str) {
    for kind in ["m.room.topic", "x.secret", "m.room.history_visibility", "m.room.none"] {
        r.place(kind, "", &format!("state/{kind}{end}")).await;
    }
}

async fn member_state(r: &Reading<'_>) {
    for person in r.stage.people.values() {
        r.place("m.room.member", &person.id, &format!("state/m.room.member/{}", pct(&person.id))).await;
    }
}

async fn members(r: &Reading<'_>) {
    let answer = r.ask_room(CLIENT, "members").await;
    r.same("status", &answer.status.as_u16(), &r.status());
    r.no_leak("members", &answer.body, &r.known);
    let wanted = r.state_numbers(|kind| kind == "m.room.member");
    r.same("members", &r.numbers(&answer.body["chunk"]).into_iter().collect(), &wanted);
    for (count, tokens) in &r.stage.tokens {
        // What is asked for may be of a time when the reader was not there, and is then no more than is known.
        let what = format!("members at {count}");
        let answer = r.ask_room(CLIENT, &format!("members?at={}", tokens[r.name])).await;
        r.no_leak(&what, &answer.body, &r.known);
        let unknown = |event: &usize| !r.known.contains(event);
        let unknown: Vec<usize> = r.numbers(&answer.body["chunk"]).into_iter().filter(unknown).collect();
        r.same(&what, &unknown, &Vec::new());
    }
}

async fn joined_members(r: &Reading<'_>) {
    let answer = r.ask_room(CLIENT, "joined_members").await;
    let joined = r.access == Access::Joined;
    r.same("status", &answer.status.as_u16(), &if joined { 200 } else { 403 });
    r.no_leak("joined members", &answer.body, &r.known);
    let history = &r.stage.history;
    let wanted = r.stage.people.values().filter(|p| history.membership(&p.id, history.events.len()) == "join");
    let wanted: BTreeSet<&str> = wanted.filter(|_| joined).map(|person| person.id.as_str()).collect();
    let got = answer.body["joined"].as_object().into_iter().flatten().map(|(id, _)| id.as_str()).collect();
    r.same("joined members", &got, &wanted);
}

async fn at_time(r: &Reading<'_>) {
    let time = |event: usize| r.stage.history.events[event]["origin_server_ts"].as_u64().unwrap();
    for event in (0..r.stage.history.events.len()).step_by(5) {
        for (dir, wanted) in [
            ("f", r.visible.iter().find(|other| time(**other) >= time(event))),
            ("b", r.visible.iter().rev().find(|other| time(**other) <= time(event))),
        ] {
            let what = format!("{dir} from {}", r.describe(event));
            let path = format!("timestamp_to_event?dir={dir}&ts={}", time(event));
            let answer = r.ask_room(V1, &path).await;
            let status = match (r.access, wanted) {
                (Access::Nothing, _) => 403,
                (_, None) => 404,
                (_, Some(_)) => 200,
            };
            r.same(&what, &answer.status.as_u16(), &status);
            if let Some(wanted) = wanted {
                let found = answer.body["event_id"].as_str().map(|id| r.ids[id]);
                r.same(&what, &found.is_some_and(|found| r.visible.contains(&found)), &true);
                r.same(&what, &found.map(time), &Some(time(*wanted)));
            }
        }
    }
}

/// What `/sync` may show: all that is visible to who is or was in, whether or not that is forgotten, and of a room
/// that one is only asked into, what describes it.
pub(super) struct Told {
    pub visible: BTreeSet<usize>,
    pub known: BTreeSet<usize>,
    pub membership: String,
    /// The newest event of the own membership.
    own: Option<usize>,
    /// For a member, and for who has left: the state at the end.
    pub state: Option<State>,
}

impl Told {
    pub(super) fn of(r: &Reading<'_>) -> Self {
        let (history, id) = (&r.stage.history, r.person.id.as_str());
        let now = history.events.len();
        let membership = history.membership(id, now).to_owned();
        let access = match &*membership {
            "join" => Access::Joined,
            _ => history.left(id).map_or(Access::Nothing, Access::Until),
        };
        let (mut visible, mut known) = (history.visible(id, access), history.known(id, access));
        let own = |event: &usize| {
            let event = &history.events[*event];
            event["type"] == "m.room.member" && event["state_key"] == id
        };
        // Who left and was banned, or only turned an invitation down: what the rules show up to then.
        if let Some(last) = (0..now).rev().find(own).filter(|_| matches!(&*membership, "leave" | "ban")) {
            visible.extend(history.visible(id, Access::Until(last)));
            known.extend(history.known(id, Access::Until(last)));
        }
        visible.extend((0..now).filter(own));
        known.extend(visible.iter().copied());
        if let Some(last) = (0..now).rev().find(own).filter(|_| matches!(&*membership, "invite" | "knock")) {
            // What describes the room, when the user was invited or knocked, and who invited.
            let inviter = history.events[last]["sender"].as_str();
            let described = |kind: &str, key: &str| match kind {
                "m.room.name" | "m.room.topic" | "m.room.join_rules" => true,
                _ => kind == "m.room.member" && membership == "invite" && inviter == Some(key),
            };
            let state = history.states[last].iter().filter(|((kind, key), _)| described(kind, key));
            known.extend(state.map(|(_, event)| *event));
        }
        let state = history.state(access).cloned();
        Self { visible, known, membership, own: (0..now).rev().find(own), state }
    }

    /// Those of `events` that must not be shown.
    pub(super) fn hides(&self, events: &[usize]) -> Vec<usize> {
        events.iter().copied().filter(|event| !self.visible.contains(event)).collect()
    }
}

async fn sync(r: &Reading<'_>) {
    let told = Told::of(r);
    for limit in [3, 7, 1000] {
        let filter = json!({"room": {"include_leave": true, "timeline": {"limit": limit}}}).to_string();
        let first = format!("/sync?filter={}", pct(&filter));
        check_sync(r, &told, &format!("first, {limit}"), &first, None).await;
        check_sync(r, &told, &format!("state after, {limit}"), &format!("{first}&use_state_after=true"), None).await;
        for (count, tokens) in &r.stage.tokens {
            let path = format!("{first}&since={}", tokens[r.name]);
            check_sync(r, &told, &format!("since {count}, {limit}"), &path, Some(*count)).await;
        }
    }
    let lazy = json!({"room": {"state": {"lazy_load_members": true}, "include_leave": true}}).to_string();
    let answer = r.ask(CLIENT, &format!("/sync?filter={}", pct(&lazy))).await.ok();
    r.no_leak("lazy", &answer, &told.known);
}

async fn check_sync(r: &Reading<'_>, told: &Told, what: &str, path: &str, since: Option<usize>) {
    let rooms = r.ask(CLIENT, path).await.ok()["rooms"].take();
    r.no_leak(what, &rooms, &told.known);
    let of = |section: &str| rooms[section].get(&r.stage.room).cloned();
    for section in ["join", "leave", "invite", "knock"] {
        let right = match &*told.membership {
            "ban" | "leave" => "leave",
            other => other,
        };
        if section != right && of(section).is_some() {
            r.problem(&format!("{what}: is in {section}"));
        }
    }
    let Some(room) = of("join").or_else(|| of("leave")) else {
        if told.membership == "join" && since.is_none() {
            r.problem(&format!("{what}: the room is not there"));
        }
        return;
    };
    let timeline = r.numbers(&room["timeline"]["events"]);
    r.same(&format!("{what}, timeline"), &told.hides(&timeline), &Vec::new());
    let newest = told.visible.iter().rev().take(timeline.len()).rev().copied().collect();
    r.same(&format!("{what}, newest of the timeline"), &timeline, &newest);
    if room["timeline"]["limited"] == json!(true) {
        r.same_bundles(&format!("{what}, timeline"), &room["timeline"]["events"]);
    }
    let extra = ["state", "state_after"].map(|section| r.numbers(&room[section]["events"])).concat();
    let unknown: Vec<_> = extra.iter().filter(|event| !told.known.contains(event)).collect();
    r.same(&format!("{what}, state"), &unknown, &Vec::new());
    if room.get("state_after").is_some() && told.own.is_none_or(|own| !extra.contains(&own)) {
        r.problem(&format!("{what}: the own membership is not in the state"));
    }
    // What a client that knew nothing ends with.
    let in_before = since.is_some_and(|count| r.stage.history.membership(&r.person.id, count) == "join");
    if let Some(wanted) = told.state.as_ref().filter(|_| !in_before) {
        let after = extra.iter().filter(|_| room.get("state_after").is_some());
        let before = extra.iter().filter(|_| room.get("state").is_some());
        let mut state: BTreeMap<(String, String), usize> = BTreeMap::new();
        for event in before.chain(&timeline).chain(after) {
            let shown = &r.stage.history.events[*event];
            if let (Some(kind), Some(key)) = (shown["type"].as_str(), shown["state_key"].as_str()) {
                state.insert((kind.to_owned(), key.to_owned()), *event);
            }
        }
        let wrong: Vec<_> = wanted.iter().filter(|(place, event)| state.get(place) != Some(event)).collect();
        r.same(&format!("{what}, state in the end"), &wrong, &Vec::new());
    }
}

async fn room_initial_sync(r: &Reading<'_>) {
    let answer = r.ask_room(CLIENT, "initialSync?limit=1000").await;
    r.same("status", &answer.status.as_u16(), &r.status());
    r.no_leak("room", &answer.body, &r.known);
    r.same("messages", &r.numbers(&answer.body["messages"]["chunk"]), &r.visible.iter().copied().collect());
    let state = r.numbers(&answer.body["state"]).into_iter().collect();
    r.same("state", &state, &r.state_numbers(|_| true));
}

async fn initial_sync(r: &Reading<'_>) {
    let told = Told::of(r);
    for limit in [3, 1000] {
        let what = format!("limit {limit}");
        let answer = r.ask(CLIENT, &format!("/initialSync?archived=true&limit={limit}")).await.ok();
        r.no_leak(&what, &answer, &told.known);
        for room in answer["rooms"].as_array().unwrap() {
            r.same(&what, &told.hides(&r.numbers(&room["messages"]["chunk"])), &Vec::new());
            let strange = |event: &usize| !told.known.contains(event);
            let strange: Vec<usize> = r.numbers(&room["state"]).into_iter().filter(strange).collect();
            r.same(&format!("{what}, state"), &strange, &Vec::new());
        }
    }
}

async fn events(r: &Reading<'_>) {
    let told = Told::of(r);
    for (count, tokens) in &r.stage.tokens {
        let answer = r.ask(CLIENT, &format!("/events?from={}", tokens[r.name])).await.ok();
        let what = format!("from {count}");
        r.no_leak(&what, &answer, &told.known);
        // Stripped events have no ID, but for the creation, which is no secret: it names the room.
        let whole = |e: &&Value| e["event_id"].is_string() && e["type"] != "m.room.create";
        let whole: Vec<_> = answer["chunk"].as_array().unwrap().iter().filter(whole).collect();
        r.same(&what, &told.hides(&r.numbers(&json!(whole))), &Vec::new());
    }
}

async fn summary(r: &Reading<'_>) {
    let history = &r.stage.history;
    let now = history.events.len();
    let inside = matches!(history.membership(&r.person.id, now), "join" | "invite" | "knock");
    let shown = inside || r.access == Access::Peeking;
    let answer = r.ask(V1, &format!("/room_summary/{}", pct(&r.stage.room))).await;
    r.same("summary", &answer.status.as_u16(), &if shown { 200 } else { 404 });
    let described = if shown { r.described() } else { BTreeSet::new() };
    r.no_leak("summary", &answer.body, &described);
}

impl Reading<'_> {
    /// Name and topic.
    fn described(&self) -> BTreeSet<usize> {
        let state = self.stage.history.states.last().into_iter().flatten();
        let named = state.filter(|((kind, _), _)| kind == "m.room.name" || kind == "m.room.topic");
        named.map(|(_, event)| *event).collect()
    }
}

async fn directory(r: &Reading<'_>) {
    // Not published: not even a world readable room is listed.
    let answer = r.ask(CLIENT, "/publicRooms").await.ok();
    r.same("listed", &answer["chunk"], &json!([]));
    r.no_leak("directory", &answer, &BTreeSet::new());
    let found = r.stage.world.post("/publicRooms", r.person, json!({})).await.ok();
    r.same("found", &found["chunk"], &json!([]));
}

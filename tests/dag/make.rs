//! A recipe becomes a room.

use hearth_event::{EventDraft, Pdu, StateMap, auth_types, build, countersign};
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde_json::{Value, json};

use crate::cast::{identity_key, key_of, observer, public_keys, signed_invite, user};
use crate::{Act, Clock, Dag, Flaw, Own, Parents, Recipe, Step, To};

/// Ends that one event follows at the most.
const MAX_PARENTS: usize = 10;
const LEVELS: [i64; 6] = [0, 50, 100, 25, 75, -5];
const FIELDS: [&str; 7] = ["users_default", "state_default", "events_default", "ban", "kick", "invite", "redact"];
const LEVELLED: [&str; 3] = ["m.room.power_levels", "m.room.topic", "m.room.message"];
const RULES: [&str; 6] = ["public", "invite", "restricted", "knock", "knock_restricted", "private"];
const NOTES: [&str; 3] = ["m.room.topic", "m.room.name", "m.test.note"];

/// What an event says, before it has a place.
struct Draft {
    kind: &'static str,
    key: Option<String>,
    content: Value,
    redacts: Option<OwnedEventId>,
}

struct Maker<'a> {
    recipe: &'a Recipe,
    dag: Dag,
    time: u64,
}

/// Where an event is put.
struct Place<'a> {
    parents: &'a [usize],
    before: &'a StateMap,
    flaw: Option<Flaw>,
}

pub(crate) fn room(recipe: &Recipe) -> Dag {
    let mut maker = Maker::found(recipe);
    for step in &recipe.steps {
        maker.step(step);
    }
    maker.close();
    maker.dag
}

/// `items[number]`, by the remainder.
fn pick<T: Clone>(items: &[T], number: impl Into<usize>) -> T {
    items[number.into() % items.len()].clone()
}

fn object(value: Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        other => panic!("no object: {other:?}"),
    }
}

fn state(kind: &'static str, key: impl Into<String>, content: Value) -> Draft {
    Draft { kind, key: Some(key.into()), content, redacts: None }
}

fn member(user: &UserId, content: Value) -> Draft {
    state("m.room.member", user.as_str(), content)
}

impl<'a> Maker<'a> {
    /// The room until the observer has joined.
    fn found(recipe: &'a Recipe) -> Self {
        let creator = user(0, recipe.servers);
        let rules = &recipe.version.rules().authorization;
        let mut content = json!({ "room_version": recipe.version.as_str() });
        if !rules.use_room_create_sender {
            content["creator"] = json!(creator);
        }
        if rules.additional_room_creators && recipe.more_creators {
            content["additional_creators"] = json!([user(1, recipe.servers)]);
        }
        let room_id = format!("!room:{}", creator.server_name());
        let room_id =
            (!rules.room_create_event_id_as_room_id).then(|| OwnedRoomId::try_from(room_id).expect("a room ID"));
        let draft = EventDraft {
            room_id,
            event_type: "m.room.create".to_owned(),
            state_key: Some(String::new()),
            sender: creator.clone(),
            content: object(content),
            origin_server_ts: 1_700_000_000_000,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            redacts: None,
        };
        let server = creator.server_name();
        let create = build(draft, recipe.version, server, &key_of(server)).expect("an event");
        let mut maker = Self { recipe, dag: Dag::new(create), time: 1_700_000_000_000 };
        maker.follow(&creator, &member(&creator, json!({ "membership": "join" })));
        let mut users = json!({ user(2, recipe.servers).as_str(): 50 });
        if !rules.explicitly_privilege_room_creators {
            users[creator.as_str()] = json!(100);
        }
        if !(rules.additional_room_creators && recipe.more_creators) {
            users[user(1, recipe.servers).as_str()] = json!(100);
        }
        maker.follow(&creator, &state("m.room.power_levels", "", json!({ "users": users })));
        maker.follow(&creator, &state("m.room.join_rules", "", json!({ "join_rule": "public" })));
        for index in 1..recipe.users.min(4) {
            let user = user(index, recipe.servers);
            maker.follow(&user, &member(&user, json!({ "membership": "join" })));
        }
        maker.follow(&observer(), &member(&observer(), json!({ "membership": "join" })));
        maker.dag.founded = maker.dag.events.len() - 1;
        maker
    }

    /// An event of the founding, after the one before it.
    fn follow(&mut self, sender: &UserId, draft: &Draft) {
        self.time += 1000;
        let parents = [self.dag.events.len() - 1];
        let before = self.dag.state_after(&parents);
        let place = Place { parents: &parents, before: &before, flaw: None };
        let pdu = self.event(sender, draft, &place);
        let index = self.dag.add(&pdu, before).expect("a new event");
        assert_eq!(self.dag.events[index].rejected, None, "what founds a room is allowed");
    }

    fn user(&self, number: u8) -> OwnedUserId {
        user(number % self.recipe.users, self.recipe.servers)
    }

    fn step(&mut self, step: &Step) {
        self.time = match step.clock {
            Clock::Tie => self.time,
            Clock::Later(by) => self.time + u64::from(by) * 1000,
            Clock::Earlier(by) => self.time - u64::from(by) * 1000,
        };
        let parents = self.after(step.on);
        let before = self.dag.state_after(&parents);
        let Act::Fight(other) = step.act else {
            self.attempt(step, &parents, &before);
            return;
        };
        // Each takes the other's power or place, in one order of the two possible ones or the other.
        let whom =
            if other % self.recipe.users == step.who % self.recipe.users { other.wrapping_add(1) } else { other };
        let acts = [Act::Levels(7, whom, 0), Act::Member(To::Ban, step.who)];
        for (who, act) in [step.who, whom].into_iter().zip(acts) {
            self.attempt(&Step { act, who, insist: false, ..step.clone() }, &parents, &before);
        }
    }

    fn after(&self, on: Parents) -> Vec<usize> {
        let (founded, count) = (self.dag.founded, self.dag.events.len());
        let leaves = self.dag.leaves();
        match on {
            Parents::Newest => vec![count - 1],
            Parents::Leaf(n) => vec![pick(&leaves, n)],
            Parents::Old(n) => vec![founded + usize::from(n) % (count - founded)],
            Parents::Merge(bits) => {
                let set = leaves.iter().enumerate().filter(|(bit, _)| bits >> (bit % 16) & 1 == 1);
                let some: Vec<usize> = set.map(|(_, leaf)| *leaf).take(MAX_PARENTS).collect();
                if some.is_empty() { vec![pick(&leaves, bits)] } else { some }
            }
        }
    }

    /// Adds the event, by the first user who may send it.
    fn attempt(&mut self, step: &Step, parents: &[usize], before: &StateMap) {
        let place = Place { parents, before, flaw: step.flaw };
        let users = (0..self.recipe.users).map(|more| self.user((step.who % self.recipe.users) + more));
        let mut first = None;
        let mut found = None;
        for sender in users {
            let draft = self.draft(&step.act, &sender, before);
            let pdu = self.event(&sender, &draft, &place);
            if self.dag.why_rejected(&pdu, before).is_none() && is_event(&pdu) {
                found = Some(pdu);
                break;
            }
            first.get_or_insert(pdu);
            if step.flaw.is_some() {
                break;
            }
        }
        let insists = step.insist || step.flaw.is_some();
        if let Some(pdu) = found.or(first.filter(|pdu| insists && is_event(pdu))) {
            self.dag.add(&pdu, before.clone());
        }
    }

    fn draft(&self, act: &Act, sender: &UserId, before: &StateMap) -> Draft {
        match *act {
            Act::Say => Draft {
                kind: "m.room.message",
                key: None,
                content: json!({ "body": self.dag.events.len(), "msgtype": "m.text" }),
                redacts: None,
            },
            Act::Note(kind, key) => {
                let keys = [String::new(), "a".to_owned(), sender.to_string()];
                state(pick(&NOTES, kind), pick(&keys, key), json!({ "note": self.dag.events.len() }))
            }
            Act::Own(Own::Join) => member(sender, json!({ "membership": "join" })),
            Act::Own(Own::Leave) => member(sender, json!({ "membership": "leave" })),
            Act::Own(Own::Knock) => member(sender, json!({ "membership": "knock" })),
            Act::Own(Own::JoinBy(by)) => {
                let content = json!({ "membership": "join", "join_authorised_via_users_server": self.user(by) });
                member(sender, content)
            }
            Act::Member(to, whom) => {
                let membership = match to {
                    To::Invite => "invite",
                    To::Leave => "leave",
                    To::Ban => "ban",
                };
                member(&self.user(whom), json!({ "membership": membership }))
            }
            Act::Levels(field, whom, level) => self.levels((field, whom, level), before),
            Act::Rules(rule) => state("m.room.join_rules", "", json!({ "join_rule": pick(&RULES, rule), "allow": [] })),
            Act::Offer(token) => {
                let key = identity_key(0).public_key_base64();
                let content = json!({
                    "display_name": "somebody", "key_validity_url": "https://id.test/valid", "public_key": key,
                    "public_keys": [{ "public_key": key }],
                });
                state("m.room.third_party_invite", format!("t{}", token % 3), content)
            }
            Act::Claim(token, whom, forged) => {
                let whom = self.user(whom);
                let signed = signed_invite(&whom, &format!("t{}", token % 3), &identity_key(u8::from(forged)));
                let invite = json!({ "display_name": "somebody", "signed": signed });
                member(&whom, json!({ "membership": "invite", "third_party_invite": invite }))
            }
            Act::Redact(n) => Draft {
                kind: "m.room.redaction",
                key: None,
                content: json!({ "reason": "why not" }),
                redacts: self.redactable(n),
            },
            Act::Fight(_) => unreachable!("a fight is two other acts"),
        }
    }

    /// An event that says the same to the rules when it is redacted. The rest would show a weakness of the protocol, not
    /// one of a server: who learns of such an event late has never seen what it said.
    fn redactable(&self, n: u16) -> Option<OwnedEventId> {
        let keeps = |pdu: &Pdu| match pdu.event_type() {
            "m.room.third_party_invite" => false,
            "m.room.power_levels" | "m.room.member" => self.recipe.version.rules().redaction.content_field_redacts,
            _ => true,
        };
        let all = self.dag.events[self.dag.founded + 1..].iter().map(|event| &event.pdu);
        let all: Vec<&Pdu> = all.filter(|pdu| keeps(pdu)).collect();
        if all.is_empty() { None } else { Some(pick(&all, n).event_id().to_owned()) }
    }

    /// The power levels of `before` with one change.
    fn levels(&self, (field, whom, level): (u8, u8, u8), before: &StateMap) -> Draft {
        let current = before.get(&("m.room.power_levels".to_owned(), String::new())).and_then(|id| self.dag.pdu(id));
        let mut content: Value = match &current {
            Some(pdu) => serde_json::from_str(pdu.content().get()).expect("JSON"),
            None => json!({}),
        };
        // Strings are levels up to version 9.
        let number = pick(&LEVELS, level);
        let level = if level > 250 { json!(number.to_string()) } else { json!(number) };
        let set = |content: &mut Value, part: &str, key: &str| {
            if !content[part].is_object() {
                content[part] = json!({});
            }
            content[part][key] = level.clone();
        };
        match usize::from(field % 16) {
            plain if plain < FIELDS.len() => content[FIELDS[plain]] = level,
            13 => set(&mut content, "events", pick(&LEVELLED, whom)),
            14 => {
                // Whoever is named no more has the default.
                if let Some(users) = content["users"].as_object_mut() {
                    users.remove(self.user(whom).as_str());
                }
            }
            _ => set(&mut content, "users", self.user(whom).as_str()),
        }
        state("m.room.power_levels", "", content)
    }

    /// The event as its sender's server makes it.
    fn event(&self, sender: &UserId, draft: &Draft, place: &Place<'_>) -> Pdu {
        let mut content = draft.content.clone();
        if let Some(Flaw::Content(n)) = place.flaw {
            spoil(&mut content, n);
        }
        let content = object(content);
        let ids = |indices: &[usize]| {
            indices.iter().map(|index| self.dag.events[*index].pdu.event_id().to_owned()).collect::<Vec<_>>()
        };
        let depth = place.parents.iter().map(|index| self.dag.events[*index].pdu.depth()).max().unwrap_or(0) + 1;
        let event = EventDraft {
            room_id: Some(self.dag.room_id().to_owned()),
            event_type: draft.kind.to_owned(),
            state_key: draft.key.clone(),
            sender: sender.to_owned(),
            auth_events: self.auth_events(sender, draft, &content, place),
            content,
            origin_server_ts: self.time,
            prev_events: ids(place.parents),
            depth: match place.flaw {
                Some(Flaw::Depth(n)) => pick(&[0, 1, depth + 100, (1 << 53) - 1], n),
                _ => depth,
            },
            redacts: draft.redacts.clone(),
        };
        let server = sender.server_name();
        let pdu = build(event, self.dag.version, server, &key_of(server)).expect("an event");
        let by = draft.content.get("join_authorised_via_users_server").and_then(Value::as_str);
        match by.and_then(|by| UserId::parse(by).ok()) {
            Some(by) if by.server_name() != server => {
                let by = by.server_name();
                countersign(&pdu, by, &key_of(by)).unwrap_or(pdu)
            }
            _ => pdu,
        }
    }

    fn auth_events(
        &self,
        sender: &UserId,
        draft: &Draft,
        content: &CanonicalJsonObject,
        place: &Place<'_>,
    ) -> Vec<OwnedEventId> {
        let types = auth_types(self.dag.version, draft.kind, sender, draft.key.as_deref(), content).unwrap_or_default();
        let (founded, count) = (self.dag.founded, self.dag.events.len());
        let any = |n: u16| &self.dag.events[founded + usize::from(n) % (count - founded)];
        let state = match place.flaw {
            Some(Flaw::OtherAuth(n)) => &any(n).before,
            _ => place.before,
        };
        let mut ids: Vec<OwnedEventId> = types.iter().filter_map(|key| state.get(key).cloned()).collect();
        match place.flaw {
            Some(Flaw::LacksAuth(n)) if !ids.is_empty() => drop(ids.remove(usize::from(n) % ids.len())),
            Some(Flaw::NeedlessAuth(n)) => ids.push(any(n).pdu.event_id().to_owned()),
            _ => {}
        }
        ids
    }

    /// A last event after all others, if somebody may send one.
    fn close(&mut self) {
        self.time += 1000;
        loop {
            let leaves = self.dag.leaves();
            let parents = &leaves[..leaves.len().min(hearth_event::MAX_PREV_EVENTS)];
            let before = self.dag.state_after(parents);
            let place = Place { parents, before: &before, flaw: None };
            let users = (0..self.recipe.users).map(|index| self.user(index)).chain([observer()]);
            let said = users.map(|sender| self.event(&sender, &self.draft(&Act::Say, &sender, &before), &place));
            let Some(pdu) = said.into_iter().find(|pdu| self.dag.why_rejected(pdu, &before).is_none()) else { return };
            let last = leaves.len() <= hearth_event::MAX_PREV_EVENTS;
            self.dag.add(&pdu, before);
            if last {
                return;
            }
        }
    }
}

/// Whether other servers take it for an event: its form and its signatures are good.
fn is_event(pdu: &Pdu) -> bool {
    hearth_event::check(pdu.json(), pdu.version()).is_ok_and(|checked| checked.verify(&public_keys()).is_ok())
}

/// Gives one value of the content another type.
fn spoil(content: &mut Value, n: u8) {
    let Some(fields) = content.as_object_mut() else { return };
    let odd = pick(&[json!(5), json!([]), json!("x"), json!({}), json!(null), json!(true)], n);
    let count = fields.len().max(1);
    if let Some(value) = fields.values_mut().nth(usize::from(n) / 6 % count) {
        *value = odd;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_observer_is_never_touched() {
        assert!((0..=u8::MAX).all(|n| user(n, 6).as_str() != crate::OBSERVER));
    }
}

//! Children of events: what is listed of them, and what of them comes with their parents.

use std::cmp::Reverse;

use super::super::*;
use super::model::Access;
use super::rows::{Reading, V1};

/// What a list of children is asked for: the type of the relation, the type of the children.
type Wish = (Option<&'static str>, Option<&'static str>);

pub(super) const ANY: &[Wish] = &[(None, None)];
pub(super) const BY_RELATION: &[Wish] =
    &[(Some("m.reference"), None), (Some("m.thread"), None), (Some("m.replace"), None), (Some("m.annotation"), None)];
pub(super) const BY_TYPE: &[Wish] = &[
    (Some("m.thread"), Some("m.room.message")),
    (Some("m.annotation"), Some("m.reaction")),
    (Some("m.annotation"), Some("m.room.message")),
];

impl Reading<'_> {
    /// The parent of an event, and how it relates to that.
    fn relation(&self, event: usize) -> Option<(usize, &str)> {
        let relates_to = &self.stage.history.events[event]["content"]["m.relates_to"];
        Some((*self.ids.get(relates_to["event_id"].as_str()?)?, relates_to["rel_type"].as_str()?))
    }

    /// All children of an event, oldest first.
    fn children<'r>(&'r self, parent: usize, rel_type: &'r str) -> impl Iterator<Item = usize> + 'r {
        (parent + 1..self.stage.history.events.len())
            .filter(move |child| self.relation(*child) == Some((parent, rel_type)))
    }

    /// What the reader may be shown with an event of its children: of each kind, in the words of `shown`.
    fn bundle(&self, parent: usize) -> Value {
        let visible =
            |rel_type| self.children(parent, rel_type).filter(|child| self.visible.contains(child)).collect::<Vec<_>>();
        let (edits, references, replies) = (visible("m.replace"), visible("m.reference"), visible("m.thread"));
        let thread = replies.last().map(|last| {
            // Only the creator has said anything.
            let participated = self.name == "creator";
            json!([last, replies.len(), participated, self.bundle(*last)])
        });
        json!({"edit": edits.last(), "references": references, "thread": thread})
    }

    /// What an event comes with, by numbers of events.
    fn shown(&self, event: &Value) -> Value {
        let number = |event: &Value| event["event_id"].as_str().map(|id| self.ids[id]);
        let children = &event["unsigned"]["m.relations"];
        let thread = children["m.thread"].as_object().map(|thread| {
            let latest = &thread["latest_event"];
            json!([number(latest), thread["count"], thread["current_user_participated"], self.shown(latest)])
        });
        let references = self.numbers(&children["m.reference"]["chunk"]);
        json!({"edit": number(&children["m.replace"]), "references": references, "thread": thread})
    }

    /// Every event of a list comes with what the reader may be shown of its children, and with nothing else.
    pub(super) fn same_bundles(&self, what: &str, events: &Value) {
        for (n, event) in self.numbers(events).into_iter().zip(events.as_array().into_iter().flatten()) {
            let what = format!("{what}: with {}", self.describe(n));
            self.same(&what, &self.shown(event), &self.bundle(n));
        }
    }
}

pub(super) async fn relations(r: &Reading<'_>, wishes: &[Wish]) {
    let history = &r.stage.history;
    let all = || 0..history.events.len();
    let parents: BTreeSet<usize> = all().filter_map(|event| r.relation(event)).map(|(parent, _)| parent).collect();
    assert!(parents.len() > 4, "there is little to look for");
    // And one that nothing relates to.
    let childless = all().rfind(|event| history.events[*event]["type"] == "m.room.message");
    for event in parents.into_iter().chain(childless) {
        for (rel_type, event_type) in wishes {
            let mut below = BTreeSet::from([event]);
            // The server follows three steps.
            for _ in 0..3 {
                let next = all().filter(|child| r.relation(*child).is_some_and(|(p, _)| below.contains(&p)));
                below.extend(next.collect::<Vec<_>>());
            }
            below.remove(&event);
            let next = all().filter(|child| r.relation(*child).is_some_and(|(p, _)| p == event)).collect();
            for (query, children) in [("limit=1000", next), ("limit=1000&recurse=true", below)] {
                let names = [rel_type, event_type].into_iter().flatten();
                let rest: String = names.flat_map(|name| ["/", *name]).collect();
                let what = format!("{}{rest} {query}", r.describe(event));
                let answer = r.ask_room(V1, &format!("relations/{}{rest}?dir=f&{query}", r.event_id(event))).await;
                r.no_leak(&what, &answer.body, &r.known);
                let visible = r.visible.contains(&event);
                r.same(&what, &answer.status.as_u16(), &if visible { 200 } else { 404 });
                let is_wanted = |child: &usize| {
                    visible
                        && r.visible.contains(child)
                        && rel_type.is_none_or(|wanted| r.relation(*child).is_some_and(|(_, of)| of == wanted))
                        && event_type.is_none_or(|wanted| history.events[*child]["type"] == wanted)
                };
                let wanted = children.into_iter().filter(is_wanted).collect();
                r.same(&what, &r.numbers(&answer.body["chunk"]), &wanted);
                r.same_bundles(&what, &answer.body["chunk"]);
            }
        }
    }
}

pub(super) async fn threads(r: &Reading<'_>) {
    let mut all: Vec<(usize, usize)> = Vec::new();
    for root in 0..r.stage.history.events.len() {
        all.extend(r.children(root, "m.thread").last().map(|latest| (latest, root)));
    }
    assert!(all.len() > 2, "there are few threads");
    all.sort_unstable_by_key(|(latest, _)| Reverse(*latest));
    let is_shown = |root: &usize| r.visible.contains(root) && !r.bundle(*root)["thread"].is_null();
    let shown: Vec<usize> = all.into_iter().map(|(_, root)| root).filter(is_shown).collect();
    for (include, limit) in [("all", 100), ("all", 1), ("participated", 100)] {
        let what = format!("{include} by {limit}");
        let wanted = if include == "all" || r.name == "creator" { shown.clone() } else { Vec::new() };
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let answer = r.ask_room(V1, &format!("threads?include={include}&limit={limit}{from}")).await;
            r.same(&what, &answer.status.as_u16(), &r.status());
            r.no_leak(&what, &answer.body, &r.known);
            found.extend(r.numbers(&answer.body["chunk"]));
            r.same_bundles(&what, &answer.body["chunk"]);
            let Some(next) = answer.body["next_batch"].as_str() else { break };
            from = format!("&from={next}");
        }
        r.same(&what, &found, &if r.access == Access::Nothing { Vec::new() } else { wanted });
    }
}

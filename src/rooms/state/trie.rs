//! Reading and changing tries.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_schema::{Ids, NodeId, StateId};

use super::node::{FANOUT, LEAF_ENTRIES, Node};

/// Four bits of a key for each level.
const BITS: u32 = 4;

/// A node that the source does not have (yet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing(pub NodeId);

/// Where nodes come from.
pub trait Source {
    /// The node, if it is at hand.
    fn node(&self, id: NodeId) -> Option<Arc<Node>>;
}

impl<F: Fn(NodeId) -> Option<Arc<Node>>> Source for F {
    fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self(id)
    }
}

/// One entry to set (`Some`) or to remove (`None`).
pub type Change = (u32, Option<u32>);

/// A changed trie: its root, and the nodes that did not exist before.
#[derive(Clone, Debug, Default)]
pub struct Edited {
    /// The new state; `None` means that it is empty.
    pub root: Option<StateId>,
    /// Nodes to store, with their stored form.
    pub nodes: Vec<(NodeId, Arc<Node>, Vec<u8>)>,
}

fn load(source: &dyn Source, id: NodeId) -> Result<Arc<Node>, Missing> {
    source.node(id).ok_or(Missing(id))
}

fn root_of(state: StateId) -> Option<NodeId> {
    (state != StateId::EMPTY).then_some(NodeId(state.0))
}

const fn digit(key: u32, depth: u32) -> usize {
    ((key >> (BITS * depth)) & ((1 << BITS) - 1)) as usize
}

/// The value of `key` in `state`.
///
/// # Errors
/// The first node on the way that is not at hand.
pub fn get(source: &dyn Source, state: StateId, key: u32) -> Result<Option<u32>, Missing> {
    let mut next = root_of(state);
    let mut depth = 0;
    while let Some(id) = next {
        match &*load(source, id)? {
            Node::Leaf(entries) => {
                return Ok(entries.binary_search_by_key(&key, |entry| entry.0).ok().map(|i| entries[i].1));
            }
            Node::Branch(children) => next = children[digit(key, depth)],
        }
        depth += 1;
    }
    Ok(None)
}

/// All entries of `state`, by key in no particular order.
///
/// # Errors
/// The first node that is not at hand.
pub fn entries(source: &dyn Source, state: StateId) -> Result<Vec<(u32, u32)>, Missing> {
    let mut todo: Vec<NodeId> = root_of(state).into_iter().collect();
    let mut out = Vec::new();
    while let Some(id) = todo.pop() {
        match &*load(source, id)? {
            Node::Leaf(entries) => out.extend(entries),
            Node::Branch(children) => todo.extend(children.iter().flatten()),
        }
    }
    Ok(out)
}

/// `state` with `changes` applied; the last change of a key wins.
///
/// # Errors
/// The first node that is not at hand; nothing is half done, call again with it.
pub fn update(source: &dyn Source, ids: &Ids, state: StateId, changes: &[Change]) -> Result<Edited, Missing> {
    let changes: BTreeMap<u32, Option<u32>> = changes.iter().copied().collect();
    let mut editor = Editor { source, ids, nodes: Vec::new() };
    let changes: Vec<Change> = changes.into_iter().collect();
    let root = editor.apply(root_of(state), 0, &changes)?;
    Ok(Edited { root: root.map(|id| StateId(id.0)), nodes: editor.nodes })
}

struct Editor<'a> {
    source: &'a dyn Source,
    ids: &'a Ids,
    nodes: Vec<(NodeId, Arc<Node>, Vec<u8>)>,
}

impl Editor<'_> {
    fn apply(&mut self, node: Option<NodeId>, depth: u32, changes: &[Change]) -> Result<Option<NodeId>, Missing> {
        if changes.is_empty() {
            return Ok(node);
        }
        let Some(id) = node else { return Ok(self.build(depth, changes.iter().filter_map(set).collect())) };
        match &*load(self.source, id)? {
            Node::Leaf(entries) => {
                let mut merged: BTreeMap<u32, u32> = entries.iter().copied().collect();
                for (key, value) in changes {
                    match value {
                        Some(value) => merged.insert(*key, *value),
                        None => merged.remove(key),
                    };
                }
                Ok(self.build(depth, merged.into_iter().collect()))
            }
            Node::Branch(children) => self.apply_to_branch(children, depth, changes),
        }
    }

    fn apply_to_branch(
        &mut self,
        children: &[Option<NodeId>; FANOUT],
        depth: u32,
        changes: &[Change],
    ) -> Result<Option<NodeId>, Missing> {
        let mut children = *children;
        for (i, child) in children.iter_mut().enumerate() {
            let own: Vec<Change> = changes.iter().filter(|(key, _)| digit(*key, depth) == i).copied().collect();
            *child = self.apply(*child, depth + 1, &own)?;
        }
        // A branch whose entries fit a leaf becomes one, so that equal states have equal roots
        // whatever the order of changes was. Only removals can get there.
        let removes = changes.iter().any(|(_, value)| value.is_none());
        if let Some(entries) = if removes { self.small(&children)? } else { None } {
            return Ok(self.build(depth, entries));
        }
        Ok(Some(self.add(Node::Branch(children))))
    }

    /// The entries below `children` if they fit one leaf.
    fn small(&self, children: &[Option<NodeId>; FANOUT]) -> Result<Option<Vec<(u32, u32)>>, Missing> {
        let mut all = Vec::new();
        for id in children.iter().flatten() {
            let fresh = self.nodes.iter().find(|(new, ..)| new == id).map(|(_, node, _)| Arc::clone(node));
            let node = fresh.map_or_else(|| load(self.source, *id), Ok)?;
            match &*node {
                Node::Leaf(entries) => all.extend(entries),
                Node::Branch(_) => return Ok(None),
            }
            if all.len() > LEAF_ENTRIES {
                return Ok(None);
            }
        }
        all.sort_unstable();
        Ok(Some(all))
    }

    /// A trie of `entries` (ascending), all of which belong below the node at `depth`.
    fn build(&mut self, depth: u32, entries: Vec<(u32, u32)>) -> Option<NodeId> {
        if entries.is_empty() {
            return None;
        }
        if entries.len() <= LEAF_ENTRIES {
            return Some(self.add(Node::Leaf(entries)));
        }
        let mut children = [None; FANOUT];
        for (i, child) in children.iter_mut().enumerate() {
            let own = entries.iter().filter(|(key, _)| digit(*key, depth) == i).copied().collect();
            *child = self.build(depth + 1, own);
        }
        Some(self.add(Node::Branch(children)))
    }

    fn add(&mut self, node: Node) -> NodeId {
        let bytes = node.encode();
        let id = NodeId(self.ids.node(&bytes));
        self.nodes.push((id, Arc::new(node), bytes));
        id
    }
}

fn set(change: &Change) -> Option<(u32, u32)> {
    change.1.map(|value| (change.0, value))
}

/// One entry in which two states differ: key, value in the left one, value in the right one.
pub type Difference = (u32, Option<u32>, Option<u32>);

/// Entries in which two states differ, by key.
///
/// # Errors
/// The first node that is not at hand.
pub fn diff(source: &dyn Source, left: StateId, right: StateId) -> Result<Vec<Difference>, Missing> {
    let mut out = Vec::new();
    let mut todo = vec![(root_of(left), root_of(right))];
    while let Some((left, right)) = todo.pop() {
        if left == right {
            continue;
        }
        let nodes = [left, right].map(|id| id.map(|id| load(source, id)).transpose());
        let [left_node, right_node] = nodes;
        if let (Some(Node::Branch(a)), Some(Node::Branch(b))) = (left_node?.as_deref(), right_node?.as_deref()) {
            todo.extend(a.iter().copied().zip(b.iter().copied()));
            continue;
        }
        let all = |id: Option<NodeId>| entries(source, id.map_or(StateId::EMPTY, |id| StateId(id.0)));
        let a: BTreeMap<_, _> = all(left)?.into_iter().collect();
        let b: BTreeMap<_, _> = all(right)?.into_iter().collect();
        let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(key)));
        let rows = keys.map(|key| (*key, a.get(key).copied(), b.get(key).copied()));
        out.extend(rows.filter(|(_, left, right)| left != right));
    }
    out.sort_unstable();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Nodes(HashMap<NodeId, Arc<Node>>);

    impl Nodes {
        fn apply(&mut self, ids: &Ids, state: StateId, changes: &[Change]) -> StateId {
            let edited = update(&|id| self.0.get(&id).cloned(), ids, state, changes).expect("all nodes are here");
            for (id, node, bytes) in edited.nodes {
                assert_eq!(Node::decode(&bytes).as_ref(), Ok(&*node));
                self.0.insert(id, node);
            }
            edited.root.unwrap_or(StateId::EMPTY)
        }
    }

    fn change() -> impl Strategy<Value = Change> {
        (0..600_u32, proptest::option::weighted(0.7, any::<u32>()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_trie_is_a_map_and_its_root_depends_on_contents_only(
            steps in proptest::collection::vec(proptest::collection::vec(change(), 1..200), 1..8),
        ) {
            let ids = Ids::new([7; 32]);
            let mut nodes = Nodes::default();
            let mut map = BTreeMap::new();
            let mut state = StateId::EMPTY;
            for changes in &steps {
                let before = (state, map.clone());
                state = nodes.apply(&ids, state, changes);
                for (key, value) in changes {
                    match value {
                        Some(value) => map.insert(*key, *value),
                        None => map.remove(key),
                    };
                }
                let source = |id: NodeId| nodes.0.get(&id).cloned();
                let mut all = entries(&source, state).expect("present");
                all.sort_unstable();
                prop_assert_eq!(&all, &map.clone().into_iter().collect::<Vec<_>>());
                for key in [0, 1, 17, 599] {
                    prop_assert_eq!(get(&source, state, key).expect("present"), map.get(&key).copied());
                }
                let keys: std::collections::BTreeSet<_> = before.1.keys().chain(map.keys()).copied().collect();
                let expected: Vec<_> = keys.into_iter()
                    .map(|key| (key, before.1.get(&key).copied(), map.get(&key).copied()))
                    .filter(|(_, a, b)| a != b).collect();
                prop_assert_eq!(diff(&source, before.0, state).expect("present"), expected);
            }
            let at_once: Vec<Change> = map.iter().map(|(key, value)| (*key, Some(*value))).collect();
            prop_assert_eq!(nodes.apply(&ids, StateId::EMPTY, &at_once), state);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_decoding_inverts_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(Node::decode(&node.encode()), Ok(node));
            }
        }
    }

    #[test]
    fn a_missing_node_is_named() {
        let absent = StateId([9; 16]);
        let nothing = |_| None;
        assert_eq!(get(&nothing, absent, 1), Err(Missing(NodeId([9; 16]))));
        assert_eq!(entries(&nothing, absent), Err(Missing(NodeId([9; 16]))));
    }

    #[test]
    fn a_state_change_in_a_large_room_writes_about_a_kilobyte() {
        let ids = Ids::new([1; 32]);
        for size in [1_000_u32, 10_000, 100_000] {
            let mut nodes = Nodes::default();
            let all: Vec<Change> = (0..size).map(|key| (key, Some(key))).collect();
            let state = nodes.apply(&ids, StateId::EMPTY, &all);
            let source = |id: NodeId| nodes.0.get(&id).cloned();
            let edited = update(&source, &ids, state, &[(size / 2, Some(size))]).expect("present");
            let bytes: usize = edited.nodes.iter().map(|(_, _, bytes)| bytes.len() + 35).sum();
            assert!(bytes < 1_600, "{size} entries: {bytes} bytes");
        }
    }
}

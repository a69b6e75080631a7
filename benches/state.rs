//! The state trie: time and bytes written for one state event in rooms of three sizes.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hearth_rooms::state::{Node, get, update};
use hearth_schema::{Ids, NodeId, StateId};

/// Bytes of a node's key in the store: header, room, name.
const KEY_BYTES: usize = 3 + 16 + 16;

fn room(ids: &Ids, entries: u32) -> (HashMap<NodeId, Arc<Node>>, StateId) {
    let all: Vec<_> = (0..entries).map(|key| (key, Some(key))).collect();
    let edited = update(&|_| None, ids, StateId::EMPTY, &all).expect("an empty trie has no nodes to miss");
    let nodes = edited.nodes.into_iter().map(|(id, node, _)| (id, node)).collect();
    (nodes, edited.root.expect("it has entries"))
}

fn state_event(c: &mut Criterion) {
    let ids = Ids::new([1; 32]);
    let mut group = c.benchmark_group("state_trie");
    for entries in [1_000_u32, 10_000, 100_000] {
        let (nodes, root) = room(&ids, entries);
        let source = |id: NodeId| nodes.get(&id).cloned();
        let mut bytes = 0;
        let mut changes = 0;
        for key in (0..entries).step_by(entries as usize / 100) {
            let edited = update(&source, &ids, root, &[(key, Some(entries))]).expect("all nodes are here");
            bytes += edited.nodes.iter().map(|(_, _, node)| node.len() + KEY_BYTES).sum::<usize>();
            changes += 1;
        }
        println!("state_trie: {entries} entries: {} bytes written for one state event", bytes / changes);
        let mut key = 0;
        group.bench_function(BenchmarkId::new("update", entries), |b| {
            b.iter(|| {
                key = (key + 7_919) % entries;
                black_box(update(&source, &ids, root, &[(key, Some(entries))]).expect("all nodes are here"))
            });
        });
        group.bench_function(BenchmarkId::new("get", entries), |b| {
            b.iter(|| {
                key = (key + 7_919) % entries;
                black_box(get(&source, root, key).expect("all nodes are here"))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, state_event);
criterion_main!(benches);

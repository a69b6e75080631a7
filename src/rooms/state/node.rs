//! Nodes of state tries, and how they are stored.

use hearth_schema::NodeId;

/// Entries a leaf may have before it is split.
pub(super) const LEAF_ENTRIES: usize = 64;
/// Children of a branch: one for each value of four bits of the key.
pub(super) const FANOUT: usize = 16;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// A trie node. Always behind an `Arc`, so that the larger variant costs nobody anything.
#[expect(clippy::large_enum_variant, reason = "nodes are shared, never moved about")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Entries in ascending order of key.
    Leaf(Vec<(u32, u32)>),
    /// The child for each value of the next four bits.
    Branch([Option<NodeId>; FANOUT]),
}

/// Stored bytes that are no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a state trie node")]
pub struct NodeError;

impl Node {
    /// The stored form: a kind, then keys as differences and values as variable-length integers, or a
    /// bit map of children and their names.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Leaf(entries) => {
                let mut out = Vec::with_capacity(1 + entries.len() * 4);
                out.push(LEAF);
                let mut previous = 0;
                for (key, value) in entries {
                    varint(key.wrapping_sub(previous), &mut out);
                    varint(*value, &mut out);
                    previous = *key;
                }
                out
            }
            Self::Branch(children) => {
                let mut out = Vec::with_capacity(3 + 16 * FANOUT);
                let bit = |(i, child): (usize, &Option<NodeId>)| u16::from(child.is_some()) << i;
                let map = children.iter().enumerate().map(bit).sum::<u16>();
                out.push(BRANCH);
                out.extend(map.to_be_bytes());
                children.iter().flatten().for_each(|child| out.extend(child.0));
                out
            }
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// If the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        match bytes.split_first() {
            Some((&LEAF, mut rest)) => {
                let mut entries = Vec::new();
                let mut key = 0_u32;
                while !rest.is_empty() {
                    key = key.wrapping_add(read_varint(&mut rest)?);
                    entries.push((key, read_varint(&mut rest)?));
                }
                let ascending = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
                if ascending && entries.len() <= LEAF_ENTRIES { Ok(Self::Leaf(entries)) } else { Err(NodeError) }
            }
            Some((&BRANCH, rest)) => {
                let (map, mut names) = rest.split_first_chunk::<2>().ok_or(NodeError)?;
                let map = u16::from_be_bytes(*map);
                let mut children = [None; FANOUT];
                for (i, child) in children.iter_mut().enumerate() {
                    if map >> i & 1 == 1 {
                        let (name, tail) = names.split_first_chunk::<16>().ok_or(NodeError)?;
                        *child = Some(NodeId(*name));
                        names = tail;
                    }
                }
                if names.is_empty() { Ok(Self::Branch(children)) } else { Err(NodeError) }
            }
            _ => Err(NodeError),
        }
    }
}

fn varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn read_varint(input: &mut &[u8]) -> Result<u32, NodeError> {
    let mut value = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = input.split_first().ok_or(NodeError)?;
        *input = rest;
        if shift == 28 && *byte > 0x0f {
            return Err(NodeError);
        }
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(NodeError)
}

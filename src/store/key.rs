//! Order-preserving keys: tuples of elements, and the holes that a commit fills with positions.

use crate::Lane;

/// An encoder's output: bytes, and where positions are still missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyBuf {
    /// What has been written so far; holes are zero.
    pub bytes: Vec<u8>,
    /// Where the committer has to write positions into `bytes`.
    pub holes: Vec<Hole>,
}

/// Eight bytes that the committer overwrites with a position, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Byte offset of the first of the eight bytes.
    pub offset: u32,
    /// Which of the batch's positions belongs there, from 0.
    pub slot: u32,
}

/// What is left of a key that is being decoded.
#[derive(Debug)]
pub struct KeyReader<'a>(pub &'a [u8]);

impl<'a> KeyReader<'a> {
    /// Takes the next `N` bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError("too short"))?;
        self.0 = tail;
        Ok(*head)
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// # Errors
    /// If something is left.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError("trailing bytes")) }
    }
}

/// Stored bytes that are not what their keyspace says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode: {0}")]
pub struct DecodeError(pub &'static str);

/// One element of a tuple key. `a < b` exactly when `encode(a) < encode(b)`, and no encoding is a
/// proper prefix of another of the same type.
pub trait Element: Sized {
    /// Appends the encoding.
    fn encode(&self, out: &mut KeyBuf);
    /// Reads one element.
    ///
    /// # Errors
    /// If the bytes are no encoding of `Self`.
    fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError>;
}

/// The first element of a key: it decides the lane.
pub trait Owner: Element {
    /// The lane that everything of this owner lives in.
    fn lane(&self) -> Lane;
}

/// The lane itself as owner takes no bytes: the key's first byte says it already.
impl Element for Lane {
    fn encode(&self, _: &mut KeyBuf) {}
    /// A bare decode cannot know the lane; [`crate::View`] never asks for it.
    fn decode(_: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::of(0))
    }
}
impl Owner for Lane {
    fn lane(&self) -> Lane {
        *self
    }
}

/// A whole key: a tuple of one to five elements of which the first is an [`Owner`].
pub trait TupleKey: Sized {
    /// The lane this key lives in.
    fn lane(&self) -> Lane;
    /// Appends the encoding of all elements.
    fn encode(&self, out: &mut KeyBuf);
    /// Reads all elements.
    ///
    /// # Errors
    /// If the bytes are no encoding of `Self`.
    fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError>;
}

/// The first elements of key `K`, at least the owner.
pub trait Prefix<K: TupleKey> {
    /// The lane of all keys with this prefix.
    fn lane(&self) -> Lane;
    /// Appends the encoding of the elements given.
    fn encode(&self, out: &mut KeyBuf);
}

macro_rules! tuple_key {
    ($(($o:ident $(, $t:ident . $i:tt)*) : [$(($($p:ident . $pi:tt),*)),*];)+) => { $(
        impl<$o: Owner $(, $t: Element)*> TupleKey for ($o, $($t,)*) {
            fn lane(&self) -> Lane { self.0.lane() }
            fn encode(&self, out: &mut KeyBuf) { self.0.encode(out); $(self.$i.encode(out);)* }
            fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
                Ok(($o::decode(input)?, $($t::decode(input)?,)*))
            }
        }
        tuple_key!(@prefixes ($o $(, $t)*); $(($($p . $pi),*))*);
    )+ };
    (@prefixes $all:tt; $($p:tt)*) => { $(tuple_key!(@prefix $all $p);)* };
    (@prefix ($o:ident $(, $t:ident)*) ($($p:ident . $pi:tt),*)) => {
        impl<$o: Owner $(, $t: Element)*> Prefix<($o, $($t,)*)> for ($o, $($p,)*) {
            fn lane(&self) -> Lane { self.0.lane() }
            fn encode(&self, out: &mut KeyBuf) { self.0.encode(out); $(self.$pi.encode(out);)* }
        }
    };
}
tuple_key! {
    (A): [()];
    (A, B.1): [(), (B.1)];
    (A, B.1, C.2): [(), (B.1), (B.1, C.2)];
    (A, B.1, C.2, D.3): [(), (B.1), (B.1, C.2), (B.1, C.2, D.3)];
    (A, B.1, C.2, D.3, E.4): [(), (B.1), (B.1, C.2), (B.1, C.2, D.3), (B.1, C.2, D.3, E.4)];
}

macro_rules! integer_element {
    ($($t:ty),+) => { $(impl Element for $t {
        fn encode(&self, out: &mut KeyBuf) { out.bytes.extend(self.to_be_bytes()) }
        fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> { Ok(Self::from_be_bytes(input.take()?)) }
    })+ };
}
integer_element!(u8, u16, u32, u64);

impl<const N: usize> Element for [u8; N] {
    fn encode(&self, out: &mut KeyBuf) {
        out.bytes.extend(self);
    }
    fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        input.take()
    }
}

/// UTF-8 with `00` written as `00 FF`, closed by `00 01`. A lone terminator would only be safe if a
/// type code followed that told `00` from `00 FF`.
impl Element for String {
    fn encode(&self, out: &mut KeyBuf) {
        for (i, part) in self.split('\0').enumerate() {
            if i > 0 {
                out.bytes.extend([0x00, 0xFF]);
            }
            out.bytes.extend_from_slice(part.as_bytes());
        }
        out.bytes.extend([0x00, 0x01]);
    }
    fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        // Copied in one piece: long scans decode thousands of these, and hardly any has a 00 in it.
        let mut text = Vec::new();
        loop {
            let plain = input.0.iter().take_while(|byte| **byte != 0).count();
            let (part, rest) = input.0.split_at(plain);
            text.extend_from_slice(part);
            match *rest {
                [0x00, 0x01, ref rest @ ..] => {
                    input.0 = rest;
                    break;
                }
                [0x00, 0xFF, ref rest @ ..] => {
                    input.0 = rest;
                    text.push(0);
                }
                _ => return Err(DecodeError("unterminated string")),
            }
        }
        Self::from_utf8(text).map_err(|_| DecodeError("not UTF-8"))
    }
}

/// Sorts the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Desc<T>(pub T);

impl Element for Desc<u64> {
    fn encode(&self, out: &mut KeyBuf) {
        (!self.0).encode(out);
    }
    fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(!u64::decode(input)?))
    }
}

/// A position in the order of commits. Starts at 1; 0 is "before everything".
///
/// Whoever reads at position p sees everything committed at or below p.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pos(u64);

impl Pos {
    const PENDING: u64 = 1 << 63;
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// A new store gives out positions after this one. Those below are free for what turns out later to be older than
    /// anything that was committed.
    pub const FLOOR: Self = Self(1 << 40);
    /// After everything that can be committed.
    pub const MAX: Self = Self(Self::PENDING - 1);

    /// A committed position, as read back from a token or a row.
    pub const fn new(value: u64) -> Self {
        Self(value & !Self::PENDING)
    }

    /// The `slot`-th position of the batch being built; the committer fills it in.
    pub const fn pending(slot: u32) -> Self {
        Self(Self::PENDING | slot as u64)
    }

    /// The number, for tokens and metrics.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Which slot of its batch this is, if it has not been assigned yet.
    pub const fn slot(self) -> Option<u32> {
        if self.0 & Self::PENDING == 0 { None } else { Some((self.0 & 0xFFFF_FFFF) as u32) }
    }
}

impl Element for Pos {
    fn encode(&self, out: &mut KeyBuf) {
        match self.slot() {
            None => self.0.encode(out),
            Some(slot) => {
                let offset = u32::try_from(out.bytes.len()).expect("keys and values are far below 4 GiB");
                out.holes.push(Hole { offset, slot });
                0u64.encode(out);
            }
        }
    }
    fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        match u64::decode(input)? {
            value if value & Self::PENDING == 0 => Ok(Self(value)),
            _ => Err(DecodeError("position out of range")),
        }
    }
}

/// A whole key as an engine stores it: lane byte, keyspace number (two bytes, big-endian), tuple.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RawKey(pub Vec<u8>);

impl RawKey {
    /// Bytes before the tuple.
    pub const HEADER: usize = 3;

    /// The lane in the first byte.
    pub fn lane(&self) -> Lane {
        Lane::of(self.0.first().copied().unwrap_or(0))
    }

    /// The keyspace in the next two.
    pub fn keyspace(&self) -> crate::KeyspaceId {
        match self.0.get(1..3) {
            Some([high, low]) => crate::KeyspaceId(u16::from_be_bytes([*high, *low])),
            _ => crate::KeyspaceId(0),
        }
    }
}

impl std::fmt::Debug for RawKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawKey({}/{:#x}/", self.lane().number(), self.keyspace().0)?;
        self.0.iter().skip(Self::HEADER).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

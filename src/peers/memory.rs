//! The memory that bodies of other servers may take together.
//!
//! Each body has a limit of its own, but there may be as many at a time as somebody likes: a join may be answered with
//! a quarter of a gigabyte, and a hundred rooms can be in need of a state at once. Nobody waits for memory, because
//! whoever waits keeps what it has: a body that finds none left is given up.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of each body that do not count: most have no more.
const FREE: usize = 64 << 10;
/// Memory is counted in pieces of this size.
const PIECE: usize = 16 << 10;

/// Memory for bodies, of which each takes what it needs beyond its first 64 KiB. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Semaphore>);

/// There is no memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much of other servers' words is in memory")]
pub struct Full;

/// A body that is being read.
#[derive(Debug)]
pub struct Growing {
    bytes: BytesMut,
    memory: Arc<Semaphore>,
    /// Bytes that there is leave for.
    covered: usize,
    held: Option<OwnedSemaphorePermit>,
}

/// A body that gives its memory back when nobody has it any more.
struct Held {
    bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Memory {
    /// Place for so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / PIECE).min(Semaphore::MAX_PERMITS))))
    }

    /// A body of which nothing is there yet.
    pub fn begin(&self) -> Growing {
        Growing { bytes: BytesMut::new(), memory: Arc::clone(&self.0), covered: FREE, held: None }
    }
}

impl Growing {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds `chunk`.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), Full> {
        let length = self.bytes.len().saturating_add(chunk.len());
        if length > self.covered {
            let pieces = (length - self.covered).div_ceil(PIECE);
            let count = u32::try_from(pieces).map_err(|_| Full)?;
            let more = Arc::clone(&self.memory).try_acquire_many_owned(count).map_err(|_| Full)?;
            self.covered = self.covered.saturating_add(pieces.saturating_mul(PIECE));
            match &mut self.held {
                Some(held) => held.merge(more),
                none => *none = Some(more),
            }
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// The whole body, which holds its memory as long as anybody has a part of it.
    pub fn finish(self) -> Bytes {
        let bytes = self.bytes.freeze();
        match self.held {
            Some(memory) => Bytes::from_owner(Held { bytes, _memory: memory }),
            None => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn read(memory: &Memory, bytes: usize) -> Result<Bytes, Full> {
        let mut growing = memory.begin();
        for chunk in vec![b'x'; bytes].chunks(10_000) {
            growing.push(chunk)?;
        }
        assert_eq!((growing.len(), growing.is_empty()), (bytes, bytes == 0));
        Ok(growing.finish())
    }

    #[test]
    fn bodies_share_what_there_is_and_give_it_back() {
        let memory = Memory::new(MIB);
        let first = read(&memory, 600 << 10).expect("there is place");
        assert_eq!(first.len(), 600 << 10);
        assert_eq!(read(&memory, 600 << 10), Err(Full));
        let part = first.slice(..1);
        drop(first);
        assert_eq!(read(&memory, 600 << 10), Err(Full), "a part of it is still there");
        drop(part);
        read(&memory, 600 << 10).expect("there is place again");
        assert_eq!(memory.0.available_permits(), MIB / PIECE, "whatever became of them");
    }

    #[test]
    fn small_bodies_always_have_place() {
        let memory = Memory::new(0);
        let all: Result<Vec<_>, _> = (0..100).map(|_| read(&memory, FREE)).collect();
        assert_eq!(all.expect("all of them").len(), 100);
        assert_eq!(read(&memory, FREE + 1), Err(Full));
        assert_eq!(read(&memory, 0).expect("nothing is needed"), Bytes::new());
    }
}

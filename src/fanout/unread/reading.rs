//! Moving read points, never backwards.

use std::collections::HashMap;
use std::ops::ControlFlow;

use hearth_schema::{Highlights, ReadPoint, ReadPoints, ThreadRead, ThreadReads};
use hearth_store::{Order, Pos, StoreError};

use super::page::{InRoom, Page};

/// Rows of a user's threads read at a time.
const PAGE: usize = 256;
/// Rows of threads removed with one receipt. Those that stay say nothing: the room's read point is
/// beyond them.
const FORGOTTEN_THREADS: usize = 256;
/// Mentions looked at with one receipt, to remove those that are read; the next receipt removes more.
const FORGOTTEN_HIGHLIGHTS: usize = 256;

/// What a receipt speaks of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Main,
    Thread(u32),
}

impl Page<'_> {
    /// Everything up to `upto` is read, in every thread.
    pub(super) async fn read_all(&mut self, reader: InRoom, upto: Pos) -> Result<(), StoreError> {
        let point = self.point(reader).await?;
        if point.pos >= upto {
            return Ok(());
        }
        let tally = self.tallies.at(self.view, reader.1, upto).await?;
        let mut threads = tally.threads;
        let mut forgotten = 0;
        for (root, read) in self.thread_reads(reader).await? {
            if read.pos > upto {
                let before = self.tallies.of_thread(self.view, (reader.1, root), upto).await?;
                threads = threads.plus(read.tally.since(before));
            } else if forgotten < FORGOTTEN_THREADS {
                self.threads.entry(reader).or_default().insert(root, None);
                forgotten += 1;
            }
        }
        let (main_pos, main) =
            if point.main_pos > upto.get() { (point.main_pos, point.main) } else { (upto.get(), tally.main) };
        self.read.insert(reader, ReadPoint { pos: upto, main_pos, main, threads });
        self.forget_highlights(reader, upto, Scope::All).await
    }

    /// Everything up to `upto` is read that is in no thread.
    pub(super) async fn read_main(&mut self, reader: InRoom, upto: Pos) -> Result<(), StoreError> {
        let point = self.point(reader).await?;
        if point.main_pos >= upto.get() {
            return Ok(());
        }
        let main = self.tallies.at(self.view, reader.1, upto).await?.main;
        self.read.insert(reader, ReadPoint { main_pos: upto.get(), main, ..point });
        self.forget_highlights(reader, upto, Scope::Main).await
    }

    /// One thread is read up to `upto`.
    pub(super) async fn read_thread(&mut self, reader: InRoom, root: u32, upto: Pos) -> Result<(), StoreError> {
        let point = self.point(reader).await?;
        let known = self.thread_read(reader, root).await?.filter(|read| read.pos > point.pos);
        if upto <= known.map_or(point.pos, |read| read.pos) {
            return Ok(());
        }
        let thread = (reader.1, root);
        let before = match known {
            Some(read) => read.tally,
            None => self.tallies.of_thread(self.view, thread, point.pos).await?,
        };
        let tally = self.tallies.of_thread(self.view, thread, upto).await?;
        self.read.insert(reader, ReadPoint { threads: point.threads.plus(tally.since(before)), ..point });
        self.threads.entry(reader).or_default().insert(root, Some(ThreadRead { pos: upto, tally }));
        self.forget_highlights(reader, upto, Scope::Thread(root)).await
    }

    /// Writes what has moved.
    pub(super) fn finish(self) {
        for (key, point) in self.read {
            self.batch.put_elsewhere::<ReadPoints>(&key, &point);
            self.readers.keep_point(key, point);
        }
        for ((user, room), threads) in self.threads {
            for (root, read) in threads {
                match read {
                    Some(read) => self.batch.put_elsewhere::<ThreadReads>(&(user, room, root), &read),
                    None => self.batch.delete_elsewhere::<ThreadReads>(&(user, room, root)),
                }
            }
        }
    }

    /// Who has read nothing is at the beginning.
    async fn point(&mut self, reader: InRoom) -> Result<ReadPoint, StoreError> {
        if let Some(point) = self.read.get(&reader) {
            return Ok(*point);
        }
        if let Some(known) = self.readers.point(reader) {
            return Ok(known);
        }
        let point = self.view.get::<ReadPoints>(&reader).await?.unwrap_or_default();
        self.readers.keep_point(reader, point);
        Ok(point)
    }

    async fn thread_read(&self, reader: InRoom, root: u32) -> Result<Option<ThreadRead>, StoreError> {
        match self.threads.get(&reader).and_then(|threads| threads.get(&root)) {
            Some(known) => Ok(*known),
            None => self.view.get::<ThreadReads>(&(reader.0, reader.1, root)).await,
        }
    }

    /// All threads in which the user has read, those of this batch included.
    async fn thread_reads(&self, reader: InRoom) -> Result<HashMap<u32, ThreadRead>, StoreError> {
        let mut found = HashMap::new();
        self.view
            .scan::<ThreadReads, _>(&reader, Order::Ascending, PAGE, |(_, _, root), read| {
                found.insert(root, read);
                ControlFlow::Continue(())
            })
            .await?;
        for (root, read) in self.threads.get(&reader).into_iter().flatten() {
            match read {
                Some(read) => drop(found.insert(*root, *read)),
                None => drop(found.remove(root)),
            }
        }
        Ok(found)
    }

    async fn forget_highlights(&mut self, reader: InRoom, upto: Pos, scope: Scope) -> Result<(), StoreError> {
        if self.readers.is_unmentioned(reader) {
            return Ok(());
        }
        let found = self.view.page::<Highlights, _>(&reader, Order::Ascending, FORGOTTEN_HIGHLIGHTS).await?;
        if found.is_empty() {
            self.readers.found_unmentioned(reader);
        }
        for (key, mention) in found.into_iter().filter(|((.., pos), _)| *pos <= upto) {
            let of = mention.thread.map_or(Scope::Main, Scope::Thread);
            if scope == Scope::All || scope == of {
                self.batch.delete_elsewhere::<Highlights>(&key);
            }
        }
        Ok(())
    }
}

//! What the test knows: every intent before its request, every acknowledgement after it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use hearth_test_harness::User;

/// The shared book of intents and acknowledgements.
#[derive(Default)]
pub(crate) struct Oracle {
    book: Mutex<Book>,
    killed: AtomicBool,
}

/// Its pages.
#[derive(Default)]
pub(crate) struct Book {
    /// Every message that was ever tried, in order of intent.
    pub(crate) sends: Vec<Send>,
    /// Every acknowledged state event and redaction, by room.
    pub(crate) other_events: Vec<(String, String)>,
    /// Messages whose redaction was acknowledged, with their room.
    pub(crate) redacted: Vec<(String, String)>,
    /// Values that a later write replaces.
    pub(crate) values: BTreeMap<Key, Latest>,
    /// Accounts whose registration was acknowledged.
    pub(crate) accounts: Vec<User>,
    /// Rooms whose creation was acknowledged, with a member each.
    pub(crate) rooms: Vec<(String, User)>,
    /// Acknowledged joins.
    pub(crate) joins: Vec<(String, User)>,
    /// Every `next_batch` that anybody got.
    pub(crate) tokens: Vec<Token>,
    /// By user, what their chain of syncs brought: event IDs by room.
    pub(crate) seen: HashMap<usize, HashSet<(String, String)>>,
    /// Answers that no client should have got.
    pub(crate) problems: Vec<String>,
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Send {
    /// Index of the user.
    pub(crate) by: usize,
    /// Where to.
    pub(crate) room: String,
    /// Its transaction id.
    pub(crate) txn: String,
    /// Its body, which no other message has.
    pub(crate) body: String,
    /// The event ID of the acknowledgement.
    pub(crate) event: Option<String>,
}

/// What is written again and again, by one user and one write at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Global account data.
    AccountData,
    /// Display name.
    Displayname,
    /// A state event of the user's own state key.
    State,
    /// The user's read receipt.
    Receipt,
}

/// User, kind, and room for what is a room's.
pub(crate) type Key = (usize, Kind, String);

/// Which values a reader may find.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latest {
    acked: Option<String>,
    open: Vec<String>,
}

/// A sync token.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// Index of the user.
    pub(crate) of: usize,
    /// The token.
    pub(crate) text: String,
    /// How many sends had been tried when it arrived: later ones must come after it.
    pub(crate) floor: usize,
}

impl Oracle {
    /// The book. Never held across an await.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no task panics with the book open")
    }

    /// Whether the server is being killed, so that a lost connection is nobody's fault.
    pub(crate) fn killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }

    /// The kill comes now.
    pub(crate) fn kill_begins(&self) {
        self.killed.store(true, Ordering::SeqCst);
    }

    /// The server runs again.
    pub(crate) fn next_life_begins(&self) {
        self.killed.store(false, Ordering::SeqCst);
    }

    /// A message is about to be sent; gives its index.
    pub(crate) fn intend_send(&self, send: Send) -> usize {
        let mut book = self.book();
        book.sends.push(send);
        book.sends.len() - 1
    }

    /// The server answered with an event ID.
    pub(crate) fn ack_send(&self, index: usize, event: &str) {
        self.book().sends[index].event = Some(event.to_owned());
    }

    /// A value is about to be written.
    pub(crate) fn intend(&self, key: &Key, value: &str) {
        self.book().values.entry(key.clone()).or_default().open.push(value.to_owned());
    }

    /// The newest write of `key` was acknowledged.
    pub(crate) fn ack(&self, key: &Key) {
        let mut book = self.book();
        let latest = book.values.get_mut(key).expect("an intent comes first");
        latest.acked = latest.open.pop();
        // Whether an earlier, unanswered write happened no longer matters: this one came after it.
        latest.open.clear();
    }

    /// Something that must not happen.
    pub(crate) fn problem(&self, text: String) {
        self.book().problems.push(text);
    }
}

impl Latest {
    /// Whether a reader may find `value`.
    pub(crate) fn allows(&self, value: Option<&str>) -> bool {
        value == self.acked.as_deref() || value.is_some_and(|value| self.open.iter().any(|open| open == value))
    }
}

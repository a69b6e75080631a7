//! Requests that wait, and the end of the session that they wait in.
//!
//! A long poll is authenticated long before it is answered, and nothing may go out on a token that was
//! taken away meanwhile. So it registers here first, looks at the token once more, and is told when
//! the token ends. Tokens that nobody waits with cost nothing.

use std::pin::pin;
use std::sync::{Arc, OnceLock};

use hearth_schema::{NidMap, TokenKey};
use hearth_store::StoreError;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::sessions::SessionCache;
use crate::{Accounts, Requester};

/// Why a token no longer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// Logged out, or the device or account is gone: nothing may be told any more.
    Revoked,
    /// The device goes on with a newer token, or its account has been locked: what waits is answered with
    /// nothing new.
    Superseded,
}

/// Tokens with which requests wait.
#[derive(Default)]
pub(crate) struct Watched(Mutex<NidMap<TokenKey, Arc<Waiting>>>);

/// Requests that wait with one token.
#[derive(Default)]
struct Waiting {
    end: OnceLock<SessionEnd>,
    told: Notify,
}

impl Watched {
    fn begin(&self, token: TokenKey) -> Arc<Waiting> {
        Arc::clone(self.0.lock().entry(token).or_default())
    }

    /// Tells who waits with one of `tokens`.
    pub(crate) fn end(&self, tokens: &[TokenKey], end: SessionEnd) {
        let mut watched = self.0.lock();
        for token in tokens {
            if let Some(waiting) = watched.remove(token) {
                waiting.end.get_or_init(|| end);
                waiting.told.notify_waiters();
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// Watches the token of one request for as long as it lives.
pub struct SessionWatch {
    sessions: Arc<SessionCache>,
    token: TokenKey,
    waiting: Arc<Waiting>,
}

impl SessionWatch {
    /// The end, if it has come.
    pub fn ended(&self) -> Option<SessionEnd> {
        self.waiting.end.get().copied()
    }

    /// Waits for the end. May be dropped at any time.
    pub async fn end(&self) -> SessionEnd {
        loop {
            let mut told = pin!(self.waiting.told.notified());
            // Listening before looking.
            told.as_mut().enable();
            if let Some(end) = self.ended() {
                return end;
            }
            told.await;
        }
    }
}

impl Drop for SessionWatch {
    fn drop(&mut self) {
        let mut watched = self.sessions.watched.0.lock();
        // Once told, the entry is gone: what may be there is of others. The last one and the entry are two.
        let ours = |waiting: &Arc<Waiting>| Arc::ptr_eq(waiting, &self.waiting) && Arc::strong_count(waiting) <= 2;
        if watched.get(&self.token).is_some_and(ours) {
            watched.remove(&self.token);
        }
    }
}

impl Accounts {
    /// Watches the session of `requester`; `None`: it has ended since it was authenticated.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn watch_session(&self, requester: &Requester) -> Result<Option<SessionWatch>, StoreError> {
        let (sessions, token) = (Arc::clone(&self.sessions), requester.token);
        // Listen first, then look: a token that ends in between is told of or not found.
        let watch = SessionWatch { waiting: sessions.watched.begin(token), sessions, token };
        Ok(self.is_known(token).await?.then_some(watch))
    }
}

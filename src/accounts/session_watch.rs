//! Requests that wait, and the end of the session that they wait in.
//!
//! A long poll is authenticated long before it is answered, and nothing may go out on a token that was
//! taken away meanwhile. So it registers here first, looks at the token once more, and is told when
//! the token ends. Tokens that nobody waits with cost nothing.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_schema::TokenKey;
use hearth_store::StoreError;
use parking_lot::Mutex;
use tokio::sync::watch;

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
pub(crate) struct Watched(Mutex<HashMap<TokenKey, watch::Sender<Option<SessionEnd>>>>);

impl Watched {
    fn begin(&self, token: TokenKey) -> watch::Receiver<Option<SessionEnd>> {
        self.0.lock().entry(token).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// Tells who waits with one of `tokens`.
    pub(crate) fn end(&self, tokens: &[TokenKey], end: SessionEnd) {
        let mut watched = self.0.lock();
        for token in tokens {
            if let Some(waiting) = watched.remove(token) {
                waiting.send_replace(Some(end));
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
    state: watch::Receiver<Option<SessionEnd>>,
}

impl SessionWatch {
    /// The end, if it has come.
    pub fn ended(&self) -> Option<SessionEnd> {
        *self.state.borrow()
    }

    /// Waits for the end. May be dropped at any time.
    pub async fn end(&mut self) -> SessionEnd {
        match self.state.wait_for(Option::is_some).await.map(|end| *end) {
            Ok(Some(end)) => end,
            // The sender stays until it has told the end or the last who waits has gone.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for SessionWatch {
    fn drop(&mut self) {
        let mut watched = self.sessions.watched.0.lock();
        // Once told, the entry is gone: what may be there is of others. Ours still counts itself.
        let last = watched.get(&self.token).is_some_and(|waiting| waiting.receiver_count() <= 1);
        if last && self.state.borrow().is_none() {
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
        let watch = SessionWatch { state: sessions.watched.begin(token), sessions, token };
        Ok(self.is_known(token).await?.then_some(watch))
    }
}

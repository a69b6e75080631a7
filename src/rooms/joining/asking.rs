//! Asking several servers the same question, until one gives a useful answer.
//!
//! Many rooms name servers that are gone, and a server that is gone takes its whole deadline to say so. So the next one is
//! asked already when the last has not answered for a while; only few are asked at the same time.

use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use ruma_common::{OwnedServerName, ServerName};

use crate::remote::{Answer, RemoteError};

/// How long a server may be silent before the next one is asked too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Servers that are asked at the same time.
const AT_ONCE: usize = 4;

/// What a server said.
pub(crate) type Said<'a, T> = (&'a ServerName, Result<T, RemoteError>);

/// Servers that are asked in turn, and those that have not answered yet.
pub(crate) struct Asking<'a, T, F> {
    rest: std::slice::Iter<'a, OwnedServerName>,
    ask: F,
    patience: Duration,
    asked: FuturesUnordered<BoxFuture<'a, Said<'a, T>>>,
}

impl<'a, T, F> Asking<'a, T, F>
where
    T: Send + 'a,
    F: Fn(&'a ServerName) -> Answer<'a, T>,
{
    /// Nobody is asked yet.
    pub(crate) fn new(servers: &'a [OwnedServerName], patience: Duration, ask: F) -> Self {
        Self { rest: servers.iter(), ask, patience, asked: FuturesUnordered::new() }
    }

    /// The next answer in the order in which they come; `None` when all have answered.
    pub(crate) async fn next(&mut self) -> Option<Said<'a, T>> {
        if self.asked.is_empty() {
            self.ask_another();
        }
        loop {
            if self.rest.as_slice().is_empty() || self.asked.len() >= AT_ONCE {
                return self.asked.next().await;
            }
            tokio::select! {
                said = self.asked.next() => return said,
                () = tokio::time::sleep(self.patience) => self.ask_another(),
            }
        }
    }

    fn ask_another(&mut self) {
        let Some(server) = self.rest.next() else { return };
        let server: &'a ServerName = server;
        let answer = (self.ask)(server);
        self.asked.push(Box::pin(async move { (server, answer.await) }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn servers(names: &[&str]) -> Vec<OwnedServerName> {
        names.iter().map(|name| OwnedServerName::try_from(*name).expect("a name")).collect()
    }

    fn gone<'a>(server: &ServerName) -> Answer<'a, usize> {
        let (server, why) = (server.to_owned(), "gone".to_owned());
        Box::pin(async { Err(RemoteError::Unreachable { server, why }) })
    }

    #[tokio::test]
    async fn a_refusal_leads_to_the_next_at_once_and_everybody_is_asked_once() {
        let (servers, asked) = (servers(&["a.test", "b.test", "c.test"]), AtomicUsize::new(0));
        let mut asking = Asking::new(&servers, Duration::from_secs(600), |server| {
            asked.fetch_add(1, Ordering::Relaxed);
            gone(server)
        });
        let mut said = Vec::new();
        while let Some((server, _)) = asking.next().await {
            said.push(server.to_string());
        }
        assert_eq!(said, ["a.test", "b.test", "c.test"]);
        assert_eq!(asked.into_inner(), 3);
    }

    #[tokio::test]
    async fn a_silent_server_does_not_hold_up_the_others() {
        let servers = servers(&["silent.test", "good.test", "later.test"]);
        let mut asking = Asking::new(&servers, Duration::from_millis(5), |server| match server.as_str() {
            "good.test" => Box::pin(async { Ok(7) }),
            "silent.test" => Box::pin(std::future::pending()),
            _ => panic!("it is not needed"),
        });
        let (server, answer) = asking.next().await.expect("an answer");
        assert_eq!((server.as_str(), answer.expect("good")), ("good.test", 7));
    }

    #[tokio::test]
    async fn only_few_are_asked_at_the_same_time() {
        let names: Vec<String> = (0..10).map(|n| format!("s{n}.test")).collect();
        let (servers, asked) = (servers(&names.iter().map(String::as_str).collect::<Vec<_>>()), AtomicUsize::new(0));
        let mut asking: Asking<'_, usize, _> = Asking::new(&servers, Duration::from_millis(1), |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending())
        });
        let nothing = tokio::time::timeout(Duration::from_millis(100), asking.next()).await;
        assert!(nothing.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), AT_ONCE);
    }
}

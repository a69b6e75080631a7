//! Joining through several servers, of which one is believed.
//!
//! The answer to a join is a whole room, and the server that gives it may be slow, lie, or die in the middle. So the
//! next one is tried when one has failed, and also while one has not begun to answer for a while. Only one answer is
//! read at a time; what was stored of one that broke off is used by the next.

use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hearth_event::Pdu;
use hearth_schema::Membership;
use ruma_common::ServerName;
use tokio::time::{Instant, sleep_until};

use super::asking::{Asking, PATIENCE};
use super::{JoinError, RemoteJoin, more_telling};
use crate::command::{MembershipChange, Sent};
use crate::import::ImportError;
use crate::intake::Rooms;
use crate::membership::Additions;
use crate::remote::{Handshake, JoinParts, RemoteError, Template};

/// Servers that prepare an answer to a join at the same time.
const AT_ONCE: usize = 3;

/// How long servers may be silent before the next one is asked too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JoinPatience {
    /// With `make_join`.
    pub make: Duration,
    /// With `send_join`, for which the other server puts together a whole room.
    pub send: Duration,
}

impl Default for JoinPatience {
    fn default() -> Self {
        Self { make: PATIENCE, send: Duration::from_secs(10) }
    }
}

/// A join that was sent, and the answer if it has begun.
type Sending<'a> = BoxFuture<'a, (&'a ServerName, Pdu, Result<JoinParts, RemoteError>)>;

impl Rooms {
    /// Joins a room through other servers. Durable when it returns.
    ///
    /// # Errors
    /// See [`JoinError`]; the user is not in the room then.
    pub async fn join_remote(&self, join: RemoteJoin) -> Result<Sent, JoinError> {
        self.join_patiently(&join, JoinPatience::default()).await
    }

    pub(crate) async fn join_patiently(&self, join: &RemoteJoin, patience: JoinPatience) -> Result<Sent, JoinError> {
        let mut failed = None;
        let mut fail = |via: &ServerName, error: RemoteError| {
            tracing::info!(room_id = %join.room_id, %via, %error, "a server does not let a user join");
            failed = Some(more_telling(failed.take(), error));
        };
        let ask = |via| self.0.remote.make(via, Handshake::Join, &join.room_id, &join.user);
        let mut asking = Asking::new(&join.candidates, patience.make, ask);
        let mut sending: FuturesUnordered<Sending<'_>> = FuturesUnordered::new();
        let (mut more, mut until) = (true, Instant::now());
        loop {
            let another = more && (sending.is_empty() || sending.len() < AT_ONCE && Instant::now() >= until);
            tokio::select! {
                // What has come counts before anybody else is asked.
                biased;
                Some((via, event, answer)) = sending.next() => {
                    let joined = match answer {
                        Ok(parts) => self.import(via, event, parts).await,
                        Err(error) => Err(error.into()),
                    };
                    match joined {
                        Ok(sent) => return Ok(sent),
                        Err(ImportError::Remote(error)) => fail(via, error),
                        Err(ImportError::Here(error)) => return Err(error.into()),
                    }
                }
                said = asking.next(), if another => match said {
                    Some((via, template)) => match template.and_then(|template| self.own_join(join, via, &template)) {
                        Ok(event) => {
                            sending.push(Box::pin(async move {
                                let answer = self.0.remote.send_join(via, &event).await;
                                (via, event, answer)
                            }));
                            until = Instant::now() + patience.send;
                        }
                        Err(error) => fail(via, error),
                    },
                    None => more = false,
                },
                () = sleep_until(until), if more && !another && sending.len() < AT_ONCE => {}
                else => break,
            }
        }
        Err(failed.map_or(JoinError::NoServers, JoinError::Remote))
    }

    /// The join that `template` lets us make, an event of our own.
    fn own_join(&self, join: &RemoteJoin, via: &ServerName, template: &Template) -> Result<Pdu, RemoteError> {
        let change = MembershipChange {
            room_id: join.room_id.clone(),
            sender: join.user.clone(),
            target: join.user.clone(),
            membership: Membership::Join,
            only_from: None,
            reason: join.reason.clone(),
            profile: join.profile.clone(),
            is_direct: None,
        };
        let additions = Additions { content: join.content.clone(), authorised_by: None };
        self.event_by(Handshake::Join, (via, template), (&change, &additions), None)
    }
}

//! The answer to `send_join`, taken as it comes.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt as _;
use hearth_event::Pdu;
use hearth_rooms::remote::{JoinPart, JoinParts, RawPdu, RemoteError};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use ruma_common::{OwnedServerName, ServerName};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::client::reason;
use crate::cutter::{Cutter, Form, Pattern, Piece};
use crate::list::Servers;
use crate::refusal::clean;
use crate::remote::is_unknown_endpoint;
use crate::{Outgoing, Peers};

/// How long the other server may say nothing once it has begun.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes and events that are passed on together, about.
const PORTION_BYTES: usize = 128 << 10;
const PORTION: usize = 256;

const PATTERN: Pattern =
    Pattern { lists: &["state", "auth_chain"], members: &["event", "members_omitted", "servers_in_room"] };

impl Peers {
    /// Sends a join; gives what is told as it comes, within the limits of `request`.
    async fn joined(&self, request: Outgoing, form: Form) -> Result<JoinParts, RemoteError> {
        let until = Instant::now() + request.deadline;
        let (server, left) = (request.destination.clone(), request.max_bytes);
        let body = self.open(request).await?;
        let answer = Answer {
            server,
            body,
            cutter: Cutter::new(PATTERN, form),
            limits: Limits { until, bytes: left, left },
            portion: Portion::default(),
            ready: VecDeque::new(),
            ended: false,
            shutdown: self.0.parts.shutdown.clone(),
        };
        let parts = futures::stream::try_unfold(answer, |mut answer| async move {
            let part = answer.next().await?;
            Ok(part.map(|part| (part, answer)))
        });
        Ok(parts.boxed())
    }

    /// `PUT send_join`, v1 where v2 is not known.
    pub(crate) async fn send_join_to(&self, via: &ServerName, event: &Pdu) -> Result<JoinParts, RemoteError> {
        let request = |endpoint| self.large(self.put_event(via, endpoint, event));
        match self.joined(request("v2/send_join"), Form::Bare).await {
            // v1 says the same and its status once more.
            Err(refused) if is_unknown_endpoint(&refused) => self.joined(request("v1/send_join"), Form::Pair).await,
            answer => answer,
        }
    }
}

/// What is left of what the answer may take.
struct Limits {
    until: Instant,
    bytes: usize,
    left: usize,
}

/// Events of one list that are not passed on yet.
#[derive(Default)]
struct Portion {
    of: Option<&'static str>,
    events: Vec<RawPdu>,
    bytes: usize,
}

impl Portion {
    fn is_full(&self) -> bool {
        self.events.len() >= PORTION || self.bytes >= PORTION_BYTES
    }

    fn take(&mut self) -> Option<JoinPart> {
        let Self { of, events, .. } = std::mem::take(self);
        match of? {
            "state" => Some(JoinPart::State(events)),
            _ => Some(JoinPart::AuthChain(events)),
        }
    }
}

/// An answer that is being read.
struct Answer {
    server: OwnedServerName,
    body: Incoming,
    cutter: Cutter,
    limits: Limits,
    portion: Portion,
    ready: VecDeque<JoinPart>,
    ended: bool,
    shutdown: CancellationToken,
}

impl Answer {
    async fn next(&mut self) -> Result<Option<JoinPart>, RemoteError> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Ok(Some(part));
            }
            if self.ended {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    /// Reads the next bytes.
    async fn read(&mut self) -> Result<(), RemoteError> {
        let now = Instant::now();
        let until = self.limits.until.min(now + SILENCE);
        let frame = tokio::select! {
            frame = timeout_at(until, self.body.frame()) => frame,
            () = self.shutdown.cancelled() => return Err(self.unreachable("this server stops")),
        };
        let frame = frame.map_err(|_| self.unreachable("it takes too long over its answer"))?;
        let Some(frame) = frame else {
            self.cutter.end().map_err(|error| self.invalid(&error.to_string()))?;
            self.ready.extend(self.portion.take());
            self.ended = true;
            return Ok(());
        };
        let frame = frame.map_err(|error| self.unreachable(&reason(&error)))?;
        // Trailers are of no interest.
        let Ok(bytes) = frame.into_data() else { return Ok(()) };
        let left = self.limits.left.checked_sub(bytes.len());
        let bytes_limit = self.limits.bytes;
        self.limits.left = left.ok_or_else(|| self.invalid(&format!("it is larger than {bytes_limit} bytes")))?;
        let mut pieces = Vec::new();
        self.cutter.feed(&bytes, &mut pieces).map_err(|error| self.invalid(&error.to_string()))?;
        for piece in pieces {
            self.take(piece)?;
        }
        Ok(())
    }

    fn take(&mut self, piece: Piece) -> Result<(), RemoteError> {
        match piece.of {
            "event" if piece.json.get() == "null" => {}
            "event" => self.ready.push_back(JoinPart::Event(piece.json)),
            "members_omitted" => {
                if self.parsed::<bool>(&piece.json)? {
                    self.ready.push_back(JoinPart::MembersOmitted);
                }
            }
            "servers_in_room" => {
                let Servers(servers) = self.parsed(&piece.json)?;
                self.ready.push_back(JoinPart::ServersInRoom(servers));
            }
            list => {
                if self.portion.of != Some(list) || self.portion.is_full() {
                    self.ready.extend(self.portion.take());
                    self.portion.of = Some(list);
                }
                self.portion.bytes += piece.json.get().len();
                self.portion.events.push(piece.json);
            }
        }
        Ok(())
    }

    fn parsed<T: DeserializeOwned>(&self, json: &RawValue) -> Result<T, RemoteError> {
        serde_json::from_str(json.get()).map_err(|error| self.invalid(&error.to_string()))
    }

    fn invalid(&self, why: &str) -> RemoteError {
        RemoteError::Invalid { server: self.server.clone(), why: clean(why) }
    }

    fn unreachable(&self, why: &str) -> RemoteError {
        RemoteError::Unreachable { server: self.server.clone(), why: clean(why) }
    }
}

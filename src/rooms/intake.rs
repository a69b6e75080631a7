//! Bringing a command to the task of its room.

use std::sync::Arc;
use std::time::Duration;

use hearth_base::{Clock, Random};
use hearth_event::SigningKey;
use hearth_schema::{Ids, Membership, NidMap, RoomNid, Rooms as RoomRows};
use hearth_store::{Store, StoreError, View};
use parking_lot::Mutex;
use ruma_common::{OwnedServerName, RoomId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acl::AclCache;
use crate::alias_claims::AliasClaims;
use crate::cache::Caches;
use crate::command::{Entry, MembershipChange, RequesterKind, RoomSettings, SendEvent, Sent};
use crate::delayed::Delays;
use crate::ephemeral::TypingState;
use crate::erasure::Erased;
use crate::graph::AuthEdges;
use crate::import::Joins;
use crate::inbound::{Baseless, InboundRequest, Pasts, RunRequest, WithoutGaps, Workers};
use crate::joining::Way;
use crate::membership::Additions;
use crate::plan::Signer;
use crate::policy::{Policing, Unsigned};
use crate::read_marks::ReadMarks;
use crate::recent_tallies::RecentTallies;
use crate::remote::Remote;
use crate::servers::ServersCache;
use crate::serving::StateAnswers;
use crate::task::RoomTask;
use crate::{MembershipError, SendError};

/// Commands that may wait for one room.
const MAILBOX: usize = 256;

/// What [`Rooms`] is made of.
pub struct RoomsParts {
    /// Where rooms are stored.
    pub store: Arc<dyn Store>,
    /// Numbers for names, with the store's key.
    pub ids: Ids,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For room IDs.
    pub random: Arc<dyn Random>,
    /// This server.
    pub server_name: OwnedServerName,
    /// Signs this server's events.
    pub signing_key: Arc<SigningKey>,
    /// Defaults for new rooms.
    pub settings: RoomSettings,
    /// Other servers.
    pub remote: Arc<dyn Remote>,
    /// Ends the rooms' tasks, after they have finished what they were given.
    pub shutdown: CancellationToken,
}

/// All rooms of this server. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub store: Arc<dyn Store>,
    pub signer: Signer,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub settings: RoomSettings,
    pub remote: Arc<dyn Remote>,
    pub caches: Caches,
    pub servers: ServersCache,
    pub acls: AclCache,
    pub alias_claims: AliasClaims,
    pub state_answers: StateAnswers,
    pub auth_edges: AuthEdges,
    pub workers: Workers,
    pub joins: Joins,
    pub pasts: Pasts,
    pub without_gaps: WithoutGaps,
    pub baseless: Baseless,
    pub erased: Erased,
    pub typing: TypingState,
    pub read_marks: ReadMarks,
    pub recent_tallies: RecentTallies,
    pub delays: Delays,
    pub policing: Policing,
    shutdown: CancellationToken,
    pub tasks: TaskTracker,
    mailboxes: Mutex<NidMap<RoomNid, mpsc::Sender<Mail>>>,
}

/// What a room is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Event(SendEvent),
    Membership(MembershipChange, Additions),
}

impl Inner {
    /// Whether the server is about to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// What `work` comes to; `None`: the server is about to end, and nobody waits for it any more.
    pub(crate) async fn unless_stopping<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.shutdown.run_until_cancelled(work).await
    }

    /// Waits that long, or until the server is about to end.
    pub(crate) async fn pause(&self, time: Duration) {
        // Either way it is over.
        let _ = tokio::time::timeout(time, self.shutdown.cancelled()).await;
    }
}

/// What a room's task is sent.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A local user's command.
    Command(Request),
    /// Something of another server, which has been looked at as far as that needs no head.
    Inbound(InboundRequest),
    /// Events of other servers that may just go on from the room's end.
    Run(RunRequest),
}

/// A command on its way to a room's task.
#[derive(Debug)]
pub(crate) struct Request {
    pub ask: Ask,
    pub reply: oneshot::Sender<Result<Told, MembershipError>>,
}

/// What a room's task answers to a command.
#[derive(Debug)]
pub(crate) enum Told {
    /// It is done.
    Sent(Sent),
    /// It takes the signature of the room's policy server.
    Unsigned(Box<Unsigned>),
}

impl Rooms {
    /// Starts without any task; rooms' tasks start when they are spoken to.
    pub fn new(parts: RoomsParts) -> Self {
        let typing = TypingState::new(Arc::clone(&parts.clock));
        let tasks = TaskTracker::new();
        tasks.spawn(typing.clone().run(parts.shutdown.clone()));
        Self(Arc::new(Inner {
            store: parts.store,
            signer: Signer { server_name: parts.server_name, key: parts.signing_key, ids: parts.ids },
            clock: parts.clock,
            random: parts.random,
            settings: parts.settings,
            remote: parts.remote,
            caches: Caches::new(),
            servers: ServersCache::default(),
            acls: AclCache::default(),
            alias_claims: AliasClaims::default(),
            state_answers: StateAnswers::default(),
            auth_edges: AuthEdges::default(),
            workers: Workers::default(),
            joins: Joins::default(),
            pasts: Pasts::default(),
            without_gaps: WithoutGaps::default(),
            baseless: Baseless::default(),
            erased: Erased::default(),
            typing,
            read_marks: ReadMarks::default(),
            recent_tallies: RecentTallies::default(),
            delays: Delays::default(),
            policing: Policing::default(),
            shutdown: parts.shutdown,
            tasks,
            mailboxes: Mutex::default(),
        }))
    }

    /// Numbers for names.
    pub fn ids(&self) -> &Ids {
        &self.0.signer.ids
    }

    /// Where rooms are stored.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Since when it is known what users have read.
    pub fn read_marks(&self) -> &ReadMarks {
        &self.0.read_marks
    }

    /// What the unread consumer has counted last.
    pub fn recent_tallies(&self) -> &RecentTallies {
        &self.0.recent_tallies
    }

    /// A view of everything committed so far.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn view(&self) -> Result<View, StoreError> {
        View::latest(&*self.0.store).await
    }

    /// Waits until the rooms' tasks have ended; call after the shutdown token was cancelled.
    pub async fn join(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Sends a message, a state event or a redaction. Durable when it returns; the same transaction
    /// again gives the same event ID again.
    ///
    /// # Errors
    /// See [`SendError`]; nothing is stored then.
    pub async fn send(&self, mut event: SendEvent) -> Result<Sent, SendError> {
        let refused = |error| match error {
            MembershipError::Send(error) => error,
            other => SendError::Forbidden(other.to_string()),
        };
        self.complete_member_event(&mut event).await.map_err(refused)?;
        if let Some(user) = self.invited_elsewhere(&event) {
            return self.invite_by_event(event, user).await.map_err(refused);
        }
        let room = event.room_id.clone();
        self.ask(&room, Ask::Event(event)).await.map_err(refused)
    }

    /// Joins, invites, leaves, kicks, bans or unbans. What is already so stays so.
    ///
    /// # Errors
    /// See [`MembershipError`]; nothing is stored then.
    pub async fn change_membership(&self, change: MembershipChange) -> Result<Sent, MembershipError> {
        let content = ruma_common::CanonicalJsonObject::new();
        self.enter(Entry { change, content, requester: RequesterKind::User, via: Vec::new() }).await
    }

    /// The same for who joins or knocks with a content of their own, or is a guest.
    ///
    /// # Errors
    /// See [`MembershipError`]; nothing is stored then.
    pub async fn enter(&self, entry: Entry) -> Result<Sent, MembershipError> {
        let way = self.way(&entry).await?;
        let Entry { change, content, requester, .. } = entry;
        let mut additions = Additions { content, authorised_by: None };
        match way {
            Way::Invite => return self.invite_by_change(change, additions).await,
            Way::Elsewhere(servers) => return self.enter_elsewhere(change, additions, servers).await,
            Way::Here => {}
        }
        let room = change.room_id.clone();
        // A change of profile by who is in asks nobody.
        if change.membership == Membership::Join && change.only_from.is_none() {
            self.check_guest(requester, &room).await?;
            additions.authorised_by = self.authoriser(&room, &change.target).await?;
        }
        self.ask(&room, Ask::Membership(change, additions)).await
    }

    pub(crate) async fn ask(&self, room_id: &RoomId, ask: Ask) -> Result<Sent, MembershipError> {
        match self.tell(room_id, ask).await? {
            Told::Sent(sent) => Ok(sent),
            Told::Unsigned(unsigned) => Box::pin(self.send_policed(room_id, *unsigned)).await,
        }
    }

    /// Gives a command to the room's task.
    pub(crate) async fn tell(&self, room_id: &RoomId, ask: Ask) -> Result<Told, MembershipError> {
        let (reply, answer) = oneshot::channel();
        self.post(self.0.signer.ids.room(room_id), Mail::Command(Request { ask, reply })).await?;
        answer.await.map_err(|_| MembershipError::Send(SendError::Stopping))?
    }

    /// Puts something into the mailbox of a room's task.
    pub(crate) async fn post(&self, room: RoomNid, mut mail: Mail) -> Result<(), SendError> {
        // A task that has gone idle closes its mailbox; then the next one gets the mail.
        for _ in 0..3 {
            let mailbox = self.mailbox(room).await?;
            match mailbox.try_send(mail) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(back)) => {
                    return mailbox.send(back).await.map_err(|_| SendError::Busy);
                }
                Err(mpsc::error::TrySendError::Closed(back)) => mail = back,
            }
        }
        Err(SendError::Busy)
    }

    /// The mailbox of the room's task, which is started if there is none.
    async fn mailbox(&self, room: RoomNid) -> Result<mpsc::Sender<Mail>, SendError> {
        if self.0.shutdown.is_cancelled() {
            return Err(SendError::Stopping);
        }
        let open = |mailboxes: &NidMap<RoomNid, mpsc::Sender<Mail>>| {
            mailboxes.get(&room).filter(|mailbox| !mailbox.is_closed()).cloned()
        };
        if let Some(mailbox) = open(&self.0.mailboxes.lock()) {
            return Ok(mailbox);
        }
        let view = self.view().await?;
        let meta = view.get::<RoomRows>(&(room,)).await?.ok_or(SendError::UnknownRoom)?;
        let mut mailboxes = self.0.mailboxes.lock();
        if let Some(mailbox) = open(&mailboxes) {
            return Ok(mailbox);
        }
        mailboxes.retain(|_, mailbox| !mailbox.is_closed());
        let (sender, receiver) = mpsc::channel(MAILBOX);
        let task = RoomTask::new(Arc::clone(&self.0), room, &meta, receiver)?;
        self.0.tasks.spawn(task.run(self.0.shutdown.clone()));
        mailboxes.insert(room, sender.clone());
        Ok(sender)
    }
}

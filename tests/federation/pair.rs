//! The two servers of a scenario.

use hearth_test_harness::{Config, Federated, Synapse};
use tokio::sync::OnceCell;

use crate::people::Side;

/// A server under test and a peer.
pub(crate) struct Pair {
    ours: Ours,
    theirs: Theirs,
}

/// What is tested. The scenarios themselves are tested with Synapse in its place: set `HEARTH_FEDERATION_SELF_CHECK`.
pub(crate) enum Ours {
    Hearth(Box<Federated>),
    Reference(Box<Synapse>),
}

enum Theirs {
    /// Nobody stops it or cuts it off.
    Shared(&'static Synapse),
    Own(Box<Synapse>),
}

impl Pair {
    /// A new server, and the peer that all such pairs share.
    pub(crate) async fn new() -> Self {
        static SHARED: OnceCell<Synapse> = OnceCell::const_new();
        let ours = ours().await;
        Self { ours, theirs: Theirs::Shared(SHARED.get_or_init(Synapse::start).await) }
    }

    /// Two servers of its own, which can be cut off and killed.
    pub(crate) async fn apart() -> Self {
        Self { ours: ours().await, theirs: Theirs::Own(Box::new(Synapse::start().await)) }
    }

    pub(crate) fn ours(&self) -> Side {
        self.ours.side()
    }

    pub(crate) fn theirs(&self) -> Side {
        side_of(self.peer())
    }

    /// Whether it is the scenarios that are tested.
    pub(crate) fn is_self_check(&self) -> bool {
        matches!(self.ours, Ours::Reference(_))
    }

    /// Both, each once as the first.
    pub(crate) fn both_ways(&self) -> [(Side, Side); 2] {
        [(self.ours(), self.theirs()), (self.theirs(), self.ours())]
    }

    pub(crate) fn peer(&self) -> &Synapse {
        match &self.theirs {
            Theirs::Shared(server) => server,
            Theirs::Own(server) => server,
        }
    }

    /// Neither reaches the other any more.
    pub(crate) fn cut(&self) {
        self.peer().gate().cut();
        match &self.ours {
            Ours::Hearth(server) => server.gate().cut(),
            Ours::Reference(server) => server.gate().cut(),
        }
    }

    /// They do again.
    pub(crate) fn mend(&self) {
        self.peer().gate().mend();
        match &self.ours {
            Ours::Hearth(server) => server.gate().mend(),
            Ours::Reference(server) => server.gate().mend(),
        }
    }

    /// SIGKILL for the server under test.
    pub(crate) fn kill_ours(&mut self) {
        self.ours.kill();
    }

    pub(crate) async fn restart_ours(&mut self) {
        self.ours.restart().await;
    }
}

impl Ours {
    pub(crate) fn side(&self) -> Side {
        match self {
            Self::Hearth(server) => Side { name: server.name().to_owned(), api: server.api().clone() },
            Self::Reference(server) => side_of(server),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Hearth(server) => server.server().kill(),
            Self::Reference(server) => server.kill(),
        }
    }

    /// SIGKILL, and a new start.
    pub(crate) async fn restart(&mut self) {
        match self {
            Self::Hearth(server) => drop(server.server().restart().await),
            Self::Reference(server) => server.restart().await,
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let (Theirs::Shared(server), true) = (&self.theirs, std::thread::panicking()) {
            eprintln!("--- the last lines of Synapse {}\n{}\n---", server.name(), server.last_log());
        }
    }
}

pub(crate) async fn ours() -> Ours {
    if std::env::var_os("HEARTH_FEDERATION_SELF_CHECK").is_some() {
        return Ours::Reference(Box::new(Synapse::start().await));
    }
    let server = Federated::start(env!("CARGO_BIN_EXE_hearth"), Config::open()).await;
    Ours::Hearth(Box::new(server))
}

fn side_of(server: &Synapse) -> Side {
    Side { name: server.name().to_owned(), api: server.api().clone() }
}

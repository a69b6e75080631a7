//! Talking to other servers: discovery, signing keys, signed requests.

mod authenticate;
mod dns;
mod lookups;
mod peers;
mod publish;
mod remote;
mod settings;
mod transaction;

pub use authenticate::AuthError;
pub use dns::{Dns, DnsError, SrvTarget};
pub use lookups::{DirectoryAnswer, TimestampAnswer};
pub use peers::{Outgoing, Patience, Peers, PeersError, PeersParts, Reply};
pub use publish::NotaryAsk;
pub use settings::{DENIED_BY_DEFAULT, Federation, MissingDestination, OldKey, PeersSettings, denied_by_default};
pub use transaction::TransactionAnswer;

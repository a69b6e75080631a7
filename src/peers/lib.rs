//! Talking to other servers: discovery, signing keys, signed requests.
//!
//! The problem: a server name is all that one knows of another server, anybody can write any name, and whatever comes
//! back may be a trap. So every request goes one way ([`Peers::request`]): the back-off is asked first, then
//! `.well-known` whom the name stands for, then the connector where that is; the address that was checked is the one
//! that is connected to; and the answer is read up to a number of bytes and for a time. Above that lie the keys
//! ([`Peers::authenticate`]), and the questions that rooms ([`hearth_rooms::remote::Remote`]) and clients have.

mod authenticate;
mod back_off;
mod client;
mod connect;
mod cutter;
mod dns;
mod doctor;
mod flights;
mod http_date;
mod joined;
mod list;
mod lookups;
mod memory;
mod name;
mod path;
mod peers;
mod policy;
mod publish;
mod refusal;
mod remote;
mod ring;
mod settings;
mod srv;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transaction;
mod well_known;
mod x_matrix;

pub use authenticate::AuthError;
pub use dns::{Dns, DnsError, SrvTarget, SystemDns};
pub use doctor::{Doctor, Finding, Level};
pub use lookups::{Children, DirectoryAnswer, Look, TimestampAnswer};
pub use memory::{Full, Growing, Memory};
pub use path::{federation_path, with_query};
pub use peers::{Outgoing, Patience, Peers, PeersError, PeersParts, Reply};
pub use publish::{MAX_NOTARY_ASKS, NotaryAsk};
pub use settings::{Federation, MissingDestination, OldKey, PeersSettings};
pub use transaction::TransactionAnswer;

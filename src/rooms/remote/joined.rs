//! The answer to `send_join`, which is as large as a room: it is taken piece by piece, and never held as a whole.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use ruma_common::OwnedServerName;

use super::{RawPdu, RemoteError};

/// A piece of the answer to `send_join` (v2), in the order in which the other server tells them.
///
/// Spec: <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>
#[derive(Clone, Debug)]
pub enum JoinPart {
    /// The join with the signature of the server that let the user in, in restricted rooms.
    Event(RawPdu),
    /// Some events of the room's state before the join.
    State(Vec<RawPdu>),
    /// Some events of the auth chains of the state.
    AuthChain(Vec<RawPdu>),
    /// Some members are left out of the state.
    MembersOmitted,
    /// The servers in the room; only told if members are left out.
    ServersInRoom(Vec<OwnedServerName>),
}

/// The answer to `send_join` as it comes. It ends when all is told; after an error nothing more comes.
pub type JoinParts = BoxStream<'static, Result<JoinPart, RemoteError>>;

/// Parts that are at hand already.
pub fn join_parts(parts: Vec<JoinPart>) -> JoinParts {
    stream::iter(parts.into_iter().map(Ok)).boxed()
}

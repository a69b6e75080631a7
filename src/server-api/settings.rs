//! What the operator decides about the server-server API.

use std::time::Duration;

use hearth_base::Rate;

/// Settings of the server-server API.
#[derive(Clone, Debug)]
pub struct ServerApiSettings {
    /// Bytes of a transaction.
    pub max_transaction_bytes: usize,
    /// Bytes of any other request.
    pub max_body_bytes: usize,
    /// Bytes of all request bodies together that are in memory, but for the first 64 KiB of each.
    pub bodies_bytes: usize,
    /// How long a request body may take to arrive.
    pub body_deadline: Duration,
    /// How often a server may ask.
    pub rates: ServerRates,
    /// Who may read the directory of rooms.
    pub public_rooms: PublicRooms,
    /// Whether the endpoints that `send_join` and `send_leave` had first are there.
    pub first_handshakes: FirstHandshakes,
}

/// `v1/send_join` and `v1/send_leave`, which the specification replaced in 2019.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstHandshakes {
    /// They are there.
    #[default]
    Served,
    /// They are as unknown as any other path.
    Unknown,
}

/// How often one server, or one address, may ask; `None`: as often as it likes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerRates {
    /// Anything.
    pub requests: Option<Rate>,
    /// What is much work: states, auth chains, joins.
    pub heavy: Option<Rate>,
    /// Requests of one address whose signature is wrong or by a server that was not known before, servers of which an
    /// address asks us for the keys, and third-party invitations of which it says that they are bound.
    pub unproven: Option<Rate>,
}

/// Who may read the directory of rooms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublicRooms {
    /// Users of this server.
    #[default]
    Closed,
    /// Other servers too, and so their users.
    Open,
}

impl Default for ServerApiSettings {
    fn default() -> Self {
        Self {
            // Fifty events of the largest size, with as much again for what is not counted in it, and EDUs.
            max_transaction_bytes: 12 << 20,
            max_body_bytes: 1 << 20,
            bodies_bytes: 256 << 20,
            body_deadline: Duration::from_secs(60),
            rates: ServerRates {
                requests: Some(Rate::per_second(50, 500)),
                heavy: Some(Rate::per_second(5, 100)),
                unproven: Some(Rate::per_second(10, 400)),
            },
            public_rooms: PublicRooms::default(),
            first_handshakes: FirstHandshakes::default(),
        }
    }
}

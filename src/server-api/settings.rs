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
    /// How long a request body may take to arrive.
    pub body_deadline: Duration,
    /// How often a server may ask.
    pub rates: ServerRates,
    /// Who may read the directory of rooms.
    pub public_rooms: PublicRooms,
}

/// How often one server may ask; `None`: as often as it likes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerRates {
    /// Anything.
    pub requests: Option<Rate>,
    /// What is much work: states, auth chains, joins.
    pub heavy: Option<Rate>,
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
            body_deadline: Duration::from_secs(60),
            rates: ServerRates { requests: Some(Rate::per_second(50, 500)), heavy: Some(Rate::per_second(5, 100)) },
            public_rooms: PublicRooms::default(),
        }
    }
}

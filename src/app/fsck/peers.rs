//! Promises about what is known of other servers: rows lie where they are looked for, and keys are keys.

use hearth_event::PublicKeys;
use hearth_schema::{Ids, PeerKeyAnswer, PeerKeyAnswers, PeerKeys, PeerKeysRow};
use hearth_store::{Keyspace as _, Lane};
use ruma_common::ServerName;

use super::Finding;
use super::report::{Invariant, Violation};

fn broken(invariant: Invariant, keyspace: &'static str, detail: String) -> Violation {
    Violation { invariant, keyspace, detail }
}

/// The server with this name, if its rows are in `lane`.
fn server<'a>(ids: &Ids, (lane, name): (Lane, &'a str), keyspace: &'static str) -> Result<&'a ServerName, Violation> {
    let named = <&ServerName>::try_from(name).ok().filter(|server| ids.server_lane(server) == lane);
    named.ok_or_else(|| broken(Invariant::I3, keyspace, format!("{name:?} is no server of {lane:?}")))
}

pub(super) fn keys(ids: &Ids, lane: Lane, name: &str, row: &PeerKeysRow) -> Finding {
    let keyspace = PeerKeys::DEF.name;
    let server = match server(ids, (lane, name), keyspace) {
        Ok(server) => server,
        Err(violation) => return Some(violation),
    };
    // One that is none would keep all of this server's events out.
    let mut scratch = PublicKeys::default();
    let wrong = row.keys.iter().find(|(id, key)| scratch.insert(server, id, &key.key, key.valid_until).is_err());
    wrong.map(|(id, _)| broken(Invariant::I13, keyspace, format!("{name}: {id} is no key")))
}

pub(super) fn answer(ids: &Ids, lane: Lane, name: &str, row: &PeerKeyAnswer) -> Finding {
    let keyspace = PeerKeyAnswers::DEF.name;
    match server(ids, (lane, name), keyspace) {
        Ok(server) => {
            let checked = hearth_event::check_server_keys(row.json.as_bytes(), server);
            checked.err().map(|error| broken(Invariant::I13, keyspace, format!("{name}: {error}")))
        }
        Err(violation) => Some(violation),
    }
}

//! Who is in a made-up room.

use hearth_event::{PublicKeys, SigningKey};
use ruma_common::{CanonicalJsonObject, OwnedUserId, ServerName, UserId};
use serde_json::json;

/// A user of the server whose view of the room is tested: joins first of all, is never the target of anything.
pub const OBSERVER: &str = "@observer:hearth.test";

/// The seed of the signing key of the observer's server.
pub const OBSERVER_SEED: [u8; 32] = [3; 32];

/// Servers of the other users at the most.
pub(crate) const MAX_SERVERS: u8 = 6;

/// [`OBSERVER`] as a user ID.
pub fn observer() -> OwnedUserId {
    OwnedUserId::try_from(OBSERVER).expect("a valid user ID")
}

/// The user with number `index` of a room with `servers` servers.
pub(crate) fn user(index: u8, servers: u8) -> OwnedUserId {
    OwnedUserId::try_from(format!("@u{index}:s{}.test", index % servers)).expect("a valid user ID")
}

/// The signing key of a server of the room.
pub(crate) fn key_of(server: &ServerName) -> SigningKey {
    let own = UserId::parse(OBSERVER).is_ok_and(|observer| observer.server_name() == server);
    let seed = if own { OBSERVER_SEED } else { [100 + server.as_str().as_bytes()[1]; 32] };
    SigningKey::from_seed(seed, "test").expect("a valid key")
}

/// The keys of all servers.
pub fn public_keys() -> PublicKeys {
    let mut keys = PublicKeys::default();
    let others = (0..MAX_SERVERS).map(|index| format!("s{index}.test"));
    for name in others.chain(["hearth.test".to_owned()]) {
        let name = <&ServerName>::try_from(name.as_str()).expect("a valid name");
        let key = key_of(name);
        keys.insert(name, key.key_id(), &key.public_key_base64(), u64::MAX).expect("a key");
    }
    keys
}

/// The key of the identity server is number 0; nobody knows the others.
pub(crate) fn identity_key(number: u8) -> SigningKey {
    SigningKey::from_seed([90 + number; 32], "0").expect("a valid key")
}

/// `signed` of a third-party invite.
pub(crate) fn signed_invite(mxid: &UserId, token: &str, key: &SigningKey) -> CanonicalJsonObject {
    let signed = json!({ "mxid": mxid, "token": token });
    let signed: CanonicalJsonObject = serde_json::from_value(signed).expect("canonical");
    key.sign_server_keys(<&ServerName>::try_from("id.test").expect("a valid name"), signed)
}

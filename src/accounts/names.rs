//! Localparts and user IDs.

use ruma_common::{OwnedUserId, ServerName, UserId};

/// Why a name cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadName {
    Empty,
    Characters,
    Underscore,
    TooLong,
}

impl BadName {
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "a user name must have at least one character",
            Self::Characters => "a user name may only contain a-z, 0-9 and . _ = - / +",
            Self::Underscore => "names that begin with _ are for bridges and bots",
            Self::TooLong => "a user ID may have at most 255 bytes",
        }
    }
}

/// The ID that registering `localpart` would make. Capital letters become small ones, as the
/// [spec](https://spec.matrix.org/v1.19/appendices/#user-identifiers) has none in new IDs.
pub(crate) fn registrable(localpart: &str, server: &ServerName) -> Result<OwnedUserId, BadName> {
    let user_id = registrable_by_service(localpart, server)?;
    if user_id.localpart().starts_with('_') { Err(BadName::Underscore) } else { Ok(user_id) }
}

/// The same for an application service, which may begin names with `_`.
pub(crate) fn registrable_by_service(localpart: &str, server: &ServerName) -> Result<OwnedUserId, BadName> {
    let localpart = localpart.to_ascii_lowercase();
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte);
    if localpart.is_empty() {
        return Err(BadName::Empty);
    }
    if !localpart.bytes().all(allowed) {
        return Err(BadName::Characters);
    }
    local_user(&localpart, server).ok_or(BadName::TooLong)
}

/// The users that somebody who logs in as `user` (a localpart or an ID) may mean, best match first:
/// as written, then in small letters. None: such a user cannot be here.
pub(crate) fn login_candidates(user: &str, server: &ServerName) -> Vec<OwnedUserId> {
    let localpart = if user.starts_with('@') {
        match <&UserId>::try_from(user) {
            Ok(id) if id.server_name() == server => id.localpart(),
            _ => return Vec::new(),
        }
    } else {
        user
    };
    let small = localpart.to_ascii_lowercase();
    let other = if small == localpart { None } else { local_user(&small, server) };
    local_user(localpart, server).into_iter().chain(other).collect()
}

fn local_user(localpart: &str, server: &ServerName) -> Option<OwnedUserId> {
    // More bytes than an ID may have: no need to copy them.
    if localpart.len() > 255 || localpart.contains(':') {
        return None;
    }
    let id = format!("@{localpart}:{server}");
    (id.len() <= 255).then_some(id).and_then(|id| OwnedUserId::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use ruma_common::server_name;

    use super::*;

    #[test]
    fn new_names_follow_the_grammar() {
        let server = server_name!("hs.test");
        let long = "a".repeat(255 - "@:hs.test".len());
        for good in ["a", "user-UPPER", "1", "a.b_c=d-e/f+g", &long] {
            let id = registrable(good, server).unwrap();
            assert_eq!(id.as_str(), format!("@{}:hs.test", good.to_lowercase()));
        }
        for (bad, why) in [
            ("", BadName::Empty),
            ("a b", BadName::Characters),
            ("a:b", BadName::Characters),
            ("@a", BadName::Characters),
            ("é", BadName::Characters),
            ("a\0", BadName::Characters),
            ("a\n", BadName::Characters),
            ("İ", BadName::Characters),
            ("_bridge", BadName::Underscore),
            (&format!("{long}a"), BadName::TooLong),
        ] {
            assert_eq!(registrable(bad, server), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn logging_in_ignores_case_but_prefers_what_was_written() {
        let server = server_name!("hs.test");
        let ids = |user: &str| login_candidates(user, server).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ids("ann"), ["@ann:hs.test"]);
        assert_eq!(ids("Ann"), ["@Ann:hs.test", "@ann:hs.test"]);
        assert_eq!(ids("@Ann:hs.test"), ["@Ann:hs.test", "@ann:hs.test"]);
        for nobody in ["@ann:other.test", "@ann", "ann:hs.test", &"a".repeat(300)] {
            assert_eq!(ids(nobody), [""; 0], "{nobody}");
        }
    }
}

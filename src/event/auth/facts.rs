//! What the rules read from the content of events, parsed once for each event.

use crate::Pdu;
use crate::json::{Json, JsonLimits, Object, Strictness, parse_object};

use super::power::PowerContent;

/// What the rules need of an event's content, by its type.
pub(crate) enum Facts {
    Create(Create),
    Member(Member),
    Power(Box<PowerContent>),
    /// `join_rule`: `invite` if absent, `None` if it is no text.
    JoinRules(Option<String>),
    ThirdPartyInvite(Vec<[u8; 32]>),
    Other,
}

/// Of `m.room.create`.
pub(crate) struct Create {
    /// Absent is `"1"`; an error if it is no text.
    pub(crate) room_version: Result<String, ()>,
    /// False only if `m.federate` says so.
    pub(crate) federate: bool,
    /// `m.federate` is absent or true or false.
    pub(crate) federate_is_flag: bool,
    pub(crate) has_creator: bool,
    pub(crate) creator: Option<String>,
    /// An error if it is no list of user IDs.
    pub(crate) additional_creators: Result<Vec<String>, ()>,
}

/// Of `m.room.member`.
#[derive(Default)]
pub(crate) struct Member {
    pub(crate) membership: Option<String>,
    /// `join_authorised_via_users_server`: an error if it is no text.
    pub(crate) authorised_by: Option<Result<String, ()>>,
    pub(crate) third_party_invite: Option<ThirdPartyInvite>,
}

/// `third_party_invite` of a membership: what is missing or has the wrong type is `None`.
#[derive(Default)]
pub(crate) struct ThirdPartyInvite {
    pub(crate) mxid: Option<String>,
    pub(crate) token: Option<String>,
    /// Signatures by ed25519 keys.
    pub(crate) signatures: Vec<[u8; 64]>,
    /// What they are over.
    pub(crate) message: Vec<u8>,
}

impl Facts {
    /// Reads the content of `pdu`.
    pub(crate) fn of(pdu: &Pdu) -> Self {
        if pdu.state_key().is_none() && pdu.event_type() != "m.room.member" {
            return Self::Other;
        }
        let parse = || {
            let limits = JsonLimits { bytes: usize::MAX, depth: 128 };
            parse_object(pdu.content_json(), limits, Strictness::Lenient).expect("the content of an event is JSON")
        };
        match pdu.event_type() {
            "m.room.create" => Self::Create(Create::of(&parse())),
            "m.room.member" => Self::Member(Member::of(&parse())),
            "m.room.power_levels" => Self::Power(Box::new(PowerContent::of(&parse(), pdu.version()))),
            "m.room.join_rules" => Self::JoinRules(match parse().get("join_rule") {
                None => Some("invite".to_owned()),
                Some(rule) => rule.as_str().map(str::to_owned),
            }),
            "m.room.third_party_invite" => Self::ThirdPartyInvite(public_keys(&parse())),
            _ => Self::Other,
        }
    }
}

impl Create {
    fn of(content: &Object) -> Self {
        let text = |value: &Json| value.as_str().map(str::to_owned).ok_or(());
        Self {
            room_version: content.get("room_version").map_or_else(|| Ok("1".to_owned()), text),
            federate: content.get("m.federate") != Some(&Json::Bool(false)),
            federate_is_flag: matches!(content.get("m.federate"), None | Some(Json::Bool(_))),
            has_creator: content.get("creator").is_some(),
            creator: content.text("creator").map(str::to_owned),
            additional_creators: match content.get("additional_creators") {
                None => Ok(Vec::new()),
                Some(Json::Array(items)) => items.iter().map(|item| text(item).and_then(user_id)).collect(),
                Some(_) => Err(()),
            },
        }
    }
}

fn user_id(text: String) -> Result<String, ()> {
    if <&ruma_common::UserId>::try_from(text.as_str()).is_ok() { Ok(text) } else { Err(()) }
}

impl Member {
    /// Reads the content of a membership event.
    pub(crate) fn of(content: &Object) -> Self {
        let text = |value: &Json| value.as_str().map(str::to_owned).ok_or(());
        Self {
            membership: content.text("membership").map(str::to_owned),
            authorised_by: content.get("join_authorised_via_users_server").map(text),
            third_party_invite: content.get("third_party_invite").map(ThirdPartyInvite::of),
        }
    }
}

impl ThirdPartyInvite {
    fn of(invite: &Json) -> Self {
        let Some(signed) = invite.as_object().and_then(|invite| invite.get("signed")?.as_object()) else {
            return Self::default();
        };
        let mut message = Vec::with_capacity(256);
        signed.write_without(&["signatures", "unsigned"], &mut message);
        let by_server = signed.get("signatures").and_then(Json::as_object);
        let by_key = by_server.into_iter().flat_map(Object::iter).filter_map(|(_, own)| own.as_object());
        let signatures = by_key
            .flat_map(Object::iter)
            .filter(|(key_id, _)| key_id.starts_with("ed25519:"))
            .filter_map(|(_, signature)| decode(signature.as_str()?)?.try_into().ok())
            .collect();
        let text = |key: &str| signed.text(key).map(str::to_owned);
        Self { mxid: text("mxid"), token: text("token"), signatures, message }
    }
}

/// `public_key` and every `public_keys[].public_key` that can be read.
fn public_keys(content: &Object) -> Vec<[u8; 32]> {
    let listed = content.get("public_keys").and_then(Json::as_array).into_iter().flatten();
    let listed = listed.filter_map(|entry| entry.as_object()?.text("public_key"));
    let all = content.text("public_key").into_iter().chain(listed);
    all.filter_map(|key| decode(key)?.try_into().ok()).collect()
}

/// Base64 of either alphabet: identity servers use both.
fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let standard: String = text
        .chars()
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    crate::key::BASE64.decode(standard).ok()
}

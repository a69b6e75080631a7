//! Lists in answers, which must not take much more memory than they have bytes.

use std::fmt;
use std::marker::PhantomData;

use hearth_rooms::remote::RawPdu;
use ruma_common::{OwnedEventId, OwnedServerName, ServerName};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Items of a list. No room has as many members.
const MAX_ITEMS: usize = 1_000_000;

/// Events.
#[derive(Debug, Default)]
pub(crate) struct Pdus(pub Vec<RawPdu>);

/// IDs of events.
#[derive(Debug, Default)]
pub(crate) struct EventIds(pub Vec<OwnedEventId>);

/// Names of servers; what is no such name is left out.
#[derive(Debug, Default)]
pub(crate) struct Servers(pub Vec<OwnedServerName>);

impl<'de> Deserialize<'de> for Pdus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Items(PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for EventIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Items(PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names: Vec<String> = deserializer.deserialize_seq(Items(PhantomData))?;
        Ok(Self(names.into_iter().filter_map(|name| ServerName::parse(name).ok()).collect()))
    }
}

struct Items<T>(PhantomData<fn() -> T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() >= MAX_ITEMS {
                return Err(A::Error::custom("the list is too long"));
            }
            list.push(item);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_end_somewhere() {
        let list = |items: usize| format!("[{}1]", "1,".repeat(items - 1));
        let pdus: Pdus = serde_json::from_str(&list(1000)).expect("a list");
        assert_eq!(pdus.0.len(), 1000);
        serde_json::from_str::<Pdus>(&list(MAX_ITEMS + 1)).expect_err("too long");
        serde_json::from_str::<Pdus>("{}").expect_err("no list");
    }

    #[test]
    fn what_is_no_server_is_left_out_and_what_is_no_event_is_an_error() {
        let servers: Servers = serde_json::from_str(r#"["a.example","a/b",""]"#).expect("a list");
        assert_eq!(servers.0, ["a.example"]);
        let ids: EventIds = serde_json::from_str(r#"["$a"]"#).expect("a list");
        assert_eq!(ids.0, ["$a"]);
        serde_json::from_str::<EventIds>(r#"["$a","b"]"#).expect_err("no event ID");
    }
}

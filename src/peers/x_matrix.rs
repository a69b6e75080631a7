//! The header by which servers say who they are, as text.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use std::fmt;

use ruma_common::{OwnedServerName, ServerName};

/// Bytes of a header: two names of 255 bytes, a key ID and a signature are far less.
const MAX_HEADER: usize = 4096;
/// Bytes of a key ID.
const MAX_KEY_ID: usize = 255;
const SCHEME: &str = "x-matrix";

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct XMatrix {
    pub origin: OwnedServerName,
    pub destination: Option<OwnedServerName>,
    pub key_id: String,
    pub signature: String,
}

impl XMatrix {
    /// `None`: the header is of another scheme.
    pub(crate) fn parse(header: &[u8]) -> Result<Option<Self>, &'static str> {
        let named = header.get(..SCHEME.len()).is_some_and(|name| name.eq_ignore_ascii_case(SCHEME.as_bytes()));
        let rest = header.get(SCHEME.len()..).unwrap_or_default();
        if !named || rest.first().is_some_and(|byte| *byte != b' ') {
            return Ok(None);
        }
        if header.len() > MAX_HEADER {
            return Err("it is too long");
        }
        let rest = std::str::from_utf8(rest).ok().filter(|text| text.is_ascii()).ok_or("it is not ASCII")?;
        Params::read(rest)?.finish().map(Some)
    }
}

impl fmt::Display for XMatrix {
    /// Names have no quotation marks, nor have key IDs and base64.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X-Matrix origin=\"{}\"", self.origin)?;
        if let Some(destination) = &self.destination {
            write!(f, ",destination=\"{destination}\"")?;
        }
        write!(f, ",key=\"{}\",sig=\"{}\"", self.key_id, self.signature)
    }
}

#[derive(Default)]
struct Params {
    origin: Option<String>,
    destination: Option<String>,
    key: Option<String>,
    sig: Option<String>,
}

impl Params {
    fn read(mut text: &str) -> Result<Self, &'static str> {
        let mut params = Self::default();
        loop {
            // Lists may have empty elements (RFC 9110, section 5.6.1).
            text = text.trim_start_matches([' ', '\t', ',']);
            if text.is_empty() {
                return Ok(params);
            }
            let (name, rest) = text.split_once('=').ok_or("a parameter has no value")?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err("a parameter has no name");
            }
            let (value, rest) = value(rest)?;
            params.set(name, value)?;
            text = rest.trim_start_matches([' ', '\t']);
            if !text.is_empty() && !text.starts_with(',') {
                return Err("there is no comma between parameters");
            }
        }
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        let slot = match name.to_ascii_lowercase().as_str() {
            "origin" => &mut self.origin,
            "destination" => &mut self.destination,
            "key" => &mut self.key,
            "sig" => &mut self.sig,
            _ => return Ok(()),
        };
        if slot.replace(value).is_some() {
            return Err("a parameter occurs twice");
        }
        Ok(())
    }

    fn finish(self) -> Result<XMatrix, &'static str> {
        let origin = self.origin.ok_or("there is no origin")?;
        let origin = ServerName::parse(origin).map_err(|_| "the origin is no server name")?;
        let destination = self.destination.map(ServerName::parse).transpose();
        let destination = destination.map_err(|_| "the destination is no server name")?;
        let key_id = self.key.filter(|key| key.len() <= MAX_KEY_ID).ok_or("there is no key")?;
        let signature = self.sig.ok_or("there is no signature")?;
        Ok(XMatrix { origin, destination, key_id, signature })
    }
}

/// The value at the start of `text`, and what comes after it.
fn value(text: &str) -> Result<(String, &str), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        // A colon is none of a token's characters, but older servers do not quote it.
        let end = text.bytes().position(|byte| !is_token(byte) && byte != b':').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return if value.is_empty() { Err("a value is empty") } else { Ok((value.to_owned(), rest)) };
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped)) if !escaped.is_ascii_control() => value.push(escaped),
                _ => return Err("a value ends with a backslash"),
            },
            control if control.is_ascii_control() => return Err("a value has control characters"),
            other => value.push(other),
        }
    }
    Err("a quotation mark is missing")
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma_common::server_name;

    use super::*;

    fn expected() -> XMatrix {
        XMatrix {
            origin: server_name!("a.example:8448").to_owned(),
            destination: Some(server_name!("b.example").to_owned()),
            key_id: "ed25519:k1".to_owned(),
            signature: "ab+/".to_owned(),
        }
    }

    #[test]
    fn the_form_is_what_others_read() {
        assert_eq!(
            expected().to_string(),
            r#"X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:k1",sig="ab+/""#
        );
    }

    #[test]
    fn every_form_of_the_specification_is_read() {
        for header in [
            r#"X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:k1",sig="ab+/""#,
            r#"x-MATRIX   origin=a.example:8448,destination=b.example,key=ed25519:k1,sig="ab+/""#,
            "X-Matrix sig=\"ab+/\" \t,\t KEY=\"ed25519:k1\",Destination=b.example , Origin=\"a.example:8448\"",
            r#"X-Matrix origin="a\.example:84\48",destination="b.example",key="ed25519:k1",sig="ab+\/""#,
            r#"X-Matrix ,, origin="a.example:8448",,destination="b.example",key="ed25519:k1",sig="ab+/", ,"#,
            r#"X-Matrix more="a\"b,c=d",origin="a.example:8448",destination="b.example",key="ed25519:k1",sig="ab+/""#,
        ] {
            assert_eq!(XMatrix::parse(header.as_bytes()), Ok(Some(expected())), "{header}");
        }
        let without = r#"X-Matrix origin="a.example:8448",key="ed25519:k1",sig="ab+/""#;
        let without = XMatrix::parse(without.as_bytes()).expect("read").expect("of the scheme");
        assert_eq!(without, XMatrix { destination: None, ..expected() });
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for header in [
            "X-Matrix",
            "X-Matrix ",
            "X-Matrix origin",
            "X-Matrix =a",
            r#"X-Matrix key="ed25519:k1",sig="ab""#,
            r#"X-Matrix origin="a.example",sig="ab""#,
            r#"X-Matrix origin="a.example",key="ed25519:k1""#,
            r#"X-Matrix origin="a.example" key="ed25519:k1",sig="ab""#,
            r#"X-Matrix origin="a.example"key="ed25519:k1",sig="ab""#,
            r#"X-Matrix origin="a.example",key="ed25519:k1",sig="ab"#,
            r#"X-Matrix origin="a.example",key="ed25519:k1",sig="ab\"#,
            r#"X-Matrix origin="a.example",origin="c.example",key="ed25519:k1",sig="ab""#,
            r#"X-Matrix origin="a.example",ORIGIN="a.example",key="ed25519:k1",sig="ab""#,
            r#"X-Matrix origin="a/b",key="ed25519:k1",sig="ab""#,
            r#"X-Matrix origin="",key="ed25519:k1",sig="ab""#,
            r#"X-Matrix origin=,key="ed25519:k1",sig="ab""#,
            r#"X-Matrix origin="a.example",destination="b c",key="ed25519:k1",sig="ab""#,
            "X-Matrix origin=\"a.example\",key=\"ed\n25519:k1\",sig=\"ab\"",
            "X-Matrix origin=\"ä.example\",key=\"ed25519:k1\",sig=\"ab\"",
        ] {
            XMatrix::parse(header.as_bytes()).expect_err(header);
        }
        let long = format!("X-Matrix origin=\"a.example\",key=\"ed25519:k1\",sig=\"{}\"", "a".repeat(65_536));
        assert_eq!(XMatrix::parse(long.as_bytes()), Err("it is too long"));
        let key = format!("X-Matrix origin=\"a.example\",key=\"ed25519:{}\",sig=\"a\"", "a".repeat(300));
        assert_eq!(XMatrix::parse(key.as_bytes()), Err("there is no key"));
    }

    #[test]
    fn other_schemes_are_not_ours() {
        for header in ["", "Bearer abc", "X-Matrixes a=b", "X-Matri", "Basic X-Matrix origin=a"] {
            assert_eq!(XMatrix::parse(header.as_bytes()), Ok(None), "{header}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(header in prop::collection::vec(any::<u8>(), 0..80), text in "X-Matrix [a-z=\",\\\\ :]{0,60}") {
            let _ = XMatrix::parse(&header);
            let _ = XMatrix::parse(text.as_bytes());
        }

        #[test]
        fn what_is_written_is_read(host in "[a-z]{1,9}(\\.[a-z]{1,9}){0,3}", version in "[a-z0-9_]{1,9}", sig in "[A-Za-z0-9+/]{1,90}") {
            let written = XMatrix {
                origin: ServerName::parse(&host).expect("a name"),
                destination: Some(ServerName::parse(host + ":1").expect("a name")),
                key_id: format!("ed25519:{version}"),
                signature: sig,
            };
            prop_assert_eq!(XMatrix::parse(written.to_string().as_bytes()), Ok(Some(written)));
        }

        #[test]
        fn any_value_can_be_quoted(value in "[ -~]{1,40}") {
            let escaped: String = value.chars().flat_map(|character| ['\\', character]).collect();
            let header = format!("X-Matrix origin=a,key=\"{escaped}\",sig=b");
            let read = XMatrix::parse(header.as_bytes()).expect("read").expect("of the scheme");
            prop_assert_eq!(read.key_id, value);
        }
    }
}

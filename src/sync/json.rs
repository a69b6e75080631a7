//! Writing JSON straight into the response: sync's answers are large and made of parts that are JSON
//! already.

use std::fmt::Write as _;

/// An object or array in the making: puts the commas.
pub(crate) struct Parts {
    empty: bool,
}

impl Parts {
    /// Appends `open` (`{` or `[`).
    pub(crate) fn open(open: u8, out: &mut Vec<u8>) -> Self {
        out.push(open);
        Self { empty: true }
    }

    /// The members of an object, without its braces.
    pub(crate) const fn members() -> Self {
        Self { empty: true }
    }

    /// Appends a comma unless this is the first part.
    pub(crate) fn part<'o>(&mut self, out: &'o mut Vec<u8>) -> &'o mut Vec<u8> {
        if !self.empty {
            out.push(b',');
        }
        self.empty = false;
        out
    }

    /// Appends `"key":` for a key that is plain text.
    pub(crate) fn key<'o>(&mut self, key: &str, out: &'o mut Vec<u8>) -> &'o mut Vec<u8> {
        let out = self.part(out);
        string(key, out);
        out.push(b':');
        out
    }
}

/// Appends a string.
pub(crate) fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string can be written to memory");
}

/// Appends `,"key":` for a key that is plain text.
pub(crate) fn member(key: &str, out: &mut Vec<u8>) {
    out.push(b',');
    string(key, out);
    out.push(b':');
}

/// Appends a number.
pub(crate) fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends what `value` prints.
pub(crate) fn display(value: &dyn std::fmt::Display, out: &mut Vec<u8>) {
    write!(Text(out), "{value}").expect("memory takes any text");
}

/// Appends a string that prints nothing JSON would have to escape.
pub(crate) fn plain_string(value: &dyn std::fmt::Display, out: &mut Vec<u8>) {
    out.push(b'"');
    display(value, out);
    out.push(b'"');
}

struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_between_parts_only() {
        let mut out = Vec::new();
        let mut object = Parts::open(b'{', &mut out);
        number(1, object.key("a", &mut out));
        string("x\"\n", object.key("b\"", &mut out));
        out.push(b'}');
        assert_eq!(String::from_utf8(out).as_deref(), Ok(r#"{"a":1,"b\"":"x\"\n"}"#));
    }
}

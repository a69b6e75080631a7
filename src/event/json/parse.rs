//! Bytes to values.

use ruma_common::CanonicalJsonObject;

use super::number::number;
use super::{Json, Object};

/// Why bytes are not the JSON that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON at all (`M_NOT_JSON`).
    #[error("not JSON: {what} at byte {at}")]
    Syntax {
        /// What was found or missing.
        what: &'static str,
        /// Offset in bytes.
        at: usize,
    },
    /// JSON, but no object (`M_BAD_JSON`).
    #[error("not a JSON object")]
    NotAnObject,
    /// More bytes than allowed (`M_TOO_LARGE`).
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Nested more deeply than allowed (`M_BAD_JSON`).
    #[error("nested more deeply than {limit}")]
    TooDeep {
        /// The limit, in objects and arrays around a value.
        limit: usize,
    },
    /// A key occurs twice in one object (`M_BAD_JSON`).
    #[error("the key {key:?} occurs twice")]
    DuplicateKey {
        /// The key, cut to 64 characters.
        key: String,
    },
    /// A number with a fraction or an exponent (`M_BAD_JSON`).
    #[error("numbers must be integers")]
    Float,
    /// An integer beyond ±(2^53 − 1) (`M_BAD_JSON`).
    #[error("an integer is beyond 2^53 - 1")]
    IntegerOutOfRange,
}

/// Bounds on what is parsed.
#[derive(Clone, Copy, Debug)]
pub struct JsonLimits {
    /// Bytes of input.
    pub bytes: usize,
    /// Objects and arrays around a value, the outermost included.
    pub depth: usize,
}

impl JsonLimits {
    /// What clients may send as the content of an event: it could not be larger as an event.
    pub const CONTENT: Self = Self { bytes: 65_536, depth: 64 };
}

/// Which JSON is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Integers within ±(2^53 − 1), unique keys.
    Canonical,
    /// Any number; of equal keys the last wins.
    Lenient,
}

/// Parses what a client sent where canonical JSON is needed.
pub fn parse_canonical_object(bytes: &[u8], limits: JsonLimits) -> Result<CanonicalJsonObject, JsonError> {
    let object = parse_object(bytes, limits, Strictness::Canonical)?;
    CanonicalJsonObject::try_from(object).map_err(|super::NotCanonical| JsonError::IntegerOutOfRange)
}

/// Parses one object and nothing after it but spaces.
pub(crate) fn parse_object(bytes: &[u8], limits: JsonLimits, strictness: Strictness) -> Result<Object, JsonError> {
    if bytes.len() > limits.bytes {
        return Err(JsonError::TooLarge { limit: limits.bytes });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| JsonError::Syntax { what: "invalid UTF-8", at: error.valid_up_to() })?;
    let mut parser = Parser { text, at: 0, depth: 0, limit: limits.depth, strictness };
    parser.skip_space();
    let value = parser.value()?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.syntax("bytes after the value"));
    }
    if let Json::Object(object) = value { Ok(object) } else { Err(JsonError::NotAnObject) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    limit: usize,
    strictness: Strictness,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn advance(&mut self, by: usize) {
        self.at = self.at.saturating_add(by);
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.advance(1);
        }
    }

    fn syntax(&self, what: &'static str) -> JsonError {
        JsonError::Syntax { what, at: self.at }
    }

    fn value(&mut self) -> Result<Json, JsonError> {
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Json::Str),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Json::Bool(true)),
            Some(b'f') => self.literal("false", Json::Bool(false)),
            Some(b'n') => self.literal("null", Json::Null),
            Some(_) => Err(self.syntax("unexpected character")),
            None => Err(self.syntax("unexpected end")),
        }
    }

    fn nested(&mut self, parse: fn(&mut Self) -> Result<Json, JsonError>) -> Result<Json, JsonError> {
        if self.depth >= self.limit {
            return Err(JsonError::TooDeep { limit: self.limit });
        }
        self.depth = self.depth.saturating_add(1);
        self.advance(1);
        self.skip_space();
        let value = parse(self)?;
        self.depth = self.depth.saturating_sub(1);
        Ok(value)
    }

    fn literal(&mut self, word: &'static str, value: Json) -> Result<Json, JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.syntax("unexpected character"));
        }
        self.advance(word.len());
        Ok(value)
    }

    fn array(&mut self) -> Result<Json, JsonError> {
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.advance(1);
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value()?);
            if self.ends_with(b']')? {
                return Ok(Json::Array(items));
            }
        }
    }

    fn object(&mut self) -> Result<Json, JsonError> {
        let mut entries = Vec::new();
        if self.peek() == Some(b'}') {
            self.advance(1);
            return Ok(Json::Object(Object(entries)));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.syntax("expected a key"));
            }
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.syntax("expected a colon"));
            }
            self.advance(1);
            self.skip_space();
            let value = self.value()?;
            entries.push((key, value));
            if self.ends_with(b'}')? {
                break;
            }
        }
        self.sorted(entries).map(Json::Object)
    }

    /// After an item: `true` at the closing `end`, `false` after a comma.
    fn ends_with(&mut self, end: u8) -> Result<bool, JsonError> {
        self.skip_space();
        match self.peek() {
            Some(byte) if byte == end => {
                self.advance(1);
                Ok(true)
            }
            Some(b',') => {
                self.advance(1);
                self.skip_space();
                Ok(false)
            }
            _ => Err(self.syntax("expected a comma or the end")),
        }
    }

    fn sorted(&self, mut entries: Vec<(Box<str>, Json)>) -> Result<Object, JsonError> {
        let ascending = |pair: &[(Box<str>, Json)]| pair[0].0 < pair[1].0;
        if entries.windows(2).all(ascending) {
            return Ok(Object(entries));
        }
        // Stable: equal keys stay in the order in which they came.
        entries.sort_by(|one, two| one.0.cmp(&two.0));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            if self.strictness == Strictness::Canonical {
                return Err(JsonError::DuplicateKey { key: pair[0].0.chars().take(64).collect() });
            }
            entries.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    std::mem::swap(later, earlier);
                }
                same
            });
        }
        Ok(Object(entries))
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.advance(1);
        }
        match self.peek() {
            Some(b'0') => self.advance(1),
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.syntax("expected a digit")),
        }
        if self.peek() == Some(b'.') {
            self.advance(1);
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.advance(1);
            if let Some(b'+' | b'-') = self.peek() {
                self.advance(1);
            }
            self.digits()?;
        }
        number(&self.text[start..self.at], self.strictness)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.syntax("expected a digit"));
        }
        while let Some(b'0'..=b'9') = self.peek() {
            self.advance(1);
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Box<str>, JsonError> {
        self.advance(1);
        let start = self.at;
        self.plain();
        if self.peek() == Some(b'"') {
            let text = &self.text[start..self.at];
            self.advance(1);
            return Ok(text.into());
        }
        let mut text = String::from(&self.text[start..self.at]);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.advance(1);
                    return Ok(text.into());
                }
                Some(b'\\') => {
                    self.advance(1);
                    text.push(self.escape()?);
                }
                Some(_) => return Err(self.syntax("control character in a string")),
                None => return Err(self.syntax("unexpected end")),
            }
            let from = self.at;
            self.plain();
            text.push_str(&self.text[from..self.at]);
        }
    }

    /// Skips what needs no attention within a string.
    fn plain(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let stop = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        self.advance(stop.unwrap_or(rest.len()));
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(byte) = self.peek() else { return Err(self.syntax("unexpected end")) };
        self.advance(1);
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(self.syntax("unknown escape")),
        })
    }

    /// `XXXX`, or a surrogate pair `XXXX\uXXXX`. A lone surrogate has no UTF-8 form, so it could never be signed.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.hex()?;
        if let Some(alone) = char::from_u32(first) {
            return Ok(alone);
        }
        if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Err(self.syntax("lone surrogate"));
        }
        self.advance(2);
        let second = self.hex()?;
        char::decode_utf16([first, second].map(|unit| u16::try_from(unit).unwrap_or(0)))
            .next()
            .and_then(Result::ok)
            .filter(|found| u32::from(*found) > 0xffff)
            .ok_or_else(|| self.syntax("lone surrogate"))
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let mut value = 0_u32;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else { return Err(self.syntax("expected four hexadecimal digits")) };
            value = (value << 4) | digit;
            self.advance(1);
        }
        Ok(value)
    }
}

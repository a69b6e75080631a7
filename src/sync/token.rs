//! Tokens: where a client stands.
//!
//! Text of a sync token: `h1_<incarnation>_<position>_<typing>_<presence>`, numbers in decimal; of a
//! pagination token: `h1_<incarnation>_<position>`; of sliding sync's: `s<number>.` before such a one. `1` is the version; one engine on many machines will need
//! another for what lanes differ by. The incarnation changes when a store goes back in time (a
//! restored backup), because positions mean something else from then on.

use std::fmt;

use hearth_store::Pos;

const PREFIX: &str = "h1_";
/// What `pos` of sliding sync begins with.
const SLIDING: &str = "s";
/// Longest text that can be a token.
const MAX_BYTES: usize = 3 + 10 + 1 + 19 + 1 + 20 + 1 + 20;

/// Which life of the store a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Incarnation(pub u32);

/// `since` and `next_batch` of `/sync`: everything at or below `pos` has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Which life of the store.
    pub incarnation: Incarnation,
    /// What has been seen of the change log.
    pub pos: Pos,
    /// What has been seen of typing, as `TypingState` counts.
    pub typing: u64,
    /// What has been seen of presence, as `Presence` counts.
    pub presence: u64,
}

/// `pos` of a sliding answer: `s<number>.` and the pagination token of where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlidingToken {
    /// The answer's number among all.
    pub number: u64,
    /// Where it ends.
    pub at: PageToken,
}

/// A position in the history of a room: between the events at or below it and those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// Which life of the store.
    pub incarnation: Incarnation,
    /// The position.
    pub pos: Pos,
}

/// Text that is no token of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token at all, or of a version that this server does not know.
    #[error("the token is not one of this server's")]
    Malformed,
    /// A token from another life of the store, or of a time that it has not reached.
    #[error("the token's position is not known")]
    UnknownPos,
}

impl Token {
    /// Reads `since`.
    ///
    /// # Errors
    /// If the text is no sync token of this incarnation.
    pub fn parse(text: &str, incarnation: Incarnation) -> Result<Self, TokenError> {
        match numbers(text)? {
            (of, pos, Some((typing, presence))) => {
                Ok(Self { incarnation: known(of, incarnation)?, pos, typing, presence })
            }
            (_, _, None) => Err(TokenError::Malformed),
        }
    }

    /// The token for `from`, `to`, `at` and `prev_batch` that means `pos`.
    pub const fn pagination(incarnation: Incarnation, pos: Pos) -> PageToken {
        PageToken { incarnation, pos }
    }
}

impl PageToken {
    /// Reads `from`, `to` or `at`. A sync token is one, too, and so is `pos`: clients pass them to `/messages`.
    ///
    /// # Errors
    /// If the text is no token of this incarnation.
    pub fn parse(text: &str, incarnation: Incarnation) -> Result<Self, TokenError> {
        if text.starts_with(SLIDING) {
            return SlidingToken::parse(text, incarnation).map(|token| token.at);
        }
        let (of, pos, _) = numbers(text)?;
        Ok(Self { incarnation: known(of, incarnation)?, pos })
    }
}

impl SlidingToken {
    pub(crate) fn parse(text: &str, incarnation: Incarnation) -> Result<Self, TokenError> {
        let text = text.strip_prefix(SLIDING).ok_or(TokenError::Malformed)?;
        let (first, rest) = text.split_once('.').ok_or(TokenError::Malformed)?;
        let (of, pos, more) = numbers(rest)?;
        if more.is_some() {
            return Err(TokenError::Malformed);
        }
        Ok(Self {
            number: number(Some(first.as_bytes()))?,
            at: PageToken { incarnation: known(of, incarnation)?, pos },
        })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { incarnation, pos, typing, presence } = *self;
        PageToken { incarnation, pos }.fmt(f)?;
        [typing, presence].into_iter().try_for_each(|number| write_next(number, f))
    }
}

impl fmt::Display for SlidingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SLIDING}{}.{}", self.number, self.at)
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        f.write_str(itoa::Buffer::new().format(self.incarnation.0))?;
        write_next(self.pos.get(), f)
    }
}

/// `_` and the number: every answer has several, and `write!` takes longer for one than for all this.
fn write_next(number: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("_")?;
    f.write_str(itoa::Buffer::new().format(number))
}

fn known(found: u64, expected: Incarnation) -> Result<Incarnation, TokenError> {
    if found == u64::from(expected.0) { Ok(expected) } else { Err(TokenError::UnknownPos) }
}

/// Incarnation and position; in sync tokens also typing and presence.
type Numbers = (u64, Pos, Option<(u64, u64)>);

fn numbers(text: &str) -> Result<Numbers, TokenError> {
    if text.len() > MAX_BYTES {
        return Err(TokenError::Malformed);
    }
    let text = text.strip_prefix(PREFIX).ok_or(TokenError::Malformed)?;
    let mut parts = text.as_bytes().split(|byte| *byte == b'_');
    let incarnation = number(parts.next())?;
    let pos = number(parts.next())?;
    let ephemeral = match parts.next() {
        None => None,
        typing => Some((number(typing)?, number(parts.next())?)),
    };
    if parts.next().is_some() || pos > Pos::MAX.get() || incarnation > u64::from(u32::MAX) {
        return Err(TokenError::Malformed);
    }
    Ok((incarnation, Pos::new(pos), ephemeral))
}

/// Digits without signs or leading zeros, so that a token has one text.
fn number(part: Option<&[u8]>) -> Result<u64, TokenError> {
    let digits = match part {
        None | Some([] | [b'0', _, ..]) => return Err(TokenError::Malformed),
        Some(digits) => digits,
    };
    let add = |number: u64, byte: &u8| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    };
    digits.iter().try_fold(0, add).ok_or(TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: Incarnation = Incarnation(7);

    proptest! {
        #[test]
        fn every_token_reads_as_it_prints(pos in 0..=Pos::MAX.get(), typing: u64, presence: u64, incarnation: u32) {
            let here = Incarnation(incarnation);
            let token = Token { incarnation: here, pos: Pos::new(pos), typing, presence };
            prop_assert_eq!(Token::parse(&token.to_string(), here), Ok(token));
            let page = Token::pagination(here, Pos::new(pos));
            let sliding = SlidingToken { number: presence, at: page };
            prop_assert_eq!(SlidingToken::parse(&sliding.to_string(), here), Ok(sliding));
            prop_assert_eq!(PageToken::parse(&sliding.to_string(), here), Ok(page));
            prop_assert!(Token::parse(&sliding.to_string(), here).is_err());
            prop_assert_eq!(PageToken::parse(&page.to_string(), here), Ok(page));
            prop_assert_eq!(PageToken::parse(&token.to_string(), here), Ok(page));
        }

        #[test]
        fn what_parses_prints_the_same(text in "(h1_)?[0-9_+]{0,60}") {
            if let Ok(token) = Token::parse(&text, HERE) {
                prop_assert_eq!(token.to_string(), text.clone());
            }
            if let (Ok(page), 2) = (PageToken::parse(&text, HERE), text.matches('_').count()) {
                prop_assert_eq!(page.to_string(), text);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            prop_assert!(Token::parse(&text, HERE).is_err());
        }
    }

    #[test]
    fn foreign_and_newer_tokens_are_told_apart() {
        for malformed in [
            "",
            "s72594_4483_1934",
            "h2_7_1_1_1",
            "h1_",
            "h1_7",
            "h1_7_1_1",
            "h1_7_1_1_1_1",
            "h1_7_01_1_1",
            "h1_7_+1_1_1",
            "h1_7_9223372036854775808_0_0",
        ] {
            assert_eq!(Token::parse(malformed, HERE), Err(TokenError::Malformed), "{malformed}");
        }
        for malformed in ["s", "s1", "s1.", "s01.h1_7_1", "s1.h1_7_1_1_1", "s1.s1.h1_7_1", "1.h1_7_1", "h1_7_1"] {
            assert_eq!(SlidingToken::parse(malformed, HERE), Err(TokenError::Malformed), "{malformed}");
        }
        assert_eq!(SlidingToken::parse("s1.h1_8_1", HERE), Err(TokenError::UnknownPos));
        assert_eq!(Token::parse("h1_8_1_1_1", HERE), Err(TokenError::UnknownPos));
        assert_eq!(Token::parse("h1_7_1", HERE), Err(TokenError::Malformed), "a pagination token is no since");
    }
}

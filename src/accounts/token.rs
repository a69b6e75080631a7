//! What an access token looks like.
//!
//! `hrt_` + 43 characters with 256 random bits + `_` + 6 characters of checksum. The prefix and the
//! checksum let scanners of public code find leaked tokens without false alarms; the checksum also
//! refuses mistyped ones without a look-up.

use hearth_base::Random;
use sha2::{Digest, Sha256};

const PREFIX: &str = "hrt_";
/// 43 × 5.954 bits are just above 256.
const SECRET_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new access token.
pub(crate) fn generate(random: &dyn Random) -> String {
    let mut token = format!("{PREFIX}{}", random.alphanumeric(SECRET_CHARS));
    let sum = checksum(&token);
    token.push('_');
    token.extend(sum.iter().copied().map(char::from));
    token
}

/// Whether `token` could be one that [`generate`] made.
pub(crate) fn is_well_formed(token: &str) -> bool {
    const BODY: usize = PREFIX.len() + SECRET_CHARS;
    if token.len() != BODY + 1 + CHECKSUM_CHARS || !token.is_ascii() || !token.starts_with(PREFIX) {
        return false;
    }
    let (body, sum) = token.split_at(BODY);
    sum.as_bytes()[0] == b'_' && sum.as_bytes()[1..] == checksum(body)
}

/// The first four bytes of SHA-256 in base 62, most significant character first.
fn checksum(body: &str) -> [u8; CHECKSUM_CHARS] {
    let digest = Sha256::digest(body.as_bytes());
    let mut number = digest.iter().take(4).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let mut out = [BASE62[0]; CHECKSUM_CHARS];
    for place in out.iter_mut().rev() {
        *place = BASE62[usize::try_from(number % 62).expect("below 62")];
        number /= 62;
    }
    out
}

#[cfg(test)]
mod tests {
    use hearth_base::SeededRandom;

    use super::*;

    #[test]
    fn a_token_carries_prefix_secret_and_checksum() {
        let token = generate(&SeededRandom::new(1));
        assert_eq!(token.len(), 54);
        assert!(token.starts_with("hrt_"));
        assert!(is_well_formed(&token));
    }

    #[test]
    fn tokens_differ() {
        let random = SeededRandom::new(2);
        let tokens: std::collections::BTreeSet<_> = (0..1000).map(|_| generate(&random)).collect();
        assert_eq!(tokens.len(), 1000);
    }

    #[test]
    fn anything_but_a_whole_token_is_malformed() {
        let token = generate(&SeededRandom::new(3));
        let mistyped = format!("{}x{}", &token[..10], &token[11..]);
        for wrong in ["", " ", "\0", "hrt_", &token[..53], &mistyped, &token.to_uppercase(), &format!("{token}x")] {
            assert_eq!(is_well_formed(wrong), wrong == token, "{wrong:?}");
        }
        assert!(!is_well_formed(&"é".repeat(27)), "54 bytes that are not ASCII");
    }
}

//! What access tokens and refresh tokens look like.
//!
//! An access token is `hrt_` + 43 characters with 256 random bits + `_` + 6 characters of checksum. The
//! prefix and the checksum let scanners of public code find leaked tokens without false alarms; the
//! checksum also refuses mistyped ones without a look-up.
//!
//! A refresh token is `hrr_` + 22 characters that name its family + the same. All refresh tokens that
//! a device gets between two log-ins are of one family, so that a token that was spent long ago is
//! still known for what it is, without a row of its own.

use hearth_base::Random;
use sha2::{Digest, Sha256};

const PREFIX: &str = "hrt_";
const REFRESH_PREFIX: &str = "hrr_";
/// 43 × 5.954 bits are just above 256.
const SECRET_CHARS: usize = 43;
/// 131 bits.
const FAMILY_CHARS: usize = 22;
const CHECKSUM_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new access token.
pub(crate) fn generate(random: &dyn Random) -> String {
    with_checksum(format!("{PREFIX}{}", random.alphanumeric(SECRET_CHARS)))
}

/// The first refresh token of a new family.
pub(crate) fn generate_refresh(random: &dyn Random) -> String {
    with_checksum(format!("{REFRESH_PREFIX}{}", random.alphanumeric(FAMILY_CHARS + SECRET_CHARS)))
}

/// The access token and the refresh token that follow `refresh`, which must be well formed. The same
/// for the same `nonce`: so a refresh can be answered again although only hashes are stored.
pub(crate) fn successors(refresh: &str, nonce: &[u8; 32]) -> (String, String) {
    let secret = |label: &[u8; 8]| {
        let digest = Sha256::new().chain_update(label).chain_update(nonce).chain_update(refresh.as_bytes());
        base62(digest.finalize().into())
    };
    let family = family(refresh).unwrap_or_default();
    let access = with_checksum(format!("{PREFIX}{}", secret(b"access\0\0")));
    (access, with_checksum(format!("{REFRESH_PREFIX}{family}{}", secret(b"refresh\0"))))
}

/// Whether `token` could be one that [`generate`] made.
pub(crate) fn is_well_formed(token: &str) -> bool {
    has_shape(token, PREFIX, SECRET_CHARS)
}

/// Whether `token` could be mistaken for one of ours: whatever begins as they do.
pub(crate) fn is_reserved(token: &str) -> bool {
    token.starts_with(PREFIX) || token.starts_with(REFRESH_PREFIX)
}

/// The name of a refresh token's family; `None`: it cannot be a refresh token.
pub(crate) fn family(token: &str) -> Option<&str> {
    let is_one = has_shape(token, REFRESH_PREFIX, FAMILY_CHARS + SECRET_CHARS);
    is_one.then(|| &token[REFRESH_PREFIX.len()..REFRESH_PREFIX.len() + FAMILY_CHARS])
}

fn with_checksum(mut token: String) -> String {
    let sum = checksum(&token);
    token.push('_');
    token.extend(sum.iter().copied().map(char::from));
    token
}

fn has_shape(token: &str, prefix: &str, secret_chars: usize) -> bool {
    let body = prefix.len() + secret_chars;
    if token.len() != body + 1 + CHECKSUM_CHARS || !token.is_ascii() || !token.starts_with(prefix) {
        return false;
    }
    let (body, sum) = token.split_at(body);
    sum.as_bytes()[0] == b'_' && sum.as_bytes()[1..] == checksum(body)
}

/// 256 bits in base 62, most significant character first.
fn base62(mut number: [u8; 32]) -> String {
    let mut out = [BASE62[0]; SECRET_CHARS];
    for place in out.iter_mut().rev() {
        let mut rest = 0_u16;
        for byte in &mut number {
            let value = rest << 8 | u16::from(*byte);
            *byte = u8::try_from(value / 62).expect("the rest is below 62");
            rest = value % 62;
        }
        *place = BASE62[usize::from(rest)];
    }
    out.iter().copied().map(char::from).collect()
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
    fn refresh_tokens_keep_their_family_and_follow_each_other() {
        let random = SeededRandom::new(4);
        let first = generate_refresh(&random);
        assert_eq!((first.len(), is_well_formed(&first)), (76, false));
        let (access, second) = successors(&first, &[1; 32]);
        assert!(is_well_formed(&access));
        assert_eq!(family(&first).map(str::len), Some(22));
        assert_eq!(family(&second), family(&first));
        assert_eq!(successors(&first, &[1; 32]), (access.clone(), second.clone()));
        assert_ne!(successors(&first, &[2; 32]), (access.clone(), second.clone()));
        assert_ne!(successors(&second, &[1; 32]).1, second);
        let mistyped = first.replace("hrr_", "hrr-");
        for wrong in ["", access.as_str(), &first[1..], &format!("{first}x"), mistyped.as_str()] {
            assert_eq!(family(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn all_bits_are_in_the_characters() {
        assert_eq!(base62([0; 32]), "0".repeat(43));
        let mut one = [0; 32];
        one[31] = 61;
        assert_eq!(base62(one), format!("{}z", "0".repeat(42)));
        one[31] = 62;
        assert_eq!(base62(one), format!("{}10", "0".repeat(41)));
        let mut high = [0; 32];
        high[0] = 1;
        assert_ne!(base62(high), "0".repeat(43));
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

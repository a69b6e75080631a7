//! Argon2id: hashing, checking, and spending the same time when there is nothing to check.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq;

/// Bytes of salt, as RFC 9106 recommends.
pub(crate) const SALT_BYTES: usize = 16;
const OUTPUT_BYTES: usize = 32;
/// A stored hash that asks for more is not ours, and obeying it would stop the server.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_ITERATIONS: u32 = 16;

/// What one hash costs. The default is the first choice of OWASP: 19 MiB, 2 passes, 1 lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes; more only help where several threads work on one hash, which they do not here.
    pub parallelism: u32,
}

impl Default for Argon2Cost {
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, iterations: 2, parallelism: 1 }
    }
}

/// What a password is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not this user's.
    Wrong,
    /// This user's.
    Correct,
    /// This user's, and the hash was made with other costs than today's: make a new one.
    Outdated,
}

/// A stored hash that this server cannot check.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a stored password hash cannot be used: {0}")]
pub(crate) struct UnusableHash(String);

/// One thread's Argon2: the memory is used again for every password.
pub(crate) struct Hasher {
    params: Params,
    memory: Vec<Block>,
}

impl Hasher {
    /// # Errors
    /// If the costs are outside Argon2's limits.
    pub(crate) fn new(cost: Argon2Cost) -> Result<Self, argon2::Error> {
        let params = Params::new(cost.memory_kib, cost.iterations, cost.parallelism, Some(OUTPUT_BYTES))?;
        Ok(Self { params, memory: Vec::new() })
    }

    /// A PHC string with `salt`.
    ///
    /// # Errors
    /// If Argon2 refuses, which it does for passwords over 4 GiB only.
    pub(crate) fn hash(&mut self, password: &[u8], salt: [u8; SALT_BYTES]) -> Result<String, UnusableHash> {
        let mut out = [0; OUTPUT_BYTES];
        let params = self.params.clone();
        self.run(params.clone(), password, &salt, &mut out)?;
        let hash = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params).map_err(unusable)?,
            salt: Some(Salt::new(&salt).map_err(unusable)?),
            hash: Some(Output::new(&out).map_err(unusable)?),
        };
        Ok(hash.to_string())
    }

    /// Compares `password` with a PHC string.
    ///
    /// # Errors
    /// If it is not an Argon2id hash that can be checked.
    pub(crate) fn verify(&mut self, password: &[u8], phc: &str) -> Result<Verdict, UnusableHash> {
        let stored = PasswordHash::new(phc).map_err(unusable)?;
        if stored.algorithm != ARGON2ID_IDENT || stored.version != Some(Version::V0x13.into()) {
            return Err(UnusableHash("not Argon2id version 19".into()));
        }
        let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
            return Err(UnusableHash("no salt or no hash".into()));
        };
        let params = Params::try_from(&stored).map_err(unusable)?;
        if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_ITERATIONS {
            return Err(UnusableHash("its costs are too high".into()));
        }
        let current = costs(&params) == costs(&self.params);
        let mut out = vec![0; expected.len()];
        self.run(params, password, salt.as_ref(), &mut out)?;
        let correct = bool::from(out.ct_eq(expected.as_bytes()));
        Ok(match (correct, current) {
            (false, _) => Verdict::Wrong,
            (true, true) => Verdict::Correct,
            (true, false) => Verdict::Outdated,
        })
    }

    /// Does the work of [`Self::verify`] for nothing, so that the time does not tell who has an
    /// account.
    ///
    /// # Errors
    /// As [`Self::hash`].
    pub(crate) fn burn(&mut self, password: &[u8]) -> Result<(), UnusableHash> {
        let mut out = [0; OUTPUT_BYTES];
        self.run(self.params.clone(), password, &[0; SALT_BYTES], &mut out)?;
        std::hint::black_box(out);
        Ok(())
    }

    /// Gives the memory back until the next password.
    pub(crate) fn release(&mut self) {
        self.memory = Vec::new();
    }

    fn run(&mut self, params: Params, password: &[u8], salt: &[u8], out: &mut [u8]) -> Result<(), UnusableHash> {
        let blocks = params.block_count();
        if self.memory.len() < blocks {
            self.memory = vec![Block::new(); blocks];
        }
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password, salt, out, &mut self.memory[..blocks])
            .map_err(unusable)
    }
}

fn costs(params: &Params) -> (u32, u32, u32) {
    (params.m_cost(), params.t_cost(), params.p_cost())
}

fn unusable(error: impl std::fmt::Display) -> UnusableHash {
    UnusableHash(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let mut hasher = Hasher::new(CHEAP).unwrap();
        let phc = hasher.hash(b"correct horse", [7; SALT_BYTES]).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{phc}");
        assert_eq!(hasher.verify(b"correct horse", &phc).unwrap(), Verdict::Correct);
        assert_eq!(hasher.verify(b"correct horsE", &phc).unwrap(), Verdict::Wrong);
        assert_eq!(hasher.verify(b"", &phc).unwrap(), Verdict::Wrong);
    }

    #[test]
    fn hashes_of_the_reference_implementation_are_understood() {
        // Made with the reference implementation in C through argon2-cffi.
        let theirs = "$argon2id$v=19$m=64,t=2,p=1$c2l4dGVlbiBieXRlIHNhbA$6+dmx/14byIeFGwkqs+oktKxDzfEhWnfmJd/wMER4H8";
        let mut hasher = Hasher::new(Argon2Cost { iterations: 2, ..CHEAP }).unwrap();
        assert_eq!(hasher.verify(b"correct horse", theirs).unwrap(), Verdict::Correct);
        assert_eq!(hasher.hash(b"correct horse", *b"sixteen byte sal").unwrap(), theirs);
    }

    #[test]
    fn the_salt_changes_the_hash() {
        let mut hasher = Hasher::new(CHEAP).unwrap();
        assert_ne!(hasher.hash(b"x", [1; 16]).unwrap(), hasher.hash(b"x", [2; 16]).unwrap());
    }

    #[test]
    fn a_hash_of_other_costs_is_checked_and_called_outdated() {
        let old = Hasher::new(CHEAP).unwrap().hash(b"pass", [1; 16]).unwrap();
        let mut hasher = Hasher::new(Argon2Cost { memory_kib: 128, ..CHEAP }).unwrap();
        assert_eq!(hasher.verify(b"pass", &old).unwrap(), Verdict::Outdated);
        assert_eq!(hasher.verify(b"word", &old).unwrap(), Verdict::Wrong);
    }

    #[test]
    fn hashes_that_are_not_ours_are_errors_and_not_answers() {
        let mut hasher = Hasher::new(CHEAP).unwrap();
        let good = hasher.hash(b"pass", [1; 16]).unwrap();
        for wrong in [
            String::new(),
            "secret".into(),
            good.replace("argon2id", "argon2i"),
            good.replace("v=19", "v=16"),
            good.replace("m=64", "m=4000000000"),
            good.replace("t=1", "t=4000000"),
            good[..good.rfind('$').unwrap()].into(),
            "$2b$12$abcdefghijklmnopqrstuv".into(),
        ] {
            assert!(hasher.verify(b"pass", &wrong).is_err(), "{wrong}");
        }
    }
}

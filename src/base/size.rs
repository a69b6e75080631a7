//! Sizes in bytes, with their unit.

use std::fmt;
use std::str::FromStr;

/// A number of bytes; reads and prints as `64 MiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Text that is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number and B, KiB, MiB or GiB, such as \"64 MiB\"")]
pub struct ByteSizeError;

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// `n` bytes.
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }

    /// `n` × 1 024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` × 1 048 576 bytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// How many bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// How many bytes, as far as this machine can address them.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, size): &&(&str, u64)| self.0 >= *size && self.0.is_multiple_of(*size);
        let (unit, size) = UNITS.iter().find(fits).unwrap_or(&UNITS[3]);
        write!(f, "{} {unit}", self.0 / size)
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let text = text.trim();
        let (number, size) = UNITS
            .iter()
            .find_map(|(unit, size)| text.strip_suffix(unit).map(|number| (number.trim_end(), *size)))
            .ok_or(ByteSizeError)?;
        let number: u64 = number.parse().map_err(|_| ByteSizeError)?;
        number.checked_mul(size).map(Self).ok_or(ByteSizeError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!("64 MiB".parse(), Ok(ByteSize::mib(64)));
        assert_eq!("1KiB".parse(), Ok(ByteSize::kib(1)));
        for wrong in ["", "64", "MiB", "-1 B", "1.5 MiB", "64 MB", "99999999999 GiB"] {
            assert_eq!(wrong.parse::<ByteSize>(), Err(ByteSizeError), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_size_reads_as_it_prints(n: u64) {
            prop_assert_eq!(ByteSize::bytes(n).to_string().parse(), Ok(ByteSize::bytes(n)));
        }
    }
}

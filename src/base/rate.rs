//! How often something may happen.

use std::fmt;
use std::str::FromStr;

/// So much at once, and so much again in each second, minute or hour; reads and prints as
/// `30/m burst 10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    unit: Unit,
    burst: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    const fn letter(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }

    const fn micros(self) -> u64 {
        match self {
            Self::Second => 1_000_000,
            Self::Minute => 60 * 1_000_000,
            Self::Hour => 3600 * 1_000_000,
        }
    }
}

/// Text that is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a count in each second (s), minute (m) or hour (h) and a burst, such as \"30/m burst 10\"")]
pub struct RateError;

/// Largest count and burst: no unit is too short for them.
const MOST: u32 = 1_000_000;

impl Rate {
    /// `burst` at once, `count` again in a second.
    pub const fn per_second(count: u32, burst: u32) -> Self {
        Self { count, unit: Unit::Second, burst }
    }

    /// `burst` at once, `count` again in a minute.
    pub const fn per_minute(count: u32, burst: u32) -> Self {
        Self { count, unit: Unit::Minute, burst }
    }

    /// `burst` at once, `count` again in an hour.
    pub const fn per_hour(count: u32, burst: u32) -> Self {
        Self { count, unit: Unit::Hour, burst }
    }

    /// How many may happen at once after a pause; at least 1.
    pub const fn burst(self) -> u32 {
        if self.burst == 0 { 1 } else { self.burst }
    }

    /// Microseconds after which one more may happen; at least 1.
    pub const fn interval_micros(self) -> u64 {
        let count = if self.count == 0 { 1 } else { self.count };
        let interval = self.unit.micros() / count as u64;
        if interval == 0 { 1 } else { interval }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} burst {}", self.count, self.unit.letter(), self.burst)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (rate, burst) = text.split_once("burst").ok_or(RateError)?;
        let (count, letter) = rate.split_once('/').ok_or(RateError)?;
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| (1..=MOST).contains(n)).ok_or(RateError);
        let units = [Unit::Second, Unit::Minute, Unit::Hour];
        let unit = units.into_iter().find(|unit| unit.letter() == letter.trim()).ok_or(RateError)?;
        Ok(Self { count: number(count)?, unit, burst: number(burst)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_have_a_count_a_unit_and_a_burst() {
        assert_eq!("30/m burst 10".parse(), Ok(Rate::per_minute(30, 10)));
        assert_eq!(" 1 / h  burst 1 ".parse(), Ok(Rate::per_hour(1, 1)));
        assert_eq!(Rate::per_minute(30, 10).interval_micros(), 2_000_000);
        for wrong in ["", "30", "30/m", "burst 10", "30/d burst 1", "0/s burst 1", "1/s burst 0", "-1/s burst 1"] {
            assert_eq!(wrong.parse::<Rate>(), Err(RateError), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_rate_reads_as_it_prints(count in 1..=MOST, burst in 1..=MOST, unit in 0..3) {
            let rate = match unit {
                0 => Rate::per_second(count, burst),
                1 => Rate::per_minute(count, burst),
                _ => Rate::per_hour(count, burst),
            };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}

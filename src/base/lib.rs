//! Units and services that every layer may use: time, randomness, secrets, tasks, logging.

mod clock;
mod random;

pub use clock::{Clock, FixedClock, Millis, SystemClock};
pub use random::{Random, SeededRandom, SystemRandom};

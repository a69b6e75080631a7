//! Units and services that every layer may use: time, randomness, secrets, rates, networks,
//! tasks, logging.

mod bucket;
mod clock;
mod logging;
mod network;
mod random;
mod rate;
mod secret;
mod size;
mod supervisor;

pub use bucket::Buckets;
pub use clock::{Clock, FixedClock, Millis, SystemClock};
pub use logging::{LogFormat, LoggingError, start_logging};
pub use network::{Network, NetworkError};
pub use random::{Random, SeededRandom, SystemRandom};
pub use rate::{Rate, RateError};
pub use secret::Secret;
pub use size::{ByteSize, ByteSizeError};
pub use supervisor::{StillRunning, Supervisor};

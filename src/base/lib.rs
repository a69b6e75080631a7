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
mod special_networks;
mod supervisor;
mod ticks;

pub use bucket::Buckets;
pub use clock::{Clock, FixedClock, Millis, SystemClock};
pub use logging::{LogFormat, LoggingError, start_logging};
pub use network::{Network, NetworkError};
pub use random::{Random, SeededRandom, SystemRandom};
pub use rate::{Rate, RateError};
pub use secret::Secret;
pub use size::{ByteSize, ByteSizeError};
pub use special_networks::special_networks;
pub use supervisor::{StillRunning, Supervisor};
pub use ticks::{next_tick, ticks};

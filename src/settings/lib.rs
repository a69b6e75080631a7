//! What an operator can set, and its documentation.
//!
//! The problem: a setting lives in a struct, in an example file, in a manual page and in an error
//! message, and three of them go stale. Here each setting is declared once, in [`sections`], with
//! its words; the struct, the example ([`example`]) and the reference ([`reference()`]) come from
//! that, and a key that no declaration knows is refused with its line and a suggestion.

mod document;
mod federation;
mod load;
mod policy;
mod problem;
mod sections;
#[cfg(test)]
mod tests;
mod value;

pub use document::{example, reference};
pub use federation::OldSigningKey;
pub use load::Settings;
pub use policy::PolicyText;
pub use problem::{Origin, Problem, SettingsError};
pub use sections::{
    Accounts, ApplicationServices, Federation, Limits, Listen, Log, Presence, RateLimits, Registration, Rooms, Server,
    ServerNotices, Storage, Support,
};
pub use value::{
    Address, FileMode, LogFilter, RegistrationMode, SecretError, SecretFile, TokenPlace, TrustedProxy, quoted,
};

/// What is known of one setting.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its key.
    pub key: &'static str,
    /// Its documentation, line by line, as written (with the leading space).
    pub doc: &'static [&'static str],
    /// What may be written, in words.
    pub kind: &'static str,
    /// Its default as TOML; `None`: it may be left out and then is not set; required ones have an
    /// example instead.
    pub default: fn() -> Shown,
}

/// A setting's default or example, as TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// What holds when the key is left out.
    Default(String),
    /// Must be given; this is how one looks.
    Required(String),
    /// May be left out, and then is not set; this is how one looks.
    Unset(String),
}

/// What is known of one section.
#[derive(Clone, Copy, Debug)]
pub struct SectionSpec {
    /// Its name: the TOML table.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub doc: &'static [&'static str],
    /// Its settings, in order.
    pub settings: &'static [Spec],
}

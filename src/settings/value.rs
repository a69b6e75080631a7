//! Types of settings: how they are written in TOML and in the environment.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hearth_base::{ByteSize, LogFormat, Network, Rate, Secret};

/// A value as it was given, before it has a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Flag(bool),
    /// A TOML array.
    List(Vec<Self>),
    /// The text of an environment variable, which may mean any of them.
    Word(String),
    /// A TOML value of a kind that no setting has.
    Other(&'static str),
}

impl Raw {
    pub(crate) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) | Self::Word(text) => Ok(text),
            Self::Integer(_) => Err("expected a text in quotes, found an integer".into()),
            Self::Flag(_) => Err("expected a text in quotes, found true or false".into()),
            Self::List(_) => Err("expected a text in quotes, found an array".into()),
            Self::Other(kind) => Err(format!("expected a text in quotes, found {kind}")),
        }
    }
}

/// A type that a setting can have.
pub(crate) trait Setting: Sized {
    /// What may be written, in words.
    const KIND: &'static str;
    /// Reads what was given.
    fn read(raw: &Raw) -> Result<Self, String>;
    /// How the value is written in TOML.
    fn to_toml(&self) -> String;
}

impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;
    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(word) | Raw::Word(word) if word == "off" => Ok(None),
            given => T::read(given).map(Some),
        }
    }
    fn to_toml(&self) -> String {
        self.as_ref().map_or_else(|| quoted("off"), T::to_toml)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const KIND: &'static str = T::KIND;
    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::List(items) => items.iter().map(T::read).collect(),
            Raw::Word(words) => words.split(',').map(|word| T::read(&Raw::Word(word.trim().into()))).collect(),
            _ => Err("expected an array in square brackets".into()),
        }
    }
    fn to_toml(&self) -> String {
        let items: Vec<_> = self.iter().map(T::to_toml).collect();
        format!("[{}]", items.join(", "))
    }
}

impl Setting for String {
    const KIND: &'static str = "text";
    fn read(raw: &Raw) -> Result<Self, String> {
        match raw.text()?.trim() {
            "" => Err("must not be empty".into()),
            text => Ok(text.to_owned()),
        }
    }
    fn to_toml(&self) -> String {
        quoted(self)
    }
}

impl Setting for u32 {
    const KIND: &'static str = "whole number";
    fn read(raw: &Raw) -> Result<Self, String> {
        let number = match raw {
            Raw::Integer(number) => Some(*number),
            Raw::Word(word) => word.parse().ok(),
            Raw::Text(_) | Raw::Flag(_) | Raw::List(_) | Raw::Other(_) => None,
        };
        let number = number.ok_or("expected a whole number, without quotes")?;
        match Self::try_from(number) {
            Ok(0) | Err(_) => Err(format!("{number} is out of range: 1 to {}", Self::MAX)),
            Ok(number) => Ok(number),
        }
    }
    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Setting for bool {
    const KIND: &'static str = "`true` or `false`";
    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Flag(flag) => Ok(*flag),
            Raw::Word(word) => word.parse().map_err(|_| format!("\"{word}\" is neither true nor false")),
            Raw::Text(_) | Raw::Integer(_) | Raw::List(_) | Raw::Other(_) => {
                Err("expected true or false, without quotes".into())
            }
        }
    }
    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Setting for Rate {
    const KIND: &'static str = "rate with burst (`\"30/m burst 10\"`) or `\"off\"`";
    fn read(raw: &Raw) -> Result<Self, String> {
        raw.text()?.parse().map_err(|error| format!("{error}"))
    }
    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// Who is believed when it says whose request it passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Whoever can open a Unix socket that the server listens on.
    Unix,
    /// Peers with these addresses.
    Network(Network),
}

impl Setting for TrustedProxy {
    const KIND: &'static str = "addresses, ranges of addresses, or `\"unix\"`";
    fn read(raw: &Raw) -> Result<Self, String> {
        match raw.text()?.trim() {
            "unix" => Ok(Self::Unix),
            text => text.parse().map(Self::Network).map_err(|error| format!("\"{text}\": {error}")),
        }
    }
    fn to_toml(&self) -> String {
        match self {
            Self::Unix => quoted("unix"),
            Self::Network(network) => quoted(&network.to_string()),
        }
    }
}

impl Setting for ByteSize {
    const KIND: &'static str = "size with unit (`\"64 MiB\"`)";
    fn read(raw: &Raw) -> Result<Self, String> {
        raw.text()?.parse().map_err(|error| format!("{error}"))
    }
    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// Units of durations, largest first.
const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Setting for Duration {
    const KIND: &'static str = "duration with unit (`\"10s\"`)";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = DURATIONS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, factor)| *factor);
        let millis = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        millis.map(Self::from_millis).ok_or_else(|| "expected a number and ms, s, m or h, such as \"10s\"".into())
    }
    fn to_toml(&self) -> String {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        let fits = |(_, factor): &&(&str, u64)| millis.is_multiple_of(*factor) && millis > 0;
        let (unit, factor) = DURATIONS.iter().find(fits).unwrap_or(&DURATIONS[3]);
        quoted(&format!("{}{unit}", millis / factor))
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path";
    fn read(raw: &Raw) -> Result<Self, String> {
        String::read(raw).map(Self::from)
    }
    fn to_toml(&self) -> String {
        quoted(&self.display().to_string())
    }
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Begins the address of a Unix socket.
const UNIX: &str = "unix:";

impl Address {
    /// `port` on this machine only.
    pub const fn loopback(port: u16) -> Self {
        Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// The TCP port.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Setting for Address {
    const KIND: &'static str = "`\"address:port\"` or `\"unix:path\"`";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?;
        match text.strip_prefix(UNIX) {
            Some("") => return Err("the path of the Unix socket is missing".into()),
            Some(path) => return Ok(Self::Unix(path.into())),
            None => {}
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| format!("\"{text}\" is no address with a port, such as \"127.0.0.1:8008\" or \"[::1]:8008\""))
    }
    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// Who may use a file: its owner, its group, others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Setting for FileMode {
    const KIND: &'static str = "octal file mode (`\"660\"`)";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?.trim();
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
        mode.map(Self).ok_or_else(|| "expected three octal digits, such as \"660\"".into())
    }
    fn to_toml(&self) -> String {
        quoted(&format!("{:03o}", self.0))
    }
}

/// Where a secret is: never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFile {
    /// A file.
    Path(PathBuf),
    /// A file in `$CREDENTIALS_DIRECTORY`, which systemd fills.
    Credential(String),
}

/// A secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A credential is named, but nobody passed any.
    #[error("\"credential:{0}\" needs $CREDENTIALS_DIRECTORY, which systemd sets (LoadCredential=)")]
    NoCredentials(String),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
}

impl SecretFile {
    /// Where the file is.
    ///
    /// # Errors
    /// If it is a credential and there is no directory of credentials.
    pub fn path(&self) -> Result<PathBuf, SecretError> {
        match self {
            Self::Path(path) => Ok(path.clone()),
            Self::Credential(name) => std::env::var_os("CREDENTIALS_DIRECTORY")
                .map(|directory| PathBuf::from(directory).join(name))
                .ok_or_else(|| SecretError::NoCredentials(name.clone())),
        }
    }

    /// The secret, without white space at its end.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load(&self) -> Result<Secret<String>, SecretError> {
        let path = self.path()?;
        let text = std::fs::read_to_string(&path).map_err(|source| SecretError::Read { path, source })?;
        Ok(Secret::from_file_text(text))
    }
}

impl Setting for SecretFile {
    const KIND: &'static str = "path, or `\"credential:name\"` in `$CREDENTIALS_DIRECTORY`";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = String::read(raw)?;
        match text.strip_prefix("credential:") {
            None => Ok(Self::Path(text.into())),
            Some(name) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                Err(format!("\"{name}\" is no name of a credential"))
            }
            Some(name) => Ok(Self::Credential(name.to_owned())),
        }
    }
    fn to_toml(&self) -> String {
        match self {
            Self::Path(path) => path.to_toml(),
            Self::Credential(name) => quoted(&format!("credential:{name}")),
        }
    }
}

/// Which log lines are written: a level, or directives by module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

impl LogFilter {
    /// `info`
    pub fn info() -> Self {
        Self("info".into())
    }
}

impl Setting for LogFilter {
    const KIND: &'static str = "level or directives";
    fn read(raw: &Raw) -> Result<Self, String> {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        let text = String::read(raw)?;
        let level_of = |directive: &str| directive.rsplit('=').next().unwrap_or_default().trim().to_owned();
        match text.split(',').map(level_of).find(|level| !LEVELS.contains(&level.as_str())) {
            None => Ok(Self(text)),
            Some(wrong) => Err(crate::problem::with_suggestion(format!("\"{wrong}\" is no log level"), &wrong, LEVELS)),
        }
    }
    fn to_toml(&self) -> String {
        quoted(&self.0)
    }
}

/// Who may make an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationMode {
    /// Nobody.
    Closed,
    /// Whoever has a registration token.
    Token,
    /// Anybody.
    Open,
}

/// Where clients may put their access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// The `Authorization` header.
    Header,
    /// That, or the address (`?access_token=`).
    HeaderOrQuery,
}

/// Settings that are one of a few words.
macro_rules! words {
    ($($ty:ty, $kind:literal: $($word:literal => $variant:path),+;)+) => { $(
        impl Setting for $ty {
            const KIND: &'static str = $kind;
            fn read(raw: &Raw) -> Result<Self, String> {
                match raw.text()? {
                    $($word => Ok($variant),)+
                    wrong => {
                        let message = format!("\"{wrong}\" is none of {}", [$($word),+].join(", "));
                        Err(crate::problem::with_suggestion(message, wrong, [$($word),+]))
                    }
                }
            }
            fn to_toml(&self) -> String {
                match self { $($variant => quoted($word),)+ }
            }
        }
    )+ };
}
words! {
    RegistrationMode, "`\"closed\"`, `\"token\"` or `\"open\"`":
        "closed" => RegistrationMode::Closed, "token" => RegistrationMode::Token, "open" => RegistrationMode::Open;
    TokenPlace, "`\"header\"` or `\"header-or-query\"`":
        "header" => TokenPlace::Header, "header-or-query" => TokenPlace::HeaderOrQuery;
    LogFormat, "`\"text\"` or `\"json\"`": "text" => LogFormat::Text, "json" => LogFormat::Json;
}

/// `text` as a TOML string, with its quotes.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

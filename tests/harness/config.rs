//! The configuration file of a server under test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Settings by section and key, as TOML literals.
#[derive(Clone, Debug)]
pub struct Config(BTreeMap<String, BTreeMap<String, String>>);

impl Config {
    /// An open server named `hearth.test` whose passwords cost next to nothing, without rate limits.
    pub fn open() -> Self {
        Self(BTreeMap::new())
            .with("server", "name", "\"hearth.test\"")
            .with("listen", "metrics", "\"off\"")
            .with("registration", "mode", "\"open\"")
            .with("accounts", "argon2_memory", "\"64 KiB\"")
            .with("accounts", "argon2_iterations", "1")
            .with("rate_limits", "enabled", "false")
    }

    /// The same with `section.key = literal`; strings bring their quotes.
    #[must_use]
    pub fn with(mut self, section: &str, key: &str, literal: &str) -> Self {
        self.0.entry(section.to_owned()).or_default().insert(key.to_owned(), literal.to_owned());
        self
    }

    /// The file's text for a server on `port` with its store in `storage`.
    pub(crate) fn text(&self, port: u16, storage: &Path) -> String {
        let all = self.clone().with("listen", "client", &format!("[\"127.0.0.1:{port}\"]")).with(
            "storage",
            "path",
            &format!("{:?}", storage.display().to_string()),
        );
        let mut text = String::new();
        for (section, settings) in &all.0 {
            writeln!(text, "[{section}]").expect("a string takes every text");
            for (key, literal) in settings {
                writeln!(text, "{key} = {literal}").expect("a string takes every text");
            }
        }
        text
    }
}

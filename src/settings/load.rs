//! From a TOML file and the environment to [`Settings`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::policy::PolicyText;
use crate::problem::with_suggestion;
use crate::sections::{self, ALL};
use crate::value::{Raw, Setting};
use crate::{
    Accounts, ApplicationServices, Federation, Limits, Listen, Log, Origin, Presence, Problem, RateLimits,
    Registration, Rooms, Server, ServerNotices, SettingsError, Storage, Support,
};

/// Environment variables that begin like this are settings: `HEARTH__SECTION__KEY`.
const PREFIX: &str = "HEARTH__";

/// All settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who this server is.
    pub server: Server,
    /// Where it listens.
    pub listen: Listen,
    /// The embedded store.
    pub storage: Storage,
    /// Who may make an account.
    pub registration: Registration,
    /// Passwords and log-ins.
    pub accounts: Accounts,
    /// Whom to ask about this server.
    pub support: Support,
    /// Messages of the server to single users.
    pub server_notices: ServerNotices,
    /// Bridges and bots.
    pub application_services: ApplicationServices,
    /// Who is online.
    pub presence: Presence,
    /// Rooms.
    pub rooms: Rooms,
    /// Other servers.
    pub federation: Federation,
    /// Bounds for what clients send.
    pub limits: Limits,
    /// How often clients may do things.
    pub rate_limits: RateLimits,
    /// Logs.
    pub log: Log,
}

impl Settings {
    /// Reads the file at `path`; variables of this process's environment override it.
    ///
    /// # Errors
    /// If the file cannot be read, or any value is unknown or wrong.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        Self::parse(
            path,
            &text,
            std::env::vars_os().filter_map(|(key, value)| {
                // A name that is no Unicode cannot begin with the prefix and be right.
                Some((key.into_string().ok()?, value.to_string_lossy().into_owned()))
            }),
        )
    }

    /// Reads `text` as if it came from `path`; `environment` overrides it.
    ///
    /// # Errors
    /// If any value is unknown or wrong.
    pub fn parse(
        path: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let mut input = Input { path, text, given: BTreeMap::new(), problems: Vec::new(), unnamed: BTreeSet::new() };
        input.add_file();
        for (variable, value) in environment {
            input.add_variable(&variable, value);
        }
        let settings = Self::read(&mut input);
        if let Some(settings) = &settings {
            settings.check(&mut input);
        }
        match settings {
            Some(settings) if input.problems.is_empty() => Ok(settings),
            _ => Err(SettingsError::Wrong(input.into_problems())),
        }
    }

    fn read(input: &mut Input<'_>) -> Option<Self> {
        let server = Server::read(input);
        let listen = Listen::read(input);
        let storage = Storage::read(input);
        let registration = Registration::read(input);
        let accounts = Accounts::read(input);
        let support = Support::read(input);
        let server_notices = ServerNotices::read(input);
        let application_services = ApplicationServices::read(input);
        let presence = Presence::read(input);
        let rooms = Rooms::read(input);
        let federation = Federation::read(input);
        let limits = Limits::read(input);
        let rate_limits = RateLimits::read(input);
        let log = Log::read(input);
        Some(Self {
            server: server?,
            listen: listen?,
            storage: storage?,
            registration: registration?,
            accounts: accounts?,
            support: support?,
            server_notices: server_notices?,
            application_services: application_services?,
            presence: presence?,
            rooms: rooms?,
            federation: federation?,
            limits: limits?,
            rate_limits: rate_limits?,
            log: log?,
        })
    }

    /// What no single value shows.
    fn check(&self, input: &mut Input<'_>) {
        let accounts = &self.accounts;
        if accounts.argon2_memory.get() < u64::from(accounts.argon2_parallelism) * 8 * 1024 {
            input.wrong("accounts", "argon2_memory", "must be at least 8 KiB for each lane of argon2_parallelism");
        }
        self.check_listen(input);
        if !(8 * 1024..=1024 * 1024).contains(&self.limits.request_head.get()) {
            input.wrong("limits", "request_head", "must be between 8 KiB and 1 MiB");
        }
        if self.limits.request_body.get() < 72 * 1024 {
            input.wrong("limits", "request_body", "must be at least 72 KiB: the largest event has 64 KiB");
        }
        let url = self.server.public_base_url.as_deref();
        if url.is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            input.wrong("server", "public_base_url", "must begin with https:// or http://");
        }
        if self.server.name.chars().any(|c| c.is_whitespace() || c.is_control() || "/@#?".contains(c)) {
            input.wrong("server", "name", "must be a host name with an optional port, such as \"example.org\"");
        }
        let address = self.server.federation_address.as_deref().unwrap_or_default();
        if address.chars().any(|c| c.is_whitespace() || c.is_control() || "/@#?".contains(c)) {
            input.wrong("server", "federation_address", "must be a host name with an optional port");
        }
        self.check_accounts(input);
        self.check_federation(input);
    }

    fn check_federation(&self, input: &mut Input<'_>) {
        let federation = &self.federation;
        if federation.retry_first > federation.retry_longest {
            input.wrong("federation", "retry_first", "must not be longer than retry_longest");
        }
        if federation.max_join_response.get() < 1024 * 1024 {
            input.wrong("federation", "max_join_response", "must be at least 1 MiB");
        }
        let is_name = |name: &String| {
            !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || "/@#?".contains(c))
        };
        if !federation.key_servers.iter().all(is_name) || federation.key_servers.contains(&self.server.name) {
            input.wrong("federation", "key_servers", "must be names of other servers, such as \"example.org\"");
        }
    }

    fn check_accounts(&self, input: &mut Input<'_>) {
        let is_local = |user: &String| {
            let rest = user.strip_prefix('@').and_then(|user| user.split_once(':'));
            rest.is_some_and(|(_, server)| server == self.server.name)
        };
        if !self.accounts.admins.iter().all(is_local) {
            input.wrong("accounts", "admins", "must be user IDs of this server, such as \"@ann:example.org\"");
        }
        let policies = &self.registration.policies;
        let differs = |one: &PolicyText| {
            policies.iter().any(|other| one.id == other.id && one.version != other.version)
                || policies.iter().filter(|other| one.id == other.id && one.language == other.language).count() > 1
        };
        if policies.iter().any(differs) {
            input.wrong("registration", "policies", "must have one version of each policy, and each language once");
        }
        let grammar = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(c);
        if !self.server_notices.sender.chars().all(grammar) {
            input.wrong("server_notices", "sender", "may only contain a-z, 0-9 and . _ = - / +");
        }
    }

    fn check_listen(&self, input: &mut Input<'_>) {
        let Listen { client, client_tls, tls_certificate, tls_key, metrics, .. } = &self.listen;
        if client.is_empty() && client_tls.is_empty() {
            input.wrong("listen", "client", "must name at least one address, or client_tls must");
        }
        if client_tls.iter().any(|address| address.port().is_none()) {
            input.wrong("listen", "client_tls", "a Unix socket needs no TLS");
        }
        if client_tls.iter().any(|address| client.contains(address)) {
            input.wrong("listen", "client_tls", "has an address that client has too");
        }
        if metrics.as_ref().is_some_and(|address| client.contains(address) || client_tls.contains(address)) {
            input.wrong("listen", "metrics", "is also an address for clients");
        }
        match (tls_certificate, tls_key) {
            (Some(_), None) => input.wrong("listen", "tls_certificate", "needs tls_key"),
            (None, Some(_)) => input.wrong("listen", "tls_key", "needs tls_certificate"),
            (None, None) if !client_tls.is_empty() => {
                input.wrong("listen", "client_tls", "needs tls_certificate and tls_key");
            }
            _ => {}
        }
    }
}

/// One value, and where it came from.
struct Given {
    raw: Raw,
    origin: Origin,
}

/// Everything that was given, and everything that is wrong with it.
pub(crate) struct Input<'a> {
    path: &'a Path,
    text: &'a str,
    given: BTreeMap<(&'static str, &'static str), Given>,
    problems: Vec<Problem>,
    /// Sections that the file misspells: what they lack is not worth telling.
    unnamed: BTreeSet<String>,
}

impl Input<'_> {
    /// What was given for a setting: `None` nothing, `Some(None)` something wrong.
    #[expect(clippy::option_option, reason = "absent and wrong differ: a default must not replace what is wrong")]
    pub(crate) fn read<T: Setting>(&mut self, section: &'static str, key: &'static str) -> Option<Option<T>> {
        let given = self.given.get(&(section, key))?;
        match T::read(&given.raw) {
            Ok(value) => Some(Some(value)),
            Err(message) => {
                self.problems
                    .push(Problem { origin: given.origin.clone(), message: format!("{section}.{key}: {message}") });
                Some(None)
            }
        }
    }

    /// A setting that has no default was not given.
    pub(crate) fn missing<T>(&mut self, section: &str, key: &str, example: &str) -> Option<T> {
        if self.unnamed.is_empty() {
            let variable = format!("{PREFIX}{}__{}", section.to_uppercase(), key.to_uppercase());
            let message = format!("{section}.{key} is missing: set it in the file ({key} = {example}), or {variable}");
            self.problems.push(Problem { origin: Origin::Nowhere, message });
        }
        None
    }

    fn wrong(&mut self, section: &'static str, key: &'static str, message: &str) {
        let origin = self.given.get(&(section, key)).map_or(Origin::Nowhere, |given| given.origin.clone());
        self.problems.push(Problem { origin, message: format!("{section}.{key}: {message}") });
    }

    fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| match &problem.origin {
            Origin::File { line, column, .. } => (0, *line, *column),
            Origin::Environment(_) => (1, 0, 0),
            Origin::Nowhere => (2, 0, 0),
        });
        self.problems
    }

    fn problem_at(&mut self, span: &Range<usize>, message: String) {
        let origin = self.place(span);
        self.problems.push(Problem { origin, message });
    }

    /// Line and column (in characters) of a byte range of the file.
    fn place(&self, span: &Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Origin::File { path: self.path.to_owned(), line, column }
    }

    fn add_file(&mut self) {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table,
            Err(error) => {
                let span = error.span().unwrap_or_default();
                return self.problem_at(&span, format!("not TOML: {}", error.message()));
            }
        };
        for (name, content) in table.get_ref() {
            match content.get_ref() {
                DeValue::Table(keys) => self.add_section(name.get_ref(), &name.span(), keys),
                _ => self.problem_at(&name.span(), misplaced(name.get_ref())),
            }
        }
    }

    fn add_section(&mut self, name: &str, span: &Range<usize>, keys: &DeTable<'_>) {
        let Some(section) = ALL.iter().find(|section| section.name == name) else {
            let message = with_suggestion(format!("there is no section [{name}]"), name, ALL.iter().map(|s| s.name));
            self.unnamed.insert(name.to_owned());
            return self.problem_at(span, message);
        };
        for (key, value) in keys {
            match section.settings.iter().find(|spec| spec.key == key.get_ref()) {
                None => self.problem_at(&key.span(), unknown(section.name, key.get_ref())),
                Some(spec) => {
                    let origin = self.place(&value.span());
                    self.given.insert((section.name, spec.key), Given { raw: raw(value.get_ref()), origin });
                }
            }
        }
    }

    fn add_variable(&mut self, variable: &str, value: String) {
        let Some(name) = variable.strip_prefix(PREFIX) else { return };
        let origin = Origin::Environment(variable.to_owned());
        let lower = name.to_lowercase();
        let Some((section, key)) = lower.split_once("__") else {
            let message = format!("settings are named {PREFIX}SECTION__KEY");
            return self.problems.push(Problem { origin, message });
        };
        let known = ALL.iter().flat_map(|section| section.settings.iter().map(|spec| (section.name, spec.key)));
        match known.into_iter().find(|known| *known == (section, key)) {
            Some(known) => {
                self.given.insert(known, Given { raw: Raw::Word(value), origin });
            }
            None => self.problems.push(Problem { origin, message: unknown(section, key) }),
        }
    }
}

/// Words for a key outside any section.
fn misplaced(key: &str) -> String {
    let home = ALL.iter().find(|section| section.settings.iter().any(|spec| spec.key == key));
    match home {
        Some(section) => format!("\"{key}\" belongs under [{}]", section.name),
        None => format!("\"{key}\" is not in a section such as [{}]", sections::ALL[0].name),
    }
}

/// Words for a key that its section does not have.
fn unknown(section: &str, key: &str) -> String {
    let message = format!("there is no setting {section}.{key}");
    let Some(spec) = ALL.iter().find(|spec| spec.name == section) else {
        return with_suggestion(message, section, ALL.iter().map(|spec| spec.name));
    };
    match ALL.iter().find(|other| other.settings.iter().any(|spec| spec.key == key)) {
        Some(other) => format!("{message}; did you mean \"{}.{key}\"?", other.name),
        None => with_suggestion(message, key, spec.settings.iter().map(|spec| spec.key)),
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("an integer that is too large"), Raw::Integer),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Float(_) => Raw::Other("a number with a point"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

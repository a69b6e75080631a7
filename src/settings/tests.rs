//! What an operator meets: every refusal with its place and its suggestion.

mod accounts;

use std::path::Path;
use std::time::Duration;

use hearth_base::{ByteSize, LogFormat, Rate};

use super::*;

fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Settings, String> {
    let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Settings::parse(Path::new("hearth.toml"), text, environment).map_err(|error| error.to_string())
}

fn refusal(text: &str, environment: &[(&str, &str)]) -> String {
    parse(text, environment).expect_err("must be refused")
}

const NAME: &str = "[server]\nname = \"example.org\"\n";

#[test]
fn a_name_is_all_that_must_be_given() {
    let settings = parse(NAME, &[]).expect("valid");
    assert_eq!(settings.server.name, "example.org");
    assert_eq!(settings.listen.client, [Address::loopback(8008)]);
    assert_eq!(settings.registration.mode, RegistrationMode::Closed);
    assert_eq!(settings.accounts.argon2_memory, ByteSize::mib(19));
    assert_eq!(
        refusal("", &[]),
        "server.name is missing: set it in the file (name = \"example.org\"), or HEARTH__SERVER__NAME"
    );
}

#[test]
fn the_environment_overrides_the_file() {
    let environment = [
        ("HEARTH__LISTEN__CLIENT", "127.0.0.1:1, [::1]:2"),
        ("HEARTH__LISTEN__METRICS", "off"),
        ("HEARTH__LIMITS__SYNC_TIMEOUT", "30s"),
        ("HEARTH__ACCOUNTS__HASH_WORKERS", "2"),
        ("HEARTH__LOG__FORMAT", "json"),
        ("HEARTH_CONFIG", "is not a setting"),
        ("PATH", "neither"),
    ];
    let settings = parse(&format!("{NAME}[log]\nformat = \"text\"\n"), &environment).expect("valid");
    assert_eq!(settings.listen.client.len(), 2);
    assert_eq!(settings.listen.metrics, None);
    assert_eq!(settings.limits.sync_timeout, Duration::from_secs(30));
    assert_eq!(settings.accounts.hash_workers, 2);
    assert_eq!(settings.log.format, LogFormat::Json);
}

#[test]
fn unknown_keys_are_refused_with_their_line_and_a_suggestion() {
    assert_eq!(
        refusal(&format!("{NAME}\n[registration]\nmoed = \"open\"\n"), &[]),
        "hearth.toml:5:1: there is no setting registration.moed; did you mean \"mode\"?"
    );
    assert_eq!(
        refusal("[sever]\nname = \"example.org\"\n", &[]),
        "hearth.toml:1:2: there is no section [sever]; did you mean \"server\"?"
    );
    assert_eq!(
        refusal(&format!("name = \"example.org\"\n{NAME}"), &[]),
        "hearth.toml:1:1: \"name\" belongs under [server]"
    );
    assert_eq!(
        refusal(&format!("{NAME}format = \"json\"\n"), &[]),
        "hearth.toml:3:1: there is no setting server.format; did you mean \"log.format\"?"
    );
    assert_eq!(
        refusal(NAME, &[("HEARTH__STORAGE__PAHT", "/x")]),
        "environment variable HEARTH__STORAGE__PAHT: there is no setting storage.paht; did you mean \"path\"?"
    );
    assert_eq!(
        refusal(NAME, &[("HEARTH__SERVER", "x")]),
        "environment variable HEARTH__SERVER: settings are named HEARTH__SECTION__KEY"
    );
}

#[test]
fn wrong_values_are_refused_all_at_once() {
    let text = format!(
        "{NAME}[listen]\nclient = \"8008\"\nmetrics = \"localhost\"\nmax_connections = -1\n\
         [storage]\nblock_cache = 64\npath = \" \"\n[registration]\nmode = \"opne\"\n\
         [limits]\nheader_deadline = \"10 parsecs\"\n[log]\nlevel = \"inof\"\n"
    );
    let expected = [
        "hearth.toml:4:10: listen.client: expected an array in square brackets",
        "hearth.toml:5:11: listen.metrics: \"localhost\" is no address with a port, such as \"127.0.0.1:8008\" or \"[::1]:8008\"",
        "hearth.toml:6:19: listen.max_connections: -1 is out of range: 1 to 4294967295",
        "hearth.toml:8:15: storage.block_cache: expected a text in quotes, found an integer",
        "hearth.toml:9:8: storage.path: must not be empty",
        "hearth.toml:11:8: registration.mode: \"opne\" is none of closed, token, open; did you mean \"open\"?",
        "hearth.toml:13:19: limits.header_deadline: expected a number and ms, s, m or h, such as \"10s\"",
        "hearth.toml:15:9: log.level: \"inof\" is no log level; did you mean \"info\"?",
    ];
    assert_eq!(refusal(&text, &[]), expected.join("\n"));
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    assert_eq!(
        refusal(&format!("{NAME}[listen]\nmetrics = \"127.0.0.1:8008\"\n"), &[]),
        "hearth.toml:4:11: listen.metrics: is also an address for clients"
    );
    assert_eq!(
        refusal("[server]\nname = \"https://example.org\"\n", &[]),
        "hearth.toml:2:8: server.name: must be a host name with an optional port, such as \"example.org\""
    );
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    let message = refusal(&format!("{NAME}[listen\n"), &[]);
    assert!(message.starts_with("hearth.toml:3:8: not TOML: "), "{message}");
}

#[test]
fn secrets_are_named_not_written() {
    let text = format!("{NAME}signing_key_file = \"credential:signing-key\"\n");
    let settings = parse(&text, &[]).expect("valid");
    assert_eq!(settings.server.signing_key_file, Some(SecretFile::Credential("signing-key".into())));
    let message = refusal(&format!("{NAME}signing_key_file = \"credential:../shadow\"\n"), &[]);
    assert_eq!(message, "hearth.toml:3:20: server.signing_key_file: \"../shadow\" is no name of a credential");
}

#[test]
fn rates_and_proxies_are_read_from_the_file_and_the_environment() {
    let text = format!(
        "{NAME}[listen]\ntrusted_proxies = [\"127.0.0.1\", \"unix\"]\n\
         [rate_limits]\nenabled = false\nlogin = \"3/h burst 2\"\njoins = \"off\"\n"
    );
    let settings = parse(&text, &[("HEARTH__RATE_LIMITS__INVITES", "1/s burst 4")]).expect("valid");
    assert!(!settings.rate_limits.enabled);
    assert_eq!(settings.rate_limits.login, Some(Rate::per_hour(3, 2)));
    assert_eq!(settings.rate_limits.joins, None);
    assert_eq!(settings.rate_limits.invites, Some(Rate::per_second(1, 4)));
    let loopback = TrustedProxy::Network("127.0.0.1".parse().expect("an address"));
    assert_eq!(settings.listen.trusted_proxies, [loopback, TrustedProxy::Unix]);

    let settings = parse(NAME, &[("HEARTH__LISTEN__TRUSTED_PROXIES", "10.0.0.0/8, ::1")]).expect("valid");
    assert!(settings.rate_limits.enabled, "limits are on unless the operator says otherwise");
    assert_eq!(settings.listen.trusted_proxies.len(), 2);

    let text = format!("{NAME}[rate_limits]\nenabled = \"no\"\nlogin = \"3\"\n");
    let expected = [
        "hearth.toml:4:11: rate_limits.enabled: expected true or false, without quotes",
        "hearth.toml:5:9: rate_limits.login: expected a count in each second (s), minute (m) or hour (h) and a burst, \
         such as \"30/m burst 10\"",
    ];
    assert_eq!(refusal(&text, &[]), expected.join("\n"));
}

#[test]
fn addresses_are_ports_or_unix_sockets() {
    let text = format!("{NAME}[listen]\nclient = [\"unix:/run/h.sock\", \"[::1]:1\"]\nunix_mode = \"600\"\n");
    let listen = parse(&text, &[]).expect("valid").listen;
    assert_eq!(listen.client[0], Address::Unix("/run/h.sock".into()));
    assert_eq!((listen.client[0].port(), listen.client[1].port()), (None, Some(1)));
    assert_eq!(listen.client[0].to_string(), "unix:/run/h.sock");
    assert_eq!(listen.unix_mode, FileMode(0o600));
    let wrong = format!("{NAME}[listen]\nclient = [\"unix:\"]\nunix_mode = \"690\"\n");
    let expected = [
        "hearth.toml:4:10: listen.client: the path of the Unix socket is missing",
        "hearth.toml:5:13: listen.unix_mode: expected three octal digits, such as \"660\"",
    ];
    assert_eq!(refusal(&wrong, &[]), expected.join("\n"));
}

#[test]
fn tls_takes_an_address_a_certificate_and_a_key() {
    let whole = "client_tls = [\"0.0.0.0:443\"]\ntls_certificate = \"c\"\ntls_key = \"k\"\n";
    let text = format!("{NAME}[listen]\nclient = []\n{whole}");
    assert_eq!(parse(&text, &[]).expect("valid").listen.client_tls[0].port(), Some(443));
    assert_eq!(
        refusal(&format!("{NAME}[listen]\ntls_key = \"k\"\n"), &[]),
        "hearth.toml:4:11: listen.tls_key: needs tls_certificate"
    );
    assert_eq!(
        refusal(&format!("{NAME}[listen]\nclient_tls = [\"0.0.0.0:443\"]\n"), &[]),
        "hearth.toml:4:14: listen.client_tls: needs tls_certificate and tls_key"
    );
    let wrong = format!("{NAME}[listen]\n{whole}").replace("0.0.0.0:443", "unix:/run/h.sock");
    assert_eq!(refusal(&wrong, &[]), "hearth.toml:4:14: listen.client_tls: a Unix socket needs no TLS");
    let twice = format!("{NAME}[listen]\n{whole}").replace("0.0.0.0:443", "127.0.0.1:8008");
    assert_eq!(refusal(&twice, &[]), "hearth.toml:4:14: listen.client_tls: has an address that client has too");
}

#[test]
fn the_example_is_valid_and_every_commented_default_too() {
    parse(&example(), &[]).expect("valid");
    let is_setting = |line: &str| line.starts_with("# ") && line[2..].split(" = ").next().is_some_and(is_key);
    let text = example();
    let everything: Vec<_> = text.lines().map(|line| if is_setting(line) { &line[2..] } else { line }).collect();
    parse(&everything.join("\n"), &[]).expect("valid");
}

fn is_key(word: &str) -> bool {
    crate::sections::ALL.iter().any(|section| section.settings.iter().any(|spec| spec.key == word))
}

#[test]
fn every_setting_has_words() {
    for section in crate::sections::ALL {
        for spec in section.settings {
            assert!(!spec.doc.is_empty(), "{}.{}", section.name, spec.key);
        }
    }
}

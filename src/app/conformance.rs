//! The configuration for the protocol's test suite: everything in one directory, in a container that
//! lives for minutes.

mod authority;

use std::path::{Path, PathBuf};

use authority::Issued;

use crate::exit::{Code, Failure};

/// How the suite tells a container its name.
const SERVER_NAME: &str = "SERVER_NAME";
/// What the suite makes administrators with.
const SHARED_SECRET: &str = "complement";

/// The file with [`SHARED_SECRET`].
const SECRET_FILE: &str = "registration-secret";
/// Where the suite puts the authority that its servers trust.
const AUTHORITY: &str = "/complement/ca";
/// Where the suite puts registrations of application services, before the start.
const SERVICES: &str = "/complement/appservice";

/// The configuration file in `directory`, for the server that the environment names.
///
/// It is written anew at every start: the suite starts copies of one file system.
pub(crate) fn prepare(directory: &Path) -> Result<PathBuf, Failure> {
    let name = std::env::var(SERVER_NAME)
        .map_err(|error| Failure::new(Code::Unusable, format!("environment variable {SERVER_NAME}: {error}")))?;
    let failed =
        |error: std::io::Error| Failure::new(Code::Io, format!("cannot prepare {}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let directory = directory.canonicalize().map_err(failed)?;
    std::fs::write(directory.join(SECRET_FILE), SHARED_SECRET).map_err(failed)?;
    let file = directory.join("hearth.toml");
    let issued = authority::issue(Path::new(AUTHORITY), &name, &directory);
    let issued = issued.map_err(|error| Failure::new(Code::Unusable, error))?;
    let services = Some(Path::new(SERVICES)).filter(|path| path.is_dir());
    std::fs::write(&file, configuration(&name, &directory, issued.as_ref(), services)).map_err(failed)?;
    Ok(file)
}

/// Nothing here is for people: anybody registers, passwords are short and hashed in a hurry, tokens
/// may be in the address. The suite's tests that name no room version list creators among the power
/// levels, which room version 12 forbids.
fn configuration(name: &str, directory: &Path, tls: Option<&Issued>, services: Option<&Path>) -> String {
    let quoted = |path: &Path| hearth_settings::quoted(&path.display().to_string());
    let (name, store) = (hearth_settings::quoted(name), quoted(&directory.join("store")));
    let secret = quoted(&directory.join(SECRET_FILE));
    // The suite's servers are in private networks, with certificates of its authority.
    let authorities = tls.map(|_| format!("extra_authorities = {}\n", quoted(&Path::new(AUTHORITY).join("ca.crt"))));
    let authorities = authorities.unwrap_or_default();
    let tls = tls.map(|Issued { certificate, key }| {
        let (certificate, key) = (quoted(certificate), quoted(key));
        format!("client_tls = [\"0.0.0.0:8448\"]\ntls_certificate = {certificate}\ntls_key = {key}\n")
    });
    let tls = tls.unwrap_or_default();
    let services = services.map(|path| format!("[application_services]\nregistrations = [{}]\n\n", quoted(path)));
    let services = services.unwrap_or_default();
    format!(
        "# Made by `hearth run --conformance` for a test suite. Do not use it for anything else.\n\
         [server]\n\
         name = {name}\n\n\
         [listen]\n\
         client = [\"0.0.0.0:8008\"]\n\
         metrics = \"off\"\n\
         {tls}\n\
         [storage]\n\
         path = {store}\n\n\
         [registration]\n\
         mode = \"open\"\n\
         shared_secret_file = {secret}\n\n\
         [accounts]\n\
         argon2_memory = \"64 KiB\"\n\
         argon2_iterations = 1\n\
         min_password_length = 1\n\
         access_token_in = \"header-or-query\"\n\n\
         {services}\
         [rate_limits]\n\
         enabled = false\n\n\
         [federation]\n\
         denied_networks = []\n\
         {authorities}\
         retry_first = \"1s\"\n\
         retry_longest = \"5s\"\n\
         delivery_retry_longest = \"5s\"\n\
         public_rooms = true\n\n\
         [rooms]\n\
         default_version = \"11\"\n\n\
         [log]\n\
         level = \"warn\"\n"
    )
}

#[cfg(test)]
mod tests {
    use hearth_settings::{Address, RegistrationMode, Settings, TokenPlace};

    use super::*;

    #[test]
    fn the_configuration_is_valid_and_opens_what_the_suite_needs() {
        let text = configuration("hs1", Path::new("/data"), None, None);
        let settings = Settings::parse(Path::new("hearth.toml"), &text, []).expect("valid");
        assert_eq!(settings.server.name, "hs1");
        assert_eq!(settings.storage.path, Path::new("/data/store"));
        assert_eq!(settings.registration.mode, RegistrationMode::Open);
        assert!(settings.registration.shared_secret_file.is_some());
        assert!(!settings.rate_limits.enabled);
        assert_eq!(settings.rooms.default_version, "11");
        assert_eq!(settings.accounts.access_token_in, TokenPlace::HeaderOrQuery);
        assert!(
            settings
                .listen
                .client
                .iter()
                .all(|address| matches!(address, Address::Tcp(tcp) if tcp.ip().is_unspecified()))
        );
    }

    #[test]
    fn with_a_certificate_and_services_it_listens_where_servers_reach_each_other() {
        let issued = Issued { certificate: "/data/tls.crt".into(), key: "/data/tls.key".into() };
        let text = configuration("hs1", Path::new("/data"), Some(&issued), Some(Path::new("/complement/appservice")));
        let listen = Settings::parse(Path::new("hearth.toml"), &text, []).expect("valid").listen;
        let ports: Vec<_> = listen.client.iter().chain(&listen.client_tls).map(Address::port).collect();
        assert_eq!(ports, [Some(8008), Some(8448)]);
        assert_eq!(listen.tls_certificate.as_deref(), Some(Path::new("/data/tls.crt")));
        let federation = Settings::parse(Path::new("hearth.toml"), &text, []).expect("valid").federation;
        assert_eq!(federation.extra_authorities.as_deref(), Some(Path::new("/complement/ca/ca.crt")));
        assert!(federation.denied_networks.is_empty(), "its servers are in private networks");
        let services = Settings::parse(Path::new("hearth.toml"), &text, []).expect("valid").application_services;
        assert_eq!(services.registrations, [Path::new("/complement/appservice")]);
    }

    #[test]
    fn a_name_cannot_add_settings() {
        let text = configuration("a\"\n[log]\nlevel = \"trace", Path::new("/data"), None, None);
        Settings::parse(Path::new("hearth.toml"), &text, []).expect_err("not a name");
    }
}

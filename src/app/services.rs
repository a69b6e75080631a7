//! The registrations of application services: files of YAML that the operator names.
//!
//! They hold secrets. So nothing that is told of a wrong one quotes it, not even a parser's message.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hearth_accounts::{MAX_SERVICES, Service, Services};
use hearth_base::Secret;
use hearth_settings::Settings;
use ruma_common::ServerName;
use serde_json::Value;

use crate::exit::{Code, Failure};

/// Bytes of a file.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// The ending of files in a directory that are read.
const ENDING: &str = "yaml";
/// Others than the owner and the group may read it.
const READ_BY_ALL: u32 = 0o004;

/// All services that `settings` name.
pub(crate) fn load(settings: &Settings, server_name: &ServerName) -> Result<Services, Failure> {
    let mut services = Vec::new();
    for named in &settings.application_services.registrations {
        for path in files(named)? {
            let service = read(&path).and_then(|document| {
                Service::from_registration(&document, server_name).map_err(|error| error.to_string())
            });
            services.push(service.map_err(|why| unusable(&path, &why))?);
            if services.len() > MAX_SERVICES {
                break;
            }
        }
    }
    Services::new(services)
        .map_err(|error| Failure::new(Code::Unusable, format!("application_services.registrations: {error}")))
}

fn unusable(path: &Path, why: &str) -> Failure {
    Failure::new(Code::Unusable, format!("application service {}: {why}", path.display()))
}

/// The file itself, or those of a directory, by name.
fn files(named: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| unusable(named, &format!("cannot be read: {error}"));
    if !std::fs::metadata(named).map_err(failed)?.is_dir() {
        return Ok(vec![named.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(named).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|ending| ending == ENDING) {
            files.push(path);
        }
        if files.len() > MAX_SERVICES {
            return Err(unusable(named, &format!("more than {MAX_SERVICES} files")));
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Value, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & READ_BY_ALL != 0 {
        tracing::warn!(file = %path.display(), "everybody on this machine may read a file with secrets: chmod o-r");
    }
    let mut text = String::new();
    file.by_ref().take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("has more than {MAX_FILE_BYTES} bytes"));
    }
    parse(&Secret::new(text))
}

fn parse(text: &Secret<String>) -> Result<Value, String> {
    serde_saphyr::from_str(text.expose()).map_err(|error| match error.location() {
        Some(at) => format!("is no YAML: see line {}, column {}", at.line(), at.column()),
        None => "is no YAML".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use hearth_settings::Settings;
    use ruma_common::server_name;

    use super::*;

    /// As the protocol's test suite writes them.
    const SUITE: &str = "id: my_as_id\nhs_token: hs-token-0123456789abcdef\nas_token: as-token-0123456789abcdef\n\
        url: 'http://localhost:9000'\nsender_localpart: the-bridge-user\nrate_limited: false\n\
        de.sorunome.msc2409.push_ephemeral: false\npush_ephemeral: false\norg.matrix.msc3202: false\n\
        namespaces:\n  users:\n    - exclusive: false\n      regex: .*\n  rooms: []\n  aliases: []\n";

    fn of(files: &[(&str, &str)]) -> Result<Services, Failure> {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).expect("written");
        }
        let named = hearth_settings::quoted(&directory.path().display().to_string());
        let text = format!("[server]\nname = \"hs.test\"\n[application_services]\nregistrations = [{named}]\n");
        let settings = Settings::parse(Path::new("hearth.toml"), &text, []).expect("valid");
        load(&settings, server_name!("hs.test"))
    }

    fn refusal(files: &[(&str, &str)]) -> String {
        let failure = of(files).expect_err("wrong");
        assert_eq!(failure.code, Code::Unusable);
        failure.to_string()
    }

    #[test]
    fn the_files_of_a_directory_that_end_in_yaml_are_read() {
        let other = SUITE.replace("my_as_id", "other").replace("-token-", "-other-").replace("the-bridge", "the-other");
        let services = of(&[("b.yaml", SUITE), ("a.yaml", &other), ("c.txt", "no"), (".d.yaml", "no")]).expect("good");
        let read: Vec<_> = services.iter().map(|service| (service.id(), service.sender().as_str())).collect();
        assert_eq!(read, [("other", "@the-other-user:hs.test"), ("my_as_id", "@the-bridge-user:hs.test")]);
        assert!(of(&[]).expect("an empty directory").is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_file_and_without_its_secrets() {
        for (wrong, words) in [
            (SUITE.replace("sender_localpart", "sender"), "\"sender_localpart\" is missing"),
            (SUITE.replace("as-token-0123456789abcdef", "''"), "\"as_token\" must have"),
            (SUITE.replace("regex: .*", "regex: '@('"), "\"namespaces.users\", entry 1, \"regex\""),
            (SUITE.replace("rooms: []", "rooms: ["), "is no YAML: see line"),
            (SUITE.replace("rate_limited: false", "rate_limited: false\nrate_limited: true"), "is no YAML: see line"),
            ("- as-token-0123456789abcdef\n".to_owned(), "must be a list of keys and values"),
            ("x".repeat(300_000), "has more than"),
        ] {
            let told = refusal(&[("bridge.yaml", &wrong)]);
            assert!(told.contains("bridge.yaml") && told.contains(words), "{told}");
            assert!(!told.contains("0123456789"), "{told}");
        }
        let twice = refusal(&[("a.yaml", SUITE), ("b.yaml", &SUITE.replace("my_as_id", "other"))]);
        assert!(twice.contains("\"my_as_id\" and \"other\" have the same \"as_token\""), "{twice}");
    }

    #[test]
    fn a_text_that_would_grow_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let many = vec![format!("*a{}", n - 1); 10].join(", ");
            writeln!(bomb, "a{n}: &a{n} [{many}]").expect("a string takes every text");
        }
        assert!(refusal(&[("bomb.yaml", &bomb)]).contains("is no YAML"));
    }

    #[test]
    fn a_file_that_is_not_there_is_told() {
        let text = "[server]\nname = \"hs.test\"\n[application_services]\nregistrations = [\"/nowhere/a.yaml\"]\n";
        let settings = Settings::parse(Path::new("hearth.toml"), text, []).expect("valid");
        let told = load(&settings, server_name!("hs.test")).expect_err("absent").to_string();
        assert!(told.contains("/nowhere/a.yaml: cannot be read"), "{told}");
    }
}

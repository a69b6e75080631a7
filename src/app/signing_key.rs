//! The file of the signing key: made once, private, never made again beside an old store.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use hearth_base::{Random, Secret};
use hearth_event::SigningKey;
use hearth_settings::Settings;

use crate::exit::{Code, Failure};

/// The signing key that `settings` names. Without a name it lies in the storage directory and is made
/// there if the store is new too.
pub(crate) fn load(settings: &Settings, random: &dyn Random) -> Result<SigningKey, Failure> {
    if let Some(named) = &settings.server.signing_key_file {
        let path = named.path().map_err(|error| Failure::new(Code::Unusable, error))?;
        return read(&path);
    }
    let path = settings.storage.path.join("signing.key");
    match path.try_exists() {
        Ok(true) => read(&path),
        Ok(false) => create(&path, &settings.storage.path, random),
        Err(error) => Err(Failure::new(Code::Io, format!("cannot look for {}: {error}", path.display()))),
    }
}

fn read(path: &Path) -> Result<SigningKey, Failure> {
    let failed = |error: io::Error| Failure::new(Code::Unusable, format!("signing key {}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        let message = format!(
            "the signing key {path} may be used by others (mode {mode:o}): whoever has it can speak as this server. \
             Run: chmod 600 {path}"
        );
        return Err(Failure::new(Code::Unusable, message));
    }
    let mut text = String::new();
    io::Read::read_to_string(&mut file, &mut text).map_err(failed)?;
    let text = Secret::from_file_text(text);
    SigningKey::from_file_text(text.expose())
        .map_err(|error| Failure::new(Code::Unusable, format!("signing key {}: {error}", path.display())))
}

fn create(path: &Path, storage: &Path, random: &dyn Random) -> Result<SigningKey, Failure> {
    let failed = |error: io::Error| Failure::new(Code::Io, format!("cannot make {}: {error}", path.display()));
    if storage.join("db").try_exists().map_err(failed)? {
        let message = format!(
            "the signing key {} is missing but the store is not new: other servers know this server by its key. \
             Put the key back from a backup",
            path.display()
        );
        return Err(Failure::new(Code::Unusable, message));
    }
    let mut seed = [0; 32];
    random.fill(&mut seed);
    let version = format!("k{}", random.alphanumeric(5));
    let key = SigningKey::from_seed(seed, &version).map_err(|error| Failure::new(Code::Unusable, error))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(key.to_file_text().as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    // The name must survive a power cut as well: what the key signs from now on is known to others.
    File::open(storage).and_then(|directory| directory.sync_all()).map_err(failed)?;
    tracing::info!(path = %path.display(), key_id = key.key_id(), "made a signing key: keep a copy of it");
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use hearth_base::SeededRandom;

    use super::*;

    fn settings(storage: &Path) -> Settings {
        let text = format!("[server]\nname = \"a\"\n[storage]\npath = {:?}\n", storage.display().to_string());
        Settings::parse(Path::new("hearth.toml"), &text, []).expect("valid")
    }

    #[test]
    fn a_key_is_made_once_and_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = settings(directory.path());
        let first = load(&settings, &SeededRandom::new(1)).expect("made");
        let second = load(&settings, &SeededRandom::new(2)).expect("read");
        assert_eq!(first.public_key(), second.public_key());
        let path = directory.path().join("signing.key");
        assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("ours");
        let refused = load(&settings, &SeededRandom::new(3)).expect_err("readable by the group");
        assert_eq!(refused.code, Code::Unusable);
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }

    #[test]
    fn a_lost_key_is_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("db")).expect("made");
        let refused = load(&settings(directory.path()), &SeededRandom::new(1)).expect_err("an old store");
        assert!(refused.to_string().contains("from a backup"), "{refused}");
    }
}

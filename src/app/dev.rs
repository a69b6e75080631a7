//! The development configuration: everything in one directory, registration open, loopback only.

use std::path::{Path, PathBuf};

use crate::exit::{Code, Failure};

/// Where the development server lives unless told otherwise.
pub(crate) fn default_directory() -> Result<PathBuf, Failure> {
    let from = |variable| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("XDG_DATA_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("hearth-dev"))
        .ok_or_else(|| Failure::new(Code::Unusable, "neither HOME nor XDG_DATA_HOME is set: give --dev a directory"))
}

/// The configuration file in `directory`, made if it is not there.
pub(crate) fn prepare(directory: &Path) -> Result<PathBuf, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(Code::Io, format!("cannot prepare {}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let directory = directory.canonicalize().map_err(failed)?;
    let file = directory.join("hearth.toml");
    if !file.try_exists().map_err(failed)? {
        std::fs::write(&file, configuration(&directory)).map_err(failed)?;
    }
    Ok(file)
}

fn configuration(directory: &Path) -> String {
    let store = hearth_settings::quoted(&directory.join("store").display().to_string());
    format!(
        "# Made by `hearth run --dev` for trying things out: anybody who reaches the port may register.\n\
         [server]\n\
         name = \"localhost\"\n\
         public_base_url = \"http://localhost:8008\"\n\n\
         [listen]\n\
         client = [\"127.0.0.1:8008\"]\n\
         metrics = \"127.0.0.1:9009\"\n\n\
         [storage]\n\
         path = {store}\n\n\
         [registration]\n\
         mode = \"open\"\n\n\
         [rate_limits]\n\
         enabled = false\n"
    )
}

/// What to do next.
pub(crate) fn welcome(url: &str, file: &Path) -> String {
    format!(
        "\n  Hearth is running at {url}  (Ctrl-C stops it)\n\n\
         \x20 With Element (desktop, or https://app.element.io in a browser on this machine):\n\
         \x20   1. Choose \"Create account\", then \"Edit\" beside the homeserver.\n\
         \x20   2. Enter {url} as other homeserver, and continue.\n\
         \x20   3. Pick a user name and a password. Do it again in a private window for a second person.\n\n\
         \x20 With curl:\n\
         \x20   curl -X POST {url}/_matrix/client/v3/register \\\n\
         \x20     -d '{{\"username\":\"alice\",\"password\":\"wonderland\",\"auth\":{{\"type\":\"m.login.dummy\"}}}}'\n\n\
         \x20 Configuration: {}\n",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use hearth_settings::{RegistrationMode, Settings};

    use super::*;

    #[test]
    fn the_configuration_is_valid_whatever_the_directory_is_called() {
        let directory = Path::new("/home/a \"b\"\\c");
        let text = configuration(directory);
        let settings = Settings::parse(Path::new("hearth.toml"), &text, []).expect("valid");
        assert_eq!(settings.storage.path, directory.join("store"));
        assert_eq!(settings.registration.mode, RegistrationMode::Open);
        assert!(!settings.rate_limits.enabled);
    }

    #[test]
    fn an_edited_configuration_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = prepare(&directory.path().join("new")).expect("prepared");
        std::fs::write(&file, "# mine").expect("written");
        prepare(&directory.path().join("new")).expect("prepared");
        assert_eq!(std::fs::read_to_string(&file).expect("there"), "# mine");
    }
}

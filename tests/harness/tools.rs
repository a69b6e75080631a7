//! Programs that `.ci/setup tests` installs outside the checkout.

use std::path::{Path, PathBuf};

/// What the environment's `variable` names, else `path` in the cache of test tools.
pub fn tool(variable: &str, path: &str) -> PathBuf {
    if let Some(given) = std::env::var_os(variable) {
        return given.into();
    }
    if let Some(cache) = std::env::var_os("HEARTH_CACHE") {
        return Path::new(&cache).join(path);
    }
    let home = std::env::var_os("HOME").unwrap_or_else(|| panic!("set HOME or {variable}"));
    Path::new(&home).join(".cache/hearth").join(path)
}

/// The Python that has matrix-synapse. It is AGPL: only ever a separate process of a test.
pub fn synapse_python() -> PathBuf {
    let python = tool("HEARTH_SYNAPSE_PYTHON", "synapse/bin/python");
    assert!(
        python.exists(),
        "{} is missing: matrix-synapse is not installed. Run .ci/setup tests, which installs it from PyPI, or set \
         HEARTH_SYNAPSE_PYTHON to a Python that has it",
        python.display()
    );
    python
}

/// The checkout that is tested. Asked when the test runs: what was compiled may come from another one.
pub fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
}

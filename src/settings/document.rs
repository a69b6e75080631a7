//! The example file and the reference page, from the declarations.

use std::fmt::Write as _;

use crate::Shown;
use crate::sections::ALL;

const WIDTH: usize = 98;

/// `config/example.toml`: every setting with its words; what has a default is commented out.
pub fn example() -> String {
    let mut out = String::from(
        "# Configuration of Hearth. Made by `hearth generate-config --example`: edit a copy.\n\
         # Lines that are commented out show the default.\n\
         # Each setting can also come from the environment: HEARTH__SECTION__KEY=value.\n",
    );
    for section in ALL {
        out.push('\n');
        comment(&mut out, section.doc);
        let _ = writeln!(out, "[{}]", section.name);
        for spec in section.settings {
            out.push('\n');
            comment(&mut out, spec.doc);
            let _ = match (spec.default)() {
                Shown::Default(value) => writeln!(out, "# {} = {value}", spec.key),
                Shown::Unset(value) => writeln!(out, "# Not set by default, for example:\n# {} = {value}", spec.key),
                Shown::Required(value) => writeln!(out, "{} = {value}", spec.key),
            };
        }
    }
    out
}

/// `docs/configuration.md`: the same as a page.
pub fn reference() -> String {
    let mut out = String::from(
        "<!-- Made by `hearth generate-config --docs`: edit src/settings/sections.rs. -->\n\
         # Configuration\n\n\
         Hearth reads one TOML file (`hearth run --config FILE`). Each setting can also come from the\n\
         environment as `HEARTH__SECTION__KEY=value`, which overrides the file; lists are separated by commas.\n\
         `hearth check-config` tells everything that is wrong with it, with lines and suggestions.\n\n\
         Secrets are never written into the file: a setting that ends in `_file` names a file, or\n\
         `credential:name` for a file in `$CREDENTIALS_DIRECTORY`, which systemd's `LoadCredential=` fills.\n\
         White space at the end of such a file does not count. Relative paths begin at the working directory.\n",
    );
    for section in ALL {
        let _ = write!(out, "\n## `[{}]`\n\n{}\n", section.name, paragraph(section.doc));
        for spec in section.settings {
            let shown = match (spec.default)() {
                Shown::Default(value) => format!("default `{value}`"),
                Shown::Unset(value) => format!("not set by default, for example `{value}`"),
                Shown::Required(value) => format!("required, for example `{value}`"),
            };
            let doc = paragraph(spec.doc);
            let _ = write!(out, "\n### `{}.{}`\n\n{}; {shown}.\n\n{doc}\n", section.name, spec.key, capital(spec.kind));
        }
    }
    out
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Doc lines as one line of Markdown.
fn paragraph(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Doc lines as comment lines of at most [`WIDTH`] characters. Code quotes are for Markdown only.
fn comment(out: &mut String, doc: &[&str]) {
    let text = paragraph(doc).replace('`', "");
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + word.len() + 1 > WIDTH {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

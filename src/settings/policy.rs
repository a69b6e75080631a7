//! Policies that whoever registers has to accept, each written as one text.

use crate::value::{Raw, Setting, quoted};

/// A policy in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyText {
    /// What the policy is, such as `terms_of_service`.
    pub id: String,
    /// The same in all languages.
    pub version: String,
    /// Such as `en`.
    pub language: String,
    /// Where to read it.
    pub url: String,
    /// What to call it in that language.
    pub name: String,
}

impl Setting for PolicyText {
    const KIND: &'static str = "list of `\"id version language address name\"`";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?;
        let expected = || {
            let example = "\"terms_of_service 1.2 en https://example.org/terms Terms of Service\"";
            format!("\"{text}\" is no policy, such as {example}")
        };
        let mut words = text.split_whitespace();
        let mut next = || words.next().map(str::to_owned).ok_or_else(expected);
        let (id, version, language, url) = (next()?, next()?, next()?, next()?);
        let name = words.collect::<Vec<_>>().join(" ");
        let is_id = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte));
        let is_url = url.starts_with("https://") || url.starts_with("http://");
        // `version` is a key beside the languages.
        if name.is_empty() || !is_id(&id) || !is_id(&version) || !is_id(&language) || language == "version" || !is_url {
            return Err(expected());
        }
        Ok(Self { id, version, language, url, name })
    }
    fn to_toml(&self) -> String {
        quoted(&format!("{} {} {} {} {}", self.id, self.version, self.language, self.url, self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_five_words_or_more() {
        let text = "tos 1.2 en https://example.org/terms Terms of Service";
        let policy = PolicyText::read(&Raw::Text(text.into())).unwrap();
        assert_eq!((policy.id.as_str(), policy.name.as_str()), ("tos", "Terms of Service"));
        assert_eq!(policy.to_toml(), format!("\"{text}\""));
        for wrong in [
            "",
            "tos 1.2 en https://example.org",
            "tos 1 en ftp://x Terms",
            "t$ 1 en https://x T",
            "t 1 version https://x T",
        ] {
            PolicyText::read(&Raw::Text(wrong.into())).unwrap_err();
        }
    }
}

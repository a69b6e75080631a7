//! Values that must never be printed.

use zeroize::Zeroize;

/// A value without `Debug`, `Display` or `Serialize` of its content; wiped when dropped.
///
/// Whoever needs the content says so with [`Self::expose`], which is easy to search for in review.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Hides `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The content, for the one place that uses it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<String> {
    /// From the text of a file: trailing white space is no part of a secret, because editors and
    /// `echo` add a line break that nobody sees.
    pub fn from_file_text(mut text: String) -> Self {
        text.truncate(text.trim_end().len());
        Self(text)
    }
}

impl<T: Zeroize> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_its_content() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn white_space_after_a_secret_is_not_part_of_it() {
        assert_eq!(Secret::from_file_text(" a b\r\n\n".into()).expose(), " a b");
    }
}

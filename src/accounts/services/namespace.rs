//! Which names a service claims.

use regex::{Regex, RegexBuilder};

use super::RegistrationError;

/// Namespaces of one kind in one registration.
const MAX_NAMESPACES: usize = 256;
/// Bytes of an expression.
const MAX_EXPRESSION_BYTES: usize = 4096;
/// Bytes that a compiled expression may take: one that repeats repetitions is refused, not run.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// Bytes of a name that is looked at. No user ID and no alias is longer.
const MAX_NAME_BYTES: usize = 255;

/// Whether others may have names there too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Only the service makes and removes what is named so.
    Exclusive,
    /// The service takes an interest.
    Shared,
}

/// Names of one kind (users, aliases or rooms) that a service claims.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Vec<(Regex, Claim)>);

impl Namespaces {
    /// Compiles expressions. `kind` is the key that they are in, for the error.
    ///
    /// # Errors
    /// If there are too many, or one is no regular expression that takes linear time.
    pub(crate) fn compile(kind: &'static str, given: Vec<(String, Claim)>) -> Result<Self, RegistrationError> {
        if given.len() > MAX_NAMESPACES {
            return Err(RegistrationError::TooManyNamespaces(kind));
        }
        let compile = |(at, (expression, claim)): (usize, (String, Claim))| {
            let wrong = |why: String| RegistrationError::BadExpression { kind, number: at + 1, why };
            if expression.is_empty() {
                return Err(wrong("it is empty".to_owned()));
            }
            if expression.len() > MAX_EXPRESSION_BYTES {
                return Err(wrong(format!("it has more than {MAX_EXPRESSION_BYTES} bytes")));
            }
            let built = RegexBuilder::new(&expression).size_limit(MAX_COMPILED_BYTES).build();
            built.map(|regex| (regex, claim)).map_err(|error| wrong(error.to_string()))
        };
        given.into_iter().enumerate().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `name` is in one of them.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(regex, _)| begins_with(regex, name))
    }

    /// Whether `name` is in an exclusive one.
    pub fn contains_exclusively(&self, name: &str) -> bool {
        self.0.iter().any(|(regex, claim)| *claim == Claim::Exclusive && begins_with(regex, name))
    }
}

/// Whether `name` begins with what `regex` means. Registrations in use are written for this: they begin
/// with the sigil, and some leave out the end. The leftmost match begins at the beginning if any does.
fn begins_with(regex: &Regex, name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES && regex.find(name).is_some_and(|found| found.start() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(expressions: &[(&str, Claim)]) -> Result<Namespaces, RegistrationError> {
        Namespaces::compile("users", expressions.iter().map(|(text, claim)| ((*text).to_owned(), *claim)).collect())
    }

    #[test]
    fn a_name_is_in_a_namespace_from_its_beginning() {
        let names = of(&[("@_irc_.*", Claim::Exclusive), ("(@x|@y)_", Claim::Shared)]).unwrap();
        for inside in ["@_irc_ann:hs.test", "@_irc_:hs.test", "@x_bot:hs.test", "@y_:hs.test"] {
            assert!(names.contains(inside), "{inside}");
        }
        for outside in ["@ann:hs.test", "@ann_@_irc_x:hs.test", "@a@x_:hs.test", "", &"@_irc_".repeat(50)] {
            assert!(!names.contains(outside), "{outside}");
        }
        assert!(names.contains_exclusively("@_irc_ann:hs.test"));
        assert!(!names.contains_exclusively("@x_bot:hs.test"));
    }

    #[test]
    fn an_alternative_does_not_leave_its_expression() {
        let names = of(&[("@a_.*|nothing", Claim::Exclusive)]).unwrap();
        assert!(names.contains("@a_x:hs.test"));
        assert!(!names.contains("@b_x:hs.test"));
    }

    #[test]
    fn a_pattern_that_makes_others_backtrack_answers() {
        let names = of(&[("(a+)+$", Claim::Exclusive), ("^(([a-z])+.)+[A-Z]([a-z])+$", Claim::Shared)]).unwrap();
        let hostile = format!("{}!", "a".repeat(254));
        assert!(!names.contains(&hostile));
        assert!(names.contains(&"a".repeat(255)));
    }

    #[test]
    fn what_is_no_expression_is_told_with_its_place() {
        let of_one = |bad: &str| of(&[(".*", Claim::Shared), (bad, Claim::Shared)]).unwrap_err();
        for bad in ["@(", "", "(?=x)", r"(a)\1", &"a".repeat(5000), "((((x{100}){100}){100}){100})"] {
            let error = of_one(bad);
            assert!(matches!(error, RegistrationError::BadExpression { kind: "users", number: 2, .. }), "{error}");
        }
        let many: Vec<_> = (0..300).map(|_| ("x", Claim::Shared)).collect();
        assert_eq!(of(&many).unwrap_err(), RegistrationError::TooManyNamespaces("users"));
    }
}

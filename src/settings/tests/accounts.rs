//! What is refused about accounts.

use super::*;

#[test]
fn administrators_are_users_of_this_server() {
    let with = |admins: &str| parse(&format!("{NAME}[accounts]\nadmins = [{admins}]\n"), &[]);
    let settings = with("\"@ann:example.org\", \"@bob:example.org\"").expect("valid");
    assert_eq!(settings.accounts.admins, ["@ann:example.org", "@bob:example.org"]);
    for wrong in ["\"ann\"", "\"@ann:other.org\"", "\"@ann\"", "\"ann:example.org\""] {
        assert!(with(wrong).expect_err("must be refused").contains("user IDs of this server"), "{wrong}");
    }
}

#[test]
fn a_policy_has_one_version_and_each_language_once() {
    let policy = |version: &str, language: &str| format!("\"tos {version} {language} https://example.org/tos Terms\"");
    let with =
        |policies: &[String]| parse(&format!("{NAME}[registration]\npolicies = [{}]\n", policies.join(", ")), &[]);
    let settings = with(&[policy("1", "en"), policy("1", "fr")]).expect("valid");
    assert_eq!(settings.registration.policies.len(), 2);
    for wrong in [[policy("1", "en"), policy("2", "fr")], [policy("1", "en"), policy("1", "en")]] {
        assert!(with(&wrong).expect_err("must be refused").contains("registration.policies"), "{wrong:?}");
    }
}

#[test]
fn tokens_that_log_in_are_off_unless_they_have_a_lifetime() {
    let with = |text: &str| parse(&format!("{NAME}[accounts]\n{text}\n"), &[]).expect("valid").accounts;
    assert_eq!(with("").login_token_lifetime, None);
    assert_eq!(with("login_token_lifetime = \"off\"").login_token_lifetime, None);
    assert_eq!(with("login_token_lifetime = \"2m\"").login_token_lifetime, Some(Duration::from_secs(120)));
    assert_eq!(with("access_token_lifetime = \"1h\"").access_token_lifetime, Duration::from_secs(3600));
}

#[test]
fn who_sends_notices_has_a_name_that_users_could_have() {
    let with = |sender: &str| parse(&format!("{NAME}[server_notices]\nsender = \"{sender}\"\n"), &[]);
    assert_eq!(with("notices").expect("valid").server_notices.sender, "notices");
    for wrong in ["Notices", "a:b", "a b"] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}

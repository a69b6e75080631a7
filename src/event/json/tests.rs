use proptest::prelude::*;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue};

use super::*;

const LIMITS: JsonLimits = JsonLimits { bytes: 1 << 20, depth: 64 };

fn strict(text: &str) -> Result<String, JsonError> {
    parse_canonical_object(text.as_bytes(), LIMITS).map(|object| String::from_utf8(canonical_json(&object)).unwrap())
}

fn lenient(text: &str) -> Result<String, JsonError> {
    parse_object(text.as_bytes(), LIMITS, Strictness::Lenient).map(|object| String::from_utf8(object.bytes()).unwrap())
}

/// <https://spec.matrix.org/v1.19/appendices/#examples>; the last one, with an exponent, is no canonical JSON any more.
#[test]
fn writes_the_examples_of_the_specification() {
    for (given, canonical) in [
        ("{}", "{}"),
        ("{\n \"one\": 1,\n \"two\": \"Two\"\n}", r#"{"one":1,"two":"Two"}"#),
        (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
        (
            r#"{ "auth": { "success": true, "mxid": "@john.doe:example.com", "profile": { "display_name": "John Doe",
                "three_pids": [ { "medium": "email", "address": "john.doe@example.org" },
                { "medium": "msisdn", "address": "123456789" } ] } } }"#,
            r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#,
        ),
        (r#"{"a":"日本語"}"#, r#"{"a":"日本語"}"#),
        (r#"{"本":2,"日":1}"#, r#"{"日":1,"本":2}"#),
        (r#"{"a":"\u65E5"}"#, r#"{"a":"日"}"#),
        (r#"{"a":null}"#, r#"{"a":null}"#),
        (r#"{"a":-0,"b":10000000000}"#, r#"{"a":0,"b":10000000000}"#),
    ] {
        assert_eq!(strict(given).unwrap(), canonical);
        assert_eq!(lenient(given).unwrap(), canonical);
    }
}

/// Row A7 of the attack classes: what each strictness makes of text that parsers disagree about.
#[test]
fn takes_odd_text_as_strictly_as_asked() {
    let syntax = |result: &Result<String, JsonError>| matches!(result, Err(JsonError::Syntax { .. }));
    for value in [
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "-",
        "\"\\ud83d\"",
        "\"\\ude00\"",
        "\"\\ud83d\\ud83d\"",
        "\"\\ud83dx\"",
        "\"\u{0}\"",
        "\"\u{1f}\"",
        "\"\\x41\"",
        "\"\\u12g4\"",
        "\"",
        "tru",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\" 1}",
        "'a'",
        "1 2",
        "",
    ] {
        let text = format!(r#"{{"a":{value}}}"#);
        assert!(syntax(&strict(&text)), "{text}");
        assert!(syntax(&lenient(&text)), "{text}");
    }
    for (text, error) in [("\u{feff}{}", "BOM"), ("{} {}", "more"), ("{}\u{0}", "NUL after"), ("", "nothing")] {
        assert!(syntax(&strict(text)), "{error}");
    }
    assert!(matches!(parse_canonical_object(b"{\"a\":\"\xc0\xaf\"}", LIMITS), Err(JsonError::Syntax { at: 6, .. })));
    assert_eq!(strict("[]"), Err(JsonError::NotAnObject));
    assert_eq!(strict("null"), Err(JsonError::NotAnObject));
    for (value, strictly, leniently) in [
        ("-0", Ok("0"), "0"),
        ("9007199254740991", Ok("9007199254740991"), "9007199254740991"),
        ("-9007199254740991", Ok("-9007199254740991"), "-9007199254740991"),
        ("9007199254740992", Err(JsonError::IntegerOutOfRange), "9007199254740992"),
        ("-9007199254740992", Err(JsonError::IntegerOutOfRange), "-9007199254740992"),
        ("99999999999999999999", Err(JsonError::IntegerOutOfRange), "99999999999999999999"),
        ("1.0", Err(JsonError::Float), "1.0"),
        ("1e3", Err(JsonError::Float), "1000.0"),
        ("-0.0", Err(JsonError::Float), "-0.0"),
        ("\"\\u0000\\u001f\\u007f\\/\"", Ok("\"\\u0000\\u001f\u{7f}/\""), "\"\\u0000\\u001f\u{7f}/\""),
        ("\"\\ud83d\\ude00\"", Ok("\"😀\""), "\"😀\""),
    ] {
        let text = format!(r#"{{"a":{value}}}"#);
        let full = |value: &str| format!(r#"{{"a":{value}}}"#);
        assert_eq!(strict(&text), strictly.map(full), "{text}");
        assert_eq!(lenient(&text).unwrap(), full(leniently), "{text}");
    }
    assert_eq!(lenient(r#"{"a":1e400}"#), Err(JsonError::Float));
    let digits = "9".repeat(400);
    assert_eq!(strict(&format!(r#"{{"a":{digits}}}"#)), Err(JsonError::IntegerOutOfRange));
    assert_eq!(lenient(&format!(r#"{{"a":{digits}}}"#)).unwrap(), format!(r#"{{"a":{digits}}}"#));
    assert_eq!(lenient(&format!(r#"{{"a":{}}}"#, "9".repeat(5000))), Err(JsonError::IntegerOutOfRange));
}

/// The last of equal keys wins where the room version is old, because other servers signed that.
#[test]
fn refuses_duplicate_keys_unless_lenient() {
    for (text, canonical) in [
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"a":1,"b":0,"a":2,"a":3}"#, r#"{"a":3,"b":0}"#),
        (r#"{"a":1,"\u0061":2}"#, r#"{"a":2}"#),
        (r#"{"x":{"y":[{"z":1,"z":2}]}}"#, r#"{"x":{"y":[{"z":2}]}}"#),
    ] {
        assert!(matches!(strict(text), Err(JsonError::DuplicateKey { .. })), "{text}");
        assert_eq!(lenient(text).unwrap(), canonical);
    }
    // Different as code points, though equal once normalised.
    assert_eq!(strict("{\"é\":1,\"e\u{301}\":2}").unwrap(), "{\"e\u{301}\":2,\"é\":1}");
}

#[test]
fn sorts_by_code_point_and_not_by_utf16() {
    // U+FFEE comes before U+10000, whose first UTF-16 unit is 0xD800.
    assert_eq!(strict("{\"\u{10000}\":1,\"\u{ffee}\":2}").unwrap(), "{\"\u{ffee}\":2,\"\u{10000}\":1}");
}

#[test]
fn stops_at_the_limits() {
    let nested = |depth: usize| format!("{}{}", r#"{"a":"#.repeat(depth - 1) + "{}", "}".repeat(depth - 1));
    assert!(strict(&nested(64)).is_ok());
    assert_eq!(strict(&nested(65)), Err(JsonError::TooDeep { limit: 64 }));
    let deep = format!("{{\"a\":{}", "[".repeat(10_000));
    assert_eq!(strict(&deep), Err(JsonError::TooDeep { limit: 64 }));
    let limits = JsonLimits { bytes: 7, depth: 64 };
    assert!(parse_canonical_object(br#"{"a":1}"#, limits).is_ok());
    assert_eq!(parse_canonical_object(br#"{"a":1 }"#, limits), Err(JsonError::TooLarge { limit: 7 }));
}

fn value() -> impl Strategy<Value = CanonicalJsonValue> {
    let leaf = prop_oneof![
        Just(CanonicalJsonValue::Null),
        any::<bool>().prop_map(CanonicalJsonValue::Bool),
        (-MAX_SAFE..=MAX_SAFE).prop_map(|int| CanonicalJsonValue::Integer(Int::new(int).unwrap())),
        any::<String>().prop_map(CanonicalJsonValue::String),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(CanonicalJsonValue::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(CanonicalJsonValue::Object),
        ]
    })
}

proptest! {
    #[test]
    fn parses_what_it_writes(object in prop::collection::btree_map(any::<String>(), value(), 0..6)) {
        let written = canonical_json(&object);
        let limits = JsonLimits { bytes: usize::MAX, depth: 64 };
        prop_assert_eq!(&parse_canonical_object(&written, limits).unwrap(), &object);
        // The same bytes whichever type holds it, and the same as a general serialiser's.
        prop_assert_eq!(&Object::from(object.clone()).bytes(), &written);
        prop_assert_eq!(&serde_json::to_vec(&object).unwrap(), &written);
    }

    #[test]
    fn reads_any_text_as_a_general_parser_does(text in "[\\{\\}\\[\\]\",:0-9eE.+\\-a-z\\\\u ]{0,40}") {
        let text = format!("{{{text}}}");
        let ours = parse_canonical_object(text.as_bytes(), LIMITS);
        let theirs = serde_json::from_str::<CanonicalJsonObject>(&text);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
            // That parser takes duplicate keys, and takes -0 for a float.
            (Err(JsonError::DuplicateKey { .. }), Ok(_)) | (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => prop_assert!(text.contains("-0"), "{text}: {error}"),
            (Err(error), Ok(_)) => prop_assert!(false, "{text}: {error}"),
        }
    }

    #[test]
    fn lenient_text_is_stable(text in "[\\{\\}\\[\\]\",:0-9eE.+\\-]{0,30}") {
        let limits = JsonLimits { bytes: usize::MAX, depth: 64 };
        if let Ok(object) = parse_object(format!("{{\"a\":{text}}}").as_bytes(), limits, Strictness::Lenient) {
            let once = object.bytes();
            let twice = parse_object(&once, limits, Strictness::Lenient).unwrap().bytes();
            prop_assert_eq!(once, twice);
        }
    }
}

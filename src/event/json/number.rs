//! Numbers.

use super::parse::{JsonError, Strictness};
use super::{Json, MAX_SAFE};

/// More digits are refused by the reference implementation's parser.
const MAX_DIGITS: usize = 4300;

/// The value of the number `token`, which has the grammar of JSON.
pub(super) fn number(token: &str, strictness: Strictness) -> Result<Json, JsonError> {
    let is_integer = !token.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    match (is_integer, strictness) {
        (true, Strictness::Canonical) => match token.parse::<i64>() {
            Ok(value) if (-MAX_SAFE..=MAX_SAFE).contains(&value) => Ok(Json::Int(value)),
            _ => Err(JsonError::IntegerOutOfRange),
        },
        (false, Strictness::Canonical) => Err(JsonError::Float),
        (true, Strictness::Lenient) => match token.parse::<i64>() {
            Ok(value) => Ok(Json::Int(value)),
            Err(_) if token.len() > MAX_DIGITS => Err(JsonError::IntegerOutOfRange),
            Err(_) => Ok(Json::Number(token.into())),
        },
        (false, Strictness::Lenient) => match token.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Json::Number(float(value).into())),
            _ => Err(JsonError::Float),
        },
    }
}

/// The shortest decimal form of `value`: positional from 1e-4 to below 1e16, else with an exponent
/// of at least two digits. This is how the servers that signed floats in old rooms wrote them.
fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a small integer");
    if (-4..16).contains(&exponent) {
        let positional = format!("{value}");
        if positional.contains('.') { positional } else { positional + ".0" }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn writes_floats_as_the_servers_that_signed_them() {
        for (value, text) in [
            (1.0, "1.0"),
            (1e3, "1000.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (123_456_789.125, "123456789.125"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(float(value), text);
        }
    }
}

//! Parses the answer of a token service, as leniently as containerd and Docker do.

use std::time::Duration;

use gantry_ops::secret::SecretString;
use serde::Deserialize;
use serde_json::Value;

/// The default lifetime by the specification, which is also the minimum.
const LEAST_SECONDS: u64 = 60;
/// The longest lifetime that is used, whatever the service says.
const MOST_SECONDS: u64 = 3600;
/// Subtracted from the lifetime, for the time until the request arrives.
const MARGIN_SECONDS: u64 = 5;

pub(super) struct Granted {
    pub(super) token: SecretString,
    /// How long the token is used from now on.
    pub(super) lifetime: Duration,
}

/// `None` if there is no token.
pub(super) fn parse(body: &[u8]) -> Option<Granted> {
    // The two names are equivalent, and many services send both. An invalid lifetime counts as missing.
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        #[serde(default)]
        expires_in: Value,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let mut tokens = [answer.access_token, answer.token].into_iter().flatten();
    let token = tokens.find(|token| !token.is_empty())?;
    let seconds = seconds(&answer.expires_in).clamp(LEAST_SECONDS, MOST_SECONDS) - MARGIN_SECONDS;
    Some(Granted { token: token.into(), lifetime: Duration::from_secs(seconds) })
}

/// The whole seconds of a number, or of a string with a number; 0 for anything else.
fn seconds(value: &Value) -> u64 {
    let number = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return 0,
    };
    number.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use gantry_ops::secret::ExposeSecret as _;

    use super::*;

    #[test]
    fn tokens_are_parsed_with_either_name_and_any_lifetime() {
        for (body, token, seconds) in [
            (r#"{"token":"t"}"#, "t", 55),
            (r#"{"access_token":"t"}"#, "t", 55),
            (r#"{"token":"","access_token":"t","expires_in":300}"#, "t", 295),
            (r#"{"token":"t","access_token":"","issued_at":"yesterday"}"#, "t", 55),
            (r#"{"token":"t","access_token":null,"expires_in":null,"scope":""}"#, "t", 55),
            (r#"{"token":"a","access_token":"t","expires_in":0}"#, "t", 55),
            (r#"{"token":"t","expires_in":-1,"issued_at":null}"#, "t", 55),
            (r#"{"token":"t","expires_in":"300"}"#, "t", 295),
            (r#"{"token":"t","expires_in":" 300.5 "}"#, "t", 295),
            (r#"{"token":"t","expires_in":300.9}"#, "t", 295),
            (r#"{"token":"t","expires_in":1e99}"#, "t", 55),
            (r#"{"token":"t","expires_in":99999999999999}"#, "t", 3595),
            (r#"{"token":"t","expires_in":{"s":1}}"#, "t", 55),
        ] {
            let granted = parse(body.as_bytes()).unwrap();
            assert_eq!(granted.token.expose_secret(), token, "{body}");
            assert_eq!(granted.lifetime, Duration::from_secs(seconds), "{body}");
        }
    }

    #[test]
    fn an_answer_without_a_token_is_none() {
        for body in ["", "{}", "[]", r#"{"token":""}"#, r#"{"token":7}"#, "<html>"] {
            assert!(parse(body.as_bytes()).is_none(), "{body}");
        }
    }
}

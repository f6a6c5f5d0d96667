//! Request bodies: JSON of limited length, with every refusal in the API's error shape.

use actix_web::Error;
use actix_web::error::{JsonPayloadError, QueryPayloadError};
use actix_web::web::{Bytes, JsonConfig, PathConfig, PayloadConfig, QueryConfig, ServiceConfig};
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::refusal::Refusal;

/// Enough for the texts of a task.
const MOST_JSON: usize = 1024 * 1024;

/// Configures how bodies, queries and paths are extracted.
pub(crate) fn configure(config: &mut ServiceConfig) {
    config
        .app_data(PayloadConfig::new(MOST_JSON))
        .app_data(
            JsonConfig::default()
                .limit(MOST_JSON)
                .error_handler(|error, _| ApiError::from(refused(&error)).into()),
        )
        .app_data(
            QueryConfig::default()
                .error_handler(|error, _| ApiError::from(refused_query(&error)).into()),
        )
        // A malformed id names nothing: 404, not 400.
        .app_data(
            PathConfig::default().error_handler(|_, request| ApiError::no_route(request).into()),
        );
}

fn refused_query(error: &QueryPayloadError) -> Refusal {
    let text = error.to_string();
    let message = text.strip_prefix("Query deserialize error: ").unwrap_or(&text);
    let message = match message {
        "invalid digit found in string" => {
            "`limit`, `attempt` and `offset` are whole numbers, like `limit=50`"
        }
        message => message,
    };
    Refusal::invalid("query", message)
}

fn refused(error: &JsonPayloadError) -> Refusal {
    use JsonPayloadError::{
        ContentType, Deserialize, Overflow, OverflowKnownLength, Payload, Serialize,
    };

    if matches!(error, Overflow { .. } | OverflowKnownLength { .. }) {
        return Refusal::TooLarge { most: MOST_JSON as u64 };
    }
    if matches!(error, ContentType) {
        return Refusal::UnsupportedMedia("send application/json".into());
    }
    // Its own text begins with "Json deserialize error", which does not help a user.
    let message = match error {
        Deserialize(error) => words(error),
        Overflow { .. }
        | OverflowKnownLength { .. }
        | ContentType
        | Serialize(_)
        | Payload(_)
        | _ => error.to_string(),
    };
    Refusal::invalid("body", message)
}

/// Reads an optional body. If there is one it must be valid.
pub(super) fn optional<T: DeserializeOwned + Default>(
    body: Result<Bytes, Error>,
) -> Result<T, Refusal> {
    let body = body.map_err(|_| Refusal::TooLarge { most: MOST_JSON as u64 })?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| Refusal::invalid("body", words(&error)))
}

/// What is wrong with a body. A value of the wrong type is not quoted, because it may be a secret.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let given =
        text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    let Some((given, rest)) = given.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return text;
    };
    let (expected, place) = rest.split_once(" at ").unwrap_or((rest, "an unknown place"));
    let given = match text.starts_with("invalid value") {
        true => "a value that does not fit",
        false => of_json(given).unwrap_or("another value"),
    };
    let expected = of_json(expected).unwrap_or(expected);
    format!("{given} is given where {expected} is expected, at {place}")
}

/// The JSON name of a type in serde's messages.
fn of_json(serdes: &str) -> Option<&'static str> {
    const WORDS: [(&str, &str); 12] = [
        ("null", "null"),
        ("string", "a string"),
        ("a string", "a string"),
        ("integer", "a number"),
        ("floating point", "a number"),
        ("boolean", "a boolean"),
        ("sequence", "a list"),
        ("a sequence", "a list"),
        ("map", "an object"),
        ("a map", "an object"),
        ("struct", "an object"),
        ("u32", "a whole number from 0 on"),
    ];
    let word = WORDS.into_iter().find(|(serdes_word, _)| serdes.starts_with(serdes_word));
    word.map(|(_, word)| word)
}

//! Bodies of requests: JSON, of bounded length, with every refusal in the API's one shape.

use actix_web::Error;
use actix_web::error::JsonPayloadError;
use actix_web::web::{Bytes, JsonConfig, PathConfig, PayloadConfig, QueryConfig, ServiceConfig};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// A request's JSON is a task's texts at most.
const MOST_JSON: usize = 1024 * 1024;

/// How parts of requests are read.
pub(crate) fn configure(config: &mut ServiceConfig) {
    config
        .app_data(PayloadConfig::new(MOST_JSON))
        .app_data(
            JsonConfig::default().limit(MOST_JSON).error_handler(|error, _| refused(&error).into()),
        )
        .app_data(
            QueryConfig::default()
                .error_handler(|error, _| ApiError::invalid("query", error.to_string()).into()),
        )
        // An id that cannot be is an id of nothing.
        .app_data(
            PathConfig::default().error_handler(|_, request| ApiError::no_route(request).into()),
        );
}

fn refused(error: &JsonPayloadError) -> ApiError {
    use JsonPayloadError::{
        ContentType, Deserialize, Overflow, OverflowKnownLength, Payload, Serialize,
    };

    if matches!(error, Overflow { .. } | OverflowKnownLength { .. }) {
        return ApiError::TooLarge { most: MOST_JSON as u64 };
    }
    if matches!(error, ContentType) {
        return ApiError::UnsupportedMedia("send application/json");
    }
    // Its own text begins with "Json deserialize error", which says nothing to a user.
    let message = match error {
        Deserialize(error) => error.to_string(),
        Overflow { .. }
        | OverflowKnownLength { .. }
        | ContentType
        | Serialize(_)
        | Payload(_)
        | _ => error.to_string(),
    };
    ApiError::invalid("body", message)
}

/// Reads a body that may be left out. One that is there must be right.
pub(super) fn optional<T: DeserializeOwned + Default>(
    body: Result<Bytes, Error>,
) -> Result<T, ApiError> {
    let body = body.map_err(|_| ApiError::TooLarge { most: MOST_JSON as u64 })?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| ApiError::invalid("body", error.to_string()))
}

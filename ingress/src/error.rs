//! Maps refusals to HTTP: one JSON shape, and every status code in one place.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use gantry_api::{ErrorBody, ErrorDetail};

use crate::refusal::{self, Refusal};

/// A refusal as an HTTP answer.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct ApiError(Refusal);

impl<E: Into<Refusal>> From<E> for ApiError {
    fn from(refusal: E) -> Self {
        Self(refusal.into())
    }
}

impl ApiError {
    /// No route has this path.
    pub(crate) fn no_route(request: &HttpRequest) -> Self {
        let name = format!("{} {}", request.method(), request.path());
        Self(Refusal::NotFound { what: "route", name })
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match &self.0 {
            Refusal::Unauthorized | Refusal::HookRefused => StatusCode::UNAUTHORIZED,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::NotFound { .. } => StatusCode::NOT_FOUND,
            Refusal::Invalid(_) | Refusal::BrokenOff => StatusCode::BAD_REQUEST,
            Refusal::Conflict { .. } => StatusCode::CONFLICT,
            Refusal::KeyReused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Refusal::UnsupportedMedia(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::TooManyConnections { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Busy | Refusal::Unavailable | Refusal::Full | Refusal::ObjectsFull => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refusal::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response =
            HttpResponse::build(self.status_code()).json(ErrorBody { error: detail(&self.0) });
        let headers = response.headers_mut();
        match self.status_code() {
            StatusCode::SERVICE_UNAVAILABLE => {
                let seconds =
                    if matches!(self.0, Refusal::Full | Refusal::ObjectsFull) { "30" } else { "2" };
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
            }
            StatusCode::UNAUTHORIZED if matches!(self.0, Refusal::Unauthorized) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

fn code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Unauthorized | Refusal::HookRefused => "unauthorized",
        Refusal::Forbidden(_) => "forbidden",
        Refusal::NotFound { .. } => "not_found",
        Refusal::Invalid(_) => "invalid",
        Refusal::Conflict { code, .. } => code,
        Refusal::KeyReused { .. } => "idempotency_key_reused",
        Refusal::TooLarge { .. } => "too_large",
        Refusal::TooSlow { .. } => "too_slow",
        Refusal::BrokenOff => "broken_off",
        Refusal::UnsupportedMedia(_) => "unsupported_media_type",
        Refusal::TooManyConnections { .. } => "too_many_connections",
        Refusal::Busy => "busy",
        Refusal::Unavailable => "unavailable",
        Refusal::Full => "full",
        Refusal::ObjectsFull => "objects_full",
        Refusal::Internal => "internal",
    }
}

fn detail(refusal: &Refusal) -> ErrorDetail {
    let (target, details) = match refusal {
        Refusal::Invalid(mistakes) => {
            let mistakes = mistakes.all();
            let first = mistakes.first().map(|mistake| mistake.target.clone());
            (first, mistakes.iter().map(shown).collect())
        }
        Refusal::NotFound { name, .. } => (Some(name.clone()), Vec::new()),
        Refusal::Unauthorized
        | Refusal::HookRefused
        | Refusal::Forbidden(_)
        | Refusal::Conflict { .. }
        | Refusal::KeyReused { .. }
        | Refusal::TooLarge { .. }
        | Refusal::TooSlow { .. }
        | Refusal::BrokenOff
        | Refusal::UnsupportedMedia(_)
        | Refusal::TooManyConnections { .. }
        | Refusal::Busy
        | Refusal::Unavailable
        | Refusal::Full
        | Refusal::ObjectsFull
        | Refusal::Internal => (None, Vec::new()),
    };
    ErrorDetail { code: code(refusal).to_owned(), message: refusal.to_string(), target, details }
}

fn shown(mistake: &refusal::Mistake) -> gantry_api::Mistake {
    gantry_api::Mistake { target: mistake.target.clone(), message: mistake.message.clone() }
}

/// The error responses that every API route may return, for the OpenAPI document.
pub(crate) struct Failures;

impl utoipa::IntoResponses for Failures {
    fn responses() -> std::collections::BTreeMap<
        String,
        utoipa::openapi::RefOr<utoipa::openapi::response::Response>,
    > {
        use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder, ResponsesBuilder};

        let body =
            || ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response = |description: &str| {
            ResponseBuilder::new()
                .description(description)
                .content("application/json", body())
                .build()
        };
        ResponsesBuilder::new()
            .response("400", response("The request has mistakes: all of them are in the body."))
            .response("401", response("No valid token."))
            .response("403", response("The token may not do this."))
            .response("404", response("There is no such thing, or the token may not see it."))
            .response("409", response("It cannot be done as things stand."))
            .response("413", response("The body is too large."))
            .response("422", response("The idempotency key was sent with another request before."))
            .response("429", response("This token has too many connections open."))
            .response("415", response("The body is of a type that is not read."))
            .response("503", response("The store does not answer: try again after `Retry-After`."))
            .build()
            .into()
    }
}

//! What the doors answer when they do not do as asked: one shape, and every status decided here.

use std::borrow::Cow;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use gantry_domain::InvalidText;
use gantry_domain::id::RunId;
use gantry_domain::token::Scope;
use gantry_ops::secret::SecretError;
use gantry_seams::blobs::BlobError;
use gantry_seams::logs::LogError;
use gantry_seams::runs::RunOpError;
use gantry_seams::store::StoreError;

use crate::connections::{MOST_OF_ONE_TOKEN, NoPlace};
use gantry_api::{ErrorBody, ErrorDetail, Mistake};

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("no valid token: send `Authorization: Bearer gantry_…`, or `gantry login` again")]
    Unauthorized,
    /// One answer for a wrong signature and an unknown hook: which of them it was is nobody's business.
    #[error("no such hook, or the signature does not match its secret")]
    HookRefused,
    #[error("{0}")]
    Forbidden(String),
    #[error("there is no {what} `{name}` here")]
    NotFound { what: &'static str, name: String },
    #[error("{}", .0.summary())]
    Invalid(Mistakes),
    #[error("{message}")]
    Conflict { code: &'static str, message: String },
    #[error(
        "this Idempotency-Key belongs to another request, which started run {run}; `{what}` asks for something else: send \
         it with a key of its own"
    )]
    KeyReused { what: String, run: RunId },
    #[error("the body is larger than {most} bytes")]
    TooLarge { most: u64 },
    #[error("the body did not come within {patience:?}")]
    TooSlow { patience: Duration },
    #[error("the body broke off")]
    BrokenOff,
    #[error("{0}")]
    UnsupportedMedia(Cow<'static, str>),
    #[error(
        "this token has {most} connections open: close some of them, or use a token for each program"
    )]
    TooManyConnections { most: usize },
    #[error("gantry has too much at once: try again in a moment")]
    Busy,
    #[error("gantry's store does not answer: try again in a moment")]
    Unavailable,
    #[error(
        "gantry's store is full, so nothing new is taken: its operator must raise `store.budget` or free space"
    )]
    Full,
    #[error(
        "the disk on which gantry keeps uploads and logs is full, so no upload is taken: its operator must free space \
         there, or lower `objects.min_free`"
    )]
    ObjectsFull,
    #[error("gantry failed: its own log says why")]
    Internal,
}

impl ApiError {
    /// One mistake.
    pub(crate) fn invalid(target: &str, message: impl Into<String>) -> Self {
        let mut mistakes = Mistakes::default();
        mistakes.add(target, message);
        Self::Invalid(mistakes)
    }

    /// A token that may not do this.
    pub(crate) fn needs_scope(needed: Scope, has: Scope) -> Self {
        Self::Forbidden(format!("this needs a token of scope `{needed}`; yours has `{has}`"))
    }

    /// Nothing is served there.
    pub(crate) fn no_resource(request: &HttpRequest) -> Self {
        Self::NotFound {
            what: "resource",
            name: format!("{} {}", request.method(), request.path()),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized | Self::HookRefused => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound { .. } => "not_found",
            Self::Invalid(_) => "invalid",
            Self::Conflict { code, .. } => code,
            Self::KeyReused { .. } => "idempotency_key_reused",
            Self::TooLarge { .. } => "too_large",
            Self::TooSlow { .. } => "too_slow",
            Self::BrokenOff => "broken_off",
            Self::UnsupportedMedia(_) => "unsupported_media_type",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Full => "full",
            Self::ObjectsFull => "objects_full",
            Self::Internal => "internal",
        }
    }

    fn detail(&self) -> ErrorDetail {
        let (target, details) = match self {
            Self::Invalid(Mistakes(mistakes)) => {
                (mistakes.first().map(|mistake| mistake.target.clone()), mistakes.clone())
            }
            Self::NotFound { name, .. } => (Some(name.clone()), Vec::new()),
            Self::Unauthorized
            | Self::HookRefused
            | Self::Forbidden(_)
            | Self::Conflict { .. }
            | Self::KeyReused { .. }
            | Self::TooLarge { .. }
            | Self::TooSlow { .. }
            | Self::BrokenOff
            | Self::UnsupportedMedia(_)
            | Self::TooManyConnections { .. }
            | Self::Busy
            | Self::Unavailable
            | Self::Full
            | Self::ObjectsFull
            | Self::Internal => (None, Vec::new()),
        };
        ErrorDetail { code: self.code().to_owned(), message: self.to_string(), target, details }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unauthorized | Self::HookRefused => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Invalid(_) | Self::BrokenOff => StatusCode::BAD_REQUEST,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::KeyReused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMedia(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyConnections { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::Unavailable | Self::Full | Self::ObjectsFull => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response =
            HttpResponse::build(self.status_code()).json(ErrorBody { error: self.detail() });
        let headers = response.headers_mut();
        match self.status_code() {
            StatusCode::SERVICE_UNAVAILABLE => {
                let seconds =
                    if matches!(self, Self::Full | Self::ObjectsFull) { "30" } else { "2" };
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
            }
            StatusCode::UNAUTHORIZED if matches!(self, Self::Unauthorized) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => {
                tracing::warn!("a request was refused: {error}");
                Self::Unavailable
            }
            StoreError::Full { .. } => {
                tracing::error!("a request was refused: {error}");
                Self::Full
            }
            StoreError::Undecodable { .. } => {
                tracing::error!("a request failed: {error}");
                Self::Internal
            }
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge { most, .. } => Self::TooLarge { most },
            BlobError::Source { .. } => Self::BrokenOff,
            BlobError::Full { .. } => {
                tracing::error!("a request was refused: {error}");
                Self::ObjectsFull
            }
            BlobError::Absent { .. } | BlobError::Unavailable { .. } => {
                tracing::warn!("a request was refused: {error}");
                Self::Unavailable
            }
            BlobError::Refused { .. } => {
                tracing::error!("a request failed: {error}");
                Self::Internal
            }
        }
    }
}

impl From<NoPlace> for ApiError {
    fn from(error: NoPlace) -> Self {
        match error {
            NoPlace::OfToken => Self::TooManyConnections { most: MOST_OF_ONE_TOKEN },
            NoPlace::AtAll => Self::Busy,
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Store(error) => error.into(),
            LogError::Blob(error) => error.into(),
        }
    }
}

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        tracing::error!("a request failed: {error}");
        Self::Internal
    }
}

impl From<RunOpError> for ApiError {
    fn from(error: RunOpError) -> Self {
        match error {
            RunOpError::Absent { run } => Self::NotFound { what: "run", name: run.to_string() },
            RunOpError::Store(error) => error.into(),
            RunOpError::LeaseLost { .. }
            | RunOpError::CancelAsked { .. }
            | RunOpError::Illegal { .. } => {
                Self::Conflict { code: "wrong_state", message: error.to_string() }
            }
        }
    }
}

/// What is wrong with a request: everything at once, so that it needs to be mended once only.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Notes a mistake.
    pub(crate) fn add(&mut self, target: &str, message: impl Into<String>) {
        self.0.push(Mistake { target: target.to_owned(), message: message.into() });
    }

    /// Parses `text`, or notes why it cannot be.
    pub(crate) fn parse<T>(&mut self, target: &str, text: &str) -> Option<T>
    where
        T: std::str::FromStr<Err = InvalidText>,
    {
        self.check(target, text.parse())
    }

    /// Takes a value, or notes why there is none.
    pub(crate) fn check<T, E: std::fmt::Display>(
        &mut self,
        target: &str,
        checked: Result<T, E>,
    ) -> Option<T> {
        checked.map_err(|error| self.add(target, error.to_string())).ok()
    }

    /// Goes on only if there is none.
    pub(crate) fn none(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self)) }
    }

    fn summary(&self) -> String {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|mistake| format!("{}: {}", mistake.target, mistake.message))
            .collect();
        lines.join("\n")
    }
}

/// The answers of every API route that are no success, for the OpenAPI document.
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

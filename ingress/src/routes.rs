//! The routes of each listener.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::{DefaultHeaders, Next, from_fn};
use actix_web::web::{Bytes, Data, ServiceConfig, get, scope, to};
use actix_web::{HttpRequest, HttpResponse};
use gantry_ops::metrics::{self, Answer};
use gantry_taskfile::task_file;
use tokio::time::timeout;

use crate::ANSWERED_WITHIN;
use crate::access::with_token;
use crate::api;
use crate::error::ApiError;
use crate::hooks;
use crate::refusal::Refusal;
use crate::state::State;

/// The OpenAPI document, serialized once.
#[derive(Clone)]
pub(crate) struct Document(Bytes);

impl Document {
    pub(crate) fn write() -> Result<Self, serde_json::Error> {
        Ok(Self(serde_json::to_vec(&api::document())?.into()))
    }
}

/// The routes of the API.
pub(crate) fn api(config: &mut ServiceConfig, document: &Document) {
    let document = document.clone();
    api::body::configure(config);
    config.route(
        &format!("{}/openapi.json", api::ROOT),
        get().to(move || {
            let body = document.0.clone();
            async move { HttpResponse::Ok().content_type("application/json").body(body) }
        }),
    );
    // For editors, which have no token.
    config.route(
        &format!("{}/acr-task.schema.json", api::ROOT),
        get().to(|| async {
            HttpResponse::Ok().content_type("application/schema+json").body(task_file::SCHEMA)
        }),
    );
    // The last `wrap` is the outermost.
    let root = scope(api::ROOT)
        .wrap(from_fn(in_time))
        .wrap(from_fn(with_token))
        .wrap(from_fn(measured))
        // Answers contain text of strangers, which no browser may take for a page.
        .wrap(DefaultHeaders::new().add((header::X_CONTENT_TYPE_OPTIONS, "nosniff")));
    config.service(root.configure(|config| {
        api::routes(&mut utoipa_actix_web::service_config::ServiceConfig::new(config));
    }));
}

/// Ends requests whose body never ends and would hold their connection for ever. A log's answer begins at once, and its
/// stream is not limited. An upload is limited by the pauses between its pieces instead.
async fn in_time(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let state = request.app_data::<Data<State>>();
    let patience = match state {
        Some(state) if !api::is_upload(request.path()) => {
            state.settings.body_patience + ANSWERED_WITHIN
        }
        Some(_) | None => return next.call(request).await,
    };
    match timeout(patience, next.call(request)).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::from(Refusal::TooSlow { patience }).into()),
    }
}

async fn measured(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let began = Instant::now();
    let answered = next.call(request).await;
    let status = match &answered {
        Ok(answer) => answer.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    metrics::api(Answer::of_status(status.as_u16()), began.elapsed());
    answered
}

/// Hooks, at `/hooks/{provider}/{hook}`. The path is parsed by hand, because a route pattern would match each request,
/// forged ones too, by regular expression.
pub(crate) fn hooks(config: &mut ServiceConfig) {
    config.service(scope("/hooks").default_service(to(hooks::receive)));
}

/// Health checks, and the answer for unknown paths.
pub(crate) fn common(config: &mut ServiceConfig) {
    config
        .route("/healthz", get().to(healthz))
        .route("/readyz", get().to(readyz))
        .default_service(to(not_found));
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// Checks everything that the process depends on. Reports only whether each part works: the internet may read this.
async fn readyz(state: Data<State>) -> HttpResponse {
    let report = state.health.check().await;
    let mut answer = match report.is_ready() {
        true => HttpResponse::Ok(),
        false => HttpResponse::ServiceUnavailable(),
    };
    answer.json(report.for_strangers())
}

async fn not_found(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::no_route(&request))
}

//! What is served where.

use actix_web::web::{
    Bytes, Data, JsonConfig, PathConfig, QueryConfig, ServiceConfig, get, post, resource, to,
};
use actix_web::{HttpRequest, HttpResponse};

use crate::api;
use crate::error::ApiError;
use crate::hooks;
use crate::state::State;

/// A request's JSON is a task's texts at most.
const MOST_JSON: usize = 1024 * 1024;

/// The OpenAPI document, written once.
#[derive(Clone)]
pub(crate) struct Document(Bytes);

impl Document {
    pub(crate) fn write() -> Result<Self, serde_json::Error> {
        Ok(Self(serde_json::to_vec(&api::document())?.into()))
    }
}

/// The API, for people and programs.
pub(crate) fn api(config: &mut ServiceConfig, document: &Document) {
    let document = document.clone();
    config
        .app_data(
            JsonConfig::default()
                .limit(MOST_JSON)
                .error_handler(|error, _| ApiError::invalid("body", error.to_string()).into()),
        )
        .app_data(
            QueryConfig::default()
                .error_handler(|error, _| ApiError::invalid("query", error.to_string()).into()),
        )
        // An id that cannot be is an id of nothing.
        .app_data(PathConfig::default().error_handler(|_, request| absent(request).into()))
        .route(
            &format!("{}/openapi.json", api::ROOT),
            get().to(move || {
                let body = document.0.clone();
                async move { HttpResponse::Ok().content_type("application/json").body(body) }
            }),
        );
    config.service(actix_web::web::scope(api::ROOT).configure(|config| {
        api::routes(&mut utoipa_actix_web::service_config::ServiceConfig::new(config));
    }));
}

/// The hooks, for senders of webhooks.
pub(crate) fn hooks(config: &mut ServiceConfig) {
    config.service(resource("/hooks/{provider}/{hook}").route(post().to(hooks::receive)));
}

/// For whoever watches over the process, and for all other paths.
pub(crate) fn common(config: &mut ServiceConfig) {
    config
        .route("/healthz", get().to(healthz))
        .route("/readyz", get().to(readyz))
        .default_service(to(not_found));
}

/// The process answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// The store answers.
async fn readyz(state: Data<State>) -> Result<&'static str, ApiError> {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
    let now = tokio::time::timeout(PATIENCE, state.store.now());
    now.await.map_err(|_| ApiError::Unavailable)??;
    Ok("ready\n")
}

async fn not_found(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(absent(&request))
}

fn absent(request: &HttpRequest) -> ApiError {
    ApiError::NotFound {
        what: "route or thing",
        name: format!("{} {}", request.method(), request.path()),
    }
}

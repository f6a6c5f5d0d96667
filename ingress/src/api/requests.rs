//! Requests that start a run. Each returns the run.
//!
//! Bodies are only checked once the caller may act on what the path names. Otherwise mistakes in the body would reveal
//! that it exists.

use actix_web::http::header::HeaderValue;
use actix_web::web::{Bytes, Data, Json, Path as At};
use actix_web::{Error, HttpRequest, HttpResponse, post};
use gantry_api as types;
use gantry_domain::id::{IdempotencyKey, RegistryName, RunId, TaskName, TokenId};
use gantry_seams::requests::Idempotency;
use serde::Serialize;

use super::body;
use crate::access::{Allowed, Run};
use crate::error::{ApiError, Failures};
use crate::refusal::Refusal;
use crate::state::State;
use crate::trace;
use crate::usecase::requests::{self, Asked, Started};
use crate::usecase::{runs, tasks};
use crate::view;

/// The header that says that an earlier request with the same key started the run.
const REPEATED: &str = "idempotent-replayed";

/// Starts a quick build, which belongs to no task.
#[utoipa::path(
    tag = "runs",
    security(("token" = ["run"])),
    params(("registry" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key again starts nothing new")),
    responses((status = 201, body = types::Run), (status = 200, body = types::Run, description = "The run that an earlier request with the same key started"), Failures)
)]
#[post("/registries/{registry}/builds")]
pub(super) async fn start_build(
    state: Data<State>,
    allowed: Allowed<Run>,
    request: HttpRequest,
    at: At<RegistryName>,
    body: Json<types::BuildCreate>,
) -> Result<HttpResponse, ApiError> {
    let registry = allowed.registry(state.store.as_ref(), &at).await?;
    let asked = asked(&request, &allowed.by(), &*body)?;
    Ok(answer(&requests::start_build(&state, &allowed, &registry, &body, asked).await?))
}

/// Starts a run of a task file, which belongs to no task.
#[utoipa::path(
    tag = "runs",
    security(("token" = ["run"])),
    params(("registry" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key again starts nothing new")),
    responses((status = 201, body = types::Run), (status = 200, body = types::Run, description = "The run that an earlier request with the same key started"), Failures)
)]
#[post("/registries/{registry}/runs")]
pub(super) async fn start_file_run(
    state: Data<State>,
    allowed: Allowed<Run>,
    request: HttpRequest,
    at: At<RegistryName>,
    body: Json<types::RunCreate>,
) -> Result<HttpResponse, ApiError> {
    let registry = allowed.registry(state.store.as_ref(), &at).await?;
    let asked = asked(&request, &allowed.by(), &*body)?;
    Ok(answer(&requests::start_file_run(&state, &allowed, &registry, &body, asked).await?))
}

/// Starts a run of a task, with optional overrides.
#[utoipa::path(
    tag = "runs",
    security(("token" = ["run"])),
    params(("registry" = String, Path), ("task" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key again starts nothing new")),
    request_body(content = types::TaskRunCreate, description = "May be left out"),
    responses((status = 201, body = types::Run), (status = 200, body = types::Run, description = "The run that an earlier request with the same key started"), Failures)
)]
#[post("/registries/{registry}/tasks/{task}/runs")]
pub(super) async fn start_task_run(
    state: Data<State>,
    allowed: Allowed<Run>,
    request: HttpRequest,
    at: At<(RegistryName, TaskName)>,
    body: Result<Bytes, Error>,
) -> Result<HttpResponse, ApiError> {
    let (registry, task) = tasks::find(&state, &allowed, &at.0, &at.1).await?;
    let body: types::TaskRunCreate = body::optional(body)?;
    let asked = asked(&request, &allowed.by(), &body)?;
    let started = requests::start_task_run(&state, &allowed, &registry, &task, &body, asked);
    Ok(answer(&started.await?))
}

/// Starts the same build again, at the commit that the run read. If the run ended before its source was fetched, the
/// new one builds the current state of its context. An archive is fetched from its address again.
#[utoipa::path(
    tag = "runs",
    security(("token" = ["run"])),
    params(("run" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key again starts nothing new")),
    request_body(content = types::RerunCreate, description = "May be left out"),
    responses((status = 201, body = types::Run), (status = 200, body = types::Run, description = "The run that an earlier request with the same key started"), Failures)
)]
#[post("/runs/{run}/reruns")]
pub(super) async fn start_rerun(
    state: Data<State>,
    allowed: Allowed<Run>,
    request: HttpRequest,
    at: At<RunId>,
    body: Result<Bytes, Error>,
) -> Result<HttpResponse, ApiError> {
    let run = runs::find(&state, &allowed, *at).await?;
    let body: types::RerunCreate = body::optional(body)?;
    let asked = asked(&request, &allowed.by(), &body)?;
    Ok(answer(&requests::start_rerun(&state, &allowed, &run, &body, asked).await?))
}

fn answer(started: &Started) -> HttpResponse {
    match started {
        Started::New(run) => HttpResponse::Created().json(view::run(run)),
        Started::Before(run) => HttpResponse::Ok()
            .insert_header((REPEATED, HeaderValue::from_static("true")))
            .json(view::run(run)),
    }
}

/// The common parts of a request. An idempotency key is for one request, body included, of one token.
fn asked(request: &HttpRequest, by: &TokenId, body: &impl Serialize) -> Result<Asked, Refusal> {
    let what = format!("{} {}", request.method(), request.path());
    let key = request.headers().get("idempotency-key").map(idempotency_key).transpose()?;
    let idempotency = key.map(|key| {
        let Ok(body) = serde_json::to_string(body) else {
            unreachable!("names and texts always make JSON")
        };
        let asked = format!("{what}\n{body}").into_bytes();
        Idempotency { key: format!("{by}/{key}"), asked }
    });
    Ok(Asked { what, idempotency, span: trace::span(request) })
}

fn idempotency_key(value: &HeaderValue) -> Result<IdempotencyKey, Refusal> {
    const NAME: &str = "Idempotency-Key";
    let text = value.to_str().map_err(|_| Refusal::invalid(NAME, "it is not printable"))?;
    text.parse()
        .map_err(|error: gantry_domain::InvalidText| Refusal::invalid(NAME, error.to_string()))
}

//! The routes of runs and lineages.

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{get, patch, post};
use gantry_api as types;
use gantry_domain::id::{RegistryName, RunId, TaskName};
use gantry_domain::image::Digest;
use gantry_domain::run::RunStatus;
use serde::Deserialize;
use utoipa::IntoParams;

use super::paging::{PageQuery, page};
use crate::access::{Allowed, Read, Run, Write};
use crate::error::{ApiError, Failures};
use crate::refusal::{Mistakes, Refusal};
use crate::state::State;
use crate::usecase::runs::{self, Wanted};
use crate::view;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RunQuery {
    /// Only runs of this registry.
    #[param(value_type = Option<String>)]
    registry: Option<RegistryName>,
    /// Only runs of this task; needs `registry`.
    #[param(value_type = Option<String>)]
    task: Option<TaskName>,
    /// Only runs in this status, like `Failed`.
    #[param(value_type = Option<String>)]
    status: Option<String>,
    /// Only runs that pushed this image: `repository`, `repository:tag`, either with its host, or a digest.
    image: Option<String>,
}

impl RunQuery {
    fn wanted(self) -> Result<Wanted, Refusal> {
        let Self { registry, task, status, image } = self;
        let status = status.as_deref().map(str::parse::<RunStatus>).transpose();
        let status = status.map_err(|error| Refusal::invalid("status", error.to_string()))?;
        Ok(Wanted { registry, task, status, image })
    }
}

/// Lists runs from newest to oldest.
#[utoipa::path(tag = "runs", security(("token" = ["read"])), params(RunQuery, PageQuery), responses((status = 200, body = types::Page<types::Run>), Failures))]
#[get("/runs")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    query: Query<RunQuery>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Run>>, ApiError> {
    let wanted = query.into_inner().wanted()?;
    let listed = runs::list(&state, &allowed, &wanted, &paging.paging()).await?;
    let forecasts = runs::forecasts(state.store.as_ref(), &listed.items).await?;
    Ok(page(&listed, |run| types::Run {
        queue: forecasts.get(&run.id).copied().map(view::queue_place),
        ..view::run(run)
    }))
}

/// Shows a run. For a queued run this includes what it waits for, and where it stands.
#[utoipa::path(tag = "runs", security(("token" = ["read"])), params(("run" = String, Path)), responses((status = 200, body = types::Run), Failures))]
#[get("/runs/{run}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<RunId>,
) -> Result<Json<types::Run>, ApiError> {
    let run = runs::find(&state, &allowed, *at).await?;
    let waits_for = runs::explain_wait(state.store.as_ref(), &run).await?;
    let forecasts = runs::forecasts(state.store.as_ref(), std::slice::from_ref(&run)).await?;
    let queue = forecasts.get(&run.id).copied().map(view::queue_place);
    let steps = view::steps(&run, &runs::last_steps(&state, &run).await?);
    let legs = runs::legs(&state, &run).await?.iter().map(view::leg).collect();
    Ok(Json(types::Run { waits_for, queue, steps, legs, ..view::run(&run) }))
}

/// Sets whether a run and its log are kept for good.
#[utoipa::path(tag = "runs", security(("token" = ["run"])), params(("run" = String, Path)), responses((status = 200, body = types::Run), Failures))]
#[patch("/runs/{run}")]
pub(super) async fn update(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<RunId>,
    body: Json<types::RunUpdate>,
) -> Result<Json<types::Run>, ApiError> {
    let run = runs::archive(&state, &allowed, *at, body.archived).await?;
    Ok(Json(view::run(&run)))
}

/// Requests cancellation. A run without a lease ends at once. A second call, or a call on an ended run, changes
/// nothing.
#[utoipa::path(tag = "runs", security(("token" = ["run"])), params(("run" = String, Path)), responses((status = 200, body = types::Run), Failures))]
#[post("/runs/{run}/cancel")]
pub(super) async fn cancel(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<RunId>,
) -> Result<Json<types::Run>, ApiError> {
    let run = runs::cancel(&state, &allowed, *at).await?;
    Ok(Json(view::run(&run)))
}

/// Lets a held run start, which builds a pull request of a fork. The approval is for exactly one commit. A second call
/// changes nothing.
#[utoipa::path(tag = "runs", security(("token" = ["write"])), params(("run" = String, Path)), request_body = types::RunApproval, responses((status = 200, body = types::Run), Failures))]
#[post("/runs/{run}/approve")]
pub(super) async fn approve(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<RunId>,
    body: Json<types::RunApproval>,
) -> Result<Json<types::Run>, ApiError> {
    let mut mistakes = Mistakes::default();
    let commit = mistakes.parse("commit", &body.commit);
    mistakes.none()?;
    let Some(commit) = commit else { return Err(Refusal::Internal.into()) };
    let run = runs::approve(&state, &allowed, *at, &commit).await?;
    Ok(Json(view::run(&run)))
}

/// Shows the lineage of a pushed digest.
#[utoipa::path(tag = "runs", security(("token" = ["read"])), params(("digest" = String, Path)), responses((status = 200, body = types::Lineage), Failures))]
#[get("/lineages/{digest}")]
pub(super) async fn lineage(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<Digest>,
) -> Result<Json<types::Lineage>, ApiError> {
    let lineage = runs::lineage(&state, &allowed, &at).await?;
    Ok(Json(view::lineage(&lineage)))
}

//! Runs: listed, shown, cancelled, archived.

use std::collections::BTreeSet;

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{get, patch, post};
use gantry_api as types;
use gantry_domain::id::{PoolName, RegistryName, RunId, TaskId, TaskName};
use gantry_domain::image::Digest;
use gantry_domain::run::{Run as RunRecord, RunState, RunStatus};
use gantry_ops::metrics;
use gantry_seams::runs::{self, RunFilter};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{lineages, workers};
use serde::Deserialize;
use utoipa::IntoParams;

use super::paging::Paging;
use crate::access::{Allowed, Needs, Read, Run};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::view;

/// Records that one request reads at most, to find some that its filters let through.
const MOST_LOOKED_AT: usize = 2000;
const LOOKED_AT_ONCE: usize = 200;

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RunQuery {
    /// Of this registry only.
    #[param(value_type = Option<String>)]
    registry: Option<RegistryName>,
    /// Of this task only; needs `registry`.
    #[param(value_type = Option<String>)]
    task: Option<TaskName>,
    /// In this status only, like `Failed`.
    #[param(value_type = Option<String>)]
    status: Option<String>,
    /// That pushed this image: `repository`, `repository:tag`, either with its host, or a digest.
    image: Option<String>,
}

/// Lists runs from the newest.
#[utoipa::path(tag = "runs", security(("token" = ["read"])), params(RunQuery, Paging), responses((status = 200, body = types::Page<types::Run>), Failures))]
#[get("/runs")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    query: Query<RunQuery>,
    paging: Query<Paging>,
) -> Result<Json<types::Page<types::Run>>, ApiError> {
    let store = state.store.as_ref();
    let status = query.status.as_deref().map(str::parse::<RunStatus>).transpose();
    let status = status.map_err(|error| ApiError::invalid("status", error.to_string()))?;
    let filters = filters(store, &allowed, &query, status).await?;
    let wanted = |run: &RunRecord| {
        status.is_none_or(|status| run.status() == status)
            && query.image.as_deref().is_none_or(|image| pushed(run, image))
    };
    let mut last = match &paging.after {
        Some(after) => Some(cursor(store, &allowed, after).await?),
        None => None,
    };
    let is_indexed = query.image.is_none() && (query.task.is_none() || status.is_none());
    let at_once = if is_indexed { paging.limit() + 1 } else { LOOKED_AT_ONCE };
    let mut items = Vec::new();
    let mut looked_at = 0;
    loop {
        let some = newest(store, &filters, last.as_ref(), at_once).await?;
        if some.is_empty() {
            return Ok(Json(types::Page { items, next: None }));
        }
        for run in some {
            if items.len() == paging.limit() || looked_at == MOST_LOOKED_AT {
                let next = last.map(|run: RunRecord| run.id.to_string());
                return Ok(Json(types::Page { items, next }));
            }
            looked_at += 1;
            if wanted(&run) {
                items.push(view::run(&run));
            }
            last = Some(run);
        }
    }
}

async fn filters(
    store: &dyn Store,
    allowed: &Allowed<Read>,
    query: &RunQuery,
    status: Option<RunStatus>,
) -> Result<Vec<RunFilter>, ApiError> {
    if query.registry.is_none() && query.task.is_some() {
        let message = "a task is known by its registry too: give `registry`";
        return Err(ApiError::invalid("task", message));
    }
    let registries = match (&query.registry, allowed.bound_to()) {
        (Some(registry), _) => {
            allowed.registry(store, registry).await?;
            vec![Some(registry)]
        }
        (None, None) => vec![None],
        (None, Some(registries)) => registries.iter().map(Some).collect(),
    };
    let images = query.image.as_deref().map_or_else(|| vec![None], image_names);
    let filter = |registry: Option<&RegistryName>, image: Option<&str>| RunFilter {
        registry: registry.cloned(),
        task: registry
            .zip(query.task.as_ref())
            .map(|(registry, name)| TaskId { registry: registry.clone(), name: name.clone() }),
        image: image.map(str::to_owned),
        status,
    };
    let filters = registries
        .into_iter()
        .flat_map(|registry| images.iter().map(move |image| (registry, *image)))
        .map(|(registry, image)| filter(registry, image));
    Ok(filters.collect())
}

/// What an image may be listed under: its digest, or its repository. What stands before the first slash may be a host.
fn image_names(image: &str) -> Vec<Option<&str>> {
    if image.starts_with("sha256:") {
        return vec![Some(image)];
    }
    let name = without_tag(image);
    let without_host = name.split_once('/').map(|(_, repository)| Some(repository));
    std::iter::once(Some(name)).chain(without_host).collect()
}

fn without_tag(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        // A host may have a port.
        Some((name, tag)) if !tag.contains('/') => name,
        Some(_) | None => name,
    }
}

async fn cursor(
    store: &dyn Store,
    allowed: &Allowed<Read>,
    after: &str,
) -> Result<RunRecord, ApiError> {
    let refused =
        || ApiError::invalid("after", "it is no `next` of a list of runs, or too old: begin anew");
    let id: RunId = after.parse().map_err(|_| refused())?;
    runs::find(store, id).await?.filter(|run| allowed.sees(&run.registry)).ok_or_else(refused)
}

/// The newest runs of several listings, in one order.
async fn newest(
    store: &dyn Store,
    filters: &[RunFilter],
    after: Option<&RunRecord>,
    limit: usize,
) -> Result<Vec<RunRecord>, StoreError> {
    let mut found = Vec::new();
    for filter in filters {
        found.extend(runs::list(store, filter, after, limit).await?);
    }
    if filters.len() > 1 {
        // As each listing is ordered: by time of creation, then by the id's text.
        found.sort_by_cached_key(|run| (std::cmp::Reverse(run.created), run.id.to_string()));
        found.dedup_by_key(|run| run.id);
        found.truncate(limit);
    }
    Ok(found)
}

fn pushed(run: &RunRecord, image: &str) -> bool {
    let product = run.state.done().and_then(|done| done.outcome.product());
    let outputs = product.map_or(&[][..], |product| &product.outputs);
    outputs.iter().any(|output| {
        let reference = &output.image;
        let repository = reference.repository().as_str();
        let without_host = match reference.tag() {
            Some(tag) => format!("{repository}:{tag}"),
            None => repository.to_owned(),
        };
        image == output.digest.as_str()
            || image == repository
            || image == without_host
            || image == format!("{}/{repository}", reference.host())
            || image == reference.to_string()
    })
}

/// Loads a run that the token may act on.
pub(super) async fn find<S: Needs>(
    state: &State,
    allowed: &Allowed<S>,
    id: RunId,
) -> Result<RunRecord, ApiError> {
    runs::find(state.store.as_ref(), id)
        .await?
        .filter(|run| allowed.sees(&run.registry))
        .ok_or_else(|| ApiError::NotFound { what: "run", name: id.to_string() })
}

/// Shows a run, and if it is queued what it waits for.
#[utoipa::path(tag = "runs", security(("token" = ["read"])), params(("run" = String, Path)), responses((status = 200, body = types::Run), Failures))]
#[get("/runs/{run}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<RunId>,
) -> Result<Json<types::Run>, ApiError> {
    let run = find(&state, &allowed, *at).await?;
    let waits_for = explain_wait(state.store.as_ref(), &run).await?;
    Ok(Json(types::Run { waits_for, ..view::run(&run) }))
}

/// What a queued run waits for; of a ready one, with what is wrong with its pool.
pub(super) async fn explain_wait(
    store: &dyn Store,
    run: &RunRecord,
) -> Result<Option<String>, StoreError> {
    let RunState::Ready { pool, .. } = &run.state else {
        return Ok(view::waits_for(run));
    };
    let trouble = pool_trouble(store, pool).await?;
    Ok(view::waits_for(run).map(|text| match trouble {
        Some(trouble) => format!("{text}: {trouble}"),
        None => format!("{text}: all are busy"),
    }))
}

async fn pool_trouble(store: &dyn Store, pool: &PoolName) -> Result<Option<String>, StoreError> {
    let mut workforce = workers::workforce(store).await?;
    if let Some(lack) = workforce.lacks(pool) {
        return Ok(Some(lack.to_string()));
    }
    workforce.workers.retain(|worker| {
        worker.pool == *pool
            && !worker.is_silent(workforce.now)
            && !workforce.drained.contains_key(&worker.id)
    });
    let reasons: BTreeSet<String> = workforce
        .workers
        .iter()
        .map(|worker| worker.idle_because.clone().unwrap_or_default())
        .collect();
    let all_refuse = !reasons.contains("");
    Ok(all_refuse.then(|| {
        let reasons: Vec<String> = reasons.into_iter().collect();
        format!("none takes runs now: {}", reasons.join("; "))
    }))
}

/// Archives a run and its log, so that they are kept for good, or no longer.
#[utoipa::path(tag = "runs", security(("token" = ["run"])), params(("run" = String, Path)), responses((status = 200, body = types::Run), Failures))]
#[patch("/runs/{run}")]
pub(super) async fn update(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<RunId>,
    body: Json<types::RunUpdate>,
) -> Result<Json<types::Run>, ApiError> {
    let run = find(&state, &allowed, *at).await?;
    let run = runs::archive(state.store.as_ref(), run.id, body.archived).await?;
    Ok(Json(view::run(&run)))
}

/// Asks to cancel a run. One that nobody holds ends at once; a second call, and one on a run that ended, change nothing.
#[utoipa::path(tag = "runs", security(("token" = ["run"])), params(("run" = String, Path)), responses((status = 200, body = types::Run), Failures))]
#[post("/runs/{run}/cancel")]
pub(super) async fn cancel(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<RunId>,
) -> Result<Json<types::Run>, ApiError> {
    let found = find(&state, &allowed, *at).await?;
    let run = runs::cancel(state.store.as_ref(), found.id, &allowed.by()).await?;
    if found.state.done().is_none() {
        metrics::run_ended(&run);
    }
    state.doorbells.cancel_asked(&run);
    Ok(Json(view::run(&run)))
}

/// Shows where a pushed digest comes from.
#[utoipa::path(tag = "runs", security(("token" = ["read"])), params(("digest" = String, Path)), responses((status = 200, body = types::Lineage), Failures))]
#[get("/lineages/{digest}")]
pub(super) async fn lineage(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<Digest>,
) -> Result<Json<types::Lineage>, ApiError> {
    let found = lineages::find(state.store.as_ref(), &at).await?;
    let found = found.filter(|lineage| allowed.sees(&lineage.registry));
    let lineage =
        found.ok_or_else(|| ApiError::NotFound { what: "lineage", name: at.to_string() })?;
    Ok(Json(view::lineage(&lineage)))
}

//! Workers: listed, drained, resumed.

use actix_web::web::{Data, Json, Path as At};
use actix_web::{get, post};
use gantry_api as types;
use gantry_domain::id::WorkerId;
use gantry_domain::worker::Workforce;
use gantry_seams::store::StoreError;
use gantry_seams::{runs, workers};

use crate::access::{Admin, Allowed, Read};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::view;

/// Lists workers.
#[utoipa::path(tag = "workers", security(("token" = ["read"])), responses((status = 200, body = types::Page<types::Worker>), Failures))]
#[get("/workers")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
) -> Result<Json<types::Page<types::Worker>>, ApiError> {
    let workforce = visible_workforce(&state, &allowed).await?;
    Ok(Json(types::Page { items: view::workers(&workforce), next: None }))
}

/// The workers, each with those of its runs that the token may see.
pub(super) async fn visible_workforce(
    state: &State,
    allowed: &Allowed<Read>,
) -> Result<Workforce, StoreError> {
    let store = state.store.as_ref();
    let mut workforce = workers::workforce(store).await?;
    if allowed.bound_to().is_none() {
        return Ok(workforce);
    }
    for worker in &mut workforce.workers {
        for run in std::mem::take(&mut worker.runs) {
            let record = runs::find(store, run).await?;
            if record.is_some_and(|record| allowed.sees(&record.registry)) {
                worker.runs.push(run);
            }
        }
    }
    Ok(workforce)
}

/// Lets a worker finish what it has and take nothing more, until it is resumed. One with a fixed name stays drained when
/// it starts again; of another it is forgotten with the worker.
#[utoipa::path(tag = "workers", security(("token" = ["admin", "everywhere"])), params(("worker" = String, Path)), responses((status = 200, body = types::Worker), Failures))]
#[post("/workers/{worker}/drain")]
pub(super) async fn drain(
    state: Data<State>,
    allowed: Allowed<Admin>,
    at: At<WorkerId>,
) -> Result<Json<types::Worker>, ApiError> {
    allowed.check_everywhere()?;
    if !workers::drain(state.store.as_ref(), &at, &allowed.by()).await? {
        return Err(unknown(&at));
    }
    show(&state, &at).await
}

/// Lets a drained worker take runs again.
#[utoipa::path(tag = "workers", security(("token" = ["admin", "everywhere"])), params(("worker" = String, Path)), responses((status = 200, body = types::Worker), Failures))]
#[post("/workers/{worker}/resume")]
pub(super) async fn resume(
    state: Data<State>,
    allowed: Allowed<Admin>,
    at: At<WorkerId>,
) -> Result<Json<types::Worker>, ApiError> {
    allowed.check_everywhere()?;
    if !workers::resume(state.store.as_ref(), &at).await? {
        return Err(unknown(&at));
    }
    show(&state, &at).await
}

async fn show(state: &State, id: &WorkerId) -> Result<Json<types::Worker>, ApiError> {
    let workforce = workers::workforce(state.store.as_ref()).await?;
    let worker = view::workers(&workforce).into_iter().find(|worker| worker.id == id.as_str());
    worker.map(Json).ok_or_else(|| unknown(id))
}

fn unknown(id: &WorkerId) -> ApiError {
    ApiError::NotFound { what: "worker", name: id.to_string() }
}

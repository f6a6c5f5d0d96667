//! The routes of tasks.

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{HttpResponse, delete, get, patch, post};
use gantry_api as types;
use gantry_domain::id::{RegistryName, TaskName};
use serde::Deserialize;
use utoipa::IntoParams;

use super::paging::{PageQuery, page};
use crate::access::{Allowed, Read, Write};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::tasks;
use crate::view;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TaskQuery {
    /// Only tasks of this registry.
    #[param(value_type = Option<String>)]
    registry: Option<RegistryName>,
}

/// Lists tasks by registry and name.
#[utoipa::path(tag = "tasks", security(("token" = ["read"])), params(TaskQuery, PageQuery), responses((status = 200, body = types::Page<types::Task>), Failures))]
#[get("/tasks")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    query: Query<TaskQuery>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Task>>, ApiError> {
    let listed = tasks::list(&state, &allowed, query.registry.as_ref(), &paging.paging()).await?;
    Ok(page(&listed, view::task))
}

/// Creates a task. All mistakes are reported at once.
#[utoipa::path(tag = "tasks", security(("token" = ["write"])), params(("registry" = String, Path)), responses((status = 201, body = types::Task), Failures))]
#[post("/registries/{registry}/tasks")]
pub(super) async fn create(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<RegistryName>,
    body: Json<types::TaskCreate>,
) -> Result<HttpResponse, ApiError> {
    let task = tasks::create(&state, &allowed, &at, &body).await?;
    let around = tasks::surroundings(&state, &task).await?;
    Ok(HttpResponse::Created().json(view::task_with(&task, &around)))
}

/// Shows a task.
#[utoipa::path(tag = "tasks", security(("token" = ["read"])), params(("registry" = String, Path), ("task" = String, Path)), responses((status = 200, body = types::Task), Failures))]
#[get("/registries/{registry}/tasks/{task}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<(RegistryName, TaskName)>,
) -> Result<Json<types::Task>, ApiError> {
    let (registry, name) = at.into_inner();
    let (_, task) = tasks::find(&state, &allowed, &registry, &name).await?;
    let around = tasks::surroundings(&state, &task).await?;
    Ok(Json(view::task_with(&task, &around)))
}

/// Shows the images that a task needs, read from its source when it was saved and when the source moved, or by a run.
#[utoipa::path(tag = "tasks", security(("token" = ["read"])), params(("registry" = String, Path), ("task" = String, Path)), responses((status = 200, body = types::TaskImages), Failures))]
#[get("/registries/{registry}/tasks/{task}/images")]
pub(super) async fn images(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<(RegistryName, TaskName)>,
) -> Result<Json<types::TaskImages>, ApiError> {
    let (registry, name) = at.into_inner();
    let (images, circle) = tasks::images(&state, &allowed, &registry, &name).await?;
    Ok(Json(view::task_images(&images, circle.as_ref())))
}

/// Changes a task, as its next revision. Existing runs are not affected.
#[utoipa::path(tag = "tasks", security(("token" = ["write"])), params(("registry" = String, Path), ("task" = String, Path)), responses((status = 200, body = types::Task), Failures))]
#[patch("/registries/{registry}/tasks/{task}")]
pub(super) async fn update(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, TaskName)>,
    body: Json<types::TaskUpdate>,
) -> Result<Json<types::Task>, ApiError> {
    let (registry, name) = at.into_inner();
    let task = tasks::update(&state, &allowed, &registry, &name, &body).await?;
    let around = tasks::surroundings(&state, &task).await?;
    Ok(Json(view::task_with(&task, &around)))
}

/// Removes a task; its runs are kept until they expire.
#[utoipa::path(tag = "tasks", security(("token" = ["write"])), params(("registry" = String, Path), ("task" = String, Path)), responses((status = 204), Failures))]
#[delete("/registries/{registry}/tasks/{task}")]
pub(super) async fn delete(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, TaskName)>,
) -> Result<HttpResponse, ApiError> {
    let (registry, name) = at.into_inner();
    tasks::delete(&state, &allowed, &registry, &name).await?;
    Ok(HttpResponse::NoContent().finish())
}

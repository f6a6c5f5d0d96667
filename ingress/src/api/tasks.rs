//! Tasks.

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{HttpResponse, delete, get, patch, post};
use gantry_api as types;
use gantry_domain::id::{RegistryName, TaskId, TaskName};
use gantry_domain::platform::Platform;
use gantry_domain::registry::Registry;
use gantry_domain::source::Source;
use gantry_domain::task::{BuildSpec, RunTimeout, Status, Task};
use gantry_seams::{CreateError, tasks};
use serde::Deserialize;
use utoipa::IntoParams;

use super::code_choice;
use super::paging::{Paging, page};
use super::recipe::{Checker, Whole};
use crate::access::{Allowed, Read, Write};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::view;

/// Which tasks.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TaskQuery {
    /// Of this registry only.
    #[param(value_type = Option<String>)]
    registry: Option<RegistryName>,
}

/// Lists tasks by registry and name.
#[utoipa::path(tag = "tasks", security(("token" = ["read"])), params(TaskQuery, Paging), responses((status = 200, body = types::Page<types::Task>), Failures))]
#[get("/tasks")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    query: Query<TaskQuery>,
    paging: Query<Paging>,
) -> Result<Json<types::Page<types::Task>>, ApiError> {
    let store = state.store.as_ref();
    let limit = paging.limit();
    let after: Option<TaskId> = match &paging.after {
        Some(after) => Some(after.parse().map_err(|error: gantry_domain::InvalidText| {
            ApiError::invalid("after", error.to_string())
        })?),
        None => None,
    };
    let mut found = Vec::new();
    match (&query.registry, allowed.bound_to()) {
        (Some(registry), _) => {
            allowed.registry(store, registry).await?;
            found = tasks::list(store, Some(registry), after.as_ref(), limit + 1).await?;
        }
        (None, None) => found = tasks::list(store, None, after.as_ref(), limit + 1).await?,
        (None, Some(registries)) => {
            for registry in registries {
                if after.as_ref().is_some_and(|after| after.registry > *registry) {
                    continue;
                }
                let after = after.as_ref().filter(|after| after.registry == *registry);
                let room = limit + 1 - found.len();
                found.extend(tasks::list(store, Some(registry), after, room).await?);
                if found.len() > limit {
                    break;
                }
            }
        }
    }
    Ok(Json(page(found, limit, |task| task.id.to_string(), view::task)))
}

/// Creates a task. What is wrong with it is said all at once.
#[utoipa::path(tag = "tasks", security(("token" = ["write"])), params(("registry" = String, Path)), responses((status = 201, body = types::Task), Failures))]
#[post("/registries/{registry}/tasks")]
pub(super) async fn create(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<RegistryName>,
    body: Json<types::TaskCreate>,
) -> Result<HttpResponse, ApiError> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, &at).await?;
    let task = new_task(&state, &registry, &body).await?;
    match tasks::create(store, &task).await {
        Ok(event) => {
            if let Some(event) = event {
                state.doorbells.event(event.id, event.trace);
            }
            Ok(HttpResponse::Created().json(view::task(&task)))
        }
        Err(CreateError::Exists { .. }) => Err(ApiError::Conflict {
            code: "exists",
            message: format!("task `{}` is there already: update it", task.id),
        }),
        Err(CreateError::Store(error)) => Err(error.into()),
    }
}

async fn new_task(
    state: &State,
    registry: &Registry,
    body: &types::TaskCreate,
) -> Result<Task, ApiError> {
    let mut check = Checker::new(registry, &state.keyring);
    let name: Option<TaskName> = check.mistakes.parse("name", &body.name);
    let source = check.context(&body.context)?;
    let dockerfile = check.dockerfile(body.dockerfile.as_deref().unwrap_or("Dockerfile"));
    let images = check.images(&body.images);
    let build_args = check.build_args(&body.build_args);
    let secret_build_args = check.secret_build_args(&body.secret_build_args)?;
    let target = body.target.as_deref().and_then(|target| check.mistakes.parse("target", target));
    let platform = match &body.platform {
        Some(platform) => check.platform(platform),
        None => Some(Platform::default()),
    };
    let timeout = match body.timeout {
        Some(seconds) => check.timeout(seconds),
        None => Some(RunTimeout::default()),
    };
    let status = match &body.status {
        Some(status) => check.status("status", status),
        None => Some(Status::Enabled),
    };
    let source_trigger =
        body.source_trigger.as_ref().and_then(|trigger| check.source_trigger(trigger));
    let git_token = match &body.git_token {
        Some(token) => check.git_token(token)?,
        None => None,
    };
    let run_limit = body.run_limit.and_then(|limit| check.run_limit(limit));
    if let Some(source) = &source {
        check.together(&Whole {
            source,
            images: images.as_deref(),
            push: body.push,
            source_trigger: source_trigger.as_ref(),
            has_git_token: body.git_token.is_some(),
            task: name.as_ref(),
        });
    }
    let (
        Some(name),
        Some(source),
        Some(dockerfile),
        Some(images),
        Some(build_args),
        Some(secret_build_args),
        Some(platform),
        Some(timeout),
        Some(status),
    ) = (
        name,
        source,
        dockerfile,
        images,
        build_args,
        secret_build_args,
        platform,
        timeout,
        status,
    )
    else {
        return Err(ApiError::Invalid(check.mistakes));
    };
    let build = BuildSpec {
        source,
        dockerfile,
        images,
        build_args,
        secret_build_args,
        target,
        platform,
        timeout,
        push: body.push,
        no_cache: body.no_cache,
        bases: Vec::new(),
    };
    check.finish(&build, git_token.as_ref())?;
    let now = state.store.now().await?;
    Ok(Task {
        id: TaskId { registry: registry.name.clone(), name },
        revision: 1,
        status,
        build,
        source_trigger,
        git_token,
        run_limit,
        created: now,
        updated: now,
    })
}

/// Loads a task that the token may act on, with its registry.
pub(super) async fn find<S: crate::access::Needs>(
    state: &State,
    allowed: &Allowed<S>,
    (registry, name): &(RegistryName, TaskName),
) -> Result<(Registry, Task), ApiError> {
    let store = state.store.as_ref();
    let found = allowed.registry(store, registry).await?;
    let id = TaskId { registry: registry.clone(), name: name.clone() };
    let task = tasks::find(store, &id).await?;
    Ok((found, task.ok_or_else(|| absent(&id))?))
}

fn absent(id: &TaskId) -> ApiError {
    ApiError::NotFound { what: "task", name: id.to_string() }
}

/// Shows a task.
#[utoipa::path(tag = "tasks", security(("token" = ["read"])), params(("registry" = String, Path), ("task" = String, Path)), responses((status = 200, body = types::Task), Failures))]
#[get("/registries/{registry}/tasks/{task}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<(RegistryName, TaskName)>,
) -> Result<Json<types::Task>, ApiError> {
    let (_, task) = find(&state, &allowed, &at).await?;
    Ok(Json(view::task(&task)))
}

/// Changes a task, as its next revision. Runs that were created before keep what they were created with.
#[utoipa::path(tag = "tasks", security(("token" = ["write"])), params(("registry" = String, Path), ("task" = String, Path)), responses((status = 200, body = types::Task), Failures))]
#[patch("/registries/{registry}/tasks/{task}")]
pub(super) async fn update(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, TaskName)>,
    body: Json<types::TaskUpdate>,
) -> Result<Json<types::Task>, ApiError> {
    let (registry, task) = find(&state, &allowed, &at).await?;
    let changed = changed(&state, &registry, &task, &body)?;
    let is_as_checked = AtomicBool::new(true);
    let updated = tasks::update(state.store.as_ref(), &task.id, |now| {
        let unchanged = now.revision == task.revision;
        is_as_checked.store(unchanged, Ordering::Relaxed);
        if unchanged {
            *now = changed.clone();
        }
    });
    let (task, event) = updated.await?.ok_or_else(|| absent(&task.id))?;
    if !is_as_checked.into_inner() {
        return Err(ApiError::Conflict {
            code: "changed_meanwhile",
            message: format!("task `{}` was changed at the same time: try again", task.id),
        });
    }
    if let Some(event) = event {
        state.doorbells.event(event.id, event.trace);
    }
    Ok(Json(view::task(&task)))
}

/// The task as it is asked to be.
fn changed(
    state: &State,
    registry: &Registry,
    task: &Task,
    asked: &types::TaskUpdate,
) -> Result<Task, ApiError> {
    let mut check = Checker::new(registry, &state.keyring);
    let mut changed = task.clone();
    let build = &mut changed.build;
    if let Some(text) = &asked.context
        && let Some(source) = check.context(text)?
    {
        build.source = source;
    }
    set(&mut build.dockerfile, asked.dockerfile.as_deref(), |text| check.dockerfile(text));
    set(&mut build.images, asked.images.as_ref(), |texts| check.images(texts));
    set(&mut build.build_args, asked.build_args.as_ref(), |args| check.build_args(args));
    if let Some(args) = &asked.secret_build_args {
        build.secret_build_args = check.secret_build_args(args)?.unwrap_or_default();
    }
    if let Some(target) = &asked.target {
        build.target = target.as_deref().and_then(|target| check.mistakes.parse("target", target));
    }
    set(&mut build.platform, asked.platform.as_deref(), |text| check.platform(text));
    set(&mut build.timeout, asked.timeout, |seconds| check.timeout(seconds));
    set(&mut build.push, asked.push, Some);
    set(&mut build.no_cache, asked.no_cache, Some);
    set(&mut changed.status, asked.status.as_deref(), |text| check.status("status", text));
    if let Some(trigger) = &asked.source_trigger {
        changed.source_trigger = trigger.as_ref().and_then(|trigger| check.source_trigger(trigger));
    }
    if let Some(token) = &asked.git_token {
        changed.git_token = match token {
            Some(token) => check.git_token(token)?,
            None => None,
        };
    } else if is_elsewhere(&task.build.source, &changed.build.source) {
        // A token is for the repository that it was given with: it must not be shown to another.
        changed.git_token = None;
    }
    if let Some(limit) = asked.run_limit {
        changed.run_limit = limit.and_then(|limit| check.run_limit(limit));
    }
    check.together(&Whole {
        source: &changed.build.source,
        images: Some(&changed.build.images),
        push: changed.build.push,
        source_trigger: changed.source_trigger.as_ref(),
        has_git_token: changed.git_token.is_some(),
        task: Some(&changed.id.name),
    });
    check.finish(&changed.build, changed.git_token.as_ref())?;
    code_choice::check_update(task, &changed, asked)?;
    Ok(changed)
}

/// Sets a field that was given, unless what was given is wrong.
fn set<T, G>(field: &mut T, given: Option<G>, check: impl FnOnce(G) -> Option<T>) {
    if let Some(value) = given.and_then(check) {
        *field = value;
    }
}

/// Whether a source is another repository or archive than before. Another branch or folder of the repository is not. The
/// addresses are compared as they are: another scheme or port is another server.
pub(super) fn is_elsewhere(before: &Source, after: &Source) -> bool {
    match (before, after) {
        (Source::Git(before), Source::Git(after)) => before.url != after.url,
        _ => before != after,
    }
}

/// Removes a task; its runs stay for as long as they are kept.
#[utoipa::path(tag = "tasks", security(("token" = ["write"])), params(("registry" = String, Path), ("task" = String, Path)), responses((status = 204), Failures))]
#[delete("/registries/{registry}/tasks/{task}")]
pub(super) async fn delete(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, TaskName)>,
) -> Result<HttpResponse, ApiError> {
    let (_, task) = find(&state, &allowed, &at).await?;
    tasks::delete(state.store.as_ref(), &task.id).await?;
    Ok(HttpResponse::NoContent().finish())
}

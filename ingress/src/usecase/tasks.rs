//! Operations on tasks.

use std::sync::atomic::{AtomicBool, Ordering};

use gantry_api::{TaskCreate, TaskUpdate};
use gantry_domain::id::{RegistryName, TaskId, TaskName};
use gantry_domain::recipe::Work;
use gantry_domain::registry::Registry;
use gantry_domain::task::{Status, Task};
use gantry_seams::{AddError, tasks};

use super::code_choice;
use super::paging::{Listed, Paging};
use super::recipe::{Checker, Whole, is_elsewhere};
use crate::access::{Allowed, Needs, Read, Write};
use crate::refusal::Refusal;
use crate::state::State;

/// Lists the tasks of one registry, or of all that the caller sees, by registry and name.
pub(crate) async fn list(
    state: &State,
    allowed: &Allowed<Read>,
    registry: Option<&RegistryName>,
    paging: &Paging,
) -> Result<Listed<Task>, Refusal> {
    let store = state.store.as_ref();
    let limit = paging.limit();
    let after: Option<TaskId> = paging.after_id()?;
    let mut found = Vec::new();
    match (registry, allowed.bound_to()) {
        (Some(registry), _) => {
            allowed.registry(store, registry).await?;
            found = tasks::list(store, Some(registry), after.as_ref(), limit + 1).await?;
        }
        (None, None) => found = tasks::list(store, None, after.as_ref(), limit + 1).await?,
        (None, Some(registries)) => {
            for registry in registries.keys() {
                if after.as_ref().is_some_and(|after| after.registry > *registry) {
                    continue;
                }
                let after = after.as_ref().filter(|after| after.registry == *registry);
                let room = limit + 1 - found.len();
                let of_registry = tasks::list(store, Some(registry), after, room).await?;
                found.extend(of_registry.into_iter().filter(|task| allowed.sees(task)));
                if found.len() > limit {
                    break;
                }
            }
        }
    }
    Ok(Listed::of(found, limit, |task| task.id.to_string()))
}

/// Creates a task. All mistakes are reported at once.
pub(crate) async fn create(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    new: &TaskCreate,
) -> Result<Task, Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, registry).await?;
    let task = new_task(state, &registry, new).await?;
    match tasks::create(store, &task).await {
        Ok((task, event)) => {
            if let Some(event) = event {
                state.doorbells.event(event.id, event.trace);
            }
            Ok(task)
        }
        Err(AddError::Exists { .. }) => Err(Refusal::Conflict {
            code: "exists",
            message: format!("task `{}` is there already: update it", task.id),
        }),
        Err(AddError::NoRegistry { registry }) => Err(Refusal::no_registry(&registry)),
        Err(AddError::Store(error)) => Err(error.into()),
    }
}

async fn new_task(state: &State, registry: &Registry, new: &TaskCreate) -> Result<Task, Refusal> {
    let mut check = Checker::new(registry, &state.keyring);
    let name: Option<TaskName> = check.mistakes.parse("name", &new.name);
    let source = check.context(&new.context)?;
    let build = check.build(source, &new.into())?;
    let status = match &new.status {
        Some(status) => check.status("status", status),
        None => Some(Status::Enabled),
    };
    let source_trigger =
        new.source_trigger.as_ref().and_then(|trigger| check.source_trigger(trigger));
    let git_token = check.git_token(new.git_token.as_deref())?;
    let run_limit = new.run_limit.and_then(|limit| check.run_limit(limit));
    if let Some(source) = &build.source {
        check.together(&Whole {
            source,
            images: build.images.as_deref(),
            push: build.push,
            source_trigger: source_trigger.as_ref(),
            has_git_token: new.git_token.is_some(),
            task: name.as_ref(),
        });
    }
    let (Some(name), Some(recipe), Some(status)) = (name, build.whole(), status) else {
        return Err(Refusal::Invalid(check.mistakes));
    };
    check.finish(&recipe, git_token.as_ref())?;
    let now = state.store.now().await?;
    Ok(Task {
        id: TaskId { registry: registry.name.clone(), name },
        prefix: registry.prefix,
        revision: 1,
        status,
        recipe,
        source_trigger,
        git_token,
        run_limit,
        created: now,
        updated: now,
    })
}

/// Loads a task that the caller may act on, with its registry.
pub(crate) async fn find<S: Needs>(
    state: &State,
    allowed: &Allowed<S>,
    registry: &RegistryName,
    name: &TaskName,
) -> Result<(Registry, Task), Refusal> {
    let store = state.store.as_ref();
    let found = allowed.registry(store, registry).await?;
    let id = TaskId { registry: registry.clone(), name: name.clone() };
    let task = tasks::find(store, &id).await?;
    Ok((found, task.ok_or_else(|| absent(&id))?))
}

fn absent(id: &TaskId) -> Refusal {
    Refusal::NotFound { what: "task", name: id.to_string() }
}

/// Changes a task, as its next revision. Existing runs are not affected.
pub(crate) async fn update(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    name: &TaskName,
    asked: &TaskUpdate,
) -> Result<Task, Refusal> {
    let (registry, task) = find(state, allowed, registry, name).await?;
    let changed = changed(state, &registry, &task, asked)?;
    let is_as_checked = AtomicBool::new(true);
    let updated = tasks::update(state.store.as_ref(), &task.id, |now| {
        let unchanged = now.created == task.created && now.revision == task.revision;
        is_as_checked.store(unchanged, Ordering::Relaxed);
        if unchanged {
            *now = changed.clone();
        }
    });
    let (task, event) = updated.await?.ok_or_else(|| absent(&task.id))?;
    if !is_as_checked.into_inner() {
        return Err(Refusal::Conflict {
            code: "changed_meanwhile",
            message: format!("task `{}` was changed at the same time: try again", task.id),
        });
    }
    if let Some(event) = event {
        state.doorbells.event(event.id, event.trace);
    }
    Ok(task)
}

/// The task with the requested changes.
fn changed(
    state: &State,
    registry: &Registry,
    task: &Task,
    asked: &TaskUpdate,
) -> Result<Task, Refusal> {
    let mut check = Checker::new(registry, &state.keyring);
    let mut changed = task.clone();
    let recipe = &mut changed.recipe;
    if let Some(text) = &asked.context
        && let Some(source) = check.context(text)?
    {
        recipe.source = source;
    }
    let Work::Build(build) = &mut recipe.work;
    set(&mut build.dockerfile, asked.dockerfile.as_deref(), |text| check.dockerfile(text));
    set(&mut build.images, asked.images.as_ref(), |texts| check.images(texts));
    set(&mut build.build_args, asked.build_args.as_ref(), |args| check.build_args(args));
    if let Some(args) = &asked.secret_build_args {
        build.secret_build_args = check.secret_build_args(args)?.unwrap_or_default();
    }
    if let Some(target) = &asked.target {
        build.target = target.as_deref().and_then(|target| check.mistakes.parse("target", target));
    }
    set(&mut recipe.platform, asked.platform.as_deref(), |text| check.platform(text));
    set(&mut recipe.timeout, asked.timeout, |seconds| check.timeout(seconds));
    set(&mut build.push, asked.push, Some);
    set(&mut build.no_cache, asked.no_cache, Some);
    set(&mut changed.status, asked.status.as_deref(), |text| check.status("status", text));
    if let Some(trigger) = &asked.source_trigger {
        changed.source_trigger = trigger.as_ref().and_then(|trigger| check.source_trigger(trigger));
    }
    if let Some(token) = &asked.git_token {
        changed.git_token = check.git_token(token.as_deref())?;
    } else if is_elsewhere(&task.recipe.source, &changed.recipe.source) {
        // A token belongs to the repository that it was given for, and must not be sent to another.
        changed.git_token = None;
    }
    if let Some(limit) = asked.run_limit {
        changed.run_limit = limit.and_then(|limit| check.run_limit(limit));
    }
    let Work::Build(build) = &changed.recipe.work;
    check.together(&Whole {
        source: &changed.recipe.source,
        images: Some(&build.images),
        push: build.push,
        source_trigger: changed.source_trigger.as_ref(),
        has_git_token: changed.git_token.is_some(),
        task: Some(&changed.id.name),
    });
    check.finish(&changed.recipe, changed.git_token.as_ref())?;
    code_choice::check_update(task, &changed, asked)?;
    Ok(changed)
}

/// Sets a field that was given and is valid.
fn set<T, G>(field: &mut T, given: Option<G>, check: impl FnOnce(G) -> Option<T>) {
    if let Some(value) = given.and_then(check) {
        *field = value;
    }
}

/// Removes a task; its runs are kept until they expire.
pub(crate) async fn delete(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    name: &TaskName,
) -> Result<(), Refusal> {
    let (_, task) = find(state, allowed, registry, name).await?;
    tasks::delete(state.store.as_ref(), &task.id).await?;
    Ok(())
}

//! Operations on tasks.

use std::sync::atomic::{AtomicBool, Ordering};

use gantry_api::{TaskCreate, TaskUpdate};
use gantry_domain::id::{RegistryName, TaskId, TaskName};
use gantry_domain::recipe::Recipe;
use gantry_domain::registry::Registry;
use gantry_domain::scan::TaskImages;
use gantry_domain::task::{Status, Task};
use gantry_seams::place::Place;
use gantry_seams::provisioning::{self, Provisioned};
use gantry_seams::timers::{self, Scheduled};
use gantry_seams::{AddError, task_images, tasks};

use super::circles::{self, Circle};
use super::paging::{Listed, Paging};
use super::recipe::{Checker, Whole, lint};
use super::task_change::changed;
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
            state.doorbells.event(event.id, event.trace);
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
    let now = state.store.now().await?;
    let mut check = Checker::new(registry, &state.keyring);
    let name: Option<TaskName> = check.mistakes.parse("name", &new.name);
    let mut source = check.context(&new.context)?;
    if let Some(source) = &mut source {
        check.lfs(source, new.lfs);
        check.submodules(source, new.submodules);
        check.host_keys(source, &new.git_host_keys);
    }
    let parts = check.recipe(source, &new.into(), new.task_file.as_ref())?;
    let status = match &new.status {
        Some(status) => check.status("status", status),
        None => Some(Status::Enabled),
    };
    let source_trigger =
        new.source_trigger.as_ref().and_then(|trigger| check.source_trigger(trigger));
    let base_image_trigger = new.base_image_trigger.clone().unwrap_or_default();
    let base_image_trigger = check.base_image_trigger(&base_image_trigger);
    let follows = check.base_image_follow(&new.base_image_follow);
    let timers = check.timers(&new.timers, now);
    let git_token = check.git_token(new.git_token.as_deref(), parts.source.as_ref())?;
    let api_token = check.api_token(new.api_token.as_deref())?;
    let run_limit = new.run_limit.and_then(|limit| check.run_limit(limit));
    let group = new.concurrency_group.as_deref();
    let concurrency_group = group.and_then(|group| check.concurrency_group(group));
    if let Some(source) = &parts.source {
        check.together(&Whole {
            source,
            needs_files: parts.needs_files(),
            images: parts.images(),
            push: parts.pushes(),
            source_trigger: source_trigger.as_ref(),
            has_git_token: new.git_token.is_some(),
            has_api_token: new.api_token.is_some(),
            task: name.as_ref(),
        });
    }
    let (Some(name), Some(recipe), Some(follows), Some(status), Some(timers)) =
        (name, parts.whole(), follows, status, timers)
    else {
        return Err(Refusal::Invalid(check.mistakes));
    };
    let recipe = Recipe { follows, ..recipe };
    check.finish(&recipe, git_token.as_ref())?;
    lint(&recipe).await?;
    Ok(Task {
        id: TaskId { registry: registry.name.clone(), name },
        prefix: registry.prefix,
        revision: 1,
        status,
        recipe,
        source_trigger,
        base_image_trigger,
        timers,
        git_token,
        reports: new.report_status,
        api_token,
        run_limit,
        concurrency_group,
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

/// What is known of a task beside its record.
pub(crate) struct Surroundings {
    /// The webhook that it needs.
    pub(crate) webhook: TaskWebhook,
    /// When its enabled timers are due next.
    pub(crate) due: Vec<Scheduled>,
}

/// What is known of a task beside its record.
pub(crate) async fn surroundings(state: &State, task: &Task) -> Result<Surroundings, Refusal> {
    let webhook = webhook(state, task).await?;
    Ok(Surroundings { webhook, due: timers::of_task(state.store.as_ref(), task).await? })
}

/// The webhook that a task needs at its code host.
pub(crate) enum TaskWebhook {
    /// Its triggers start nothing by webhooks.
    NotNeeded,
    /// A scheduler is about to look at it.
    Pending,
    /// As a scheduler last saw it.
    Kept(Box<Provisioned>),
}

/// How the webhook that a task needs stands.
async fn webhook(state: &State, task: &Task) -> Result<TaskWebhook, Refusal> {
    let store = state.store.as_ref();
    let Some(url) = task.repository().filter(|_| task.needs_webhook()) else {
        return Ok(TaskWebhook::NotNeeded);
    };
    let place = Place { registry: task.prefix, repository: url.key() };
    let kept = provisioning::find(store, &place).await?;
    let is_in_place =
        kept.as_ref().is_some_and(|kept| matches!(kept.state, provisioning::State::InPlace { .. }));
    if !is_in_place && provisioning::is_asked(store, &place).await? {
        return Ok(TaskWebhook::Pending);
    }
    Ok(kept.map_or(TaskWebhook::Pending, |kept| TaskWebhook::Kept(Box::new(kept))))
}

fn absent(id: &TaskId) -> Refusal {
    Refusal::NotFound { what: "task", name: id.to_string() }
}

/// The images that a task needs, as far as they are known, and the circle that they close.
pub(crate) async fn images(
    state: &State,
    allowed: &Allowed<Read>,
    registry: &RegistryName,
    name: &TaskName,
) -> Result<(TaskImages, Option<Circle>), Refusal> {
    let store = state.store.as_ref();
    let (registry, task) = find(state, allowed, registry, name).await?;
    let circle = circles::of_task(store, &registry, &task).await?;
    Ok((task_images::find(store, &task).await?, circle))
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
    let now = state.store.now().await?;
    let changed = changed(&state.keyring, &registry, &task, asked, now)?;
    lint(&changed.recipe).await?;
    circles::refuse_new(state.store.as_ref(), &registry, &task, &changed).await?;
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

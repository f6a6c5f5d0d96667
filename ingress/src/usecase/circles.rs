//! Tasks that are based on each other in a circle: known from the images that each needs and pushes.
//!
//! A save that would close one is refused. One that is closed otherwise, by a commit or by two saves at once, is
//! tolerated: waves end all the same. Then the images of the task tell it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use gantry_domain::id::{TaskId, TaskName};
use gantry_domain::image::ImageReference;
use gantry_domain::recipe::{ImageBuild, Recipe, Work};
use gantry_domain::registry::Registry;
use gantry_domain::task::{Status, Task};
use gantry_domain::template::RunVariables;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::NodeTask;
use gantry_seams::image_users::{self, Which};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{image_watches, last_builds, task_images, tasks};

use super::recipe::widest_run;
use crate::refusal::Refusal;

/// How many tasks are looked at. A circle through more is not found.
const MOST_TASKS: usize = 1000;

/// Tasks of one registry, each with an image that is a base of the next, and the last with one that is a base of the first.
/// A task that is based on its own image only is none: it is not rebuilt because of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Circle(Vec<TaskName>);

impl Circle {
    /// From the task that was asked for, back to it.
    pub(crate) fn names(&self) -> impl Iterator<Item = &TaskName> {
        self.0.iter().chain(self.0.first())
    }
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names().map(TaskName::as_str).collect();
        f.write_str(&names.join(" → "))
    }
}

/// Refuses a change of a task that closes a circle. Nothing is refused if the images of the changed task are not known
/// before its source is read again, or if the circle was there before.
pub(super) async fn refuse_new(
    store: &dyn Store,
    registry: &Registry,
    before: &Task,
    after: &Task,
) -> Result<(), Refusal> {
    let is_alike = before.recipe.work == after.recipe.work
        && before.base_image_trigger == after.base_image_trigger
        && before.status == after.status;
    if is_alike || reads(&before.recipe) != reads(&after.recipe) {
        return Ok(());
    }
    let Some(circle) = of_task(store, registry, after).await? else { return Ok(()) };
    if of_task(store, registry, before).await?.as_ref() == Some(&circle) {
        return Ok(());
    }
    let message = format!(
        "task `{}` would be based on its own image: {circle}: push it under another name, or disable the base image \
         trigger of one of these tasks",
        after.id
    );
    Err(Refusal::Conflict { code: "circle", message })
}

/// What decides which images a task needs: its recipe without what becomes of the result.
fn reads(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    if let Work::Build(build) = &mut recipe.work {
        (build.images, build.push, build.no_cache) = (Vec::new(), false, false);
    }
    recipe
}

/// The shortest circle through a task; `None` if none is known.
pub(super) async fn of_task(
    store: &dyn Store,
    registry: &Registry,
    task: &Task,
) -> Result<Option<Circle>, StoreError> {
    let bases = bases(store, task).await?;
    if bases.is_empty() {
        return Ok(None);
    }
    // Each task that was reached, by the one through whose image it was first.
    let mut makers: BTreeMap<TaskName, TaskName> = BTreeMap::new();
    let mut open = VecDeque::from([task.clone()]);
    while let Some(maker) = open.pop_front() {
        let name = &maker.id.name;
        for image in pushes(store, registry, &maker).await? {
            if *name != task.id.name && is_based_on(&bases, &image) {
                return Ok(Some(circle(&task.id.name, name, &makers)));
            }
            for user in based_on(store, registry, &image).await? {
                let is_known = user.id.name == task.id.name || makers.contains_key(&user.id.name);
                if is_known {
                    continue;
                }
                if makers.len() == MOST_TASKS {
                    return Ok(None);
                }
                makers.insert(user.id.name.clone(), name.clone());
                open.push_back(user);
            }
        }
    }
    Ok(None)
}

/// The way from `first` to `last`.
fn circle(first: &TaskName, last: &TaskName, makers: &BTreeMap<TaskName, TaskName>) -> Circle {
    let mut names = vec![last.clone()];
    while let Some(maker) =
        names.last().filter(|name| *name != first).and_then(|name| makers.get(name))
    {
        names.push(maker.clone());
    }
    names.reverse();
    Circle(names)
}

/// The images whose changes start a task, as far as known.
async fn bases(store: &dyn Store, task: &Task) -> Result<BTreeSet<TrackedImage>, StoreError> {
    let Some(trigger) = task.base_image_trigger.as_ref().filter(|_| task.status == Status::Enabled)
    else {
        return Ok(BTreeSet::new());
    };
    let read = task_images::find(store, task).await?.read;
    let needed = read.iter().flat_map(|read| read.needed.images());
    let counted = needed.filter(|needed| trigger.counts(needed).is_ok());
    Ok(counted.filter_map(|needed| task.recipe.follows.track(&needed.image)).collect())
}

fn is_based_on(bases: &BTreeSet<TrackedImage>, image: &ImageReference) -> bool {
    bases.iter().any(|base| base.may_be(image))
}

/// The tasks of a registry that an image starts when it changes.
async fn based_on(
    store: &dyn Store,
    registry: &Registry,
    image: &ImageReference,
) -> Result<Vec<Task>, StoreError> {
    let (which, prefix) = (Which::Counted, registry.prefix);
    let mut users = Vec::new();
    for tracked in image_watches::tracking(store, &[prefix], image).await? {
        users.extend(image_users::in_registry(store, &tracked, which, prefix, MOST_TASKS).await?);
    }
    let mut found = Vec::new();
    for user in users {
        let id = TaskId { registry: registry.name.clone(), name: user.task };
        let task = tasks::find(store, &id).await?.filter(|task| task.created == user.created);
        // The index is a claim.
        if let Some(task) = task
            && is_based_on(&bases(store, &task).await?, image)
        {
            found.push(task);
        }
    }
    Ok(found)
}

/// The tags that each run of a task pushes. Those that its recipe does not tell are the ones of its last run.
async fn pushes(
    store: &dyn Store,
    registry: &Registry,
    task: &Task,
) -> Result<BTreeSet<ImageReference>, StoreError> {
    let (mut pushed, are_all_told) = match &task.recipe.work {
        Work::Build(build) if !build.push => (BTreeSet::new(), true),
        Work::Build(build) => declared(registry, task, build),
        Work::File(_) => (BTreeSet::new(), false),
    };
    if !are_all_told {
        let last = last_builds::find(store, &NodeTask::of(task)).await?;
        pushed.extend(last.into_iter().flat_map(|last| last.made));
    }
    Ok(pushed)
}

/// The tags that are the same in each run, and whether the others are those of one run only.
fn declared(
    registry: &Registry,
    task: &Task,
    build: &ImageBuild,
) -> (BTreeSet<ImageReference>, bool) {
    let variables = RunVariables {
        platform: task.recipe.platforms.first(),
        task: Some(&task.id.name),
        ..widest_run(&registry.host)
    };
    let (same, others): (Vec<_>, Vec<_>) =
        build.images.iter().partition(|template| template.is_of_every_run());
    let same = same.iter().map(|template| template.render(&variables));
    let same = same.filter_map(|text| ImageReference::parse_in(&text, &registry.host).ok());
    (same.collect(), others.iter().all(|template| template.is_of_one_run()))
}

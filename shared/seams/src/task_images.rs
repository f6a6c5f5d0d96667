//! The images that each task needs: a record beside each task, made and deleted with it.
//!
//! Scans and runs of a task write it through [`crate::runs`], in commits that check their leases. So a run that outlives
//! its task writes nothing. Every change updates [`crate::image_users`] in the same commit.

use std::collections::BTreeSet;

use gantry_domain::base_trigger::BaseImageTrigger;
use gantry_domain::image::RegistryHost;
use gantry_domain::run::Run;
use gantry_domain::scan::{Reading, Scanned, TaskImages};
use gantry_domain::task::{Status, Task};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::tracked_image::TagPolicies;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Versioned};
use crate::image_users::{self, Needs, Owner};
use crate::store::{Batch, Expect, Key, Kind, Store, StoreError};

/// The record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    images: TaskImages,
    /// The trigger of the task, if both are enabled. A copy, because a worker that records images may not read tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trigger: Option<BaseImageTrigger>,
    /// The policies of the task, a copy as well.
    #[serde(default, skip_serializing_if = "TagPolicies::is_empty")]
    policies: TagPolicies,
    /// The registries that the task has a login for, a copy as well.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    logins: BTreeSet<RegistryHost>,
}

impl Stored {
    fn needs(&self) -> Needs<'_> {
        let read = self.images.read.as_ref();
        let images = read.map_or(&[][..], |read| read.needed.images());
        let Self { policies, logins, .. } = self;
        Needs { images, trigger: self.trigger.as_ref(), policies, logins }
    }
}

/// The key contains the time of creation, because a later task may have the same name.
fn key(owner: Owner<'_>) -> Key {
    let Owner { registry, task, created } = owner;
    Key::new(Kind::TaskImages, format_args!("{registry}/{task}@{}", created.as_millis()))
}

fn owner(task: &Task) -> Owner<'_> {
    Owner { registry: task.prefix, task: &task.id.name, created: task.created }
}

fn trigger_of(task: &Task) -> Option<BaseImageTrigger> {
    let trigger = task.base_image_trigger.clone();
    trigger.filter(|it| task.status == Status::Enabled && it.status == Status::Enabled)
}

fn stored(images: TaskImages, task: &Task) -> Stored {
    let (policies, logins) = (task.recipe.follows.clone(), &task.recipe.logins);
    Stored { images, trigger: trigger_of(task), policies, logins: logins.keys().cloned().collect() }
}

/// Nothing is known of a record that does not decode. Until the task is saved again, its images count as a new task's do.
async fn load(store: &dyn Store, key: &Key) -> Result<Option<Versioned<Stored>>, StoreError> {
    let trigger = Some(BaseImageTrigger::default());
    let nothing = || Stored {
        images: TaskImages::default(),
        trigger,
        policies: TagPolicies::default(),
        logins: BTreeSet::new(),
    };
    codec::load_or(store, key, nothing).await
}

/// The images that a task needs, as far as they are known.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, task: &Task) -> Result<TaskImages, StoreError> {
    let found = codec::load::<Stored>(store, &key(owner(task))).await?;
    Ok(found.map(|found| found.value.images).unwrap_or_default())
}

/// Adds the record of a new task to the batch: nothing is known yet.
pub(crate) fn create(batch: &mut Batch, task: &Task) -> Result<(), StoreError> {
    let key = key(owner(task));
    let stored = stored(TaskImages::default(), task);
    batch.create(key.clone(), codec::encode(&key, &stored)?);
    Ok(())
}

/// Adds to the batch what a new revision of a task means for its images.
pub(crate) async fn change(
    store: &dyn Store,
    batch: &mut Batch,
    task: &Task,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(known) = load(store, &key(owner(task))).await? else { return Ok(()) };
    let after = stored(known.value.images.clone(), task);
    replace(batch, owner(task), known, after, now)
}

/// Removes the record with its task.
pub(crate) async fn forget(
    store: &dyn Store,
    batch: &mut Batch,
    task: &Task,
    now: Timestamp,
) -> Result<(), StoreError> {
    let key = key(owner(task));
    let Some(known) = load(store, &key).await? else { return Ok(()) };
    let (policies, logins) = (TagPolicies::default(), BTreeSet::new());
    let nothing = Needs { images: &[], trigger: None, policies: &policies, logins: &logins };
    image_users::change(batch, owner(task), known.value.needs(), nothing, now);
    batch.expect.push((key.clone(), Expect::Version(known.version)));
    batch.delete.push(key);
    Ok(())
}

/// Adds to the batch what a run found. Adds nothing if the run does not tell which images its task needs, the task is
/// gone, or a newer state of it is known.
pub(crate) async fn take_in(
    store: &dyn Store,
    batch: &mut Batch,
    run: &Run,
    found: &Scanned,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(task) = run.unchanged_task() else { return Ok(()) };
    let owner = Owner { registry: run.id.prefix(), task: &task.name, created: task.created };
    let Some(known) = load(store, &key(owner)).await? else { return Ok(()) };
    let mut after = known.value.clone();
    after.images.take_in(Reading::by(run, task, now), found.clone());
    replace(batch, owner, known, after, now)
}

/// Adds nothing if nothing changes.
fn replace(
    batch: &mut Batch,
    owner: Owner<'_>,
    mut known: Versioned<Stored>,
    after: Stored,
    now: Timestamp,
) -> Result<(), StoreError> {
    if known.value == after {
        return Ok(());
    }
    image_users::change(batch, owner, known.value.needs(), after.needs(), now);
    known.value = after;
    known.replace_in(batch, key(owner))
}

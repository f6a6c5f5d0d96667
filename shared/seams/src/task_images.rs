//! The images that each task needs: a record beside each task, made and deleted with it.
//!
//! Scans and runs of a task write it through [`crate::runs`], in commits that check their leases. So a run that outlives
//! its task writes nothing.

use gantry_domain::id::{RunPrefix, TaskName};
use gantry_domain::run::Run;
use gantry_domain::scan::{Reading, Scanned, TaskImages};
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;

use crate::codec;
use crate::store::{Batch, Key, Kind, Store, StoreError};

/// The key contains the time of creation, because a later task may have the same name.
fn key(registry: RunPrefix, name: &TaskName, created: Timestamp) -> Key {
    Key::new(Kind::TaskImages, format_args!("{registry}/{name}@{}", created.as_millis()))
}

fn key_of(task: &Task) -> Key {
    key(task.prefix, &task.id.name, task.created)
}

/// The images that a task needs, as far as they are known.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, task: &Task) -> Result<TaskImages, StoreError> {
    let found = codec::load::<TaskImages>(store, &key_of(task)).await?;
    Ok(found.map(|found| found.value).unwrap_or_default())
}

/// Adds the record of a new task to the batch: nothing is known yet.
pub(crate) fn create(batch: &mut Batch, task: &Task) -> Result<(), StoreError> {
    let key = key_of(task);
    batch.create(key.clone(), codec::encode(&key, &TaskImages::default())?);
    Ok(())
}

/// Removes the record with its task.
pub(crate) fn forget(batch: &mut Batch, task: &Task) {
    batch.delete.push(key_of(task));
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
    let key = key(run.id.prefix(), &task.name, task.created);
    let reading = Reading::by(run, task, now);
    match codec::load::<TaskImages>(store, &key).await {
        Ok(None) => Ok(()),
        Ok(Some(mut known)) => {
            let before = known.value.clone();
            known.value.take_in(reading, found.clone());
            if known.value == before { Ok(()) } else { known.replace_in(batch, key) }
        }
        // It is in quarantine, and what was found now replaces it.
        Err(StoreError::Undecodable { .. }) => {
            let mut images = TaskImages::default();
            images.take_in(reading, found.clone());
            batch.put(key.clone(), codec::encode(&key, &images)?);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

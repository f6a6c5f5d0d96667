//! What the steps of each attempt do: a record for each attempt, beside its run.
//!
//! The attempt alone writes it, so nothing is expected of the run's record, and a worker that lost its lease can only
//! write what nobody goes by. The last write is part of the commit that ends the attempt.

use gantry_domain::id::RunId;
use gantry_domain::run::Run;
use gantry_domain::step::Steps;

use crate::codec;
use crate::collection::commit_unconditional;
use crate::store::{Batch, Key, Kind, Store, StoreError};

/// Writes where the steps of an attempt stand.
///
/// # Errors
/// [`StoreError`].
pub async fn record(
    store: &dyn Store,
    run: RunId,
    attempt: u32,
    steps: &Steps,
) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    put(&mut batch, run, attempt, steps)?;
    commit_unconditional(store, batch).await
}

/// Adds to a batch where the steps of an attempt stand.
pub(crate) fn put(
    batch: &mut Batch,
    run: RunId,
    attempt: u32,
    steps: &Steps,
) -> Result<(), StoreError> {
    let key = key(run, attempt);
    batch.put(key.clone(), codec::encode(&key, steps)?);
    Ok(())
}

/// The steps of an attempt; none if it has begun none.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, run: RunId, attempt: u32) -> Result<Steps, StoreError> {
    let found = codec::load::<Steps>(store, &key(run, attempt)).await?;
    Ok(found.map(|found| found.value).unwrap_or_default())
}

/// Removes those of every attempt of a run that has ended.
pub(crate) fn forget(batch: &mut Batch, run: &Run) {
    batch.delete.extend(run.attempts.iter().map(|ended| key(run.id, ended.attempt)));
}

fn key(run: RunId, attempt: u32) -> Key {
    Key::new(Kind::Steps, format_args!("{run}/{attempt}"))
}

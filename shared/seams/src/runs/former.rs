//! The runs of a former build, which signed none and knew fewer indexes.

use gantry_domain::run::Run;
use gantry_domain::signature::Signer;

use super::indexes::{self, reindex};
use crate::store::{Batch, CommitError, Entry, From, Key, Kind, Store, StoreError};
use crate::{codec, installation};

/// How many runs one commit mends.
const A_COMMIT: usize = 64;

/// Signs every run of an installation in which none was signed yet; afterwards, and in one that began by signing, nothing.
/// Answers how many.
///
/// Only for who knows that nobody else writes to the store, and that no worker ever had a user of its own there: what is
/// signed here was vouched for by nobody.
///
/// # Errors
/// [`StoreError`]: what was signed stays so, and the next call goes on.
pub async fn sign_former(store: &dyn Store, signer: &dyn Signer) -> Result<usize, StoreError> {
    if installation::find(store).await?.is_none_or(|found| found.signs_runs) {
        return Ok(0);
    }
    let signed = mend_all(store, |run, _| {
        let is_unsigned = run.signature.is_none();
        if is_unsigned {
            run.sign(signer);
        }
        is_unsigned
    })
    .await?;
    installation::change(store, |installation| installation.signs_runs = true).await?;
    Ok(signed)
}

/// Enters every run into the indexes that a former build did not keep; afterwards, and in an installation that began with
/// them, nothing. Answers how many. Others may write meanwhile.
///
/// # Errors
/// [`StoreError`]: what was entered stays so, and the next call begins anew.
pub async fn index_former(store: &dyn Store) -> Result<usize, StoreError> {
    if installation::find(store).await?.is_none_or(|found| found.indexes_runs) {
        return Ok(0);
    }
    let indexed = mend_all(store, |run, batch| {
        reindex(batch, None, Some(run));
        true
    })
    .await?;
    installation::change(store, |installation| installation.indexes_runs = true).await?;
    Ok(indexed)
}

/// Shows each run to `mend`, which says whether it changed something of it, and may add to the batch. Answers how often.
async fn mend_all(
    store: &dyn Store,
    mut mend: impl FnMut(&mut Run, &mut Batch) -> bool,
) -> Result<usize, StoreError> {
    let (mut mended, mut from) = (0, From::Start);
    loop {
        let entries = store.range(&indexes::all(), from, A_COMMIT).await?;
        mended += mend_some(store, &entries, &mut mend).await?;
        match entries.into_iter().next_back() {
            Some(last) => from = From::After(last),
            None => return Ok(mended),
        }
    }
}

async fn mend_some(
    store: &dyn Store,
    entries: &[Entry],
    mend: &mut impl FnMut(&mut Run, &mut Batch) -> bool,
) -> Result<usize, StoreError> {
    let keys: Vec<Key> = entries.iter().map(|entry| Key::new(Kind::Run, &entry.member)).collect();
    loop {
        let mut batch = Batch::default();
        let mut mended = 0;
        for mut found in codec::load_all::<Run>(store, &keys).await? {
            if mend(&mut found.value, &mut batch) {
                let key = super::key(found.value.id);
                found.replace_in(&mut batch, key)?;
                mended += 1;
            }
        }
        if batch.is_empty() {
            return Ok(0);
        }
        match store.commit(batch).await {
            Ok(()) => return Ok(mended),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
}

//! The runs of a former build, which signed none.

use gantry_domain::run::Run;
use gantry_domain::signature::Signer;

use super::indexes;
use crate::store::{Batch, CommitError, Entry, From, Key, Kind, Store, StoreError};
use crate::{codec, installation};

/// How many runs one commit signs.
const A_COMMIT: usize = 128;

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
    let (mut signed, mut from) = (0, From::Start);
    loop {
        let entries = store.range(&indexes::all(), from, A_COMMIT).await?;
        signed += sign_unsigned(store, signer, &entries).await?;
        match entries.into_iter().next_back() {
            Some(last) => from = From::After(last),
            None => break,
        }
    }
    installation::set_signs_runs(store).await?;
    Ok(signed)
}

async fn sign_unsigned(
    store: &dyn Store,
    signer: &dyn Signer,
    entries: &[Entry],
) -> Result<usize, StoreError> {
    let keys: Vec<Key> = entries.iter().map(|entry| Key::new(Kind::Run, &entry.member)).collect();
    loop {
        let mut batch = Batch::default();
        let mut signed = 0;
        for mut found in codec::load_all::<Run>(store, &keys).await? {
            if found.value.signature.is_none() {
                found.value.sign(signer);
                let key = super::key(found.value.id);
                found.replace_in(&mut batch, key)?;
                signed += 1;
            }
        }
        if batch.is_empty() {
            return Ok(0);
        }
        match store.commit(batch).await {
            Ok(()) => return Ok(signed),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
}

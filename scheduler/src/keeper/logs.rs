//! Seals the logs of ended attempts that their worker could not seal, because it was lost or the object store did not
//! answer.

use gantry_seams::logs::{self, LogError, LogId};
use gantry_seams::runs;
use gantry_seams::store::StoreError;

use super::Keeper;

/// How many open logs are read at once.
const PAGE: usize = 128;

impl Keeper {
    /// Packs what ended attempts left of their logs in the store. Returns how many logs were sealed. Stops at the first
    /// error of the object store; the rest is packed later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn seal_logs(&self) -> Result<usize, StoreError> {
        let mut sealed = 0;
        let mut after = None;
        loop {
            let open = logs::open_logs(self.store.as_ref(), after, PAGE).await?;
            let Some(&last) = open.last() else { return Ok(sealed) };
            after = Some(last);
            for log in open {
                match self.seal_if_over(log).await {
                    Ok(was_over) => sealed += usize::from(was_over),
                    // Its run does not decode, so it is unknown whether the attempt has ended.
                    Err(LogError::Store(StoreError::Undecodable { .. })) => {}
                    Err(LogError::Store(error)) => return Err(error),
                    Err(LogError::Blob(error)) => {
                        tracing::warn!(run.id = %log.run, "the log of run {} is packed later: {error}", log.run);
                        return Ok(sealed);
                    }
                }
            }
        }
    }

    async fn seal_if_over(&self, log: LogId) -> Result<bool, LogError> {
        let (store, blobs) = (self.store.as_ref(), self.blobs.as_ref());
        let Some(run) = runs::find(store, log.run).await? else {
            logs::delete(store, blobs, log).await?;
            return Ok(true);
        };
        if run.state.lease().is_some_and(|lease| lease.attempt == log.attempt) {
            return Ok(false);
        }
        logs::seal(store, blobs, log).await?;
        Ok(true)
    }
}

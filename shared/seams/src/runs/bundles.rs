//! The sealed secrets of ready runs.
//!
//! The key contains the pool, so that the store's access rules can limit a pool's workers to their own bundles.

use gantry_domain::id::RunId;
use gantry_domain::run::{ReadySecrets, Run, RunState};
use gantry_domain::sealed::Sealed;

use crate::store::{Batch, Key, Kind, Store, StoreError};

/// The secrets of a taken run; `None` when it needs none.
pub type Bundled = Result<Option<Sealed>, NoBundle>;

/// The secrets that a run needs are not in the store. It must not be built until they are sealed again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secrets of run {run} are no longer in the store: they will be sealed again")]
pub struct NoBundle {
    /// The run that needs them.
    pub run: RunId,
}

/// The key of the bundle of a run that is ready or leased.
pub(crate) fn key(run: &Run) -> Key {
    Key::new(Kind::Bundle, format_args!("{}/{}", run.pool(), run.id))
}

/// Stores the bundle of the next attempt, in place of an earlier one.
pub(super) fn replace(batch: &mut Batch, run: &Run, bundle: Option<&Sealed>) {
    forget(batch, run);
    if let Some(bundle) = bundle {
        batch.put(key(run), bundle.as_text().to_owned());
    }
}

pub(super) fn forget(batch: &mut Batch, run: &Run) {
    batch.delete.push(key(run));
}

/// Reads the bundle of `ready`, the run's state before it was taken.
pub(super) async fn load(store: &dyn Store, ready: &Run) -> Result<Bundled, StoreError> {
    match &ready.state {
        RunState::Ready { secrets: ReadySecrets::None, .. } => Ok(Ok(None)),
        RunState::Ready { secrets: ReadySecrets::Stored, .. } => {
            let record = store.load(&[key(ready)]).await?.pop().flatten();
            let text = record.and_then(|record| String::from_utf8(record.bytes.to_vec()).ok());
            let sealed = text.map(|text| Some(Sealed::from_text(text)));
            Ok(sealed.ok_or(NoBundle { run: ready.id }))
        }
        RunState::Waiting { .. }
        | RunState::Started { .. }
        | RunState::Running { .. }
        | RunState::Done(_) => Ok(Err(NoBundle { run: ready.id })),
    }
}

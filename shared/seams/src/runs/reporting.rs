//! Passes the states of runs on to the outbox, from where they are sent to code hosts.

use gantry_domain::id::RunId;
use gantry_domain::report::{ReportContext, ReportState, Reported};
use gantry_domain::run::Run;

use super::indexes::{self, reindex};
use super::{RunOpError, find_versioned, key};
use crate::outbox::{self, Outgoing};
use crate::retry::{self, Plan};
use crate::store::{Batch, CommitError, Expect, Store, StoreError};

/// Passes the current state of a run on to the outbox, and records in the run that it did. The first call fixes the name
/// of the status, so that the end of the run replaces what its beginning showed. Changes nothing if the state was passed
/// on already.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn report(
    store: &dyn Store,
    run: RunId,
    context: &ReportContext,
    link: &str,
) -> Result<(), RunOpError> {
    retry::commit(store, &key(run), || async {
        let mut found = find_versioned(store, run).await?.ok_or(RunOpError::Absent { run })?;
        let before = found.value.clone();
        let Some((url, target)) = before.reports_to().filter(|_| before.is_unreported()) else {
            return Ok(Plan::Answer(()));
        };
        let context = before.reported.as_ref().map_or(context, |reported| &reported.context);
        let (mut batch, now) = (Batch::default(), store.now().await?);
        for report in before.report(&target, context, link) {
            outbox::enqueue(store, &mut batch, &before, url, report, now).await?;
        }
        found.value.reported = Some(Reported {
            commit: target.commit,
            context: context.clone(),
            state: ReportState::of(&before.state),
            problem: before.reported.as_ref().and_then(|reported| reported.problem.clone()),
        });
        found.replace_in(&mut batch, key(run))?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// Removes a run from those that are to be reported, if it is still as the caller knows it.
///
/// # Errors
/// [`StoreError`].
pub async fn leave_unreported(store: &dyn Store, run: &Run) -> Result<(), StoreError> {
    let Some(found) = find_versioned(store, run.id).await?.filter(|found| found.value == *run)
    else {
        return Ok(());
    };
    let mut batch = Batch::default();
    batch.expect.push((key(run.id), Expect::Version(found.version)));
    batch.unindex(indexes::unreported(), run.id);
    match store.commit(batch).await {
        Ok(()) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// Adds to a batch that the code host does not show a report of a run, or that it does if `problem` is `None`.
pub(crate) async fn note_problem(
    store: &dyn Store,
    batch: &mut Batch,
    outgoing: &Outgoing,
    problem: Option<&str>,
) -> Result<(), StoreError> {
    let mut found = match find_versioned(store, outgoing.run).await {
        Ok(Some(found)) => found,
        // Otherwise the report would be sent again and again.
        Ok(None) | Err(StoreError::Undecodable { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(reported) = &mut found.value.reported else { return Ok(()) };
    let is_of_this = reported.context == outgoing.report.context
        && reported.commit == outgoing.report.target.commit;
    if !is_of_this || reported.problem.as_deref() == problem {
        return Ok(());
    }
    reported.problem = problem.map(ToOwned::to_owned);
    // No index contains the problem.
    found.replace_in(batch, key(outgoing.run))
}

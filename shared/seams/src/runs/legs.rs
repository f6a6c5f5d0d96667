//! Legs: splitting a run into one for each platform, and joining them again.
//!
//! What is still to be done for a run is a function of its record, and in an index. So whoever dies in between loses
//! nothing, and any number of schedulers may do it.

use gantry_domain::decide::planner;
use gantry_domain::id::RunId;
use gantry_domain::run::{
    CanceledBy, ErrorCode, LegWork, Legs, Outcome, Progress, Run, RunError, RunState,
};
use gantry_domain::signature::Signer;

use super::{
    Creation, RunOpError, advance, bundles, find_versioned, indexes, key, reindex, update,
};
use crate::codec::Versioned;
use crate::retry::{self, Plan};
use crate::store::{Batch, From, Store, StoreError};

/// What a leg's end means for its whole run.
#[derive(Debug, Clone, PartialEq)]
pub enum Joined {
    /// All legs have ended well: the run waits for a worker that puts them together.
    Whole(Box<Run>),
    /// The run has ended, because this leg did not end well.
    Ended(Box<Run>),
    /// The run waits for others, or has ended before.
    Nothing,
}

/// Runs for whose legs something is to be done, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn with_leg_work(store: &dyn Store, limit: usize) -> Result<Vec<Run>, StoreError> {
    super::listing::load_members(store, &indexes::leg_work(), From::Start, limit).await
}

/// Makes the legs that a run waits for, in one commit with their ids in its record. A second call changes nothing.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn make_legs(
    store: &dyn Store,
    whole: RunId,
    signer: &dyn Signer,
) -> Result<Vec<RunId>, RunOpError> {
    retry::commit(store, &key(whole), || async {
        let absent = RunOpError::Absent { run: whole };
        let mut found = find_versioned(store, whole).await?.ok_or(absent)?;
        if found.value.leg_work() != Some(LegWork::Make) {
            return Ok(Plan::Answer(Vec::new()));
        }
        let (before, now) = (found.value.clone(), store.now().await?);
        let prefix = whole.prefix();
        let mut creation = Creation::begin(store, Batch::default(), prefix, signer, now).await?;
        let mut made = Vec::new();
        for draft in planner::for_legs(&before) {
            let leg_key = format!("leg/{whole}/{}", draft.recipe.platforms);
            made.push(creation.add(draft, Some(leg_key))?.id);
        }
        let mut batch = creation.finish();
        found.value.legs = Some(Legs::Made { runs: made.clone() });
        found.replace_in(&mut batch, key(whole))?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        Ok(Plan::Commit(batch, made))
    })
    .await
}

/// Tells the whole run that a leg has ended, in one commit with the record that it was told. The run goes on once all have
/// ended well, and ends with the first that did not. A second call changes nothing.
///
/// # Errors
/// [`RunOpError::Absent`]: there is no such leg.
pub async fn join_leg(store: &dyn Store, leg: RunId) -> Result<Joined, RunOpError> {
    retry::commit(store, &key(leg), || async {
        let mut found = find_versioned(store, leg).await?.ok_or(RunOpError::Absent { run: leg })?;
        let of = found.value.purpose.leg_of().map(|of| of.run);
        let Some(of) = of.filter(|_| found.value.leg_work() == Some(LegWork::Join)) else {
            return Ok(Plan::Answer(Joined::Nothing));
        };
        let mut batch = Batch::default();
        let joined = join(store, &mut batch, of, &found.value).await?;
        let before = found.value.clone();
        found.value.is_settled = true;
        found.replace_in(&mut batch, key(leg))?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        Ok(Plan::Commit(batch, joined))
    })
    .await
}

/// Adds to the batch what follows for the whole run.
async fn join(
    store: &dyn Store,
    batch: &mut Batch,
    whole: RunId,
    leg: &Run,
) -> Result<Joined, RunOpError> {
    let Some(mut found) = find_versioned(store, whole).await? else { return Ok(Joined::Nothing) };
    let before = found.value.clone();
    let is_awaited = before.legs.as_ref().is_some_and(|legs| legs.runs().contains(&leg.id));
    if !is_awaited || !before.waits_for_legs() {
        return Ok(Joined::Nothing);
    }
    let now = store.now().await?;
    let joined = match failed(&before, leg) {
        Some(outcome) => {
            bundles::forget(batch, &before);
            advance(&mut found.value, Progress::Finished { outcome }, now)?;
            Joined::Ended(Box::new(found.value.clone()))
        }
        None if are_done(store, &before, leg.id).await? => {
            advance(&mut found.value, Progress::Released, now)?;
            Joined::Whole(Box::new(found.value.clone()))
        }
        // Whichever leg ends last finds the others ended.
        None => return Ok(Joined::Nothing),
    };
    replace(batch, &before, found)?;
    Ok(joined)
}

fn replace(batch: &mut Batch, before: &Run, found: Versioned<Run>) -> Result<(), StoreError> {
    reindex(batch, Some(before), Some(&found.value));
    found.replace_in(batch, key(before.id))
}

/// Whether all other legs of a run have ended. If one did not end well, its own join ends the run.
async fn are_done(store: &dyn Store, whole: &Run, leg: RunId) -> Result<bool, StoreError> {
    let legs = whole.legs.as_ref().map(Legs::runs).unwrap_or_default();
    for other in legs.iter().filter(|other| **other != leg) {
        let found = super::find(store, *other).await?;
        let ended_well = |run: &Run| run.state.done().is_some() && failed(whole, run).is_none();
        if !found.as_ref().is_some_and(ended_well) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How the whole run ends because of a leg that has ended; `None` if that has ended well.
fn failed(whole: &Run, leg: &Run) -> Option<Outcome> {
    let RunState::Done(done) = &leg.state else { return None };
    let platform = leg.recipe.platforms.first();
    let of = |error: &RunError| RunError {
        message: format!("{platform}, run {}: {error}", leg.id),
        step: None,
        ..error.clone()
    };
    match &done.outcome {
        Outcome::Succeeded(product) => {
            let wanted = whole.commit().filter(|_| whole.read.is_some());
            let is_other = product.commit != wanted;
            is_other.then(|| Outcome::Error { error: other_commit(leg) })
        }
        Outcome::Failed { error } => Some(Outcome::Failed { error: of(error) }),
        Outcome::Error { error } => Some(Outcome::Error { error: of(error) }),
        Outcome::Timeout { error } => Some(Outcome::Timeout { error: of(error) }),
        Outcome::Canceled { by } => Some(Outcome::Canceled { by: by.clone() }),
    }
}

fn other_commit(leg: &Run) -> RunError {
    let platform = leg.recipe.platforms.first();
    let message = format!(
        "{platform}, run {}: its source changed while the run was split: run it again",
        leg.id
    );
    RunError { code: ErrorCode::SourceRefused, step: None, exit_code: None, message }
}

/// Ends the legs of a run that has ended, and records that. A second call changes nothing.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn close_legs(store: &dyn Store, whole: &Run) -> Result<(), RunOpError> {
    let by = CanceledBy::WholeRun { run: whole.id };
    for leg in whole.legs.as_ref().map(Legs::runs).unwrap_or_default() {
        match super::cancel(store, *leg, &by).await {
            Ok(_) | Err(RunOpError::Absent { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let closed = update(store, whole.id, |run, _, _| {
        if run.leg_work() == Some(LegWork::Close)
            && let Some(Legs::Made { runs }) = &run.legs
        {
            run.legs = Some(Legs::Closed { runs: runs.clone() });
        }
        Ok(())
    });
    closed.await.map(drop)
}

//! Requests that name what to run: event, decision and run in one commit, where they are accepted.

use gantry_domain::decide::planner::RunDraft;
use gantry_domain::decide::{Candidate, Choice, Decision};
use gantry_domain::event::{Event, EventKind};
use gantry_domain::id::{RunId, RunPrefix};
use gantry_domain::run::Run;
use gantry_domain::signature::Signer;

use crate::store::{Batch, CommitError, Store, StoreError};
use crate::{decisions, events, runs};

/// A request for one run.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The event that records it; its id is unique to the request.
    pub event: Event,
    /// The run's letters.
    pub prefix: RunPrefix,
    /// The run.
    pub draft: RunDraft,
    /// What makes a repeated request the same: the token and the key that its caller sent.
    pub idempotency: Option<String>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// It started this run.
    Started(Box<Run>),
    /// An earlier request with the same key had started this one.
    Repeated(RunId),
}

/// Accepts a request, for whose run `signer` vouches. A second call with the same idempotency key starts nothing and
/// tells the first one's run.
///
/// # Errors
/// [`StoreError`].
pub async fn accept(
    store: &dyn Store,
    request: RunRequest,
    signer: &dyn Signer,
) -> Result<Accepted, StoreError> {
    debug_assert!(matches!(request.event.kind, EventKind::Requested { .. }), "only requests");
    let run_key = request.idempotency.as_ref().map(|key| format!("request/{key}"));
    loop {
        if let Some(run_key) = &run_key
            && let Some(run) = runs::find_for(store, run_key).await?
        {
            return Ok(Accepted::Repeated(run));
        }
        let now = store.now().await?;
        let mut batch = Batch::default();
        let drafts = vec![(request.prefix, request.draft.clone(), run_key.clone())];
        let Some(run) = runs::create(store, &mut batch, drafts, signer, now).await?.pop() else {
            return Err(StoreError::Unavailable { message: "no run was created".to_owned() });
        };
        events::record_decided(&mut batch, &request.event)?;
        let candidate = Candidate { task: run.task_id(), choice: Choice::Run { run: run.id } };
        let decision = Decision {
            event: request.event.id.clone(),
            at: now,
            candidates: vec![candidate],
            nothing: None,
        };
        decisions::record_at_once(&mut batch, decision)?;
        match store.commit(batch).await {
            Ok(()) => return Ok(Accepted::Started(Box::new(run))),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
}

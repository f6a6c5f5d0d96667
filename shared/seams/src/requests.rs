//! Requests for a run: event, decision and run in one commit.

use gantry_domain::cause::Cause;
use gantry_domain::decide::planner::RunDraft;
use gantry_domain::decide::{Candidate, Choice, Decision};
use gantry_domain::event::{Event, EventKind};
use gantry_domain::id::RunId;
use gantry_domain::run::Run;
use gantry_domain::signature::Signer;
use gantry_domain::source::Source;

use crate::retry::{self, Plan};
use crate::store::{Batch, Key, Kind, Store, StoreError};
use crate::{decisions, events, facts, runs, uploads};

/// A request for one run.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The event that records it; its id is unique to the request.
    pub event: Event,
    /// The run.
    pub draft: RunDraft,
    /// Identifies repetitions of the request, if the caller sent an idempotency key.
    pub idempotency: Option<Idempotency>,
}

/// The key and content of a repeatable request.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The token and the idempotency key that its caller sent.
    pub key: String,
    /// What was requested. It may contain secrets, so only its signature is stored.
    pub asked: Vec<u8>,
}

impl Idempotency {
    /// The prefix separates this from other signed texts.
    fn signed_text(&self) -> Vec<u8> {
        [b"gantry request 1\n", self.asked.as_slice()].concat()
    }
}

/// The result of [`accept`].
#[derive(Debug, Clone, PartialEq)]
pub enum AcceptedRequest {
    /// The request started this run.
    Started(Box<Run>),
    /// An earlier request with the same key and content started this run.
    Repeated(RunId),
    /// An earlier request with the same key but other content started this run.
    OtherRequest(RunId),
}

/// Accepts a request and creates its run, signed by `signer`, on the images that its policies have chosen. A second call with the same idempotency key starts
/// nothing: it returns the first call's run, and whether the two requests are equal.
///
/// # Errors
/// [`StoreError`].
pub async fn accept(
    store: &dyn Store,
    mut request: RunRequest,
    signer: &dyn Signer,
) -> Result<AcceptedRequest, StoreError> {
    debug_assert!(matches!(request.event.kind, EventKind::Requested { .. }), "only requests");
    let idempotency = request.idempotency.take();
    let run_key = idempotency.as_ref().map(|idempotency| format!("request/{}", idempotency.key));
    if let (Some(idempotency), Cause::Request { asked, .. }) =
        (&idempotency, &mut request.draft.cause)
    {
        *asked = Some(signer.sign(&idempotency.signed_text()));
    }
    let registry = Key::new(Kind::Registry, &request.draft.registry);
    retry::commit(store, &registry, || async {
        if let (Some(idempotency), Some(run_key)) = (&idempotency, &run_key)
            && let Some(run) =
                runs::find_for(store, std::slice::from_ref(run_key)).await?.remove(run_key)
        {
            return Ok(Plan::Answer(repeated(store, run, idempotency, signer).await?));
        }
        let now = store.now().await?;
        let mut creation =
            runs::Creation::begin(store, Batch::default(), request.event.prefix, signer, now)
                .await?;
        let mut draft = request.draft.clone();
        if draft.recipe.bases.is_empty() {
            let registry = (&draft.registry, request.event.prefix);
            draft.recipe.bases = facts::followed(store, registry, &draft.recipe).await?;
        }
        let run = creation.add(draft, run_key.clone())?;
        let mut batch = creation.finish();
        if let Source::Upload { upload, .. } = &run.recipe.source {
            uploads::used_in(&mut batch, &run.registry, upload);
        }
        events::record(&mut batch, &request.event)?;
        let choice = Choice::Run { run: run.id };
        let candidate =
            Candidate { task: run.task_id(), choice, other_address: None, files_unknown: None };
        let decision = Decision {
            event: request.event.id.clone(),
            at: now,
            candidates: vec![candidate],
            nothing: None,
        };
        decisions::record_at_once(&mut batch, decision)?;
        Ok(Plan::Commit(batch, AcceptedRequest::Started(Box::new(run))))
    })
    .await
}

async fn repeated(
    store: &dyn Store,
    id: RunId,
    idempotency: &Idempotency,
    signer: &dyn Signer,
) -> Result<AcceptedRequest, StoreError> {
    let Some(run) = runs::find(store, id).await? else {
        return Ok(AcceptedRequest::Repeated(id));
    };
    let is_same = match &run.cause {
        Cause::Request { asked: Some(asked), .. } => {
            signer.vouches_for(&idempotency.signed_text(), asked)
        }
        Cause::Request { asked: None, .. }
        | Cause::Push { .. }
        | Cause::PullRequest { .. }
        | Cause::Saved { .. }
        | Cause::Timer { .. }
        | Cause::BaseImages { .. } => false,
    };
    Ok(if is_same { AcceptedRequest::Repeated(id) } else { AcceptedRequest::OtherRequest(id) })
}

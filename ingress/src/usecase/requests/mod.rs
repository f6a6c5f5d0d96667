//! Requests that start a run: quick builds, runs of a task file or a task, reruns. Each returns the run.

use gantry_domain::decide::planner::RunDraft;
use gantry_domain::event::{Event, EventKind};
use gantry_domain::id::{EventId, RunId, TaskId, TokenId};
use gantry_domain::registry::Registry;
use gantry_domain::run::Run as RunRecord;
use gantry_ops::metrics::{self, Decided};
use gantry_ops::secret::random_hex;
use gantry_ops::telemetry;
use gantry_seams::requests::{self, AcceptedRequest, Idempotency, RunRequest};
use gantry_seams::runs;
use tracing::{Instrument as _, Span, field};

use crate::access::{Allowed, Run};
use crate::refusal::Refusal;
use crate::state::State;

mod build;
mod file_run;
mod rerun;
mod task_run;

pub(crate) use build::start_build;
pub(crate) use file_run::start_file_run;
pub(crate) use rerun::start_rerun;
pub(crate) use task_run::start_task_run;

/// The common parts of a request for a run.
pub(crate) struct Asked {
    /// Method and path, for refusals.
    pub(crate) what: String,
    /// Identifies repetitions of the request, which start nothing.
    pub(crate) idempotency: Option<Idempotency>,
    /// The trace that the run belongs to.
    pub(crate) span: Span,
}

/// The run that answers a request.
#[derive(Debug)]
pub(crate) enum Started {
    /// This request started the run.
    New(Box<RunRecord>),
    /// An earlier request with the same key started the run.
    Before(Box<RunRecord>),
}

/// A request with its own event.
struct Request {
    asked: Asked,
    by: TokenId,
    event: EventId,
}

impl Request {
    /// Fails unless the caller may act on the registry.
    fn new(asked: Asked, allowed: &Allowed<Run>, registry: &Registry) -> Result<Self, Refusal> {
        allowed.check(registry, "registry", &registry.name)?;
        let random = random_hex::<16>()?;
        let event = match format!("request:{}", random.as_str()).parse() {
            Ok(event) => event,
            Err(_) => unreachable!("a word and hexadecimal digits are an event id"),
        };
        Ok(Self { asked, by: allowed.by(), event })
    }

    /// Commits event, decision and run together, then rings the doorbell.
    pub(super) async fn start(
        self,
        state: &State,
        registry: &Registry,
        task: Option<TaskId>,
        rerun_of: Option<RunId>,
        draft: RunDraft,
    ) -> Result<Started, Refusal> {
        state.intake.check()?;
        let span = self.asked.span.clone();
        self.start_in_span(state, registry, task, rerun_of, draft).instrument(span).await
    }

    async fn start_in_span(
        self,
        state: &State,
        registry: &Registry,
        task: Option<TaskId>,
        rerun_of: Option<RunId>,
        mut draft: RunDraft,
    ) -> Result<Started, Refusal> {
        let store = state.store.as_ref();
        let trace = telemetry::current_trace();
        draft.trace.clone_from(&trace);
        let event = Event {
            id: self.event,
            registry: registry.name.clone(),
            prefix: registry.prefix,
            received: store.now().await?,
            trace,
            kind: EventKind::Requested { by: self.by, task, rerun_of },
        };
        let request = RunRequest { event, draft, idempotency: self.asked.idempotency };
        match requests::accept(store, request, state.keyring.as_ref()).await? {
            AcceptedRequest::Started(run) => {
                self.asked.span.record("run.id", field::display(run.id));
                metrics::decided(Decided::Run);
                state.doorbells.run_created(&run);
                Ok(Started::New(run))
            }
            AcceptedRequest::OtherRequest(run) => {
                Err(Refusal::KeyReused { what: self.asked.what, run })
            }
            AcceptedRequest::Repeated(id) => {
                let run = runs::find(store, id).await?;
                let run = run.ok_or_else(|| Refusal::Conflict {
                    code: "run_gone",
                    message: format!("this key started run {id}, which is no longer kept"),
                })?;
                Ok(Started::Before(Box::new(run)))
            }
        }
    }
}

//! The spans of an attempt, named by OpenTelemetry's conventions for CI/CD, and the duration of its stages.

use std::future::Future;

use gantry_domain::id::StepId;
use gantry_domain::run::{Outcome, Purpose, Run};
use gantry_ops::metrics::{self, Label as _, Stage};
use gantry_ops::telemetry;
use gantry_seams::runs::{Finished, TakenRun};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::settings::WorkerSettings;

/// The span of an attempt, in the trace of the run's cause.
pub(crate) fn attempt(taken: &TakenRun, settings: &WorkerSettings) -> Span {
    let run = &taken.run;
    let pipeline = run.task.as_ref().map_or("quick build", |task| task.name.as_str());
    let action = match &run.purpose {
        Purpose::Execute => "BUILD",
        Purpose::Leg(_) => "LEG",
        Purpose::Scan => "SCAN",
    };
    let span = tracing::info_span!(
        "attempt",
        otel.name = format!("{action} {pipeline}"),
        otel.kind = "server",
        trace.id = Empty,
        run.id = %run.id,
        run.attempt = taken.holder.attempt,
    );
    telemetry::follow(&span, run.trace.as_ref());
    telemetry::attribute(&span, "cicd.pipeline.action.name", action);
    telemetry::attribute(&span, "cicd.pipeline.name", pipeline.to_owned());
    telemetry::attribute(&span, "cicd.pipeline.run.id", run.id.to_string());
    telemetry::attribute(&span, "cicd.worker.id", settings.id.to_string());
    telemetry::attribute(&span, "cicd.worker.name", settings.id.to_string());
    telemetry::attribute(&span, "gantry.pool", settings.pool.to_string());
    span
}

/// The span of a step.
pub(crate) fn step(id: &StepId) -> Span {
    let span = tracing::info_span!("step", otel.name = format!("step {id}"), trace.id = Empty);
    telemetry::follow(&span, None);
    telemetry::attribute(&span, "cicd.pipeline.task.name", id.to_string());
    span
}

/// Records how a step ended.
pub(crate) fn step_ended(span: &Span, is_success: bool) {
    let result = if is_success { "success" } else { "failure" };
    telemetry::attribute(span, "cicd.pipeline.task.run.result", result);
    if !is_success {
        telemetry::broken(span, "step");
    }
}

/// Runs a stage of an attempt in its own span. Its duration is recorded if it succeeded.
pub(crate) async fn stage<T, E>(
    stage: Stage,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let span = tracing::info_span!("stage", otel.name = stage.word(), trace.id = Empty);
    telemetry::follow(&span, None);
    telemetry::attribute(&span, "cicd.pipeline.task.name", stage.word());
    let began = Instant::now();
    let done = work.instrument(span.clone()).await;
    let result = match &done {
        Ok(_) => {
            metrics::stage(stage, began.elapsed());
            "success"
        }
        Err(_) => {
            telemetry::broken(&span, stage.word());
            "failure"
        }
    };
    telemetry::attribute(&span, "cicd.pipeline.task.run.result", result);
    done
}

/// Records how the attempt ended. Must be called within its span.
pub(crate) fn ended(finished: &Finished) {
    let span = Span::current();
    let (run, result) = match finished {
        Finished::Done(run) => {
            metrics::run_ended(run);
            (run, result(run))
        }
        Finished::WillBeTriedAgain(run) => (run, "error"),
    };
    telemetry::attribute(&span, "cicd.pipeline.run.state", "finalizing");
    telemetry::attribute(&span, "cicd.pipeline.result", result);
    let product = run.state.done().and_then(|done| done.outcome.product());
    if let Some(commit) = product.and_then(|product| product.commit.as_ref()) {
        telemetry::attribute(&span, "vcs.ref.head.revision", commit.to_string());
    }
    if let Some(output) = product.and_then(|product| product.outputs.first()) {
        telemetry::attribute(&span, "oci.manifest.digest", output.digest.to_string());
        telemetry::attribute(&span, "container.image.name", output.image.to_string());
    }
    if result != "success" {
        telemetry::attribute(&span, "error.type", result);
        telemetry::broken(&span, result);
    }
}

/// The result in the words of the convention.
fn result(run: &Run) -> &'static str {
    match run.state.done().map(|done| &done.outcome) {
        Some(Outcome::Succeeded(_)) => "success",
        Some(Outcome::Failed { .. }) => "failure",
        Some(Outcome::Canceled { .. }) => "cancellation",
        Some(Outcome::Timeout { .. }) => "timeout",
        Some(Outcome::Error { .. }) | None => "error",
    }
}

//! Check runs, which only an App may make.
//!
//! A task has one check run at a commit. Each state of each of its runs is an update of it, so that none is left unfinished.

use gantry_domain::report::{CheckRunId, ReportState, StatusReport};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::{GitHub, unprocessable};
use crate::code_host::client::{Answer, Operation};
use crate::code_host::{CodeHostError, ReportedRun};

#[derive(Serialize)]
struct CheckRun<'a> {
    /// These two only of a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_sha: Option<&'a str>,
    external_id: String,
    details_url: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conclusion: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    output: Output<'a>,
}

#[derive(Serialize)]
struct Output<'a> {
    title: &'a str,
    summary: String,
}

#[derive(Deserialize)]
struct Made {
    id: u64,
}

#[derive(Deserialize)]
struct Found {
    check_runs: Vec<Made>,
}

impl<'a> CheckRun<'a> {
    fn of(report: &'a StatusReport, run: &ReportedRun) -> Self {
        let (status, conclusion) = state(report.state);
        let mut summary = format!("[Run {}]({})", run.run, report.link);
        if !report.details.is_empty() {
            summary.push_str("\n\n");
            // Indented, so that nothing in it is markup.
            report.details.lines().for_each(|line| summary.push_str(&format!("    {line}\n")));
        }
        Self {
            name: None,
            head_sha: None,
            external_id: run.run.to_string(),
            details_url: &report.link,
            status,
            conclusion,
            started_at: report.started.map(|started| started.to_string()),
            output: Output { title: &report.description, summary },
        }
    }
}

impl GitHub<'_> {
    /// Shows a run's state as a check run of the App with the number `app`.
    pub(super) async fn show(
        &self,
        app: u64,
        report: &StatusReport,
        run: &ReportedRun,
    ) -> Result<CheckRunId, CodeHostError> {
        let update = CheckRun::of(report, run);
        if let Some(known) = run.check_run {
            let answer = self.update(known, &update).await?;
            if answer.status != StatusCode::NOT_FOUND {
                return self.shown(report, &answer).map(|()| known);
            }
        }
        // An earlier request may have made it without its answer having arrived.
        if let Some(found) = self.find(app, report).await? {
            let answer = self.update(found, &update).await?;
            return self.shown(report, &answer).map(|()| found);
        }
        let new = CheckRun {
            name: Some(report.context.as_str()),
            head_sha: Some(report.target.commit.as_str()),
            ..update
        };
        let answer = self.client.post(&["check-runs"], &new).await?;
        self.shown(report, &answer)?;
        let made: Made = self.client.parse(&answer)?;
        Ok(CheckRunId(made.id))
    }

    async fn find(
        &self,
        app: u64,
        report: &StatusReport,
    ) -> Result<Option<CheckRunId>, CodeHostError> {
        let app = app.to_string();
        let query = [
            ("check_name", report.context.as_str()),
            ("app_id", app.as_str()),
            ("filter", "latest"),
            ("per_page", "1"),
        ];
        let words = ["commits", report.target.commit.as_str(), "check-runs"];
        let answer = self.client.get(&words, &query).await?;
        self.shown(report, &answer)?;
        let found: Found = self.client.parse(&answer)?;
        Ok(found.check_runs.first().map(|found| CheckRunId(found.id)))
    }

    async fn update(&self, id: CheckRunId, to: &CheckRun<'_>) -> Result<Answer, CodeHostError> {
        self.client.send_json(Method::PATCH, &["check-runs", &id.0.to_string()], to).await
    }

    fn shown(&self, report: &StatusReport, answer: &Answer) -> Result<(), CodeHostError> {
        if self.client.is_success(answer) {
            return Ok(());
        }
        if answer.status == StatusCode::UNPROCESSABLE_ENTITY {
            return Err(unprocessable(report, answer));
        }
        Err(self.client.failure(Operation::SetStatus, answer))
    }
}

/// The status, and the conclusion of what is over.
fn state(state: ReportState) -> (&'static str, Option<&'static str>) {
    match state {
        ReportState::Pending => ("queued", None),
        ReportState::Running => ("in_progress", None),
        ReportState::Held => ("completed", Some("action_required")),
        ReportState::Succeeded => ("completed", Some("success")),
        ReportState::Failed | ReportState::Errored => ("completed", Some("failure")),
        ReportState::TimedOut => ("completed", Some("timed_out")),
        ReportState::Canceled => ("completed", Some("cancelled")),
    }
}

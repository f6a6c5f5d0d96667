//! Sends one report to its code host, and records what came of it.

use std::time::Duration;

use gantry_domain::registry::Registry;
use gantry_domain::report::CheckRunId;
use gantry_domain::sealed::Sealed;
use gantry_remote::code_host::{CodeHostError, CodeHostFailure, ReportedRun, RepositoryAccess};
use gantry_seams::outbox::{self, Claimed, Outgoing, Sending};
use gantry_seams::store::StoreError;
use gantry_seams::{runs, tasks};
use tokio::time::timeout;

use super::Outbox;
use crate::asking::{LONGEST_WAIT, nonce, pause_after, without};

/// How long a request may take.
const WITHIN: Duration = Duration::from_secs(20);

/// For how long a report is claimed: longer than a request takes.
const CLAIM: Duration = Duration::from_secs(40);

impl Outbox {
    /// Spawns a tokio task that sends the reports of a commit one after the other. Returns `false` if there is one, or too
    /// many.
    pub(super) fn send_beside(&self, commit: &String, reports: Vec<Outgoing>) -> bool {
        let Some(begun) = self.sends.begin(commit) else { return false };
        let outbox = self.clone();
        tokio::spawn(async move {
            let _until_it_ends = begun;
            for outgoing in reports {
                if let Err(error) = outbox.send(&outgoing).await {
                    tracing::warn!(run.id = %outgoing.run, "the state of run {} is reported later: {error}", outgoing.run);
                }
            }
        });
        true
    }

    /// Sends a report, and what replaces it meanwhile.
    async fn send(&self, outgoing: &Outgoing) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        let Some(_turn) = self.sends.turn(outgoing).await else { return Ok(()) };
        // A request for another commit may have been told to pause.
        while self.sends.paused_until(outgoing, store.now().await?).is_none() {
            let Some(claimed) = outbox::claim(store, outgoing, &nonce()?, CLAIM).await? else {
                return Ok(());
            };
            self.send_claimed(&claimed).await?;
        }
        Ok(())
    }

    async fn send_claimed(&self, claimed: &Claimed) -> Result<(), StoreError> {
        let (store, outgoing) = (self.store.as_ref(), &claimed.outgoing);
        let error = match self.post(outgoing).await? {
            Ok(check_run) => return outbox::sent(store, claimed, check_run).await,
            Err(error) => error,
        };
        let (run, message) = (outgoing.run, error.message);
        match error.kind {
            CodeHostFailure::NoApi => {
                tracing::debug!(run.id = %run, "the state of run {run} is not reported: {message}");
                outbox::no_api(store, claimed).await
            }
            CodeHostFailure::Transient { retry_after } => {
                let pause = match retry_after {
                    Some(pause) => pause.min(LONGEST_WAIT),
                    None => pause(outgoing.sending),
                };
                if retry_after.is_some() {
                    let now = store.now().await?;
                    self.sends.pause(outgoing, now.after(pause), now);
                }
                tracing::info!(run.id = %run, "the state of run {run} is reported in {pause:?}: {message}");
                outbox::failed(store, claimed, pause, message).await
            }
            CodeHostFailure::RefusedToken => {
                let task = &outgoing.task;
                let remedy = format!(
                    "give the task a token that may set the status of commits, with `gantry task update -r {} -n {} \
                     --api-token -`, or turn the reports off with `--report-status false`",
                    task.registry, task.name
                );
                self.give_up(claimed, format!("{message}; {remedy}")).await
            }
            CodeHostFailure::RefusedApp | CodeHostFailure::Permanent => {
                self.give_up(claimed, message).await
            }
        }
    }

    async fn give_up(&self, claimed: &Claimed, problem: String) -> Result<(), StoreError> {
        let run = claimed.outgoing.run;
        tracing::warn!(run.id = %run, "the state of run {run} is not reported: {problem}");
        outbox::give_up(self.store.as_ref(), claimed, problem).await
    }

    /// Sends a report. An error names no token, even if the code host repeats it.
    async fn post(
        &self,
        outgoing: &Outgoing,
    ) -> Result<Result<Option<CheckRunId>, CodeHostError>, StoreError> {
        let sealed_for = Registry::seals_for(outgoing.run.prefix());
        let token = match self.find_token(outgoing).await? {
            None => None,
            Some(sealed) => match self.keyring.open(&sealed_for, &sealed) {
                Ok(token) => Some(token),
                Err(error) => {
                    let (message, kind) = (error.to_string(), CodeHostFailure::Permanent);
                    return Ok(Err(CodeHostError { message, kind }));
                }
            },
        };
        let at = RepositoryAccess {
            url: &outgoing.url,
            registry: Some(&outgoing.task.registry),
            token: token.as_ref(),
            host_keys: &[],
        };
        let run = ReportedRun { run: outgoing.run, check_run: outgoing.check_run };
        let posting = timeout(WITHIN, self.providers.report(at, &outgoing.report, &run));
        let posted = posting.await.unwrap_or_else(|_| {
            let message = format!("{} does not answer within {WITHIN:?}", outgoing.url);
            Err(CodeHostError { message, kind: CodeHostFailure::Transient { retry_after: None } })
        });
        Ok(posted.map_err(|error| {
            let message = without(&error.message, token.as_ref());
            CodeHostError { message, ..error }
        }))
    }

    /// The token that the task has now, which may have replaced a rejected one. If the task was deleted or reads another
    /// repository, the run's. Never a deploy key.
    async fn find_token(&self, outgoing: &Outgoing) -> Result<Option<Sealed>, StoreError> {
        let store = self.store.as_ref();
        let task = tasks::find(store, &outgoing.task).await?.filter(|task| {
            task.created == outgoing.task_created && task.repository() == Some(&outgoing.url)
        });
        if let Some(task) = task {
            return Ok(task.token_for_api().cloned());
        }
        let run = runs::find(store, outgoing.run).await?;
        let run = run.filter(|run| run.is_signed(self.keyring.as_ref()));
        Ok(run.filter(|run| !run.recipe.source.is_ssh()).and_then(|run| run.git_token))
    }
}

fn pause(sending: Sending) -> Duration {
    match sending {
        Sending::Due { failures, .. } => pause_after(failures),
        Sending::Sent | Sending::NoApi | Sending::GivenUp => pause_after(0),
    }
}

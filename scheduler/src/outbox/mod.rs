//! Reports the states of runs to code hosts, as statuses of commits.
//!
//! In: runs whose state changed, and reports that are due. Out: requests to code hosts. Each change of a run puts the run
//! into an index in the same commit, so nothing is lost by a crash; what was not sent is sent later, and only in its newest
//! state. How a provider shows a state is its API's business.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_domain::report::ReportContext;
use gantry_domain::run::Run;
use gantry_ops::secret::Keyring;
use gantry_remote::code_host::ProviderApi;
use gantry_seams::outbox::{self, Outgoing};
use gantry_seams::runs::RunOpError;
use gantry_seams::store::{SharedStore, StoreError};
use gantry_seams::{runs, tasks};
use url::Url;

mod sending;
mod sends;

pub use sends::Sends;

/// How many runs one tick passes on.
const RUNS: usize = 256;

/// How many due reports are read at once.
const PAGE: usize = 256;

/// How many pages one tick reads. Reports that wait for a slow host stay due, so it reads past them.
const PAGES: usize = 16;

/// Reports the states of runs.
#[derive(Clone)]
pub(crate) struct Outbox {
    pub(crate) store: SharedStore,
    /// Opens the tokens for code hosts, and checks who created a run.
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) providers: Arc<dyn ProviderApi>,
    pub(crate) sends: Arc<Sends>,
    /// The address of the pages of runs.
    pub(crate) public_url: Url,
}

impl Outbox {
    /// Like [`Outbox::tick`], but also waits for the requests.
    pub(crate) async fn tick_and_settle(&self) -> Result<usize, StoreError> {
        let moved = self.tick().await?;
        self.sends.settled().await;
        Ok(moved)
    }

    /// Passes on the runs whose state changed, and starts the requests for what is due. Returns how many runs were passed
    /// on and how many commits' reports are being sent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        Ok(self.pass_on_runs().await? + self.send_due().await?)
    }

    async fn pass_on_runs(&self) -> Result<usize, StoreError> {
        let mut passed_on = 0;
        for run in runs::unreported(self.store.as_ref(), RUNS).await? {
            match self.pass_on(&run).await {
                Ok(()) => passed_on += 1,
                // Only this run waits for the quarantined record.
                Err(StoreError::Undecodable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(passed_on)
    }

    async fn pass_on(&self, run: &Run) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        let reported = run.reports_to().zip(run.task.as_ref());
        // A worker may write run records, but must not choose where tokens are sent.
        let Some(((url, target), task)) =
            reported.filter(|_| run.is_unreported() && run.is_signed(self.keyring.as_ref()))
        else {
            return runs::leave_unreported(store, run).await;
        };
        let context = match &run.reported {
            Some(reported) => reported.context.clone(),
            None => {
                let registry = run.id.prefix();
                let is_shared = tasks::is_claimed_by_others(store, registry, &url.key()).await?;
                let registry = is_shared.then_some(&run.registry);
                ReportContext::of_task(registry, &task.name, &target)
            }
        };
        match runs::report(store, run.id, &context, &self.link(run)).await {
            Err(RunOpError::Store(error)) => Err(error),
            // The run was deleted meanwhile.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn link(&self, run: &Run) -> String {
        format!("{}/runs/{}", self.public_url.as_str().trim_end_matches('/'), run.id)
    }

    /// Starts the requests for the reports that are due, those of each commit one after the other.
    async fn send_due(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let now = store.now().await?;
        let mut commits: BTreeMap<String, Vec<Outgoing>> = BTreeMap::new();
        let mut after = None;
        for _ in 0..PAGES {
            let page = outbox::due(store, now, after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().cloned();
            for outgoing in page {
                match self.sends.paused_until(&outgoing, now) {
                    Some(until) => outbox::put_off(store, &outgoing, until).await?,
                    None => commits.entry(outgoing.commit_id()).or_default().push(outgoing),
                }
            }
            if is_last {
                break;
            }
        }
        let begun = commits.into_iter().filter(|(commit, _)| !self.sends.has(commit));
        Ok(begun.filter(|(commit, reports)| self.send_beside(commit, reports.clone())).count())
    }
}

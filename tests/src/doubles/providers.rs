//! The API of a provider, which shows what it is told and fails when a test says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use gantry_domain::pull_request::{ChangedFiles, PullRequest};
use gantry_domain::report::StatusReport;
use gantry_domain::source::CommitId;
use gantry_ops::secret::ExposeSecret as _;
use gantry_remote::code_host::{CodeHostError, CodeHostFailure, ProviderApi, RepositoryAccess};
use tokio::sync::watch;

/// The provider of a test. It has no API until [`ScriptedProviders::open`].
#[derive(Clone, Default)]
pub struct ScriptedProviders(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Whether requests wait.
    is_silent: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    is_open: bool,
    /// The answers to the next requests.
    failures: VecDeque<CodeHostError>,
    /// The answer to all requests.
    outage: Option<CodeHostError>,
    pull_requests: BTreeMap<u64, PullRequest>,
    files: BTreeMap<(CommitId, CommitId), ChangedFiles>,
    pull_request_files: BTreeMap<u64, ChangedFiles>,
    asked: usize,
    reports: Vec<StatusReport>,
    tokens: Vec<Option<String>>,
    at_once: BTreeMap<CommitId, usize>,
    most_at_once: usize,
}

impl ScriptedProviders {
    /// From now on it has an API.
    pub fn open(&self) {
        self.state().is_open = true;
    }

    /// Lets the next request that has no other answer fail.
    pub fn fail(&self, kind: CodeHostFailure, message: &str) {
        let error = CodeHostError { message: message.to_owned(), kind };
        self.state().failures.push_back(error);
    }

    /// Lets every request fail, or none.
    pub fn set_away(&self, is_away: bool) {
        let kind = CodeHostFailure::Transient { retry_after: None };
        let message = "the provider does not answer".to_owned();
        self.state().outage = is_away.then_some(CodeHostError { message, kind });
    }

    /// Lets every request wait, until it is called with `false`.
    pub fn set_silent(&self, is_silent: bool) {
        self.0.is_silent.send_replace(is_silent);
    }

    /// What it was told, in order.
    #[must_use]
    pub fn reports(&self) -> Vec<StatusReport> {
        self.state().reports.clone()
    }

    /// What it was told, in order: context, state and description.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let line = |report: StatusReport| {
            format!("{} {:?}: {}", report.context, report.state, report.description)
        };
        self.reports().into_iter().map(line).collect()
    }

    /// The token of each request, in order, of those that failed as well.
    #[must_use]
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.state().tokens.clone()
    }

    /// How many requests for one commit were there at once.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
    }

    /// How many requests are there now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.state().at_once.values().sum()
    }

    /// Sets what a pull request is.
    pub fn put_pull_request(&self, pull_request: PullRequest) {
        self.state().pull_requests.insert(pull_request.number, pull_request);
    }

    /// Sets the files that differ between two commits.
    pub fn put_files(&self, before: &CommitId, after: &CommitId, files: ChangedFiles) {
        self.state().files.insert((before.clone(), after.clone()), files);
    }

    /// Sets the files that a pull request changes.
    pub fn put_pull_request_files(&self, number: u64, files: ChangedFiles) {
        self.state().pull_request_files.insert(number, files);
    }

    /// How many questions it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.state().asked
    }

    fn answer<T>(&self, answer: impl FnOnce(&State) -> T) -> Result<T, CodeHostError> {
        let mut state = self.state();
        if !state.is_open {
            return Err(no_api());
        }
        state.asked += 1;
        match state.outage.clone().or_else(|| state.failures.pop_front()) {
            Some(error) => Err(error),
            None => Ok(answer(&state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request, until it is dropped.
struct Request<'a> {
    provider: &'a ScriptedProviders,
    commit: &'a CommitId,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.provider.state().at_once.get_mut(self.commit) {
            *count -= 1;
        }
    }
}

fn no_api() -> CodeHostError {
    CodeHostError { message: "no API".to_owned(), kind: CodeHostFailure::NoApi }
}

#[async_trait]
impl ProviderApi for ScriptedProviders {
    async fn pull_request(
        &self,
        _: RepositoryAccess<'_>,
        number: u64,
    ) -> Result<Option<PullRequest>, CodeHostError> {
        self.answer(|state| state.pull_requests.get(&number).cloned())
    }

    async fn changed_files(
        &self,
        _: RepositoryAccess<'_>,
        before: &CommitId,
        after: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError> {
        self.answer(|state| {
            let files = state.files.get(&(before.clone(), after.clone())).cloned();
            files.unwrap_or_default()
        })
    }

    async fn pull_request_files(
        &self,
        _: RepositoryAccess<'_>,
        number: u64,
    ) -> Result<ChangedFiles, CodeHostError> {
        self.answer(|state| state.pull_request_files.get(&number).cloned().unwrap_or_default())
    }

    async fn report(
        &self,
        at: RepositoryAccess<'_>,
        report: &StatusReport,
    ) -> Result<(), CodeHostError> {
        let commit = &report.target.commit;
        {
            let mut state = self.state();
            if !state.is_open {
                return Err(no_api());
            }
            state.tokens.push(at.token.map(|token| token.expose_secret().to_owned()));
            let count = state.at_once.get(commit).copied().unwrap_or(0) + 1;
            state.at_once.insert(commit.clone(), count);
            state.most_at_once = state.most_at_once.max(count);
        }
        let _request = Request { provider: self, commit };
        let mut silent = self.0.is_silent.subscribe();
        // The sender is a part of this.
        let _spoken = silent.wait_for(|is_silent| !is_silent).await;
        let mut state = self.state();
        if let Some(error) = state.outage.clone().or_else(|| state.failures.pop_front()) {
            return Err(error);
        }
        state.reports.push(report.clone());
        Ok(())
    }
}

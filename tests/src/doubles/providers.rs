//! The API of a provider, which shows what it is told and fails when a test says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use gantry_domain::code_host::HostKind;
use gantry_domain::pull_request::{ChangedFiles, PullRequest};
use gantry_domain::report::{CheckRunId, StatusReport};
use gantry_domain::source::{CommitId, GitUrl};
use gantry_ops::secret::ExposeSecret as _;
use gantry_remote::code_host::{
    CodeHostError, CodeHostFailure, FoundHook, ListedPullRequest, OpenPullRequests, ProviderApi,
    ReportedRun, RepositoryAccess, SentDeliveries, SentDelivery, WantedHook,
};
use reqwest::Url;
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
    hooks: BTreeMap<String, ScriptedHook>,
    hook_failures: VecDeque<CodeHostError>,
    hook_requests: Vec<String>,
    reports: Vec<StatusReport>,
    tokens: Vec<Option<String>>,
    at_once: BTreeMap<CommitId, usize>,
    most_at_once: usize,
}

/// A hook at the provider.
#[derive(Debug, Clone)]
pub struct ScriptedHook {
    /// Its id.
    pub id: String,
    /// What it signs with.
    pub secret: String,
    /// What keeps it from sending.
    pub faults: Vec<String>,
    /// What it has sent.
    pub sent: Vec<SentDelivery>,
    /// The ids of the deliveries that were sent again.
    pub redelivered: Vec<String>,
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

    /// The hooks by the address that they send to.
    #[must_use]
    pub fn hooks(&self) -> BTreeMap<String, ScriptedHook> {
        self.state().hooks.clone()
    }

    /// Changes the hooks, as their owner could.
    pub fn change_hooks(&self, change: impl FnOnce(&mut BTreeMap<String, ScriptedHook>)) {
        change(&mut self.state().hooks);
    }

    /// Lets the next request about hooks fail.
    pub fn fail_hook(&self, kind: CodeHostFailure, message: &str) {
        let error = CodeHostError { message: message.to_owned(), kind };
        self.state().hook_failures.push_back(error);
    }

    /// The tokens of the requests that make or remove hooks, in order.
    #[must_use]
    pub fn hook_requests(&self) -> Vec<String> {
        self.state().hook_requests.clone()
    }

    fn hook_answer<T>(
        &self,
        at: RepositoryAccess<'_>,
        answer: impl FnOnce(&mut State) -> T,
    ) -> Result<T, CodeHostError> {
        let mut state = self.state();
        if !state.is_open {
            return Err(no_api());
        }
        let token = at.token.map(|token| token.expose_secret().to_owned());
        state.hook_requests.push(token.unwrap_or_default());
        match state.outage.clone().or_else(|| state.hook_failures.pop_front()) {
            Some(error) => Err(error),
            None => Ok(answer(&mut state)),
        }
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

fn found(hook: &ScriptedHook) -> FoundHook {
    FoundHook {
        id: hook.id.clone(),
        events: vec!["push".to_owned()],
        content_type: Some("json".to_owned()),
        faults: hook.faults.clone(),
    }
}

fn no_api() -> CodeHostError {
    CodeHostError { message: "no API".to_owned(), kind: CodeHostFailure::NoApi }
}

#[async_trait]
impl ProviderApi for ScriptedProviders {
    async fn pull_request(
        &self,
        at: RepositoryAccess<'_>,
        number: u64,
    ) -> Result<Option<PullRequest>, CodeHostError> {
        self.state().tokens.push(at.token.map(|token| token.expose_secret().to_owned()));
        self.answer(|state| state.pull_requests.get(&number).cloned())
    }

    async fn open_pull_requests(
        &self,
        at: RepositoryAccess<'_>,
    ) -> Result<OpenPullRequests, CodeHostError> {
        self.state().tokens.push(at.token.map(|token| token.expose_secret().to_owned()));
        self.answer(|state| {
            let open = state.pull_requests.values().filter(|it| it.is_open);
            let listed = open.rev().cloned().map(ListedPullRequest::Whole).collect();
            OpenPullRequests { listed, is_all: true }
        })
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
        _: &ReportedRun,
    ) -> Result<Option<CheckRunId>, CodeHostError> {
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
        Ok(None)
    }

    fn kind(&self, _: &GitUrl) -> Option<HostKind> {
        self.state().is_open.then_some(HostKind::GitHub)
    }

    async fn find_hooks(
        &self,
        at: RepositoryAccess<'_>,
        url: &Url,
    ) -> Result<Vec<FoundHook>, CodeHostError> {
        self.hook_answer(at, |state| state.hooks.get(url.as_str()).map(found).into_iter().collect())
    }

    async fn ensure_hook(
        &self,
        at: RepositoryAccess<'_>,
        wanted: &WantedHook<'_>,
    ) -> Result<Vec<FoundHook>, CodeHostError> {
        self.hook_answer(at, |state| {
            let id = (state.hooks.len() + 1).to_string();
            let url = wanted.url.as_str().to_owned();
            let hook = state.hooks.entry(url).or_insert_with(|| ScriptedHook {
                id,
                secret: String::new(),
                faults: Vec::new(),
                sent: Vec::new(),
                redelivered: Vec::new(),
            });
            hook.secret = wanted.secret.expose_secret().to_owned();
            hook.faults.clear();
            vec![found(hook)]
        })
    }

    async fn remove_hook(&self, at: RepositoryAccess<'_>, url: &Url) -> Result<(), CodeHostError> {
        self.hook_answer(at, |state| drop(state.hooks.remove(url.as_str())))
    }

    async fn sent_deliveries(
        &self,
        at: RepositoryAccess<'_>,
        hook: &FoundHook,
    ) -> Result<SentDeliveries, CodeHostError> {
        self.hook_answer(at, |state| {
            let hook = state.hooks.values().find(|known| known.id == hook.id);
            SentDeliveries::Listed(hook.map(|hook| hook.sent.clone()).unwrap_or_default())
        })
    }

    async fn redeliver(
        &self,
        at: RepositoryAccess<'_>,
        hook: &FoundHook,
        sent: &SentDelivery,
    ) -> Result<(), CodeHostError> {
        self.hook_answer(at, |state| {
            let hook = state.hooks.values_mut().find(|known| known.id == hook.id);
            if let Some(hook) = hook {
                hook.redelivered.push(sent.id.clone());
            }
        })
    }
}

//! Code hosts: the heads of branches, over git, and pull requests, changed files and commit statuses, through the APIs of
//! their providers.
//!
//! In: the URL of a repository from a task, and its token. Out: facts in the words of the domain, or an error that tells
//! what the caller can do. A token is sent only to the API of the URL's host, and never through a redirect.

use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::code_host::HostKind;
use gantry_domain::event::PushedRef;
use gantry_domain::id::{RegistryName, RunId};
use gantry_domain::pull_request::{ChangedFiles, PullRequest};
use gantry_domain::report::{CheckRunId, StatusReport};
use gantry_domain::source::{CommitId, GitUrl, RefName};
use gantry_domain::ssh::HostKey;
use gantry_ops::secret::SecretString;
use url::Url;

mod azure_devops;
mod bitbucket;
mod client;
mod git;
mod gitea;
mod github;
mod gitlab;
mod hooks;
mod listing;
mod pages;
mod paths;
mod provider;
mod table;

pub use crate::git::Heads;
pub use git::git_credentials;
pub use github::{AppConfig, AppKey, InvalidAppKey};
pub use hooks::{FoundHook, SentDeliveries, SentDelivery, Unaccepted, WantedHook, unaccepted};
pub use listing::{ListedPullRequest, OpenPullRequests};
pub use provider::CodeHosts;

/// A host of git repositories.
#[async_trait]
pub trait CodeHost: Send + Sync {
    /// The head of a branch, the commit of a tag, or the head of the host's default branch.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn head(
        &self,
        at: RepositoryAccess<'_>,
        reference: Option<&PushedRef>,
    ) -> Result<Head, CodeHostError>;

    /// All branches and tags.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn heads(&self, at: RepositoryAccess<'_>) -> Result<Heads, CodeHostError>;

    /// Whether `registry` fetches the repository as the operator's App, where there is no token for it.
    fn fetches_as_app(&self, _registry: &RegistryName, _url: &GitUrl) -> bool {
        false
    }

    /// The App's token to fetch the repository with. `None` if `registry` may not use the App for it.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn fetch_token(
        &self,
        _registry: &RegistryName,
        _url: &GitUrl,
    ) -> Result<Option<FetchToken>, CodeHostError> {
        Ok(None)
    }
}

/// A token of the operator's App to fetch a repository with.
#[derive(Debug, Clone)]
pub struct FetchToken {
    /// The token, with its user.
    pub token: SecretString,
    /// For how long it is valid.
    pub valid_for: Duration,
}

/// A repository at a code host, and the credential for it.
#[derive(Clone, Copy)]
pub struct RepositoryAccess<'a> {
    /// Its URL, from a task and never from a webhook: otherwise a sender of hooks could have tokens sent to a server of
    /// its own.
    pub url: &'a GitUrl,
    /// The registry on whose behalf it is accessed. Without a token, requests are made as the operator's App if this
    /// registry may use it for the repository.
    pub registry: Option<&'a RegistryName>,
    /// The token; `None` for public repositories, and for the App.
    pub token: Option<&'a SecretString>,
    /// The keys of which the host must have one, to read it over ssh.
    pub host_keys: &'a [HostKey],
}

/// The API of the provider that hosts a repository.
#[async_trait]
pub trait ProviderApi: Send + Sync {
    /// A pull request as it is now. `None` if there is none of this number.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn pull_request(
        &self,
        at: RepositoryAccess<'_>,
        number: u64,
    ) -> Result<Option<PullRequest>, CodeHostError>;

    /// The open pull requests, those that changed last first; at Azure DevOps those that were opened last. One that changes
    /// while the list is read may be missing, or be listed twice.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn open_pull_requests(
        &self,
        at: RepositoryAccess<'_>,
    ) -> Result<OpenPullRequests, CodeHostError>;

    /// The files that differ between two commits. [`ChangedFiles::Unknown`] if the provider's list may not be complete.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn changed_files(
        &self,
        at: RepositoryAccess<'_>,
        before: &CommitId,
        after: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError>;

    /// The files that a pull request changes. [`ChangedFiles::Unknown`] if the provider's list may not be complete.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn pull_request_files(
        &self,
        at: RepositoryAccess<'_>,
        number: u64,
    ) -> Result<ChangedFiles, CodeHostError>;

    /// Shows a run's state at a commit, and at its pull request. A later call with the same target and context replaces
    /// it. Returns the check run that shows it, if it is one, which later calls with this target and context pass on.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn report(
        &self,
        at: RepositoryAccess<'_>,
        report: &StatusReport,
        run: &ReportedRun,
    ) -> Result<Option<CheckRunId>, CodeHostError>;

    /// Whether `registry` may use the operator's App for the repository.
    fn may_use_app(&self, _registry: &RegistryName, _url: &GitUrl) -> bool {
        false
    }

    /// The kind of the host of `url`; `None` if gantry knows no API of it.
    fn kind(&self, url: &GitUrl) -> Option<HostKind>;

    /// The hooks that send to `url`. A provider may have several, one for each kind of event.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn find_hooks(
        &self,
        at: RepositoryAccess<'_>,
        url: &Url,
    ) -> Result<Vec<FoundHook>, CodeHostError>;

    /// Makes the hooks that are missing, and repairs or replaces the others. A repeated call makes no second one. Returns
    /// the hooks.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn ensure_hook(
        &self,
        at: RepositoryAccess<'_>,
        wanted: &WantedHook<'_>,
    ) -> Result<Vec<FoundHook>, CodeHostError>;

    /// Removes the hooks that send to `url`. It is no error if there are none.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn remove_hook(&self, at: RepositoryAccess<'_>, url: &Url) -> Result<(), CodeHostError>;

    /// The last deliveries of a hook of the provider.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn sent_deliveries(
        &self,
        at: RepositoryAccess<'_>,
        hook: &FoundHook,
    ) -> Result<SentDeliveries, CodeHostError>;

    /// Has a delivery sent again.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn redeliver(
        &self,
        at: RepositoryAccess<'_>,
        hook: &FoundHook,
        sent: &SentDelivery,
    ) -> Result<(), CodeHostError>;
}

/// The run whose state is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedRun {
    /// The run.
    pub run: RunId,
    /// The check run that already shows states at the commit, under the same name.
    pub check_run: Option<CheckRunId>,
}

/// What a branch or tag points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The branch, if it is one; `None` if the default was requested and the host names none.
    pub branch: Option<RefName>,
    /// The commit; `None` if there is no such branch or tag.
    pub commit: Option<CommitId>,
}

/// A request to a code host failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct CodeHostError {
    /// What failed and where, and the remedy.
    pub message: String,
    /// What the caller can do.
    pub kind: CodeHostFailure,
}

/// What a caller can do about a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeHostFailure {
    /// The host rejected this token, or shows it nothing here. Another one may be accepted.
    RefusedToken,
    /// The host does not let the operator's App do this here. Its owner can change that; a token may be accepted.
    RefusedApp,
    /// The host is away, overloaded or limits requests: try again, no earlier than this.
    Transient {
        /// The host's `Retry-After`, or the end of its limit.
        retry_after: Option<Duration>,
    },
    /// gantry knows no API of this host.
    NoApi,
    /// A retry fails again.
    Permanent,
}

impl CodeHostError {
    /// Whether the host rejected this token, or the App. Another token may be accepted.
    #[must_use]
    pub fn refused_token(&self) -> bool {
        matches!(self.kind, CodeHostFailure::RefusedToken | CodeHostFailure::RefusedApp)
    }

    /// Whether a retry may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, CodeHostFailure::Transient { .. })
    }

    /// Whether the same question may be answered later: a token may be replaced meanwhile, too.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.is_transient() || self.refused_token()
    }
}

//! All code hosts behind one value: git for heads, and the provider's API for everything else.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::code_host::{CodeHostEntry, HostKind};
use gantry_domain::event::PushedRef;
use gantry_domain::pull_request::{ChangedFiles, PullRequest};
use gantry_domain::report::StatusReport;
use gantry_domain::source::{CommitId, GitUrl};
use tokio::time::timeout;
use url::Url;

use super::azure_devops::AzureDevOps;
use super::bitbucket::Bitbucket;
use super::client::transient;
use super::git::GitCodeHost;
use super::gitea::Gitea;
use super::github::GitHub;
use super::gitlab::GitLab;
use super::hooks::{self, FoundHook, SentDeliveries, SentDelivery, WantedHook};
use super::table::{HostApi, HostTable, host};
use super::{
    CodeHost, CodeHostError, CodeHostFailure, Head, Heads, OpenPullRequests, ProviderApi,
    RepositoryAccess,
};
use crate::git::Git;
use crate::http::{ClientError, OutboundClient};

/// The time limit for an operation with all its requests.
const WITHIN: Duration = Duration::from_secs(20);

/// The code hosts that gantry knows, and any other for heads.
#[derive(Clone)]
pub struct CodeHosts {
    git: GitCodeHost,
    /// Does not follow redirects.
    http: OutboundClient,
    table: HostTable,
}

impl CodeHosts {
    /// Uses `git`, the policy of `http`, and the operator's hosts beside the well-known ones.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(
        git: Git,
        http: &OutboundClient,
        configured: Vec<CodeHostEntry>,
    ) -> Result<Self, ClientError> {
        let (git, http) = (GitCodeHost::new(git), http.without_redirects()?);
        Ok(Self { git, http, table: HostTable::new(configured) })
    }

    fn open<'a>(
        &'a self,
        at: RepositoryAccess<'a>,
    ) -> Result<Box<dyn RepositoryApi + 'a>, CodeHostError> {
        let no_api = |message| CodeHostError { message, kind: CodeHostFailure::NoApi };
        let Some(HostApi { kind, root }) = self.table.find(at.url) else {
            let host = host(at.url);
            return Err(no_api(format!(
                "gantry does not know the API of {host}: ask the operator to add `{host}=KIND` to the setting \
                 `code_hosts.apis`, if it is one of github, azure-devops, gitlab, gitea and bitbucket"
            )));
        };
        let http = &self.http;
        let (shape, api) = match kind {
            HostKind::GitHub => (GitHub::SHAPE, GitHub::open(http, &root, at)?.map(boxed)),
            HostKind::AzureDevOps => {
                (AzureDevOps::SHAPE, AzureDevOps::open(http, &root, at)?.map(boxed))
            }
            HostKind::GitLab => (GitLab::SHAPE, GitLab::open(http, &root, at)?.map(boxed)),
            HostKind::Gitea => (Gitea::SHAPE, Gitea::open(http, &root, at)?.map(boxed)),
            HostKind::Bitbucket => (Bitbucket::SHAPE, Bitbucket::open(http, &root, at)?.map(boxed)),
        };
        api.ok_or_else(|| {
            let (url, name) = (at.url, kind.name());
            no_api(format!("{url} is no repository of {name}: its address is {shape}"))
        })
    }

    async fn within<T>(
        at: RepositoryAccess<'_>,
        work: impl Future<Output = Result<T, CodeHostError>> + Send,
    ) -> Result<T, CodeHostError> {
        timeout(WITHIN, work).await.unwrap_or_else(|_| {
            let host = host(at.url);
            Err(transient(format!("the API of {host} did not answer within {WITHIN:?}"), None))
        })
    }
}

/// The API of one repository. Its methods are those of [`ProviderApi`].
#[async_trait]
pub(super) trait RepositoryApi: Send + Sync {
    async fn pull_request(&self, number: u64) -> Result<Option<PullRequest>, CodeHostError>;

    async fn open_pull_requests(&self) -> Result<OpenPullRequests, CodeHostError>;

    async fn changed_files(
        &self,
        before: &CommitId,
        after: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError>;

    async fn pull_request_files(&self, number: u64) -> Result<ChangedFiles, CodeHostError>;

    async fn report(&self, report: &StatusReport) -> Result<(), CodeHostError>;

    /// The kinds of events that each need a hook of their own; one without a name if a hook sends all.
    fn hook_parts(&self) -> &'static [&'static str] {
        &[""]
    }

    /// The hooks that send to `url`.
    async fn hooks(&self, url: &Url) -> Result<Vec<FoundHook>, CodeHostError>;

    async fn create_hook(&self, part: &str, wanted: &WantedHook<'_>) -> Result<(), CodeHostError>;

    async fn update_hook(
        &self,
        id: &str,
        part: &str,
        wanted: &WantedHook<'_>,
    ) -> Result<(), CodeHostError>;

    async fn delete_hook(&self, id: &str) -> Result<(), CodeHostError>;

    async fn sent_deliveries(&self, _hook: &str) -> Result<SentDeliveries, CodeHostError> {
        Ok(SentDeliveries::NotListed)
    }

    async fn redeliver(&self, hook: &str, sent: &SentDelivery) -> Result<(), CodeHostError>;
}

fn boxed<'a, T: RepositoryApi + 'a>(api: T) -> Box<dyn RepositoryApi + 'a> {
    Box::new(api)
}

#[async_trait]
impl ProviderApi for CodeHosts {
    async fn pull_request(
        &self,
        at: RepositoryAccess<'_>,
        number: u64,
    ) -> Result<Option<PullRequest>, CodeHostError> {
        Self::within(at, self.open(at)?.pull_request(number)).await
    }

    async fn open_pull_requests(
        &self,
        at: RepositoryAccess<'_>,
    ) -> Result<OpenPullRequests, CodeHostError> {
        Self::within(at, self.open(at)?.open_pull_requests()).await
    }

    async fn changed_files(
        &self,
        at: RepositoryAccess<'_>,
        before: &CommitId,
        after: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError> {
        Self::within(at, self.open(at)?.changed_files(before, after)).await
    }

    async fn pull_request_files(
        &self,
        at: RepositoryAccess<'_>,
        number: u64,
    ) -> Result<ChangedFiles, CodeHostError> {
        Self::within(at, self.open(at)?.pull_request_files(number)).await
    }

    async fn report(
        &self,
        at: RepositoryAccess<'_>,
        report: &StatusReport,
    ) -> Result<(), CodeHostError> {
        Self::within(at, self.open(at)?.report(report)).await
    }

    fn kind(&self, url: &GitUrl) -> Option<HostKind> {
        self.table.find(url).map(|api| api.kind)
    }

    async fn find_hooks(
        &self,
        at: RepositoryAccess<'_>,
        url: &Url,
    ) -> Result<Vec<FoundHook>, CodeHostError> {
        Self::within(at, self.open(at)?.hooks(url)).await
    }

    async fn ensure_hook(
        &self,
        at: RepositoryAccess<'_>,
        wanted: &WantedHook<'_>,
    ) -> Result<Vec<FoundHook>, CodeHostError> {
        Self::within(at, hooks::ensure(self.open(at)?.as_ref(), wanted)).await
    }

    async fn remove_hook(&self, at: RepositoryAccess<'_>, url: &Url) -> Result<(), CodeHostError> {
        Self::within(at, hooks::remove(self.open(at)?.as_ref(), url)).await
    }

    async fn sent_deliveries(
        &self,
        at: RepositoryAccess<'_>,
        hook: &FoundHook,
    ) -> Result<SentDeliveries, CodeHostError> {
        Self::within(at, self.open(at)?.sent_deliveries(&hook.id)).await
    }

    async fn redeliver(
        &self,
        at: RepositoryAccess<'_>,
        hook: &FoundHook,
        sent: &SentDelivery,
    ) -> Result<(), CodeHostError> {
        Self::within(at, self.open(at)?.redeliver(&hook.id, sent)).await
    }
}

#[async_trait]
impl CodeHost for CodeHosts {
    async fn head(
        &self,
        at: RepositoryAccess<'_>,
        reference: Option<&PushedRef>,
    ) -> Result<Head, CodeHostError> {
        self.git.head(at, reference).await
    }

    async fn heads(&self, at: RepositoryAccess<'_>) -> Result<Heads, CodeHostError> {
        self.git.heads(at).await
    }
}

impl fmt::Debug for CodeHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeHosts").field("table", &self.table).finish_non_exhaustive()
    }
}

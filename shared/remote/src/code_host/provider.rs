//! All code hosts behind one value: git for heads, and the provider's API for everything else.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::code_host::{CodeHostEntry, HostKind};
use gantry_domain::event::PushedRef;
use gantry_domain::id::RegistryName;
use gantry_domain::pull_request::{ChangedFiles, PullRequest};
use gantry_domain::report::{CheckRunId, StatusReport};
use gantry_domain::source::{CommitId, GitUrl};
use gantry_ops::secret::ExposeSecret as _;
use tokio::time::{Instant, timeout};
use url::Url;

use super::azure_devops::AzureDevOps;
use super::bitbucket::Bitbucket;
use super::client::transient;
use super::git::GitCodeHost;
use super::gitea::Gitea;
use super::github::{AppConfig, AppToken, GitHub, GitHubApp, Purpose};
use super::gitlab::GitLab;
use super::hooks::{self, FoundHook, SentDeliveries, SentDelivery, WantedHook};
use super::table::{HostApi, HostTable};
use super::{
    CodeHost, CodeHostError, CodeHostFailure, FetchToken, Head, Heads, OpenPullRequests,
    ProviderApi, ReportedRun, RepositoryAccess,
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
    app: Option<Arc<GitHubApp>>,
}

/// What a request is made with.
struct Login<'a> {
    /// With the task's token, if it has one.
    at: RepositoryAccess<'a>,
    /// The App's token, if the request is made as the App.
    app: Option<AppToken>,
}

impl Login<'_> {
    fn access(&self) -> RepositoryAccess<'_> {
        let token = self.app.as_ref().map(|app| &app.token);
        RepositoryAccess { token: token.or(self.at.token), ..self.at }
    }
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
        Ok(Self { git, http, table: HostTable::new(configured), app: None })
    }

    /// The same with the operator's App, which is used where a registry may and there is no token.
    #[must_use]
    pub fn with_app(self, app: AppConfig) -> Self {
        Self { app: Some(Arc::new(GitHubApp::new(app))), ..self }
    }

    /// What a request for `purpose` is made with: the token, else the App where the registry may use it.
    async fn log_in<'a>(
        &self,
        at: RepositoryAccess<'a>,
        purpose: Purpose,
    ) -> Result<Login<'a>, CodeHostError> {
        let app = match (at.token, at.registry) {
            (None, Some(registry)) => self.app_token(registry, at.url, purpose).await?,
            (Some(_), _) | (None, None) => None,
        };
        Ok(Login { at, app })
    }

    async fn app_token(
        &self,
        registry: &RegistryName,
        url: &GitUrl,
        purpose: Purpose,
    ) -> Result<Option<AppToken>, CodeHostError> {
        let Some(app) = &self.app else { return Ok(None) };
        let Some(repository) = app.granted(registry, url) else { return Ok(None) };
        let Some(HostApi { kind: HostKind::GitHub, root }) = self.table.find(url) else {
            return Ok(None);
        };
        app.token(&self.http, root, url, &repository, purpose).await.map(Some)
    }

    /// What came of a request: a refused token of the App is not used again, an error names none, and if a grant is
    /// missing, it says so.
    fn settle<T>(
        &self,
        login: &Login<'_>,
        result: Result<T, CodeHostError>,
    ) -> Result<T, CodeHostError> {
        let Err(mut error) = result else { return result };
        let Some(app) = &self.app else { return Err(error) };
        let Some(repository) = app.repository(login.at.url) else { return Err(error) };
        if let Some(used) = &login.app {
            let token = used.token.expose_secret();
            let token = token.split_once(':').map_or(token, |(_, token)| token);
            error.message = error.message.replace(token, "***");
            if error.refused_token() {
                app.forget(&repository);
                error.kind = CodeHostFailure::RefusedApp;
            }
        } else if login.at.token.is_none()
            && error.refused_token()
            && let Some(registry) = login.at.registry
        {
            error.message.push_str(&format!(
                "; or ask the operator to let registry {registry} use the GitHub App, with `{registry}={repository}` in the \
                 setting `github_app.grants`"
            ));
        }
        Err(error)
    }

    fn open<'a>(
        &'a self,
        login: &'a Login<'_>,
    ) -> Result<Box<dyn RepositoryApi + 'a>, CodeHostError> {
        let (at, app) = (login.access(), login.app.as_ref().map(|app| app.app));
        let no_api = |message| CodeHostError { message, kind: CodeHostFailure::NoApi };
        let Some(HostApi { kind, root }) = self.table.find(at.url) else {
            let host = at.url.host();
            return Err(no_api(format!(
                "gantry does not know the API of {host}: ask the operator to add `{host}=KIND` to the setting \
                 `code_hosts.apis`, if it is one of github, azure-devops, gitlab, gitea and bitbucket"
            )));
        };
        let http = &self.http;
        let (shape, api) = match kind {
            HostKind::GitHub => (GitHub::SHAPE, GitHub::open(http, &root, at, app)?.map(boxed)),
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
            let host = at.url.host();
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

    /// Sets a commit status.
    async fn report(&self, report: &StatusReport) -> Result<(), CodeHostError>;

    async fn report_run(
        &self,
        report: &StatusReport,
        _run: &ReportedRun,
    ) -> Result<Option<CheckRunId>, CodeHostError> {
        self.report(report).await.map(|()| None)
    }

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
        let asked = async {
            let login = self.log_in(at, Purpose::Ask).await?;
            let answer = self.open(&login)?.pull_request(number).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    async fn open_pull_requests(
        &self,
        at: RepositoryAccess<'_>,
    ) -> Result<OpenPullRequests, CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::Ask).await?;
            let answer = self.open(&login)?.open_pull_requests().await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    async fn changed_files(
        &self,
        at: RepositoryAccess<'_>,
        before: &CommitId,
        after: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::Ask).await?;
            let answer = self.open(&login)?.changed_files(before, after).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    async fn pull_request_files(
        &self,
        at: RepositoryAccess<'_>,
        number: u64,
    ) -> Result<ChangedFiles, CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::Ask).await?;
            let answer = self.open(&login)?.pull_request_files(number).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    async fn report(
        &self,
        at: RepositoryAccess<'_>,
        report: &StatusReport,
        run: &ReportedRun,
    ) -> Result<Option<CheckRunId>, CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::Report).await?;
            let answer = self.open(&login)?.report_run(report, run).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    fn may_use_app(&self, registry: &RegistryName, url: &GitUrl) -> bool {
        self.app.as_ref().is_some_and(|app| app.granted(registry, url).is_some())
    }

    fn kind(&self, url: &GitUrl) -> Option<HostKind> {
        self.table.find(url).map(|api| api.kind)
    }

    async fn find_hooks(
        &self,
        at: RepositoryAccess<'_>,
        url: &Url,
    ) -> Result<Vec<FoundHook>, CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::ManageHooks).await?;
            let answer = self.open(&login)?.hooks(url).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    async fn ensure_hook(
        &self,
        at: RepositoryAccess<'_>,
        wanted: &WantedHook<'_>,
    ) -> Result<Vec<FoundHook>, CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::ManageHooks).await?;
            let answer = hooks::ensure(self.open(&login)?.as_ref(), wanted).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    async fn remove_hook(&self, at: RepositoryAccess<'_>, url: &Url) -> Result<(), CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::ManageHooks).await?;
            let answer = hooks::remove(self.open(&login)?.as_ref(), url).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    async fn sent_deliveries(
        &self,
        at: RepositoryAccess<'_>,
        hook: &FoundHook,
    ) -> Result<SentDeliveries, CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::ManageHooks).await?;
            let answer = self.open(&login)?.sent_deliveries(&hook.id).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    async fn redeliver(
        &self,
        at: RepositoryAccess<'_>,
        hook: &FoundHook,
        sent: &SentDelivery,
    ) -> Result<(), CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::ManageHooks).await?;
            let answer = self.open(&login)?.redeliver(&hook.id, sent).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }
}

#[async_trait]
impl CodeHost for CodeHosts {
    async fn head(
        &self,
        at: RepositoryAccess<'_>,
        reference: Option<&PushedRef>,
    ) -> Result<Head, CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::Fetch).await?;
            let answer = self.git.head(login.access(), reference).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    async fn heads(&self, at: RepositoryAccess<'_>) -> Result<Heads, CodeHostError> {
        let asked = async {
            let login = self.log_in(at, Purpose::Fetch).await?;
            let answer = self.git.heads(login.access()).await;
            self.settle(&login, answer)
        };
        Self::within(at, asked).await
    }

    fn fetches_as_app(&self, registry: &RegistryName, url: &GitUrl) -> bool {
        self.may_use_app(registry, url)
    }

    async fn fetch_token(
        &self,
        registry: &RegistryName,
        url: &GitUrl,
    ) -> Result<Option<FetchToken>, CodeHostError> {
        let at = RepositoryAccess { url, registry: Some(registry), token: None, host_keys: &[] };
        let found = Self::within(at, self.app_token(registry, url, Purpose::Fetch)).await?;
        Ok(found.map(|AppToken { token, until, .. }| FetchToken {
            token,
            valid_for: until.saturating_duration_since(Instant::now()),
        }))
    }
}

impl fmt::Debug for CodeHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeHosts").field("table", &self.table).finish_non_exhaustive()
    }
}

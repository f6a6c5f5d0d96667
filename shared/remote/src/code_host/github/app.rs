//! The operator's GitHub App: tokens for one repository and one purpose each.
//!
//! In: a repository that a registry may use the App for, and the purpose. Out: a token, kept until shortly before it ends.
//! While a token is being obtained, others who need one for the repository wait for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_domain::code_host::HostName;
use gantry_domain::github_app::{AppGrant, AppId, AppRepository};
use gantry_domain::id::RegistryName;
use gantry_domain::source::GitUrl;
use gantry_ops::secret::SecretString;
use reqwest::StatusCode;
use reqwest::header::DATE;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use tokio::time::Instant;
use url::Url;

use super::GitHubConventions;
use super::app_key::AppKey;
use crate::code_host::client::{Answer, Operation, RepositoryClient, bearer, cut, transient};
use crate::code_host::{CodeHostError, CodeHostFailure};
use crate::http::OutboundClient;

/// A token that ends sooner is replaced.
const MARGIN: Duration = Duration::from_secs(300);

/// The longest time that a token is used, whatever GitHub says.
const LONGEST: Duration = Duration::from_secs(3600);

/// The repositories whose tokens are kept. With more, those that nobody is waiting for are forgotten.
const MOST_REPOSITORIES: usize = 1024;

/// The most characters of an address of GitHub's that an error names.
const LONGEST_PAGE: usize = 200;

/// A larger difference of the clocks is named as the cause of a refusal.
const CLOCKS_DIFFER: i64 = 30;

/// The operator's GitHub App.
#[derive(Debug)]
pub struct AppConfig {
    /// The host on which it is registered.
    pub host: HostName,
    /// Its id.
    pub id: AppId,
    /// Its private key.
    pub key: AppKey,
    /// Which registries may use it for which repositories.
    pub grants: Vec<AppGrant>,
}

/// What a token is for. It has no other permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::code_host) enum Purpose {
    /// To fetch with git. A worker gets it.
    Fetch,
    /// To ask for pull requests and changed files.
    Ask,
    /// To show the states of runs, as check runs.
    Report,
    /// To make, list and remove webhooks.
    ManageHooks,
}

impl Purpose {
    /// The permissions in the words of the API, and of GitHub's pages.
    fn permissions(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Self::Fetch => &[("contents", "read", "Contents: read")],
            Self::Ask => &[
                ("contents", "read", "Contents: read"),
                ("pull_requests", "read", "Pull requests: read"),
            ],
            Self::Report => &[("checks", "write", "Checks: write")],
            Self::ManageHooks => &[("repository_hooks", "write", "Webhooks: write")],
        }
    }
}

/// A token of the App for one repository and one purpose.
#[derive(Debug, Clone)]
pub(in crate::code_host) struct AppToken {
    /// With the user that GitHub wants before it.
    pub(in crate::code_host) token: SecretString,
    pub(in crate::code_host) until: Instant,
    /// The App's number.
    pub(in crate::code_host) app: u64,
}

/// The App, with its tokens.
#[derive(Debug)]
pub(in crate::code_host) struct GitHubApp {
    config: AppConfig,
    repositories: Mutex<HashMap<AppRepository, Arc<tokio::sync::Mutex<Known>>>>,
}

/// What is known of a repository.
#[derive(Debug, Default)]
struct Known {
    installation: Option<Installation>,
    tokens: BTreeMap<Purpose, AppToken>,
}

#[derive(Debug, Deserialize)]
struct Installation {
    id: u64,
    app_id: u64,
    html_url: String,
    #[serde(default)]
    suspended_at: Option<String>,
    permissions: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Registered {
    html_url: String,
}

#[derive(Serialize)]
struct Wanted<'a> {
    repositories: [&'a str; 1],
    permissions: BTreeMap<&'static str, &'static str>,
}

#[derive(Deserialize)]
struct Created {
    token: String,
    expires_at: String,
}

impl GitHubApp {
    pub(in crate::code_host) fn new(config: AppConfig) -> Self {
        Self { config, repositories: Mutex::default() }
    }

    /// The repository, if it is on the App's host.
    pub(in crate::code_host) fn repository(&self, url: &GitUrl) -> Option<AppRepository> {
        AppRepository::at(&self.config.host, url)
    }

    /// The repository, if `registry` may use the App for it.
    pub(in crate::code_host) fn granted(
        &self,
        registry: &RegistryName,
        url: &GitUrl,
    ) -> Option<AppRepository> {
        let repository = self.repository(url)?;
        let is_granted =
            self.config.grants.iter().any(|grant| grant.permits(registry, &repository));
        is_granted.then_some(repository)
    }

    /// A token for a repository, whose URL is `url`. `root` is the address of the API.
    pub(in crate::code_host) async fn token(
        &self,
        http: &OutboundClient,
        root: Url,
        url: &GitUrl,
        repository: &AppRepository,
        purpose: Purpose,
    ) -> Result<AppToken, CodeHostError> {
        let known = self.known(repository);
        let mut known = known.lock().await;
        let soon = Instant::now() + MARGIN;
        if let Some(token) = known.tokens.get(&purpose).filter(|token| token.until > soon) {
            return Ok(token.clone());
        }
        let now = machine_time();
        let jwt = self.config.key.sign(&self.config.id, now).ok_or_else(|| {
            let message = "the system has no random numbers to sign with".to_owned();
            CodeHostError { message, kind: CodeHostFailure::Transient { retry_after: None } }
        })?;
        let client = RepositoryClient {
            http,
            url,
            base: root,
            authorization: Some(bearer(&jwt)?),
            conventions: &GitHubConventions,
        };
        let minting = Minting { app: self, client, repository, purpose, now };
        let token = minting.mint(&mut known.installation).await?;
        known.tokens.insert(purpose, token.clone());
        Ok(token)
    }

    /// Forgets the tokens for a repository, because GitHub refused one.
    pub(in crate::code_host) fn forget(&self, repository: &AppRepository) {
        self.repositories.lock().unwrap_or_else(PoisonError::into_inner).remove(repository);
    }

    fn known(&self, repository: &AppRepository) -> Arc<tokio::sync::Mutex<Known>> {
        let mut all = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_REPOSITORIES && !all.contains_key(repository) {
            all.retain(|_, known| Arc::strong_count(known) > 1);
        }
        Arc::clone(all.entry(repository.clone()).or_default())
    }
}

/// What obtains one token.
struct Minting<'a> {
    app: &'a GitHubApp,
    /// At the root of the API, as the App itself.
    client: RepositoryClient<'a>,
    repository: &'a AppRepository,
    purpose: Purpose,
    now: i64,
}

impl Minting<'_> {
    async fn mint(&self, known: &mut Option<Installation>) -> Result<AppToken, CodeHostError> {
        if let Some(installation) = known.take().filter(|known| self.missing(known).is_none())
            && let Ok(token) = self.create(&installation).await?
        {
            *known = Some(installation);
            return Ok(token);
        }
        // The App was installed again, or its permissions were changed.
        let installation = self.installation().await?;
        let token = match self.create(&installation).await? {
            Ok(token) => token,
            Err(answer) => return Err(self.no_token(&installation, &answer)),
        };
        *known = Some(installation);
        Ok(token)
    }

    /// The installation that covers the repository and has the permissions.
    async fn installation(&self) -> Result<Installation, CodeHostError> {
        let (owner, name) = (self.repository.owner(), self.repository.name());
        let answer = self.client.get(&["repos", owner, name, "installation"], &[]).await?;
        let installation: Installation = match answer.status {
            StatusCode::OK => self.client.parse(&answer)?,
            StatusCode::NOT_FOUND => return Err(self.not_installed().await),
            _ => return Err(self.failed(&answer)),
        };
        let page = cut(&installation.html_url, LONGEST_PAGE);
        if installation.suspended_at.is_some() {
            return Err(refused(format!(
                "the installation of the GitHub App on {owner} is suspended, so gantry may not {} for {}: an owner of {owner} \
                 resumes it at {page}",
                self.operation(),
                self.client.url
            )));
        }
        if let Some(permission) = self.missing(&installation) {
            return Err(refused(format!(
                "the GitHub App needs the permission \"{permission}\" to {} for {}: add it in the App's settings at GitHub, and \
                 have an owner of {owner} accept it at {page}",
                self.operation(),
                self.client.url
            )));
        }
        Ok(installation)
    }

    /// The token, or the answer that says that the installation is not as it is known.
    async fn create(
        &self,
        installation: &Installation,
    ) -> Result<Result<AppToken, Answer>, CodeHostError> {
        let id = installation.id.to_string();
        let permissions = self.purpose.permissions().iter().map(|(name, level, _)| (*name, *level));
        let wanted =
            Wanted { repositories: [self.repository.name()], permissions: permissions.collect() };
        let answer =
            self.client.post(&["app", "installations", &id, "access_tokens"], &wanted).await?;
        let created: Created = match answer.status {
            StatusCode::CREATED => self.client.parse(&answer)?,
            StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => return Ok(Err(answer)),
            StatusCode::FORBIDDEN if !self.client.is_limited(&answer) => return Ok(Err(answer)),
            _ => return Err(self.failed(&answer)),
        };
        let until = OffsetDateTime::parse(&created.expires_at, &Rfc3339);
        let until = until.map_err(|_| self.client.nonsense())?.unix_timestamp();
        let seconds = until.saturating_sub(server_time(&answer).unwrap_or(self.now));
        let valid_for = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST);
        let token = SecretString::from(format!("x-access-token:{}", created.token));
        Ok(Ok(AppToken { token, until: Instant::now() + valid_for, app: installation.app_id }))
    }

    /// The first permission that the App was not given.
    fn missing(&self, installation: &Installation) -> Option<&'static str> {
        let has = |name: &str, level: &str| {
            let given = installation.permissions.get(name).map(String::as_str);
            given.is_some_and(|given| given == level || given == "admin" || level == "read")
        };
        let mut needed = self.purpose.permissions().iter();
        needed.find(|(name, level, _)| !has(name, level)).map(|(.., shown)| *shown)
    }

    async fn not_installed(&self) -> CodeHostError {
        let url = self.client.url;
        let asked = self.client.get(&["app"], &[]).await;
        let app = asked.ok().and_then(|answer| self.client.parse::<Registered>(&answer).ok());
        let page = app.map_or_else(
            || "its page at GitHub".to_owned(),
            |app| format!("{}/installations/new", cut(&app.html_url, LONGEST_PAGE)),
        );
        refused(format!(
            "the GitHub App is not installed on {} ({url}), or there is no such repository: install it at {page}",
            self.repository
        ))
    }

    fn no_token(&self, installation: &Installation, answer: &Answer) -> CodeHostError {
        let page = cut(&installation.html_url, LONGEST_PAGE);
        refused(format!(
            "GitHub gives its App no token to {} for {} ({}): check that the installation at {page} includes the repository",
            self.operation(),
            self.client.url,
            answer.status
        ))
    }

    fn failed(&self, answer: &Answer) -> CodeHostError {
        if answer.status != StatusCode::UNAUTHORIZED {
            return self.client.failure(self.operation(), answer);
        }
        let host = self.app.config.host.as_str();
        let ahead = server_time(answer).map_or(0, |theirs| self.now.saturating_sub(theirs));
        if ahead.abs() > CLOCKS_DIFFER {
            let relation = if ahead > 0 { "ahead of" } else { "behind" };
            let message = format!(
                "{host} rejects the GitHub App, because the clock of this machine is {} s {relation} that of {host}: \
                 synchronize it",
                ahead.abs()
            );
            return transient(message, None);
        }
        let id = self.app.config.id.as_str();
        refused(format!(
            "{host} rejects the GitHub App `{id}` (401): the operator checks that `github_app.private_key_file` is a key of the \
             App that `github_app.id` names, and was not deleted in its settings"
        ))
    }

    fn operation(&self) -> Operation {
        match self.purpose {
            Purpose::Fetch | Purpose::Ask => Operation::ReadRepository,
            Purpose::Report => Operation::SetStatus,
            Purpose::ManageHooks => Operation::ManageHooks,
        }
    }
}

fn refused(message: String) -> CodeHostError {
    CodeHostError { message, kind: CodeHostFailure::RefusedApp }
}

/// The time at the server, in seconds of the Unix epoch.
pub(super) fn server_time(answer: &Answer) -> Option<i64> {
    let date = OffsetDateTime::parse(answer.header(DATE.as_str())?, &Rfc2822).ok()?;
    Some(date.unix_timestamp())
}

#[expect(clippy::disallowed_methods, reason = "the store's clock may be far from GitHub's")]
fn machine_time() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

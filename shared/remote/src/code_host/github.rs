//! GitHub's REST API.

use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::pull_request::{
    Association, ChangedFiles, PullRequest, PullRequestBase, PullRequestHead,
};
use gantry_domain::report::{CheckRunId, ReportState, StatusReport};
use gantry_domain::source::{CommitId, RefName};
use gantry_ops::secret::ExposeSecret as _;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

use super::client::{
    Answer, Conventions, Operation, PAUSE, RepositoryClient, bearer, cut, transient,
};
use super::hooks::{
    FoundHook, MOST_DELIVERIES, SentDeliveries, SentDelivery, WantedHook, missing_events,
};
use super::pages::Pages;
use super::paths::{Paths, unknown};
use super::provider::RepositoryApi;
use super::table::{below, words_without_git};
use super::{
    CodeHostError, CodeHostFailure, OpenPullRequests, ReportedRun, RepositoryAccess,
    git_credentials,
};
use crate::http::OutboundClient;

mod app;
mod app_key;
mod checks;

pub use app::AppConfig;
pub(super) use app::{AppToken, GitHubApp, Purpose};
pub use app_key::{AppKey, InvalidAppKey};

/// The most characters of a status's description.
const LONGEST_DESCRIPTION: usize = 140;

/// A comparison names no more files, and does not say so.
const MOST_COMPARED: usize = 300;

/// A pull request's list names no more files, and does not say so.
const MOST_LISTED: usize = 3000;

const PAGE: usize = 100;

/// What gantry's hooks send.
const HOOK_EVENTS: &[&str] = &["push", "pull_request", "issue_comment"];

/// More hooks are not read: GitHub has at most 20 for each event.
const MOST_HOOKS: usize = 1000;

/// A repository.
pub(super) struct GitHub<'a> {
    client: RepositoryClient<'a>,
    /// The number of the App that requests are made as; `None` with a task's token, or without one.
    app: Option<u64>,
}

impl<'a> GitHub<'a> {
    pub(super) const SHAPE: &'static str = "`https://HOST/OWNER/REPOSITORY`";

    /// `None` if the URL is none of a repository.
    pub(super) fn open(
        http: &'a OutboundClient,
        root: &Url,
        at: RepositoryAccess<'a>,
        app: Option<u64>,
    ) -> Result<Option<Self>, CodeHostError> {
        let words = words_without_git(at.url);
        let [owner, name] = words.as_slice() else { return Ok(None) };
        let base = below(root, ["repos", owner, name]);
        let token = at.token.map(|token| git_credentials(token).password);
        let authorization = token.as_ref().map(bearer).transpose()?;
        let conventions: &'static dyn Conventions = match app {
            Some(_) => &AppConventions,
            None => &GitHubConventions,
        };
        let client = RepositoryClient { http, url: at.url, base, authorization, conventions };
        Ok(Some(Self { client, app }))
    }
}

struct GitHubConventions;

impl Conventions for GitHubConventions {
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("accept", "application/vnd.github+json"), ("x-github-api-version", "2022-11-28")]
    }

    /// Names the scope of a classic token or the permission of a fine-grained one, if the answer tells which it is.
    fn right(&self, operation: Operation, answer: &Answer) -> &'static str {
        if answer.header("x-github-sso").is_some_and(|sso| sso.starts_with("required")) {
            return "to be authorized for the organization's single sign-on";
        }
        let [scope, permission, both] = rights(operation);
        if answer.header("x-oauth-scopes").is_some() {
            scope
        } else if answer.header("x-accepted-github-permissions").is_some() {
            permission
        } else {
            both
        }
    }

    /// GitHub's limits answer 403 or 429. In this order they tell the pause: `Retry-After`; the time at which an
    /// exhausted limit is reset; nothing.
    fn limit(&self, answer: &Answer) -> Option<Duration> {
        if !matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
            return None;
        }
        if let Some(pause) = answer.pause() {
            return Some(pause);
        }
        if answer.header("x-ratelimit-remaining") == Some("0") {
            return Some(until_reset(answer).unwrap_or(PAUSE));
        }
        let is_secondary = answer.says("secondary rate limit") || answer.says("abuse detection");
        (is_secondary || answer.status == StatusCode::TOO_MANY_REQUESTS).then_some(PAUSE)
    }
}

/// The same as the App, which has permissions only.
struct AppConventions;

impl Conventions for AppConventions {
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        GitHubConventions.headers()
    }

    fn right(&self, operation: Operation, _answer: &Answer) -> &'static str {
        // It makes check runs instead.
        if matches!(operation, Operation::SetStatus) {
            return "the permission \"Checks: write\" for this repository";
        }
        let [_, permission, _] = rights(operation);
        permission
    }

    fn is_app(&self) -> bool {
        true
    }

    fn limit(&self, answer: &Answer) -> Option<Duration> {
        GitHubConventions.limit(answer)
    }
}

/// The scope of a classic token, the permission of a fine-grained token or an App, and both.
fn rights(operation: Operation) -> [&'static str; 3] {
    match operation {
        Operation::ReadPullRequest(_) | Operation::ListPullRequests | Operation::ListFiles(_) => [
            "the scope `repo`",
            "the permission \"Pull requests: read\" for this repository",
            "the scope `repo` (classic) or the permission \"Pull requests: read\" for this repository (fine-grained)",
        ],
        Operation::CompareCommits | Operation::ReadRepository => [
            "the scope `repo`",
            "the permission \"Contents: read\" for this repository",
            "the scope `repo` (classic) or the permission \"Contents: read\" for this repository (fine-grained)",
        ],
        Operation::SetStatus => [
            "the scope `repo:status`",
            "the permission \"Commit statuses: write\" for this repository",
            "the scope `repo:status` (classic) or the permission \"Commit statuses: write\" for this repository (fine-grained)",
        ],
        Operation::ManageHooks => [
            "the scope `admin:repo_hook`, and its user must administer the repository",
            "the permission \"Webhooks: read and write\" for this repository",
            "the scope `admin:repo_hook` (classic) or the permission \"Webhooks: read and write\" for this repository (fine-grained)",
        ],
    }
}

/// By the server's own clock, so that a wrong one here does not matter.
fn until_reset(answer: &Answer) -> Option<Duration> {
    let reset: i64 = answer.header("x-ratelimit-reset")?.parse().ok()?;
    let seconds = reset.saturating_sub(app::server_time(answer)?).max(1);
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

#[derive(Deserialize)]
struct Pull {
    number: u64,
    state: String,
    #[serde(default)]
    draft: bool,
    head: PullHead,
    base: PullBase,
    #[serde(default)]
    mergeable: Option<bool>,
    #[serde(default)]
    merge_commit_sha: Option<String>,
    #[serde(default)]
    labels: Vec<Label>,
    #[serde(default)]
    user: Option<User>,
    #[serde(default)]
    author_association: String,
}

#[derive(Deserialize)]
struct PullHead {
    sha: CommitId,
    #[serde(rename = "ref")]
    branch: String,
    /// `null` once a fork was deleted.
    repo: Option<Repository>,
}

#[derive(Deserialize)]
struct PullBase {
    #[serde(rename = "ref")]
    branch: RefName,
    repo: Repository,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct Comparison {
    /// How the head relates to the base: `ahead`, `behind`, `diverged` or `identical`.
    status: String,
    #[serde(default)]
    files: Option<Vec<File>>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    #[serde(default)]
    previous_filename: Option<String>,
}

#[derive(Deserialize)]
struct Hook {
    id: u64,
    active: bool,
    events: Vec<String>,
    config: FoundConfig,
}

#[derive(Deserialize)]
struct FoundConfig {
    /// Missing for hooks of other kinds.
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
}

#[derive(Deserialize)]
struct Delivery {
    id: u64,
    guid: String,
    delivered_at: String,
    status: String,
    status_code: u16,
    event: String,
}

#[derive(Serialize)]
struct NewHook<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    active: bool,
    events: &'static [&'static str],
    config: HookConfig<'a>,
}

#[derive(Serialize)]
struct HookConfig<'a> {
    url: &'a str,
    content_type: &'static str,
    secret: &'a str,
    insecure_ssl: &'static str,
}

#[derive(Serialize)]
struct Status<'a> {
    state: &'static str,
    context: &'a str,
    description: String,
    target_url: &'a str,
}

#[async_trait]
impl RepositoryApi for GitHub<'_> {
    async fn pull_request(&self, number: u64) -> Result<Option<PullRequest>, CodeHostError> {
        let operation = Operation::ReadPullRequest(number);
        let pull: Option<Pull> =
            self.client.read(operation, &["pulls", &number.to_string()], &[]).await?;
        pull.map(|pull| pull.into_domain().ok_or_else(|| self.client.nonsense())).transpose()
    }

    /// Without trial merges: the list does not tell whether they are of the current head.
    async fn open_pull_requests(&self) -> Result<OpenPullRequests, CodeHostError> {
        let filter = [("state", "open"), ("sort", "updated"), ("direction", "desc")];
        self.client.list_open(&["pulls"], &filter, PAGE, Pull::into_domain).await
    }

    async fn changed_files(
        &self,
        before: &CommitId,
        after: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError> {
        // All files are on the first page, whatever its size; that is the number of commits.
        let spec = format!("{before}...{after}");
        let query = [("per_page", "1"), ("page", "1")];
        let found: Option<Comparison> =
            self.client.read(Operation::CompareCommits, &["compare", &spec], &query).await?;
        let Some(Comparison { status, files }) = found else {
            return Ok(unknown("GitHub does not know one of the commits any more"));
        };
        // It compares with the commit that both have in common, which then is another one than `before`.
        if !matches!(status.as_str(), "ahead" | "identical") {
            return Ok(unknown("the branch does not contain its former head any more"));
        }
        let Some(files) = files else { return Ok(unknown("GitHub lists no files")) };
        if files.len() >= MOST_COMPARED {
            return Ok(unknown("GitHub lists at most 300 files of a comparison"));
        }
        let mut paths = Paths::default();
        files.iter().for_each(|file| file.add_to(&mut paths));
        Ok(paths.complete())
    }

    async fn pull_request_files(&self, number: u64) -> Result<ChangedFiles, CodeHostError> {
        let operation = Operation::ListFiles(number);
        let mut paths = Paths::default();
        for page in 1..=MOST_LISTED / PAGE {
            let (page, size) = (page.to_string(), PAGE.to_string());
            let query = [("per_page", size.as_str()), ("page", page.as_str())];
            let words = ["pulls", &number.to_string(), "files"];
            let files: Option<Vec<File>> = self.client.read(operation, &words, &query).await?;
            let Some(files) = files else {
                return Ok(unknown(format!("there is no pull request {number}")));
            };
            files.iter().for_each(|file| file.add_to(&mut paths));
            if files.len() < PAGE {
                return Ok(paths.complete());
            }
        }
        Ok(unknown("GitHub lists at most 3000 files of a pull request"))
    }

    /// Always in the base's repository: it shares the commits of its forks.
    async fn report(&self, report: &StatusReport) -> Result<(), CodeHostError> {
        let status = Status {
            state: state(report.state),
            context: report.context.as_str(),
            description: cut(&report.description, LONGEST_DESCRIPTION),
            target_url: &report.link,
        };
        let commit = &report.target.commit;
        let answer = self.client.post(&["statuses", commit.as_str()], &status).await?;
        if self.client.is_success(&answer) {
            return Ok(());
        }
        if answer.status == StatusCode::UNPROCESSABLE_ENTITY {
            return Err(unprocessable(report, &answer));
        }
        Err(self.client.failure(Operation::SetStatus, &answer))
    }

    async fn report_run(
        &self,
        report: &StatusReport,
        run: &ReportedRun,
    ) -> Result<Option<CheckRunId>, CodeHostError> {
        match self.app {
            Some(app) => self.show(app, report, run).await.map(Some),
            None => self.report(report).await.map(|()| None),
        }
    }

    async fn hooks(&self, url: &Url) -> Result<Vec<FoundHook>, CodeHostError> {
        let mut found = Vec::new();
        let pages = Pages { size: PAGE, most: MOST_HOOKS };
        let take = |hook: Hook| {
            if hook.config.url.as_deref() == Some(url.as_str()) {
                found.push(hook.into_found());
            }
        };
        self.client.read_pages(Operation::ManageHooks, &["hooks"], &[], pages, take).await?;
        Ok(found)
    }

    async fn create_hook(&self, _part: &str, wanted: &WantedHook<'_>) -> Result<(), CodeHostError> {
        self.write_hook(&["hooks"], Method::POST, Some("web"), wanted).await
    }

    async fn update_hook(
        &self,
        id: &str,
        _part: &str,
        wanted: &WantedHook<'_>,
    ) -> Result<(), CodeHostError> {
        self.write_hook(&["hooks", id], Method::PATCH, None, wanted).await
    }

    async fn delete_hook(&self, id: &str) -> Result<(), CodeHostError> {
        self.client.delete(Operation::ManageHooks, &["hooks", id]).await
    }

    async fn sent_deliveries(&self, hook: &str) -> Result<SentDeliveries, CodeHostError> {
        let size = MOST_DELIVERIES.to_string();
        let words = ["hooks", hook, "deliveries"];
        let sent: Vec<Delivery> =
            self.client.read_own(Operation::ManageHooks, &words, &[("per_page", &size)]).await?;
        Ok(SentDeliveries::Listed(sent.into_iter().map(Delivery::into_sent).collect()))
    }

    async fn redeliver(&self, hook: &str, sent: &SentDelivery) -> Result<(), CodeHostError> {
        let words = ["hooks", hook, "deliveries", &sent.id, "attempts"];
        self.client.act(Operation::ManageHooks, &words).await
    }
}

impl GitHub<'_> {
    async fn write_hook(
        &self,
        words: &[&str],
        method: Method,
        name: Option<&'static str>,
        wanted: &WantedHook<'_>,
    ) -> Result<(), CodeHostError> {
        let config = HookConfig {
            url: wanted.url.as_str(),
            // The default is a form.
            content_type: "json",
            secret: wanted.secret.expose_secret(),
            insecure_ssl: "0",
        };
        let body = NewHook { name, active: true, events: HOOK_EVENTS, config };
        let answer = self.client.send_json(method, words, &body).await?;
        if answer.status == StatusCode::UNPROCESSABLE_ENTITY {
            return Err(unprocessable_hook(wanted.url, &answer));
        }
        self.client.done(Operation::ManageHooks, &answer)
    }
}

fn unprocessable_hook(url: &Url, answer: &Answer) -> CodeHostError {
    if answer.says("already exists") {
        let message = format!("GitHub already has a webhook to {url}: it is looked for again");
        return transient(message, None);
    }
    let message = if answer.says("maximum number of hooks") || answer.says("20 hooks") {
        "the repository has 20 webhooks, and GitHub takes no more: remove one that is not needed"
            .to_owned()
    } else if answer.says("not supported because it isn't reachable") {
        format!("GitHub cannot reach {url}: set `server.public_url` to an address of the internet")
    } else {
        format!("GitHub refused a webhook to {url} (422)")
    };
    CodeHostError { message, kind: CodeHostFailure::Permanent }
}

fn unprocessable(report: &StatusReport, answer: &Answer) -> CodeHostError {
    let (context, commit) = (&report.context, &report.target.commit);
    let message = if answer.says("maximum number of statuses") {
        format!("commit {commit} has 1000 statuses of the name {context}, and GitHub takes no more")
    } else if answer.says("No commit found") {
        format!("GitHub has no commit {commit} in this repository: was the branch pushed again?")
    } else {
        format!("GitHub refused the status {context} of commit {commit} (422)")
    };
    CodeHostError { message, kind: CodeHostFailure::Permanent }
}

/// GitHub has no state for a cancelled run; `error` is the one that says nothing about the code. Gitea has the same
/// states.
pub(super) fn state(state: ReportState) -> &'static str {
    match state {
        ReportState::Pending | ReportState::Held | ReportState::Running => "pending",
        ReportState::Succeeded => "success",
        ReportState::Failed | ReportState::TimedOut => "failure",
        ReportState::Errored | ReportState::Canceled => "error",
    }
}

impl Hook {
    fn into_found(self) -> FoundHook {
        let disabled = (!self.active).then(|| "is not active".to_owned());
        let is_form = self.config.content_type.as_deref() != Some("json");
        let form = is_form.then(|| "sends forms instead of JSON".to_owned());
        // `*` stands for every event.
        let sends_all = self.events.iter().any(|event| event == "*");
        let events = missing_events(&self.events, HOOK_EVENTS).filter(|_| !sends_all);
        FoundHook {
            id: self.id.to_string(),
            events: self.events,
            content_type: self.config.content_type,
            faults: [disabled, form, events].into_iter().flatten().collect(),
        }
    }
}

impl Delivery {
    fn into_sent(self) -> SentDelivery {
        let is_accepted = (200..300).contains(&self.status_code);
        let outcome = match self.status_code {
            0 => self.status,
            code => format!("{code} {}", self.status),
        };
        SentDelivery {
            id: self.id.to_string(),
            delivery: Some(self.guid),
            at: self.delivered_at,
            event: self.event,
            outcome,
            is_accepted,
        }
    }
}

impl File {
    fn add_to(&self, paths: &mut Paths) {
        paths.add(&self.filename);
        if let Some(previous) = &self.previous_filename {
            paths.add(previous);
        }
    }
}

impl Pull {
    /// `None` if GitHub could not have sent it.
    fn into_domain(self) -> Option<PullRequest> {
        let id = |repository: &Repository| repository.id.to_string().parse().ok();
        let is_open = self.state == "open";
        // Otherwise it is the commit that merged the pull request, or a trial of an earlier head.
        let merge = self.merge_commit_sha.filter(|_| is_open && self.mergeable == Some(true));
        Some(PullRequest {
            number: self.number,
            is_open,
            head: PullRequestHead {
                commit: self.head.sha,
                branch: self.head.branch.parse().ok(),
                repository: self.head.repo.as_ref().and_then(id),
            },
            base: PullRequestBase { branch: self.base.branch, repository: id(&self.base.repo)? },
            merge: merge.and_then(|merge| merge.parse().ok()),
            is_draft: self.draft,
            labels: self.labels.into_iter().map(|label| label.name).take(PAGE).collect(),
            author: self.user.map(|user| user.login),
            association: association(&self.author_association),
        })
    }
}

fn association(word: &str) -> Association {
    match word {
        "OWNER" => Association::Owner,
        "MEMBER" => Association::Member,
        "COLLABORATOR" => Association::Collaborator,
        "CONTRIBUTOR" => Association::Contributor,
        _ => Association::Stranger,
    }
}

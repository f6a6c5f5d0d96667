//! The REST API of Gitea and Forgejo.

use async_trait::async_trait;
use gantry_domain::pull_request::{
    Association, ChangedFiles, PullRequest, PullRequestBase, PullRequestHead,
};
use gantry_domain::report::StatusReport;
use gantry_domain::source::{CommitId, RefName};
use gantry_ops::secret::ExposeSecret;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use url::Url;

use super::client::{Answer, Conventions, Operation, RepositoryClient, cut, secret_header};
use super::github::state;
use super::hooks::{FoundHook, SentDelivery, WantedHook, cannot_redeliver, missing_events};
use super::pages::Pages;
use super::paths::{Paths, unknown};
use super::provider::RepositoryApi;
use super::table::{below, words_without_git};
use super::{CodeHostError, OpenPullRequests, RepositoryAccess, git_credentials};
use crate::http::OutboundClient;

/// The most characters of a status's description, so that it stays one line.
const LONGEST_DESCRIPTION: usize = 255;

/// What gantry's hooks send. `pull_request` stands for all changes of pull requests, and their comments.
const HOOK_EVENTS: &[&str] = &["push", "pull_request"];

/// The entries of a page that is asked for. Servers have limits of their own, which may be lower.
const PAGE: usize = 50;
/// More pages of files are not read.
const MOST_PAGES: usize = 100;

/// More hooks are not read.
const MOST_HOOKS: usize = 5000;

/// A repository.
pub(super) struct Gitea<'a>(RepositoryClient<'a>);

impl<'a> Gitea<'a> {
    pub(super) const SHAPE: &'static str = "`https://HOST/OWNER/REPOSITORY`";

    /// `None` if the URL is none of a repository.
    pub(super) fn open(
        http: &'a OutboundClient,
        root: &Url,
        at: RepositoryAccess<'a>,
    ) -> Result<Option<Self>, CodeHostError> {
        let words = words_without_git(at.url);
        let [.., owner, name] = words.as_slice() else { return Ok(None) };
        let base = below(root, ["repos", owner, name]);
        let token = at.token.map(|token| git_credentials(token).password);
        let header = token.map(|token| secret_header(&format!("token {}", token.expose_secret())));
        let authorization = header.transpose()?;
        let conventions = &GiteaConventions;
        Ok(Some(Self(RepositoryClient { http, url: at.url, base, authorization, conventions })))
    }
}

struct GiteaConventions;

impl Conventions for GiteaConventions {
    fn page_size(&self) -> &'static str {
        "limit"
    }

    /// The server's own limit of a page is not known, so only an empty page is the last one.
    fn is_last_page(&self, found: usize, _asked: usize) -> bool {
        found == 0
    }

    fn right(&self, operation: Operation, _answer: &Answer) -> &'static str {
        match operation {
            Operation::ReadRepository
            | Operation::ReadPullRequest(_)
            | Operation::ListPullRequests
            | Operation::CompareCommits
            | Operation::ListFiles(_) => "the scope `read:repository`",
            Operation::ManageHooks => {
                "the scope `write:repository`, and its user must administer the repository"
            }
            Operation::SetStatus => {
                "the scope `write:repository`, and write access to the repository for its user"
            }
        }
    }
}

#[derive(Deserialize)]
struct Pull {
    number: u64,
    state: String,
    #[serde(default)]
    draft: bool,
    head: PullHead,
    base: PullBase,
    /// `null` without labels.
    #[serde(default)]
    labels: Option<Vec<Label>>,
    #[serde(default)]
    user: Option<User>,
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
    total_commits: usize,
    /// `null` without commits.
    commits: Option<Vec<Commit>>,
}

#[derive(Deserialize)]
struct Commit {
    parents: Vec<Parent>,
    /// Missing in answers of servers that do not list them.
    #[serde(default)]
    files: Option<Vec<File>>,
}

#[derive(Deserialize)]
struct Parent {
    sha: CommitId,
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
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
}

#[derive(Serialize)]
struct NewHook<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// The default is `false`.
    active: bool,
    events: &'static [&'static str],
    config: NewConfig<'a>,
}

#[derive(Serialize)]
struct NewConfig<'a> {
    url: &'a str,
    content_type: &'static str,
    secret: &'a str,
}

#[derive(Serialize)]
struct Status<'a> {
    state: &'static str,
    context: &'a str,
    description: String,
    target_url: &'a str,
}

#[async_trait]
impl RepositoryApi for Gitea<'_> {
    async fn pull_request(&self, number: u64) -> Result<Option<PullRequest>, CodeHostError> {
        let operation = Operation::ReadPullRequest(number);
        let pull: Option<Pull> =
            self.0.read(operation, &["pulls", &number.to_string()], &[]).await?;
        pull.map(|pull| pull.into_domain().ok_or_else(|| self.0.nonsense())).transpose()
    }

    async fn open_pull_requests(&self) -> Result<OpenPullRequests, CodeHostError> {
        let filter = [("state", "open"), ("sort", "recentupdate")];
        self.0.list_open(&["pulls"], &filter, PAGE, Pull::into_domain).await
    }

    /// Gitea lists the files of each commit that is new in `after`. Their union is at least what differs, if `before` is an
    /// ancestor of `after`: then it is a parent of a new commit.
    async fn changed_files(
        &self,
        before: &CommitId,
        after: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError> {
        let spec = format!("{before}...{after}");
        let query = [("files", "true"), ("stat", "false"), ("verification", "false")];
        let found: Option<Comparison> =
            self.0.read(Operation::CompareCommits, &["compare", &spec], &query).await?;
        let Some(Comparison { total_commits, commits }) = found else {
            return Ok(unknown("the code host does not know one of the commits any more"));
        };
        let commits = commits.unwrap_or_default();
        if commits.len() != total_commits {
            return Ok(unknown("the code host does not list all commits"));
        }
        let mut parents = commits.iter().flat_map(|commit| &commit.parents);
        if before != after && !parents.any(|parent| &parent.sha == before) {
            return Ok(unknown("the branch does not contain its former head any more"));
        }
        let mut paths = Paths::default();
        for commit in &commits {
            let Some(files) = &commit.files else {
                return Ok(unknown("the code host lists no files of a commit"));
            };
            files.iter().for_each(|file| file.add_to(&mut paths));
        }
        Ok(paths.complete())
    }

    async fn pull_request_files(&self, number: u64) -> Result<ChangedFiles, CodeHostError> {
        let operation = Operation::ListFiles(number);
        let words = ["pulls", &number.to_string(), "files"];
        let mut paths = Paths::default();
        for page in 1..=MOST_PAGES {
            let (page, size) = (page.to_string(), PAGE.to_string());
            let query = [("limit", size.as_str()), ("page", page.as_str())];
            let files: Option<Vec<File>> = self.0.read(operation, &words, &query).await?;
            let Some(files) = files else {
                return Ok(unknown(format!("there is no pull request {number}")));
            };
            if GiteaConventions.is_last_page(files.len(), PAGE) {
                return Ok(paths.complete());
            }
            files.iter().for_each(|file| file.add_to(&mut paths));
        }
        Ok(unknown("the pull request has more files than gantry reads"))
    }

    /// Always in the base's repository, which has the heads of its pull requests.
    async fn report(&self, report: &StatusReport) -> Result<(), CodeHostError> {
        let status = Status {
            state: state(report.state),
            context: report.context.as_str(),
            description: cut(&report.description, LONGEST_DESCRIPTION),
            target_url: &report.link,
        };
        let words = ["statuses", report.target.commit.as_str()];
        let answer = self.0.post(&words, &status).await?;
        if self.0.is_success(&answer) {
            return Ok(());
        }
        Err(self.0.failure(Operation::SetStatus, &answer))
    }

    async fn hooks(&self, url: &Url) -> Result<Vec<FoundHook>, CodeHostError> {
        let mut found = Vec::new();
        let pages = Pages { size: PAGE, most: MOST_HOOKS };
        let take = |hook: Hook| {
            if hook.config.url.as_deref() == Some(url.as_str()) {
                found.push(hook.into_found());
            }
        };
        self.0.read_pages(Operation::ManageHooks, &["hooks"], &[], pages, take).await?;
        Ok(found)
    }

    async fn create_hook(&self, _part: &str, wanted: &WantedHook<'_>) -> Result<(), CodeHostError> {
        let hook = NewHook::of(wanted);
        self.0.write(Operation::ManageHooks, Method::POST, &["hooks"], &hook).await
    }

    async fn update_hook(
        &self,
        id: &str,
        _part: &str,
        wanted: &WantedHook<'_>,
    ) -> Result<(), CodeHostError> {
        let hook = NewHook::of(wanted);
        self.0.write(Operation::ManageHooks, Method::PATCH, &["hooks", id], &hook).await
    }

    async fn delete_hook(&self, id: &str) -> Result<(), CodeHostError> {
        self.0.delete(Operation::ManageHooks, &["hooks", id]).await
    }

    async fn redeliver(&self, _hook: &str, _sent: &SentDelivery) -> Result<(), CodeHostError> {
        Err(cannot_redeliver("Gitea"))
    }
}

impl<'a> NewHook<'a> {
    fn of(wanted: &WantedHook<'a>) -> Self {
        let config = NewConfig {
            url: wanted.url.as_str(),
            content_type: "json",
            secret: wanted.secret.expose_secret(),
        };
        Self { kind: "gitea", active: true, events: HOOK_EVENTS, config }
    }
}

impl Hook {
    fn into_found(self) -> FoundHook {
        let disabled = (!self.active).then(|| "is not active".to_owned());
        let is_form = self.config.content_type.as_deref() != Some("json");
        let form = is_form.then(|| "sends forms instead of JSON".to_owned());
        let events = missing_events(&self.events, HOOK_EVENTS);
        FoundHook {
            id: self.id.to_string(),
            events: self.events,
            content_type: self.config.content_type,
            faults: [disabled, form, events].into_iter().flatten().collect(),
        }
    }
}

impl File {
    fn add_to(&self, paths: &mut Paths) {
        paths.add(&self.filename);
        if let Some(previous) = self.previous_filename.as_ref().filter(|name| !name.is_empty()) {
            paths.add(previous);
        }
    }
}

impl Pull {
    /// `None` if the code host could not have sent it.
    fn into_domain(self) -> Option<PullRequest> {
        let id = |repository: &Repository| repository.id.to_string().parse().ok();
        let labels = self.labels.unwrap_or_default();
        Some(PullRequest {
            number: self.number,
            is_open: self.state == "open",
            head: PullRequestHead {
                commit: self.head.sha,
                branch: self.head.branch.parse().ok(),
                repository: self.head.repo.as_ref().and_then(id),
            },
            base: PullRequestBase { branch: self.base.branch, repository: id(&self.base.repo)? },
            merge: None,
            is_draft: self.draft,
            labels: labels.into_iter().map(|label| label.name).take(100).collect(),
            author: self.user.map(|user| user.login),
            association: Association::Stranger,
        })
    }
}

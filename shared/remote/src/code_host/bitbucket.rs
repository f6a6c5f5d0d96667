//! Bitbucket Cloud's REST API.

use async_trait::async_trait;
use gantry_domain::pull_request::{
    Association, ChangedFiles, PullRequest, PullRequestBase, PullRequestHead,
};
use gantry_domain::report::{ReportContext, ReportState, StatusReport};
use gantry_domain::source::{CommitId, RefName};
use gantry_ops::secret::{ExposeSecret, SecretString};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use super::client::{
    Answer, Conventions, Operation, RepositoryClient, basic, bearer, cut, transient,
};
use super::hooks::{FoundHook, SentDelivery, WantedHook, cannot_redeliver, missing_events};
use super::listing::{Entry, ListedPullRequest, Listing, MOST_LISTED};
use super::pages::Pages;
use super::paths::{Paths, unknown};
use super::provider::RepositoryApi;
use super::table::{below, words_without_git};
use super::{CodeHostError, OpenPullRequests, RepositoryAccess, git_credentials};
use crate::http::OutboundClient;

/// The most characters of a status's description, so that it stays one line.
const LONGEST_DESCRIPTION: usize = 255;

/// The most characters of a status's key.
const LONGEST_KEY: usize = 40;

/// The files of a page, and the most pages that are read.
const PAGE: usize = 500;
const MOST_PAGES: usize = 20;

/// What gantry's hooks send.
const HOOK_EVENTS: &[&str] = &[
    "repo:push",
    "pullrequest:created",
    "pullrequest:updated",
    "pullrequest:fulfilled",
    "pullrequest:rejected",
    "pullrequest:comment_created",
];

/// A larger page of pull requests is refused.
const PULL_PAGES: Pages = Pages { size: 50, most: MOST_LISTED };

/// A repository has at most 50 hooks.
const HOOK_PAGES: Pages = Pages { size: 100, most: 200 };

/// The user of an access token in git; everything else is the name of an account.
const ACCESS_TOKEN_USER: &str = "x-token-auth";

/// A repository.
pub(super) struct Bitbucket<'a> {
    client: RepositoryClient<'a>,
    root: Url,
}

impl<'a> Bitbucket<'a> {
    pub(super) const SHAPE: &'static str = "`https://bitbucket.org/WORKSPACE/REPOSITORY`";

    /// `None` if the URL is none of a repository.
    pub(super) fn open(
        http: &'a OutboundClient,
        root: &Url,
        at: RepositoryAccess<'a>,
    ) -> Result<Option<Self>, CodeHostError> {
        let words = words_without_git(at.url);
        let [workspace, name] = words.as_slice() else { return Ok(None) };
        let base = below(root, ["repositories", workspace, name]);
        let authorization = at.token.map(authorization).transpose()?;
        let conventions = &BitbucketConventions;
        let client = RepositoryClient { http, url: at.url, base, authorization, conventions };
        Ok(Some(Self { client, root: root.clone() }))
    }
}

/// An access token is a bearer token. The API token of an account is its password.
fn authorization(token: &SecretString) -> Result<HeaderValue, CodeHostError> {
    let credentials = git_credentials(token);
    let has_account = token.expose_secret().contains(':');
    if has_account && credentials.username != ACCESS_TOKEN_USER {
        return basic(&credentials);
    }
    bearer(&credentials.password)
}

struct BitbucketConventions;

impl Conventions for BitbucketConventions {
    fn right(&self, operation: Operation, _answer: &Answer) -> &'static str {
        match operation {
            Operation::ReadRepository | Operation::CompareCommits => {
                "the scope `repository` (`read:repository:bitbucket`)"
            }
            Operation::ReadPullRequest(_)
            | Operation::ListPullRequests
            | Operation::ListFiles(_) => "the scope `pullrequest` (`read:pullrequest:bitbucket`)",
            Operation::ManageHooks => {
                "the scope `webhook` (`read:webhook:bitbucket`, `write:webhook:bitbucket` and `delete:webhook:bitbucket`), and its user must administer the repository"
            }
            Operation::SetStatus => {
                "the scope `repository` (`read:repository:bitbucket`), and write access to the repository for its user"
            }
        }
    }
}

#[derive(Deserialize)]
struct Pull {
    id: u64,
    state: String,
    #[serde(default)]
    draft: bool,
    source: Side,
    destination: Side,
    #[serde(default)]
    author: Option<Account>,
}

#[derive(Deserialize)]
struct Side {
    branch: Branch,
    commit: AbbreviatedCommit,
    /// `null` once a fork was deleted.
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct Branch {
    name: String,
}

/// Pull requests have commits of 12 digits.
#[derive(Deserialize)]
struct AbbreviatedCommit {
    hash: String,
}

#[derive(Deserialize)]
struct Repository {
    /// In braces.
    uuid: String,
}

#[derive(Deserialize)]
struct Account {
    display_name: String,
}

#[derive(Deserialize)]
struct Commit {
    hash: CommitId,
}

#[derive(Deserialize)]
struct Page<T> {
    values: Vec<T>,
    /// The address of the next page. It is not followed: a page has a number.
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Difference {
    /// `null` for a new file.
    old: Option<File>,
    /// `null` for a deleted file.
    new: Option<File>,
}

#[derive(Deserialize)]
struct File {
    path: String,
}

#[derive(Deserialize)]
struct Hook {
    uuid: String,
    url: String,
    active: bool,
    events: Vec<String>,
}

#[derive(Serialize)]
struct NewHook<'a> {
    description: &'static str,
    url: &'a str,
    active: bool,
    secret: &'a str,
    events: &'static [&'static str],
}

#[derive(Serialize)]
struct Status<'a> {
    key: String,
    name: &'a str,
    state: &'static str,
    description: String,
    url: &'a str,
}

#[async_trait]
impl RepositoryApi for Bitbucket<'_> {
    async fn pull_request(&self, number: u64) -> Result<Option<PullRequest>, CodeHostError> {
        let operation = Operation::ReadPullRequest(number);
        let Some(pull) = self.find(operation, number).await? else { return Ok(None) };
        let Some(head) = self.head(operation, number, &pull).await? else { return Ok(None) };
        pull.into_domain(head).ok_or_else(|| self.client.nonsense()).map(Some)
    }

    async fn open_pull_requests(&self) -> Result<OpenPullRequests, CodeHostError> {
        let mut listing = Listing::of(self.client.url);
        let filter = [("state", "OPEN"), ("sort", "-updated_on")];
        let take = |entry: Entry<Pull>| listing.add(entry, Pull::into_listed);
        let operation = Operation::ListPullRequests;
        let is_end = self.pages(operation, "pullrequests", &filter, PULL_PAGES, take).await?;
        Ok(listing.finish(is_end))
    }

    async fn changed_files(
        &self,
        before: &CommitId,
        after: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError> {
        self.differences(Operation::CompareCommits, before.as_str(), after.as_str()).await
    }

    async fn pull_request_files(&self, number: u64) -> Result<ChangedFiles, CodeHostError> {
        let operation = Operation::ListFiles(number);
        let Some(pull) = self.find(operation, number).await? else {
            return Ok(unknown(format!("there is no pull request {number}")));
        };
        if !pull.is_within_repository() {
            return Ok(unknown("Bitbucket compares commits of one repository only"));
        }
        let (head, base) = (pull.source.commit.hash, pull.destination.commit.hash);
        let words = ["merge-base", &format!("{head}..{base}")];
        let Some(Commit { hash }) = self.client.read(operation, &words, &[]).await? else {
            return Ok(unknown("the two branches have no commit in common"));
        };
        self.differences(operation, hash.as_str(), &head).await
    }

    /// In the repository that has the commit: for a fork's pull request, that is the fork.
    async fn report(&self, report: &StatusReport) -> Result<(), CodeHostError> {
        let status = Status {
            key: key(&report.context),
            name: report.context.as_str(),
            state: state(report.state),
            description: cut(&report.description, LONGEST_DESCRIPTION),
            url: &report.link,
        };
        let client = match &report.target.repository {
            // An id is unique without its workspace.
            Some(id) => {
                self.client.with_base(below(&self.root, ["repositories", "{}", id.as_str()]))
            }
            None => self.client.clone(),
        };
        let words = ["commit", report.target.commit.as_str(), "statuses", "build"];
        let answer = client.post(&words, &status).await?;
        if client.is_success(&answer) {
            return Ok(());
        }
        Err(client.failure(Operation::SetStatus, &answer))
    }

    async fn hooks(&self, url: &Url) -> Result<Vec<FoundHook>, CodeHostError> {
        let mut found = Vec::new();
        let take = |hook: Hook| {
            if hook.url == url.as_str() {
                found.push(hook.into_found());
            }
        };
        self.pages(Operation::ManageHooks, "hooks", &[], HOOK_PAGES, take).await?;
        Ok(found)
    }

    async fn create_hook(&self, _part: &str, wanted: &WantedHook<'_>) -> Result<(), CodeHostError> {
        let (operation, hook) = (Operation::ManageHooks, NewHook::of(wanted));
        self.client.write(operation, Method::POST, &["hooks"], &hook).await
    }

    async fn update_hook(
        &self,
        id: &str,
        _part: &str,
        wanted: &WantedHook<'_>,
    ) -> Result<(), CodeHostError> {
        let (operation, hook) = (Operation::ManageHooks, NewHook::of(wanted));
        self.client.write(operation, Method::PUT, &["hooks", id], &hook).await
    }

    async fn delete_hook(&self, id: &str) -> Result<(), CodeHostError> {
        self.client.delete(Operation::ManageHooks, &["hooks", id]).await
    }

    async fn redeliver(&self, _hook: &str, _sent: &SentDelivery) -> Result<(), CodeHostError> {
        Err(cannot_redeliver("Bitbucket"))
    }
}

impl<'a> NewHook<'a> {
    fn of(wanted: &WantedHook<'a>) -> Self {
        Self {
            description: "gantry",
            url: wanted.url.as_str(),
            active: true,
            secret: wanted.secret.expose_secret(),
            events: HOOK_EVENTS,
        }
    }
}

impl Hook {
    fn into_found(self) -> FoundHook {
        let disabled = (!self.active).then(|| "is not active".to_owned());
        let missing = missing_events(&self.events, HOOK_EVENTS);
        FoundHook {
            id: self.uuid,
            events: self.events,
            content_type: None,
            faults: disabled.into_iter().chain(missing).collect(),
        }
    }
}

impl Bitbucket<'_> {
    /// Like [`RepositoryClient::read_pages`], for pages that tell whether another one follows.
    async fn pages<T: DeserializeOwned>(
        &self,
        operation: Operation,
        word: &str,
        filter: &[(&str, &str)],
        pages: Pages,
        mut take: impl FnMut(T) + Send,
    ) -> Result<bool, CodeHostError> {
        let size = pages.size.to_string();
        for page in 1..=pages.most / pages.size {
            let page = page.to_string();
            let of_page = [("pagelen", size.as_str()), ("page", page.as_str())];
            let query = [filter, &of_page].concat();
            let Page { values, next } = self.client.read_own(operation, &[word], &query).await?;
            values.into_iter().for_each(&mut take);
            if next.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn find(&self, operation: Operation, number: u64) -> Result<Option<Pull>, CodeHostError> {
        self.client.read(operation, &["pullrequests", &number.to_string()], &[]).await
    }

    /// The full id of a pull request's head: its newest commit.
    async fn head(
        &self,
        operation: Operation,
        number: u64,
        pull: &Pull,
    ) -> Result<Option<CommitId>, CodeHostError> {
        let words = ["pullrequests", &number.to_string(), "commits"];
        let found: Option<Page<Commit>> =
            self.client.read(operation, &words, &[("pagelen", "1")]).await?;
        let Some(Page { values, .. }) = found else { return Ok(None) };
        let newest = values.into_iter().next().map(|commit| commit.hash);
        let is_head = |commit: &CommitId| {
            !pull.source.commit.hash.is_empty()
                && commit.as_str().starts_with(&pull.source.commit.hash)
        };
        let pushed_meanwhile = || {
            let message = format!(
                "pull request {number} of {} just changed: it is read again",
                self.client.url
            );
            transient(message, None)
        };
        newest.filter(is_head).map(Some).ok_or_else(pushed_meanwhile)
    }

    /// The files that differ between two commits, in either order.
    async fn differences(
        &self,
        operation: Operation,
        one: &str,
        other: &str,
    ) -> Result<ChangedFiles, CodeHostError> {
        let words = ["diffstat", &format!("{other}..{one}")];
        let mut paths = Paths::default();
        for page in 1..=MOST_PAGES {
            let (page, size) = (page.to_string(), PAGE.to_string());
            // Otherwise it compares with the commit that both have in common, and the order counts.
            let query = [("topic", "false"), ("pagelen", &*size), ("page", &*page)];
            let answer = self.client.get(&words, &query).await?;
            if answer.status.as_u16() == 555 {
                return Ok(unknown("Bitbucket did not finish the comparison in time"));
            }
            let found: Option<Page<Difference>> = self.client.found(operation, &answer).await?;
            let Some(Page { values, next }) = found else {
                return Ok(unknown("Bitbucket does not know one of the commits any more"));
            };
            for difference in &values {
                let named = [&difference.old, &difference.new].into_iter().flatten();
                named.for_each(|file| paths.add(&file.path));
            }
            if next.is_none() {
                return Ok(paths.complete());
            }
        }
        Ok(unknown("the change has more files than gantry reads"))
    }
}

/// Unique for a context, and short enough.
fn key(context: &ReportContext) -> String {
    let digest = hex::encode(Sha256::digest(context.as_str()));
    let mut key = format!("gantry-{digest}");
    key.truncate(LONGEST_KEY);
    key
}

fn state(state: ReportState) -> &'static str {
    match state {
        ReportState::Pending | ReportState::Held | ReportState::Running => "INPROGRESS",
        ReportState::Succeeded => "SUCCESSFUL",
        ReportState::Failed | ReportState::TimedOut | ReportState::Errored => "FAILED",
        ReportState::Canceled => "STOPPED",
    }
}

impl Pull {
    fn is_within_repository(&self) -> bool {
        let uuid = |side: &Side| side.repository.as_ref().map(|repository| repository.uuid.clone());
        uuid(&self.source).is_some() && uuid(&self.source) == uuid(&self.destination)
    }

    /// `None` if Bitbucket could not have sent it.
    fn into_listed(self) -> Option<ListedPullRequest> {
        let head = self.source.commit.hash;
        let is_commit =
            (1..=40).contains(&head.len()) && head.bytes().all(|byte| byte.is_ascii_hexdigit());
        let base = self.destination.branch.name.parse().ok()?;
        is_commit.then_some(ListedPullRequest::Short { number: self.id, head, base })
    }

    /// `None` if Bitbucket could not have sent it.
    fn into_domain(self, head: CommitId) -> Option<PullRequest> {
        let branch: Option<RefName> = self.source.branch.name.parse().ok();
        let repository = self.source.repository.and_then(|it| it.uuid.parse().ok());
        Some(PullRequest {
            number: self.id,
            is_open: self.state == "OPEN",
            head: PullRequestHead { commit: head, branch, repository },
            base: PullRequestBase {
                branch: self.destination.branch.name.parse().ok()?,
                repository: self.destination.repository?.uuid.parse().ok()?,
            },
            merge: None,
            is_draft: self.draft,
            labels: Vec::new(),
            author: self.author.map(|author| author.display_name),
            association: Association::Stranger,
        })
    }
}

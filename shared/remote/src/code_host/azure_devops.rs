//! Azure DevOps's REST API, of the service and of Azure DevOps Server.

use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::pull_request::{
    Association, ChangedFiles, PullRequest, PullRequestBase, PullRequestHead,
};
use gantry_domain::report::{ReportState, StatusReport};
use gantry_domain::source::{CommitId, RefName};
use gantry_ops::secret::Credentials;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use url::Url;

use super::client::{Answer, Conventions, Operation, PAUSE, RepositoryClient, basic, cut};
use super::hooks::{FoundHook, SentDeliveries, SentDelivery, WantedHook, cannot_redeliver};
use super::listing::{Entry, ListedPullRequest, Listing, MOST_LISTED};
use super::paths::{Paths, unknown};
use super::provider::RepositoryApi;
use super::table::{below, words};
use super::{CodeHostError, OpenPullRequests, RepositoryAccess, git_credentials};
use crate::http::OutboundClient;

mod subscriptions;

use subscriptions::EVENT_TYPES;

const API_VERSION: (&str, &str) = ("api-version", "7.1");

/// The genre of gantry's statuses; the name beside it is the rest of the context.
const GENRE: &str = "gantry";

/// The most characters of a status's description, so that it stays one line.
const LONGEST_DESCRIPTION: usize = 255;

/// The changes of a page.
const PAGE: usize = 2000;
/// More changes than `PAGE * MOST_PAGES` are not read.
const MOST_PAGES: usize = 10;

/// The pull requests of a page.
const PULL_PAGE: usize = 100;

/// A repository.
pub(super) struct AzureDevOps<'a>(RepositoryClient<'a>);

impl<'a> AzureDevOps<'a> {
    pub(super) const SHAPE: &'static str = "`https://HOST/COLLECTION/PROJECT/_git/REPOSITORY`";

    /// `None` if the URL is none of a repository.
    pub(super) fn open(
        http: &'a OutboundClient,
        root: &Url,
        at: RepositoryAccess<'a>,
    ) -> Result<Option<Self>, CodeHostError> {
        let Some(base) = address(root, at) else { return Ok(None) };
        // The user may be anything.
        let basic =
            |token| basic(&Credentials { username: String::new(), ..git_credentials(token) });
        let authorization = at.token.map(basic).transpose()?;
        let conventions = &AzureConventions;
        Ok(Some(Self(RepositoryClient { http, url: at.url, base, authorization, conventions })))
    }
}

/// The address of `…/COLLECTION/PROJECT/_git/REPOSITORY`. At `ORGANIZATION.visualstudio.com` the collection may be
/// missing. A project whose only repository has its own name may be missing, too.
fn address(root: &Url, at: RepositoryAccess<'_>) -> Option<Url> {
    let words = words(at.url);
    let [above @ .., git, repository] = words.as_slice() else { return None };
    if git != "_git" {
        return None;
    }
    let names_organization =
        root.host_str().is_some_and(|host| host.ends_with(".visualstudio.com"));
    let (collection, project): (&[String], _) = match above {
        [] if names_organization => (&[], repository),
        [collection] if names_organization && collection == "DefaultCollection" => {
            (above, repository)
        }
        [project] if names_organization => (&[], project),
        [] => return None,
        [_] => (above, repository),
        // The folder of Azure DevOps Server on its host.
        [folder, _] if folder == "tfs" => (above, repository),
        [collection @ .., project] => (collection, project),
    };
    let api = ["_apis", "git", "repositories"];
    let before = collection.iter().chain([project]).map(String::as_str);
    Some(below(root, before.chain(api).chain([repository.as_str()])))
}

struct AzureConventions;

impl Conventions for AzureConventions {
    /// Otherwise a refused token is answered with a page to sign in.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("accept", "application/json"), ("x-tfs-fedauthredirect", "Suppress")]
    }

    fn query(&self) -> &'static [(&'static str, &'static str)] {
        &[API_VERSION]
    }

    fn right(&self, operation: Operation, _answer: &Answer) -> &'static str {
        match operation {
            Operation::ReadRepository
            | Operation::ReadPullRequest(_)
            | Operation::ListPullRequests
            | Operation::CompareCommits
            | Operation::ListFiles(_) => {
                "the scope \"Code: Read\", and access to the project for its user"
            }
            Operation::ManageHooks => {
                "the scope \"Code: Read\", and \"Edit subscriptions\" in the project for its user"
            }
            Operation::SetStatus => {
                "the scope \"Code: Status\", and \"Contribute to pull requests\" in the repository for its user"
            }
        }
    }

    fn limit(&self, answer: &Answer) -> Option<Duration> {
        let is_limit = answer.status == StatusCode::TOO_MANY_REQUESTS
            || is_failure(answer) && answer.says("TF400733");
        is_limit.then(|| answer.pause().unwrap_or(PAUSE))
    }

    /// A redirect to the page, or the page itself as an answer that is no success of the API.
    fn asks_to_sign_in(&self, answer: &Answer) -> bool {
        let is_page = || {
            let kind = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default();
            kind.starts_with("text/html")
        };
        match answer.status {
            StatusCode::FOUND => {
                let target = answer.header("location").unwrap_or_default();
                target.contains("/_signin") || target.contains("/login")
            }
            StatusCode::NON_AUTHORITATIVE_INFORMATION => true,
            StatusCode::OK => is_page(),
            _ => false,
        }
    }
}

fn is_failure(answer: &Answer) -> bool {
    answer.status.is_client_error() || answer.status.is_server_error()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pull {
    pull_request_id: u64,
    status: String,
    #[serde(default)]
    is_draft: bool,
    source_ref_name: String,
    target_ref_name: String,
    #[serde(default)]
    merge_status: Option<String>,
    last_merge_source_commit: CommitRef,
    #[serde(default)]
    last_merge_commit: Option<CommitRef>,
    repository: Repository,
    /// Where the head is, if that is a fork.
    #[serde(default)]
    fork_source: Option<ForkSource>,
    #[serde(default)]
    created_by: Option<Identity>,
}

/// The labels of a pull request.
#[derive(Deserialize)]
struct Labels {
    value: Vec<Label>,
}

/// A page of the list of pull requests.
#[derive(Deserialize)]
struct ListedPulls {
    value: Vec<Entry<ListedPull>>,
}

/// What a list has of a pull request. It is not documented that it names the fork, and without its name the head would
/// count as one of the repository itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedPull {
    pull_request_id: u64,
    target_ref_name: String,
    last_merge_source_commit: CommitRef,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommitRef {
    commit_id: CommitId,
}

#[derive(Deserialize)]
struct Repository {
    id: String,
}

#[derive(Deserialize)]
struct ForkSource {
    /// Missing for a reader who may not see the fork.
    #[serde(default)]
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    display_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Differences {
    #[serde(default)]
    all_changes_included: bool,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IterationChanges {
    change_entries: Vec<Change>,
    /// 0 or missing after the last page.
    #[serde(default)]
    next_top: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    #[serde(default)]
    item: Item,
    /// The former names of a renamed file.
    #[serde(default)]
    original_path: Option<String>,
    #[serde(default)]
    source_server_item: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    is_folder: bool,
}

#[derive(Deserialize)]
struct Iterations {
    value: Vec<Iteration>,
}

/// A push to a pull request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Iteration {
    id: u64,
    #[serde(default)]
    source_ref_commit: Option<CommitRef>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    state: &'static str,
    description: String,
    target_url: &'a str,
    context: Context<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iteration_id: Option<u64>,
}

#[derive(Serialize, Clone, Copy)]
struct Context<'a> {
    genre: &'static str,
    name: &'a str,
}

#[async_trait]
impl RepositoryApi for AzureDevOps<'_> {
    async fn pull_request(&self, number: u64) -> Result<Option<PullRequest>, CodeHostError> {
        let operation = Operation::ReadPullRequest(number);
        let pull: Option<Pull> =
            self.0.read(operation, &["pullRequests", &number.to_string()], &[]).await?;
        let Some(pull) = pull else { return Ok(None) };
        // The pull request itself is answered without its labels.
        let words = ["pullRequests", &number.to_string(), "labels"];
        let labels: Labels = self.0.read_own(operation, &words, &[]).await?;
        pull.into_domain(labels).ok_or_else(|| self.0.nonsense()).map(Some)
    }

    async fn open_pull_requests(&self) -> Result<OpenPullRequests, CodeHostError> {
        let (operation, words) = (Operation::ListPullRequests, ["pullRequests"]);
        let mut listing = Listing::of(self.0.url);
        for page in 0..MOST_LISTED / PULL_PAGE {
            let (top, skip) = (PULL_PAGE.to_string(), (page * PULL_PAGE).to_string());
            let query =
                [("searchCriteria.status", "active"), ("$top", top.as_str()), ("$skip", &skip)];
            let ListedPulls { value } = self.0.read_own(operation, &words, &query).await?;
            let is_last = value.len() < PULL_PAGE;
            value.into_iter().for_each(|entry| listing.add(entry, ListedPull::into_listed));
            if is_last {
                return Ok(listing.finish(true));
            }
        }
        Ok(listing.finish(false))
    }

    async fn changed_files(
        &self,
        before: &CommitId,
        after: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError> {
        let mut paths = Paths::default();
        for page in 0..MOST_PAGES {
            let (top, skip) = (PAGE.to_string(), (page * PAGE).to_string());
            let query = [
                ("baseVersion", before.as_str()),
                ("baseVersionType", "commit"),
                ("targetVersion", after.as_str()),
                ("targetVersionType", "commit"),
                // Between the two, also if the branch was forced to a commit beside the former.
                ("diffCommonCommit", "false"),
                ("$top", &top),
                ("$skip", &skip),
            ];
            let found: Option<Differences> =
                self.0.read(Operation::CompareCommits, &["diffs", "commits"], &query).await?;
            let Some(Differences { all_changes_included, changes }) = found else {
                return Ok(unknown("Azure DevOps does not know one of the commits any more"));
            };
            if !changes.iter().all(|change| change.add_to(&mut paths)) {
                return Ok(unknown("Azure DevOps lists a change without a path"));
            }
            if all_changes_included {
                return Ok(paths.complete());
            }
            if changes.is_empty() {
                break;
            }
        }
        Ok(unknown("Azure DevOps does not list all changes"))
    }

    async fn pull_request_files(&self, number: u64) -> Result<ChangedFiles, CodeHostError> {
        let operation = Operation::ListFiles(number);
        let number = number.to_string();
        let iterations = self.iterations(operation, &number).await?;
        let Some(iteration) = iterations.last().map(|last| last.id.to_string()) else {
            return Ok(unknown(format!("there is no pull request {number}, or it has no changes")));
        };
        let words = ["pullRequests", &number, "iterations", &iteration, "changes"];
        let mut paths = Paths::default();
        for page in 0..MOST_PAGES {
            let (top, skip) = (PAGE.to_string(), (page * PAGE).to_string());
            let query = [("$top", top.as_str()), ("$skip", &skip), ("$compareTo", "0")];
            let found: Option<IterationChanges> = self.0.read(operation, &words, &query).await?;
            let Some(IterationChanges { change_entries, next_top }) = found else { break };
            if !change_entries.iter().all(|change| change.add_to(&mut paths)) {
                return Ok(unknown("Azure DevOps lists a change without a path"));
            }
            if next_top == 0 && change_entries.len() < PAGE {
                return Ok(paths.complete());
            }
        }
        Ok(unknown("Azure DevOps does not list all changes"))
    }

    /// The commit's statuses are for branches and their history, the pull request's for its policies. The target's
    /// repository has the commits of forks.
    async fn report(&self, report: &StatusReport) -> Result<(), CodeHostError> {
        let commit = &report.target.commit;
        let status = status(report, None);
        self.set_status(&["commits", commit.as_str(), "statuses"], &status).await?;
        let Some(number) = report.target.pull_request else { return Ok(()) };
        let number = number.to_string();
        let iterations = self.iterations(Operation::SetStatus, &number).await?;
        // A status without an iteration would count for every push, also for later ones.
        let Some(iteration) = iterations.iter().rfind(|it| it.is_of(commit)) else { return Ok(()) };
        let status = self::status(report, Some(iteration.id));
        self.set_status(&["pullRequests", &number, "statuses"], &status).await
    }

    fn hook_parts(&self) -> &'static [&'static str] {
        EVENT_TYPES
    }

    async fn hooks(&self, url: &Url) -> Result<Vec<FoundHook>, CodeHostError> {
        self.subscriptions(url).await
    }

    async fn create_hook(&self, part: &str, wanted: &WantedHook<'_>) -> Result<(), CodeHostError> {
        self.subscribe(part, wanted).await
    }

    async fn update_hook(
        &self,
        id: &str,
        part: &str,
        wanted: &WantedHook<'_>,
    ) -> Result<(), CodeHostError> {
        self.renew_subscription(id, part, wanted).await
    }

    async fn delete_hook(&self, id: &str) -> Result<(), CodeHostError> {
        self.unsubscribe(id).await
    }

    async fn sent_deliveries(&self, hook: &str) -> Result<SentDeliveries, CodeHostError> {
        self.notifications(hook).await
    }

    async fn redeliver(&self, _hook: &str, _sent: &SentDelivery) -> Result<(), CodeHostError> {
        Err(cannot_redeliver("Azure DevOps"))
    }
}

impl AzureDevOps<'_> {
    /// In order. Empty if there is no such pull request.
    async fn iterations(
        &self,
        operation: Operation,
        number: &str,
    ) -> Result<Vec<Iteration>, CodeHostError> {
        let words = ["pullRequests", number, "iterations"];
        let found: Option<Iterations> = self.0.read(operation, &words, &[]).await?;
        let mut iterations = found.map(|found| found.value).unwrap_or_default();
        iterations.sort_by_key(|iteration| iteration.id);
        Ok(iterations)
    }

    async fn set_status(&self, words: &[&str], status: &Status<'_>) -> Result<(), CodeHostError> {
        let answer = self.0.post(words, status).await?;
        if self.0.is_success(&answer) {
            return Ok(());
        }
        Err(self.0.failure(Operation::SetStatus, &answer))
    }
}

fn status(report: &StatusReport, iteration_id: Option<u64>) -> Status<'_> {
    let context = report.context.as_str();
    let name = context.strip_prefix(GENRE).and_then(|rest| rest.strip_prefix('/'));
    Status {
        state: state(report.state),
        description: cut(&report.description, LONGEST_DESCRIPTION),
        target_url: &report.link,
        context: Context { genre: GENRE, name: name.unwrap_or(context) },
        iteration_id,
    }
}

/// `notApplicable` would satisfy the policy that requires the status, so a cancelled run is an error.
fn state(state: ReportState) -> &'static str {
    match state {
        ReportState::Pending | ReportState::Held | ReportState::Running => "pending",
        ReportState::Succeeded => "succeeded",
        ReportState::Failed | ReportState::TimedOut => "failed",
        ReportState::Errored | ReportState::Canceled => "error",
    }
}

impl Change {
    /// Returns `false` if the change names no path.
    fn add_to(&self, paths: &mut Paths) -> bool {
        if self.item.is_folder {
            return true;
        }
        let named = [&self.item.path, &self.original_path, &self.source_server_item];
        let named = named.into_iter().flatten().map(|path| path.trim_start_matches('/'));
        named.map(|path| paths.add(path)).count() > 0
    }
}

impl Iteration {
    fn is_of(&self, commit: &CommitId) -> bool {
        self.source_ref_commit.as_ref().is_some_and(|source| &source.commit_id == commit)
    }
}

impl Pull {
    /// `None` if Azure DevOps could not have sent it.
    fn into_domain(self, labels: Labels) -> Option<PullRequest> {
        let is_open = self.status == "active";
        let is_merged = self.merge_status.as_deref() == Some("succeeded");
        let merge = self.last_merge_commit.filter(|_| is_open && is_merged);
        let head = match &self.fork_source {
            Some(fork) => fork.repository.as_ref(),
            None => Some(&self.repository),
        };
        Some(PullRequest {
            number: self.pull_request_id,
            is_open,
            head: PullRequestHead {
                commit: self.last_merge_source_commit.commit_id,
                branch: branch(&self.source_ref_name),
                repository: head.and_then(|repository| repository.id.parse().ok()),
            },
            base: PullRequestBase {
                branch: branch(&self.target_ref_name)?,
                repository: self.repository.id.parse().ok()?,
            },
            merge: merge.map(|merge| merge.commit_id),
            is_draft: self.is_draft,
            labels: labels.value.into_iter().map(|label| label.name).take(100).collect(),
            author: self.created_by.map(|identity| identity.display_name),
            association: Association::Stranger,
        })
    }
}

impl ListedPull {
    /// `None` if Azure DevOps could not have sent it.
    fn into_listed(self) -> Option<ListedPullRequest> {
        Some(ListedPullRequest::Short {
            number: self.pull_request_id,
            head: self.last_merge_source_commit.commit_id.to_string(),
            base: branch(&self.target_ref_name)?,
        })
    }
}

fn branch(name: &str) -> Option<RefName> {
    name.strip_prefix("refs/heads/")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_by_its_collection_its_project_and_its_name() {
        for (root, url, api) in [
            (
                "https://dev.azure.com/",
                "https://dev.azure.com/org/My%20Project/_git/web",
                "https://dev.azure.com/org/My%20Project/_apis/git/repositories/web",
            ),
            (
                "https://dev.azure.com/",
                "https://dev.azure.com/org/_git/web",
                "https://dev.azure.com/org/web/_apis/git/repositories/web",
            ),
            (
                "https://org.visualstudio.com/",
                "https://org.visualstudio.com/project/_git/web",
                "https://org.visualstudio.com/project/_apis/git/repositories/web",
            ),
            (
                "https://org.visualstudio.com/",
                "https://org.visualstudio.com/DefaultCollection/project/_git/web",
                "https://org.visualstudio.com/DefaultCollection/project/_apis/git/repositories/web",
            ),
            (
                "https://org.visualstudio.com/",
                "https://org.visualstudio.com/_git/web",
                "https://org.visualstudio.com/web/_apis/git/repositories/web",
            ),
            (
                "https://ado.corp:8443/",
                "https://ado.corp:8443/tfs/Collection/project/_git/web",
                "https://ado.corp:8443/tfs/Collection/project/_apis/git/repositories/web",
            ),
            (
                "https://ado.corp/",
                "https://ado.corp/tfs/Collection/_git/web",
                "https://ado.corp/tfs/Collection/web/_apis/git/repositories/web",
            ),
        ] {
            let url = url.parse().unwrap();
            let at = RepositoryAccess { url: &url, registry: None, token: None, host_keys: &[] };
            let root = Url::parse(root).unwrap();
            assert_eq!(address(&root, at).unwrap().as_str(), api, "{url}");
        }
    }

    #[test]
    fn other_addresses_name_no_repository() {
        for url in [
            "https://dev.azure.com/_git/web",
            "https://dev.azure.com/org/project/web",
            "https://dev.azure.com/org/project/_git",
            "https://dev.azure.com/org/project/_git/web/more",
        ] {
            let url = url.parse().unwrap();
            let at = RepositoryAccess { url: &url, registry: None, token: None, host_keys: &[] };
            assert_eq!(address(&Url::parse("https://dev.azure.com/").unwrap(), at), None, "{url}");
        }
    }
}

//! GitLab's REST API.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gantry_domain::pull_request::{
    Association, ChangedFiles, PullRequest, PullRequestBase, PullRequestHead,
};
use gantry_domain::report::{ReportState, StatusReport};
use gantry_domain::source::{CommitId, RefName};
use gantry_ops::secret::ExposeSecret as _;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

use super::client::{Answer, Conventions, Operation, RepositoryClient, bearer, cut, transient};
use super::hooks::{
    FoundHook, MOST_DELIVERIES, SentDeliveries, SentDelivery, WantedHook, missing_events,
};
use super::pages::Pages;
use super::paths::{Paths, unknown};
use super::provider::RepositoryApi;
use super::table::{below, words_without_git};
use super::{CodeHostError, OpenPullRequests, RepositoryAccess, git_credentials};
use crate::http::OutboundClient;

/// The most characters of a status's description.
const LONGEST_DESCRIPTION: usize = 255;

/// Lists are cut without a word. This is the lowest limit that an instance has by default.
const MOST_FILES: usize = 1000;

const PAGE: usize = 100;

/// More hooks are not read: a project has at most 100.
const MOST_HOOKS: usize = 200;

/// A project.
pub(super) struct GitLab<'a> {
    client: RepositoryClient<'a>,
    root: Url,
}

impl<'a> GitLab<'a> {
    pub(super) const SHAPE: &'static str = "`https://HOST/GROUP/PROJECT`";

    /// `None` if the URL is none of a project.
    pub(super) fn open(
        http: &'a OutboundClient,
        root: &Url,
        at: RepositoryAccess<'a>,
    ) -> Result<Option<Self>, CodeHostError> {
        let words = words_without_git(at.url);
        let words = within_folder(root, &words);
        if words.len() < 2 {
            return Ok(None);
        }
        // An id is one word, in which `/` is encoded.
        let base = below(root, ["projects", &words.join("/")]);
        let token = at.token.map(|token| git_credentials(token).password);
        let authorization = token.as_ref().map(bearer).transpose()?;
        let conventions = &GitLabConventions;
        let client = RepositoryClient { http, url: at.url, base, authorization, conventions };
        Ok(Some(Self { client, root: root.clone() }))
    }
}

/// The words of the project's path, without the folder that GitLab has on its host: it is before `/api/v4`.
fn within_folder<'w>(root: &Url, words: &'w [String]) -> &'w [String] {
    let folder = root.path().trim_end_matches('/').strip_suffix("/api/v4").unwrap_or_default();
    let folder: Vec<&str> = folder.split('/').filter(|word| !word.is_empty()).collect();
    let is_inside = words.len() > folder.len() && words.iter().zip(&folder).all(|(a, b)| a == b);
    if is_inside { &words[folder.len()..] } else { words }
}

struct GitLabConventions;

impl Conventions for GitLabConventions {
    fn right(&self, operation: Operation, _answer: &Answer) -> &'static str {
        match operation {
            Operation::ReadRepository
            | Operation::ReadPullRequest(_)
            | Operation::ListPullRequests
            | Operation::CompareCommits
            | Operation::ListFiles(_) => {
                "the scope `read_api`, and the role Reporter in the project"
            }
            Operation::SetStatus => "the scope `api`, and the role Developer in the project",
            Operation::ManageHooks => "the scope `api`, and the role Maintainer in the project",
        }
    }
}

#[derive(Deserialize)]
struct MergeRequest {
    iid: u64,
    state: String,
    #[serde(default)]
    draft: bool,
    sha: CommitId,
    source_branch: String,
    target_branch: RefName,
    /// `null` once a fork was deleted.
    source_project_id: Option<u64>,
    target_project_id: u64,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    author: Option<Author>,
}

#[derive(Deserialize)]
struct Author {
    username: String,
}

#[derive(Deserialize)]
struct Comparison {
    diffs: Vec<Difference>,
    /// Whether GitLab stopped before the end.
    #[serde(default)]
    compare_timeout: bool,
}

#[derive(Deserialize)]
struct Difference {
    old_path: String,
    new_path: String,
}

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "GitLab's answer has them")]
struct Hook {
    id: u64,
    url: String,
    #[serde(default)]
    push_events: bool,
    #[serde(default)]
    tag_push_events: bool,
    #[serde(default)]
    merge_requests_events: bool,
    #[serde(default)]
    note_events: bool,
    /// `executable`, `temporarily_disabled` or `disabled`; older versions do not have it.
    #[serde(default)]
    alert_status: Option<String>,
}

#[derive(Deserialize)]
struct HookEvent {
    id: u64,
    trigger: String,
    created_at: String,
    /// `internal error` if there was no answer.
    response_status: String,
    #[serde(default)]
    request_headers: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "GitLab's API has them")]
struct NewHook<'a> {
    url: &'a str,
    token: &'a str,
    push_events: bool,
    tag_push_events: bool,
    merge_requests_events: bool,
    note_events: bool,
    enable_ssl_verification: bool,
    branch_filter_strategy: &'static str,
}

#[derive(Serialize)]
struct Status<'a> {
    state: &'static str,
    name: &'a str,
    description: String,
    target_url: &'a str,
}

#[async_trait]
impl RepositoryApi for GitLab<'_> {
    async fn pull_request(&self, number: u64) -> Result<Option<PullRequest>, CodeHostError> {
        let operation = Operation::ReadPullRequest(number);
        let words = ["merge_requests", &number.to_string()];
        let found: Option<MergeRequest> = self.client.read(operation, &words, &[]).await?;
        found.map(|it| it.into_domain().ok_or_else(|| self.client.nonsense())).transpose()
    }

    async fn open_pull_requests(&self) -> Result<OpenPullRequests, CodeHostError> {
        let filter = [("state", "opened"), ("order_by", "updated_at"), ("sort", "desc")];
        let words = ["merge_requests"];
        self.client.list_open(&words, &filter, PAGE, MergeRequest::into_domain).await
    }

    async fn changed_files(
        &self,
        before: &CommitId,
        after: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError> {
        // `straight` compares the two, also if the branch was forced to a commit beside the former.
        let query = [("from", before.as_str()), ("to", after.as_str()), ("straight", "true")];
        let words = ["repository", "compare"];
        let found: Option<Comparison> =
            self.client.read(Operation::CompareCommits, &words, &query).await?;
        let Some(Comparison { diffs, compare_timeout }) = found else {
            return Ok(unknown("GitLab does not know one of the commits any more"));
        };
        if compare_timeout {
            return Ok(unknown("GitLab did not finish the comparison in time"));
        }
        if diffs.len() >= MOST_FILES {
            return Ok(unknown("GitLab may list only 1000 files of a comparison"));
        }
        let mut paths = Paths::default();
        diffs.iter().for_each(|difference| difference.add_to(&mut paths));
        Ok(paths.complete())
    }

    async fn pull_request_files(&self, number: u64) -> Result<ChangedFiles, CodeHostError> {
        let operation = Operation::ListFiles(number);
        let words = ["merge_requests", &number.to_string(), "diffs"];
        let mut paths = Paths::default();
        for page in 1..=MOST_FILES / PAGE {
            let (page, size) = (page.to_string(), PAGE.to_string());
            let query = [("per_page", size.as_str()), ("page", page.as_str())];
            let found: Option<Vec<Difference>> =
                self.client.read(operation, &words, &query).await?;
            let Some(differences) = found else {
                return Ok(unknown(format!("there is no merge request {number}")));
            };
            differences.iter().for_each(|difference| difference.add_to(&mut paths));
            if differences.len() < PAGE {
                return Ok(paths.complete());
            }
        }
        Ok(unknown("GitLab may list only 1000 files of a merge request"))
    }

    /// In the project that has the commit: for a fork's merge request, that is the fork.
    async fn report(&self, report: &StatusReport) -> Result<(), CodeHostError> {
        let wanted = state(report.state);
        let status = Status {
            state: wanted,
            name: report.context.as_str(),
            description: cut(&report.description, LONGEST_DESCRIPTION),
            target_url: &report.link,
        };
        let client = match &report.target.repository {
            Some(id) => self.client.with_base(below(&self.root, ["projects", id.as_str()])),
            None => self.client.clone(),
        };
        let words = ["statuses", report.target.commit.as_str()];
        let answer = client.post(&words, &status).await?;
        if client.is_success(&answer) || is_there_already(&answer, wanted) {
            return Ok(());
        }
        if answer.status == StatusCode::CONFLICT {
            let (url, context) = (self.client.url, &report.context);
            let message = format!(
                "GitLab is just changing the status {context} for {url}, too: it is tried again"
            );
            return Err(transient(message, answer.pause()));
        }
        Err(client.failure(Operation::SetStatus, &answer))
    }

    async fn hooks(&self, url: &Url) -> Result<Vec<FoundHook>, CodeHostError> {
        let mut found = Vec::new();
        let pages = Pages { size: PAGE, most: MOST_HOOKS };
        let take = |hook: Hook| {
            if hook.url == url.as_str() {
                found.push(hook.into_found());
            }
        };
        self.client.read_pages(Operation::ManageHooks, &["hooks"], &[], pages, take).await?;
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

    async fn sent_deliveries(&self, hook: &str) -> Result<SentDeliveries, CodeHostError> {
        let size = MOST_DELIVERIES.to_string();
        let words = ["hooks", hook, "events"];
        let sent: Vec<HookEvent> =
            self.client.read_own(Operation::ManageHooks, &words, &[("per_page", &size)]).await?;
        Ok(SentDeliveries::Listed(sent.into_iter().map(HookEvent::into_sent).collect()))
    }

    /// GitLab takes five of these a minute.
    async fn redeliver(&self, hook: &str, sent: &SentDelivery) -> Result<(), CodeHostError> {
        let words = ["hooks", hook, "events", &sent.id, "resend"];
        self.client.act(Operation::ManageHooks, &words).await
    }
}

impl<'a> NewHook<'a> {
    fn of(wanted: &WantedHook<'a>) -> Self {
        Self {
            url: wanted.url.as_str(),
            token: wanted.secret.expose_secret(),
            push_events: true,
            tag_push_events: true,
            merge_requests_events: true,
            note_events: true,
            enable_ssl_verification: true,
            branch_filter_strategy: "all_branches",
        }
    }
}

impl Hook {
    fn into_found(self) -> FoundHook {
        let sent = [
            (self.push_events, "push_events"),
            (self.tag_push_events, "tag_push_events"),
            (self.merge_requests_events, "merge_requests_events"),
            (self.note_events, "note_events"),
        ];
        let events: Vec<String> =
            sent.iter().filter(|(is, _)| *is).map(|(_, it)| (*it).to_owned()).collect();
        let needed = sent.map(|(_, event)| event);
        // GitLab stops sending after failures, for a time at first.
        let stopped = self.alert_status.filter(|status| status != "executable");
        let stopped = stopped.map(|status| format!("is {status}"));
        let faults = stopped.into_iter().chain(missing_events(&events, &needed)).collect();
        FoundHook { id: self.id.to_string(), events, content_type: None, faults }
    }
}

impl HookEvent {
    fn into_sent(self) -> SentDelivery {
        let id = ["Idempotency-Key", "X-Gitlab-Event-UUID"];
        let delivery = id.iter().find_map(|name| self.request_headers.get(*name)).cloned();
        SentDelivery {
            id: self.id.to_string(),
            delivery,
            at: self.created_at,
            event: self.trigger,
            is_accepted: self.response_status.starts_with('2'),
            outcome: self.response_status,
        }
    }
}

/// GitLab keeps a state machine for each status, and older versions refuse a state that it has already. One that ran does
/// not become pending again; it shows that the run goes on, which is enough.
fn is_there_already(answer: &Answer, wanted: &str) -> bool {
    answer.status == StatusCode::BAD_REQUEST
        && answer.says("Cannot transition status")
        && (matches!(wanted, "pending" | "running") || answer.says(&format!("from :{wanted}")))
}

fn state(state: ReportState) -> &'static str {
    match state {
        ReportState::Pending | ReportState::Held => "pending",
        ReportState::Running => "running",
        ReportState::Succeeded => "success",
        ReportState::Failed | ReportState::TimedOut | ReportState::Errored => "failed",
        ReportState::Canceled => "canceled",
    }
}

impl Difference {
    fn add_to(&self, paths: &mut Paths) {
        paths.add(&self.old_path);
        paths.add(&self.new_path);
    }
}

impl MergeRequest {
    /// `None` if GitLab could not have sent it.
    fn into_domain(self) -> Option<PullRequest> {
        let source = self.source_project_id;
        Some(PullRequest {
            number: self.iid,
            is_open: self.state == "opened",
            head: PullRequestHead {
                commit: self.sha,
                branch: self.source_branch.parse().ok(),
                repository: source.and_then(|id| id.to_string().parse().ok()),
            },
            base: PullRequestBase {
                branch: self.target_branch,
                repository: self.target_project_id.to_string().parse().ok()?,
            },
            merge: None,
            is_draft: self.draft,
            labels: self.labels.into_iter().take(100).collect(),
            author: self.author.map(|author| author.username),
            association: Association::Stranger,
        })
    }
}

//! GitHub's `pull_request` and `issue_comment`.

use gantry_domain::code_host::HostKind;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{Command, Comment, PullRequestChange, PullRequestRefs};
use gantry_domain::id::HookId;
use gantry_domain::pull_request::{Association, PullRequest, PullRequestBase, PullRequestHead};
use gantry_domain::source::GitUrl;
use gantry_domain::trigger::PullRequestAction;
use serde::Deserialize;

use super::super::reading::{labels, lenient, unreadable};

#[derive(Deserialize)]
struct PullRequestBody {
    action: String,
    pull_request: PullRequestPart,
    repository: Repository,
    /// The head before a `synchronize`.
    #[serde(default, deserialize_with = "lenient")]
    before: Option<String>,
}

#[derive(Deserialize)]
struct PullRequestPart {
    number: u64,
    state: String,
    head: Side,
    base: Side,
    #[serde(default, deserialize_with = "lenient")]
    merge_commit_sha: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    draft: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    labels: Option<Vec<Label>>,
    #[serde(default, deserialize_with = "lenient")]
    user: Option<User>,
    #[serde(default, deserialize_with = "lenient")]
    author_association: Option<String>,
}

#[derive(Deserialize)]
struct Side {
    sha: String,
    #[serde(rename = "ref")]
    reference: String,
    /// `null` if the repository was deleted.
    #[serde(default)]
    repo: Option<RepositoryId>,
}

#[derive(Deserialize)]
struct RepositoryId {
    id: u64,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
    clone_url: String,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

/// Reads a change of a pull request; `None` if it is one that never matters, like a review request.
pub(super) fn read(hook: &HookId, body: &[u8]) -> Result<Option<PullRequestChange>, Verdict> {
    let body: PullRequestBody = serde_json::from_slice(body).map_err(unreadable)?;
    let Some(action) = action(&body.action) else { return Ok(None) };
    let part = body.pull_request;
    let head_id = part.head.repo.map(|repo| repo.id.to_string());
    let base_id = part.base.repo.map_or(body.repository.id, |repo| repo.id).to_string();
    let now = PullRequest {
        number: part.number,
        is_open: part.state == "open",
        head: PullRequestHead {
            commit: part.head.sha.parse().map_err(unreadable)?,
            branch: part.head.reference.parse().ok(),
            repository: head_id.and_then(|id| id.parse().ok()),
        },
        base: PullRequestBase {
            branch: part.base.reference.parse().map_err(unreadable)?,
            repository: base_id.parse().map_err(unreadable)?,
        },
        merge: part.merge_commit_sha.and_then(|commit| commit.parse().ok()),
        is_draft: part.draft.unwrap_or(false),
        labels: labels(part.labels.unwrap_or_default().into_iter().map(|label| label.name)),
        author: part.user.map(|user| user.login),
        association: association(part.author_association.as_deref()),
    };
    Ok(Some(PullRequestChange {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&body.repository.clone_url).map_err(unreadable)?,
        action: Some(action),
        before: body.before.and_then(|before| before.parse().ok()),
        refs: PullRequestRefs::at(HostKind::GitHub, &now),
        now,
        // The payload has no commit messages.
        asks_to_skip: false,
    }))
}

fn action(word: &str) -> Option<PullRequestAction> {
    Some(match word {
        "opened" => PullRequestAction::Opened,
        "synchronize" => PullRequestAction::Synchronized,
        "reopened" => PullRequestAction::Reopened,
        // A draft starts what the trigger allows for drafts, so its return to a draft starts nothing new.
        "ready_for_review" => PullRequestAction::ReadyForReview,
        "labeled" => PullRequestAction::Labeled,
        "unlabeled" => PullRequestAction::Unlabeled,
        "edited" => PullRequestAction::Edited,
        "closed" => PullRequestAction::Closed,
        _ => return None,
    })
}

fn association(word: Option<&str>) -> Association {
    match word {
        Some("OWNER") => Association::Owner,
        Some("MEMBER") => Association::Member,
        Some("COLLABORATOR") => Association::Collaborator,
        Some("CONTRIBUTOR") => Association::Contributor,
        // Also FIRST_TIMER, FIRST_TIME_CONTRIBUTOR, MANNEQUIN and NONE.
        Some(_) | None => Association::Stranger,
    }
}

#[derive(Deserialize)]
struct CommentBody {
    action: String,
    issue: Issue,
    comment: CommentPart,
    repository: Repository,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
    /// Only an issue that is a pull request has it.
    #[serde(default)]
    pull_request: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct CommentPart {
    #[serde(default)]
    body: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    user: Option<User>,
    #[serde(default, deserialize_with = "lenient")]
    author_association: Option<String>,
}

/// Reads a comment; `None` unless it is a new one below a pull request with a command.
pub(super) fn read_comment(hook: &HookId, body: &[u8]) -> Result<Option<Comment>, Verdict> {
    let body: CommentBody = serde_json::from_slice(body).map_err(unreadable)?;
    let is_new = body.action == "created" && body.issue.pull_request.is_some();
    let command = body.comment.body.as_deref().and_then(Command::in_comment);
    let Some(command) = command.filter(|_| is_new) else { return Ok(None) };
    Ok(Some(Comment {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&body.repository.clone_url).map_err(unreadable)?,
        repository: body.repository.id.to_string().parse().map_err(unreadable)?,
        number: body.issue.number,
        command,
        author: body.comment.user.map(|user| user.login),
        association: association(body.comment.author_association.as_deref()),
        refs: PullRequestRefs::at_github(body.issue.number),
    }))
}

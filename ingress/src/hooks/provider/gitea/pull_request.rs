//! Gitea's `pull_request`, which also tells of pushes to the head, labels and edits.

use gantry_domain::code_host::HostKind;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, PullRequestChange, PullRequestRefs};
use gantry_domain::id::HookId;
use gantry_domain::pull_request::{Association, PullRequest, PullRequestBase, PullRequestHead};
use gantry_domain::source::GitUrl;
use gantry_domain::trigger::PullRequestAction;
use serde::Deserialize;

use super::super::reading::{Found, labels, lenient, unreadable};
use super::{Repository, User};

#[derive(Deserialize)]
struct PullRequestBody {
    action: String,
    pull_request: PullRequestPart,
    repository: Repository,
}

#[derive(Deserialize)]
struct PullRequestPart {
    number: u64,
    state: String,
    head: Side,
    base: Side,
    #[serde(default, deserialize_with = "lenient")]
    draft: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    labels: Option<Vec<Label>>,
    #[serde(default, deserialize_with = "lenient")]
    user: Option<User>,
}

#[derive(Deserialize)]
struct Side {
    sha: String,
    #[serde(rename = "ref")]
    reference: String,
    /// `null` if the repository was deleted, though `repo_id` remains.
    #[serde(default)]
    repo: Option<RepositoryId>,
}

#[derive(Deserialize)]
struct RepositoryId {
    id: i64,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

pub(super) fn read(hook: &HookId, body: &[u8]) -> Result<Found, Verdict> {
    let body: PullRequestBody = serde_json::from_slice(body).map_err(unreadable)?;
    let Some(action) = action(&body.action) else {
        return Ok(Found::nothing("it changed nothing that is built"));
    };
    let part = body.pull_request;
    let base_id = part.base.repo.map_or(body.repository.id, |repo| repo.id);
    let names = part.labels.unwrap_or_default().into_iter().map(|label| label.name);
    let now = PullRequest {
        number: part.number,
        is_open: part.state == "open",
        head: PullRequestHead {
            commit: part.head.sha.parse().map_err(unreadable)?,
            branch: part.head.reference.parse().ok(),
            repository: part.head.repo.and_then(|repo| repo.id.to_string().parse().ok()),
        },
        base: PullRequestBase {
            branch: part.base.reference.parse().map_err(unreadable)?,
            repository: base_id.to_string().parse().map_err(unreadable)?,
        },
        // Gitea makes no trial merges, and `merge_commit_sha` is that of the merge itself.
        merge: None,
        is_draft: part.draft.unwrap_or(false),
        labels: labels(names),
        author: part.user.map(|user| user.login),
        // The payload does not tell.
        association: Association::Stranger,
    };
    Ok(Found::one(EventKind::PullRequest(PullRequestChange {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&body.repository.clone_url).map_err(unreadable)?,
        action: Some(action),
        before: None,
        refs: PullRequestRefs::at(HostKind::Gitea, &now),
        now,
        // The payload has no commit messages.
        asks_to_skip: false,
    })))
}

fn action(word: &str) -> Option<PullRequestAction> {
    Some(match word {
        "opened" => PullRequestAction::Opened,
        "synchronized" => PullRequestAction::Synchronized,
        "reopened" => PullRequestAction::Reopened,
        "label_updated" => PullRequestAction::Labeled,
        "label_cleared" => PullRequestAction::Unlabeled,
        "edited" => PullRequestAction::Edited,
        "closed" => PullRequestAction::Closed,
        _ => return None,
    })
}

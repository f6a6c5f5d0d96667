//! GitLab's `merge_request`.

use std::collections::BTreeSet;

use gantry_domain::code_host::HostKind;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, PullRequestChange, PullRequestRefs};
use gantry_domain::id::HookId;
use gantry_domain::pull_request::{Association, PullRequest, PullRequestBase, PullRequestHead};
use gantry_domain::source::GitUrl;
use gantry_domain::trigger::{PullRequestAction, asks_to_skip};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::reading::{Found, labels, lenient, unreadable};
use super::{Commit, Project};

#[derive(Deserialize)]
struct MergeRequestBody {
    object_attributes: MergeRequest,
    project: Project,
    #[serde(default, deserialize_with = "lenient")]
    labels: Option<Vec<Label>>,
    #[serde(default, deserialize_with = "lenient")]
    changes: Option<Changes>,
}

#[derive(Deserialize)]
struct MergeRequest {
    iid: u64,
    state: String,
    source_branch: String,
    target_branch: String,
    /// `null` if the fork was deleted.
    #[serde(default)]
    source_project_id: Option<u64>,
    target_project_id: u64,
    /// `null` if the source branch has no commits of its own.
    #[serde(default)]
    last_commit: Option<Commit>,
    #[serde(default, deserialize_with = "lenient")]
    draft: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    action: Option<String>,
    /// The head before; only if the head moved.
    #[serde(default, deserialize_with = "lenient")]
    oldrev: Option<String>,
}

#[derive(Deserialize)]
struct Label {
    title: String,
}

/// What an `update` changed, besides the head.
#[derive(Default, Deserialize)]
struct Changes {
    #[serde(default, deserialize_with = "lenient")]
    draft: Option<Change<bool>>,
    #[serde(default, deserialize_with = "lenient")]
    labels: Option<Change<Vec<Label>>>,
    #[serde(default)]
    target_branch: Option<IgnoredAny>,
    #[serde(default)]
    title: Option<IgnoredAny>,
    #[serde(default)]
    description: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Change<T> {
    previous: T,
    current: T,
}

pub(super) fn read(hook: &HookId, body: &[u8]) -> Result<Found, Verdict> {
    let body: MergeRequestBody = serde_json::from_slice(body).map_err(unreadable)?;
    let Some(action) = action(&body.object_attributes, body.changes.unwrap_or_default()) else {
        return Ok(Found::nothing("it changed nothing that is built"));
    };
    let it = body.object_attributes;
    let Some(newest) = it.last_commit else {
        return Ok(Found::nothing("the merge request has no commits"));
    };
    let project = |id: u64| id.to_string().parse().map_err(unreadable);
    let names = body.labels.unwrap_or_default().into_iter().map(|label| label.title);
    let now = PullRequest {
        number: it.iid,
        // While it is merged, it is locked.
        is_open: matches!(it.state.as_str(), "opened" | "locked"),
        head: PullRequestHead {
            commit: newest.id.parse().map_err(unreadable)?,
            branch: it.source_branch.parse().ok(),
            repository: it.source_project_id.map(project).transpose()?,
        },
        base: PullRequestBase {
            branch: it.target_branch.parse().map_err(unreadable)?,
            repository: project(it.target_project_id)?,
        },
        // `merge_commit_sha` is that of the merge itself.
        merge: None,
        is_draft: it.draft.unwrap_or(false),
        labels: labels(names),
        // The payload names who changed it, and only the id of its author.
        author: None,
        association: Association::Stranger,
    };
    Ok(Found::one(EventKind::PullRequest(PullRequestChange {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&body.project.git_http_url).map_err(unreadable)?,
        action: Some(action),
        before: it.oldrev.and_then(|commit| commit.parse().ok()),
        refs: PullRequestRefs::at(HostKind::GitLab, &now),
        now,
        asks_to_skip: newest.message.is_some_and(|message| asks_to_skip(&message)),
    })))
}

/// `None` for what never matters, like an approval.
fn action(it: &MergeRequest, changes: Changes) -> Option<PullRequestAction> {
    Some(match it.action.as_deref()? {
        "open" => PullRequestAction::Opened,
        "reopen" => PullRequestAction::Reopened,
        "close" | "merge" => PullRequestAction::Closed,
        "update" if it.oldrev.is_some() => PullRequestAction::Synchronized,
        "update" => return updated(changes),
        _ => return None,
    })
}

fn updated(changes: Changes) -> Option<PullRequestAction> {
    if changes.target_branch.is_some() {
        return Some(PullRequestAction::Edited);
    }
    // Marking it as a draft also changes the title.
    if let Some(draft) = changes.draft {
        return (draft.previous && !draft.current).then_some(PullRequestAction::ReadyForReview);
    }
    if let Some(labels) = changes.labels {
        let before: BTreeSet<_> = labels.previous.into_iter().map(|label| label.title).collect();
        let is_added = labels.current.iter().any(|label| !before.contains(&label.title));
        return Some(match is_added {
            true => PullRequestAction::Labeled,
            false => PullRequestAction::Unlabeled,
        });
    }
    let is_edited = changes.title.is_some() || changes.description.is_some();
    is_edited.then_some(PullRequestAction::Edited)
}

//! Azure DevOps' `git.pullrequest.created`, `.updated` and `.merged`.
//!
//! They do not tell what changed: an update may be a new head, a vote or a reviewer. Whether one starts anything is
//! decided by comparing head and base with the earlier ones.

use gantry_domain::code_host::HostKind;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, PullRequestChange, PullRequestRefs};
use gantry_domain::id::HookId;
use gantry_domain::pull_request::{Association, PullRequest, PullRequestBase, PullRequestHead};
use gantry_domain::source::GitUrl;
use gantry_domain::trigger::PullRequestAction;
use serde::Deserialize;

use super::super::reading::{Found, branch_of, labels, lenient, unreadable};
use super::{Identity, Repository};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changed {
    pull_request_id: u64,
    status: String,
    source_ref_name: String,
    target_ref_name: String,
    last_merge_source_commit: Commit,
    #[serde(default, deserialize_with = "lenient")]
    last_merge_commit: Option<Commit>,
    repository: Repository,
    #[serde(default)]
    fork_source: Option<ForkSource>,
    #[serde(default, deserialize_with = "lenient")]
    created_by: Option<Identity>,
    #[serde(default, deserialize_with = "lenient")]
    is_draft: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    labels: Option<Vec<Label>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Commit {
    commit_id: String,
}

/// Only pull requests of forks have it.
#[derive(Deserialize)]
struct ForkSource {
    #[serde(default)]
    repository: Option<ForkRepository>,
}

#[derive(Deserialize)]
struct ForkRepository {
    id: String,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

pub(super) fn read(hook: &HookId, changed: Changed, is_new: bool) -> Result<Found, Verdict> {
    let is_open = changed.status == "active";
    let base_id = changed.repository.id;
    let head_id = match changed.fork_source {
        Some(fork) => fork.repository.map(|repository| repository.id),
        None => Some(base_id.clone()),
    };
    let now = PullRequest {
        number: changed.pull_request_id,
        is_open,
        head: PullRequestHead {
            commit: changed.last_merge_source_commit.commit_id.parse().map_err(unreadable)?,
            branch: branch_of(&changed.source_ref_name),
            repository: head_id.and_then(|id| id.parse().ok()),
        },
        base: PullRequestBase {
            branch: branch_of(&changed.target_ref_name)
                .ok_or_else(|| unreadable(format!("`{}` is no branch", changed.target_ref_name)))?,
            repository: base_id.parse().map_err(unreadable)?,
        },
        merge: changed.last_merge_commit.and_then(|commit| commit.commit_id.parse().ok()),
        is_draft: changed.is_draft.unwrap_or(false),
        labels: labels(changed.labels.unwrap_or_default().into_iter().map(|label| label.name)),
        author: changed.created_by.map(|identity| identity.display_name),
        // The payload does not tell.
        association: Association::Stranger,
    };
    Ok(Found::one(EventKind::PullRequest(PullRequestChange {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&changed.repository.remote_url).map_err(unreadable)?,
        action: match (is_open, is_new) {
            (false, _) => Some(PullRequestAction::Closed),
            (true, true) => Some(PullRequestAction::Opened),
            (true, false) => None,
        },
        before: None,
        refs: PullRequestRefs::at(HostKind::AzureDevOps, &now),
        now,
        // The payload has no commit messages.
        asks_to_skip: false,
    })))
}

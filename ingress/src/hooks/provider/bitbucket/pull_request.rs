//! Bitbucket's `pullrequest:created`, `:updated`, `:fulfilled` and `:rejected`.

use gantry_domain::code_host::HostKind;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, PullRequestChange, PullRequestRefs};
use gantry_domain::id::HookId;
use gantry_domain::pull_request::{Association, PullRequest, PullRequestBase, PullRequestHead};
use gantry_domain::source::{CommitId, GitUrl};
use gantry_domain::trigger::PullRequestAction;
use serde::Deserialize;

use super::super::reading::{Found, lenient, unreadable};
use super::{Account, Repository};

#[derive(Deserialize)]
struct PullRequestBody {
    pullrequest: PullRequestPart,
    repository: Repository,
}

#[derive(Deserialize)]
struct PullRequestPart {
    id: u64,
    state: String,
    source: Side,
    destination: Side,
    #[serde(default, deserialize_with = "lenient")]
    draft: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    author: Option<Account>,
}

#[derive(Deserialize)]
struct Side {
    branch: Branch,
    commit: Commit,
    /// `null` if the repository was deleted.
    #[serde(default)]
    repository: Option<RepositoryId>,
}

#[derive(Deserialize)]
struct Branch {
    name: String,
}

#[derive(Deserialize)]
struct Commit {
    hash: String,
}

#[derive(Deserialize)]
struct RepositoryId {
    uuid: String,
}

/// What an event of pull requests means; `None` for what never matters, like an approval. An update may be a new head
/// or a new title.
pub(super) fn action(kind: &str) -> Option<Option<PullRequestAction>> {
    Some(match kind {
        "pullrequest:created" => Some(PullRequestAction::Opened),
        "pullrequest:updated" => None,
        "pullrequest:fulfilled" | "pullrequest:rejected" => Some(PullRequestAction::Closed),
        _ => return None,
    })
}

pub(super) fn read(
    hook: &HookId,
    body: &[u8],
    action: Option<PullRequestAction>,
) -> Result<Found, Verdict> {
    let body: PullRequestBody = serde_json::from_slice(body).map_err(unreadable)?;
    let part = body.pullrequest;
    let Ok(head) = part.source.commit.hash.parse::<CommitId>() else {
        // Only a whole commit names one version.
        let why = format!(
            "Bitbucket shortens the commit of its head (`{:.40}`), and only a whole one can be built",
            part.source.commit.hash
        );
        return Ok(Found::nothing(&why));
    };
    let head_id = part.source.repository.map(|repository| repository.uuid);
    let now = PullRequest {
        number: part.id,
        is_open: part.state == "OPEN",
        head: PullRequestHead {
            commit: head,
            branch: part.source.branch.name.parse().ok(),
            repository: head_id.and_then(|id| id.parse().ok()),
        },
        base: PullRequestBase {
            branch: part.destination.branch.name.parse().map_err(unreadable)?,
            repository: body.repository.uuid.parse().map_err(unreadable)?,
        },
        // Bitbucket makes no trial merges.
        merge: None,
        is_draft: part.draft.unwrap_or(false),
        labels: Vec::new(),
        author: part.author.map(|account| account.display_name),
        // The payload does not tell.
        association: Association::Stranger,
    };
    Ok(Found::one(EventKind::PullRequest(PullRequestChange {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&body.repository.links.html.href).map_err(unreadable)?,
        action,
        before: None,
        refs: PullRequestRefs::at(HostKind::Bitbucket, &now),
        now,
        // The payload has no commit messages.
        asks_to_skip: false,
    })))
}

//! Bitbucket's `pullrequest:created`, `:updated`, `:fulfilled` and `:rejected`. They shorten commits to twelve digits, so
//! the scheduler asks for the pull request.

use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, PullRequestNotice, PullRequestRefs};
use gantry_domain::id::HookId;
use gantry_domain::source::GitUrl;
use gantry_domain::trigger::PullRequestAction;
use serde::Deserialize;

use super::super::reading::{Found, unreadable};
use super::Repository;

#[derive(Deserialize)]
struct PullRequestBody {
    pullrequest: PullRequestPart,
    repository: Repository,
}

#[derive(Deserialize)]
struct PullRequestPart {
    id: u64,
    state: String,
    source: Source,
    destination: Destination,
}

#[derive(Deserialize)]
struct Source {
    branch: Branch,
    commit: Commit,
    /// `null` if the repository was deleted.
    #[serde(default)]
    repository: Option<RepositoryId>,
}

#[derive(Deserialize)]
struct Destination {
    branch: Branch,
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
    let head_id = part.source.repository.map(|repository| repository.uuid);
    let is_fork = head_id.as_ref() != Some(&body.repository.uuid);
    let source = format!("heads/{}", part.source.branch.name).parse().ok();
    Ok(Found::one(EventKind::PullRequestNotice(PullRequestNotice {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&body.repository.links.html.href).map_err(unreadable)?,
        repository: body.repository.uuid.parse().map_err(unreadable)?,
        number: part.id,
        action,
        is_open: part.state == "OPEN",
        head: part.source.commit.hash.parse().map_err(unreadable)?,
        base: part.destination.branch.name.parse().map_err(unreadable)?,
        // The source branch of a fork is in another repository. Bitbucket makes no trial merges.
        refs: PullRequestRefs { head: source.filter(|_| !is_fork), merge: None },
    })))
}

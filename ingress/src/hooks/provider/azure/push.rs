//! Azure DevOps' `git.push`, which may move several references.

use std::collections::BTreeSet;

use gantry_domain::delivery::Verdict;
use gantry_domain::event::Push;
use gantry_domain::id::HookId;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::source::GitUrl;
use gantry_domain::trigger::asks_to_skip;
use serde::Deserialize;

use super::super::reading::{
    Found, branch_of, commit_or_none, lenient, moved_ref, moves, unreadable,
};
use super::{Identity, Repository};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pushed {
    ref_updates: Vec<RefUpdate>,
    repository: Repository,
    #[serde(default, deserialize_with = "lenient")]
    pushed_by: Option<Identity>,
    #[serde(default, deserialize_with = "lenient")]
    commits: Option<Vec<Commit>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefUpdate {
    name: String,
    old_object_id: String,
    new_object_id: String,
}

/// A commit of any of the references. Not all of them are listed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Commit {
    commit_id: String,
    #[serde(default, deserialize_with = "lenient")]
    comment: Option<String>,
}

/// Reads one event for each branch and tag.
pub(super) fn read(hook: &HookId, pushed: Pushed) -> Result<Found, Verdict> {
    let url = GitUrl::of_payload(&pushed.repository.remote_url).map_err(unreadable)?;
    let default_branch = pushed.repository.default_branch.as_deref().and_then(branch_of);
    let pusher = pushed.pushed_by.map(|identity| identity.display_name);
    // Looked up for each reference, and there may be many of both.
    let skipping: BTreeSet<String> = pushed
        .commits
        .unwrap_or_default()
        .into_iter()
        .filter(|commit| commit.comment.as_deref().is_some_and(asks_to_skip))
        .map(|commit| commit.commit_id)
        .collect();
    moves(pushed.ref_updates.iter().map(|update| {
        let Some(reference) = moved_ref(&update.name).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let commit = |id: &str| commit_or_none(id).map_err(|error| error.to_string());
        Ok(Some(Push {
            hook: Some(hook.clone()),
            url: url.clone(),
            reference,
            before: commit(&update.old_object_id)?,
            after: commit(&update.new_object_id)?,
            default_branch: default_branch.clone(),
            pusher: pusher.clone(),
            changed: ChangedFiles::default(),
            asks_to_skip: skipping.contains(&update.new_object_id),
        }))
    }))
}

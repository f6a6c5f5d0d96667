//! GitHub's `push`.

use std::borrow::Cow;
use std::fmt;

use gantry_domain::delivery::Verdict;
use gantry_domain::event::{Push, PushedRef};
use gantry_domain::id::HookId;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::source::GitUrl;
use gantry_domain::trigger::asks_to_skip;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::super::reading::{Files, commit_or_none, lenient, moved_ref, unreadable};

/// The fields that matter, borrowed from the body. The rest is skipped without a copy.
#[derive(Deserialize)]
struct PushBody<'a> {
    #[serde(rename = "ref", borrow)]
    reference: Cow<'a, str>,
    #[serde(borrow)]
    before: Cow<'a, str>,
    #[serde(borrow)]
    after: Cow<'a, str>,
    #[serde(borrow)]
    repository: RepositoryBody<'a>,
    #[serde(default, deserialize_with = "lenient")]
    pusher: Option<Pusher>,
    #[serde(default, deserialize_with = "lenient")]
    forced: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    head_commit: Option<HeadCommit>,
    #[serde(default)]
    commits: Commits,
}

#[derive(Deserialize)]
struct RepositoryBody<'a> {
    #[serde(borrow)]
    clone_url: Cow<'a, str>,
    #[serde(default, deserialize_with = "lenient")]
    default_branch: Option<String>,
}

#[derive(Deserialize)]
struct Pusher {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct HeadCommit {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    message: Option<String>,
}

/// GitHub lists at most this many commits; a list of so many may be cut.
const MOST_COMMITS: usize = 2048;

/// The files of a push's commits, gathered without keeping the commits.
#[derive(Default)]
struct Commits {
    count: usize,
    files: Files,
}

#[derive(Deserialize)]
struct Commit {
    #[serde(default, deserialize_with = "lenient")]
    added: Option<Vec<String>>,
    #[serde(default, deserialize_with = "lenient")]
    modified: Option<Vec<String>>,
    #[serde(default, deserialize_with = "lenient")]
    removed: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for Commits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Gather;

        impl<'de> Visitor<'de> for Gather {
            type Value = Commits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of commits")
            }

            fn visit_unit<E>(self) -> Result<Commits, E> {
                Ok(Commits::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Commits, A::Error> {
                let mut commits = Commits::default();
                while commits.count < MOST_COMMITS {
                    let Some(commit) = seq.next_element::<Commit>()? else { return Ok(commits) };
                    commits.count += 1;
                    let listed = [commit.added, commit.modified, commit.removed];
                    listed.into_iter().flatten().flatten().for_each(|path| commits.files.add(path));
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(commits)
            }
        }

        deserializer.deserialize_any(Gather)
    }
}

/// Reads a push; `None` if it moved neither a branch nor a tag.
pub(super) fn read(hook: &HookId, body: &[u8]) -> Result<Option<Push>, Verdict> {
    // One check for the whole body is faster than one for each string. Invalid UTF-8 in fields that are not read is
    // accepted.
    let body: PushBody<'_> = match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    }
    .map_err(unreadable)?;
    let Some(reference) = moved_ref(&body.reference).map_err(unreadable)? else {
        return Ok(None);
    };
    let before = commit_or_none(&body.before).map_err(unreadable)?;
    let mut after = commit_or_none(&body.after).map_err(unreadable)?;
    let changed = changed(&body, before.is_some());
    let head = body.head_commit.unwrap_or(HeadCommit { id: None, message: None });
    // For an annotated tag, `after` is the tag itself, and this is the commit that it points to.
    if let (PushedRef::Tag(_), Some(_), Some(id)) = (&reference, &after, head.id) {
        after = Some(id.parse().map_err(unreadable)?);
    }
    Ok(Some(Push {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&body.repository.clone_url).map_err(unreadable)?,
        reference,
        before,
        after,
        default_branch: body.repository.default_branch.and_then(|branch| branch.parse().ok()),
        pusher: body.pusher.and_then(|pusher| pusher.name),
        changed,
        asks_to_skip: head.message.is_some_and(|message| asks_to_skip(&message)),
    }))
}

/// The changed files, if the commits are all that differs.
fn changed(body: &PushBody<'_>, had_head: bool) -> ChangedFiles {
    let unknown = |why: &str| ChangedFiles::Unknown { why: why.to_owned() };
    match &body.commits {
        _ if body.forced == Some(true) => unknown("the push was forced, so more may have changed"),
        _ if !had_head => unknown("the push made the branch or tag"),
        Commits { count: 0, .. } => unknown("the webhook lists no commits"),
        Commits { count: MOST_COMMITS.., .. } => {
            unknown("the webhook lists only a part of the commits")
        }
        commits => commits.files.clone().into_changed(),
    }
}

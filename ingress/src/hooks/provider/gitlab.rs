//! GitLab. Pushes of branches and tags, and changes of merge requests, become events.

use std::time::Duration;

use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, Push, PushedRef};
use gantry_domain::hook::Provider;
use gantry_domain::id::HookId;
use gantry_domain::mapping::Mapping;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::source::GitUrl;
use gantry_domain::trigger::asks_to_skip;
use serde::Deserialize;

use super::reading::{
    Envelope, Found, Meaning, commit_or_none, id_or_hash, lenient, moved_ref, unreadable, word,
};
use super::{Descriptor, MIB, Ping, Setup};
use crate::hooks::verify::Scheme;

mod merge_request;

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::GitLab,
    // GitLab's own limit by default.
    largest_body: 25 * MIB,
    // GitLab gives up after ten seconds.
    store_patience: Duration::from_secs(5),
    object_patience: Duration::from_secs(2),
    // The secret token, or the newer signing token.
    proofs: &[Scheme::Secret { header: "x-gitlab-token", prefix: "" }, Scheme::StandardWebhooks],
    content_types: &[JSON],
    // The header with the type differs between the hooks of projects, groups and the server; the body does not.
    kind_header: None,
    // `X-Gitlab-Event-UUID` is the same for all hooks that one event causes, and for what they cause.
    id_header: Some("idempotency-key"),
    may_omit_host: false,
    read,
    ping: Ping { headers: &[], body: r#"{"object_kind":"ping"}"# },
    setup: Setup {
        content_type: JSON,
        events: &["push", "tag_push", "merge_request"],
        instructions,
    },
};

const JSON: &str = "application/json";

fn instructions(url: &str, secret: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the project's or group's settings, under Webhooks, add a webhook:".to_owned(),
        format!("URL: {url}"),
        format!("Secret token: {secret}"),
        "Trigger: push events, tag push events; for merge requests also merge request events"
            .to_owned(),
    ]
}

#[derive(Deserialize)]
struct Body {
    object_kind: String,
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let id = id_or_hash(envelope.id.as_deref(), body);
    let kind = match serde_json::from_slice::<Body>(body) {
        Ok(body) => word(Some(&body.object_kind)),
        Err(error) => return Meaning::of(id, word(None), Err(unreadable(error))),
    };
    let found = match kind.as_str() {
        "push" | "tag_push" => read_push(&envelope.hook, body),
        "merge_request" => merge_request::read(&envelope.hook, body),
        "ping" => Err(Verdict::Ping),
        _ => Ok(Found::nothing(&format!("nothing starts on `{kind}`"))),
    };
    Meaning::of(id, kind, found)
}

#[derive(Deserialize)]
struct PushBody {
    #[serde(rename = "ref")]
    reference: String,
    before: String,
    after: String,
    /// For an annotated tag, the commit that it points to.
    #[serde(default, deserialize_with = "lenient")]
    checkout_sha: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    user_username: Option<String>,
    project: Project,
    #[serde(default, deserialize_with = "lenient")]
    commits: Option<Vec<Commit>>,
}

#[derive(Deserialize)]
struct Project {
    git_http_url: String,
    #[serde(default, deserialize_with = "lenient")]
    default_branch: Option<String>,
}

#[derive(Deserialize)]
struct Commit {
    id: String,
    #[serde(default, deserialize_with = "lenient")]
    message: Option<String>,
}

fn read_push(hook: &HookId, body: &[u8]) -> Result<Found, Verdict> {
    let body: PushBody = serde_json::from_slice(body).map_err(unreadable)?;
    let Some(reference) = moved_ref(&body.reference).map_err(unreadable)? else {
        return Ok(Found::nothing("it moved neither a branch nor a tag"));
    };
    let mut after = commit_or_none(&body.after).map_err(unreadable)?;
    if let (PushedRef::Tag(_), Some(_), Some(commit)) = (&reference, &after, &body.checkout_sha) {
        after = Some(commit.parse().map_err(unreadable)?);
    }
    let is_after = |commit: &Commit| after.as_ref().is_some_and(|it| it.as_str() == commit.id);
    let newest = body.commits.unwrap_or_default().into_iter().find(is_after);
    let message = newest.and_then(|commit| commit.message);
    Ok(Found::one(EventKind::Push(Push {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&body.project.git_http_url).map_err(unreadable)?,
        reference,
        before: commit_or_none(&body.before).map_err(unreadable)?,
        after,
        default_branch: body.project.default_branch.and_then(|branch| branch.parse().ok()),
        pusher: body.user_username,
        changed: ChangedFiles::Unknown {
            // The files of the listed commits are not all that changed if earlier commits were dropped.
            why: "GitLab does not tell whether the push was forced".to_owned(),
        },
        asks_to_skip: message.is_some_and(|message| asks_to_skip(&message)),
    })))
}

//! Gitea and Forgejo, which also sends Gitea's headers. Pushes, changes of pull requests, and container packages
//! become events.

use std::time::Duration;

use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, Push};
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

mod package;
mod pull_request;

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::Gitea,
    largest_body: 25 * MIB,
    // Gitea gives up after five seconds by default.
    store_patience: Duration::from_secs(3),
    object_patience: Duration::from_secs(1),
    proofs: &[Scheme::Signature { header: "x-gitea-signature", prefix: "" }],
    content_types: &[JSON],
    kind_header: Some("x-gitea-event"),
    id_header: Some("x-gitea-delivery"),
    may_omit_host: false,
    read,
    ping: Ping { headers: &[("x-gitea-event", "ping")], body: "{}" },
    setup: Setup { content_type: JSON, events: &["push", "pull_request"], instructions },
};

const JSON: &str = "application/json";

fn instructions(url: &str, secret: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the repository's settings, under Webhooks, add a webhook \"Gitea\" or \"Forgejo\":"
            .to_owned(),
        format!("Target URL: {url}"),
        format!("HTTP method: POST; POST content type: {JSON}"),
        format!("Secret: {secret}"),
        "Trigger on: push events; for pull requests also all events of pull requests; for images also packages, which are the owner's unless linked to the repository"
            .to_owned(),
    ]
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let id = id_or_hash(envelope.id.as_deref(), body);
    let kind = word(envelope.kind.as_deref());
    let found = match kind.as_str() {
        "push" => read_push(&envelope.hook, body),
        "pull_request" => pull_request::read(&envelope.hook, body),
        "package" => package::read(&envelope.hook, body),
        "ping" => Err(Verdict::Ping),
        // A push tells the same, with the commit.
        "create" | "delete" => Ok(Found::nothing("the push of the same branch or tag is acted on")),
        "unknown" => Err(unreadable("there is no X-Gitea-Event")),
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
    repository: Repository,
    #[serde(default, deserialize_with = "lenient")]
    pusher: Option<User>,
    #[serde(default, deserialize_with = "lenient")]
    head_commit: Option<HeadCommit>,
}

#[derive(Deserialize)]
struct Repository {
    id: i64,
    clone_url: String,
    #[serde(default, deserialize_with = "lenient")]
    default_branch: Option<String>,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct HeadCommit {
    id: String,
    #[serde(default, deserialize_with = "lenient")]
    message: Option<String>,
}

fn read_push(hook: &HookId, body: &[u8]) -> Result<Found, Verdict> {
    let body: PushBody = serde_json::from_slice(body).map_err(unreadable)?;
    let Some(reference) = moved_ref(&body.reference).map_err(unreadable)? else {
        return Ok(Found::nothing("it moved neither a branch nor a tag"));
    };
    let newest = body.head_commit.filter(|commit| commit.id == body.after);
    let message = newest.and_then(|commit| commit.message);
    Ok(Found::one(EventKind::Push(Push {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&body.repository.clone_url).map_err(unreadable)?,
        reference,
        before: commit_or_none(&body.before).map_err(unreadable)?,
        after: commit_or_none(&body.after).map_err(unreadable)?,
        default_branch: body.repository.default_branch.and_then(|branch| branch.parse().ok()),
        pusher: body.pusher.map(|user| user.login),
        changed: ChangedFiles::Unknown {
            // The files of the listed commits are not all that changed if earlier commits were dropped.
            why: "Gitea does not tell whether the push was forced".to_owned(),
        },
        asks_to_skip: message.is_some_and(|message| asks_to_skip(&message)),
    })))
}

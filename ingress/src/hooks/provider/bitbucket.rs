//! Bitbucket Cloud. Pushes and changes of pull requests become events.

use std::time::Duration;

use gantry_domain::InvalidText;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{Push, PushedRef};
use gantry_domain::hook::Provider;
use gantry_domain::id::HookId;
use gantry_domain::mapping::Mapping;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::source::{CommitId, GitUrl};
use gantry_domain::trigger::asks_to_skip;
use serde::Deserialize;

use super::reading::{Envelope, Found, Meaning, id_or_hash, lenient, moves, unreadable, word};
use super::{Descriptor, MIB, Ping, Setup};
use crate::hooks::verify::Scheme;

mod pull_request;

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::Bitbucket,
    largest_body: 5 * MIB,
    // Bitbucket gives up after ten seconds.
    store_patience: Duration::from_secs(5),
    object_patience: Duration::from_secs(2),
    proofs: &[Scheme::Signature { header: "x-hub-signature", prefix: "sha256=" }],
    content_types: &[JSON],
    kind_header: Some("x-event-key"),
    id_header: Some("x-request-uuid"),
    may_omit_host: false,
    read,
    ping: Ping { headers: &[("x-event-key", "ping")], body: "{}" },
    setup: Setup {
        content_type: JSON,
        events: &[
            PUSH,
            "pullrequest:created",
            "pullrequest:updated",
            "pullrequest:fulfilled",
            "pullrequest:rejected",
        ],
        instructions,
    },
};

const JSON: &str = "application/json";

const PUSH: &str = "repo:push";

fn instructions(url: &str, secret: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the repository's settings, under Webhooks, add a webhook:".to_owned(),
        format!("URL: {url}"),
        format!("Secret: {secret}"),
        "Triggers: repository push; for pull requests also created, updated, merged and declined"
            .to_owned(),
    ]
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let id = id_or_hash(envelope.id.as_deref(), body);
    let kind = word(envelope.kind.as_deref());
    let found = match kind.as_str() {
        PUSH => read_push(&envelope.hook, body),
        "ping" => Err(Verdict::Ping),
        "unknown" => Err(unreadable("there is no X-Event-Key")),
        _ => match pull_request::action(&kind) {
            Some(action) => pull_request::read(&envelope.hook, body, action),
            None => Ok(Found::nothing(&format!("nothing starts on `{kind}`"))),
        },
    };
    Meaning::of(id, kind, found)
}

#[derive(Deserialize)]
struct PushBody {
    push: Changes,
    repository: Repository,
    #[serde(default, deserialize_with = "lenient")]
    actor: Option<Account>,
}

#[derive(Deserialize)]
struct Changes {
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    /// `null` if the branch or tag was deleted.
    #[serde(default)]
    new: Option<Reference>,
    /// `null` if the branch or tag is new.
    #[serde(default)]
    old: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    target: Target,
}

#[derive(Deserialize)]
struct Target {
    hash: String,
    #[serde(default, deserialize_with = "lenient")]
    message: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    uuid: String,
    links: Links,
}

#[derive(Deserialize)]
struct Links {
    html: Link,
}

#[derive(Deserialize)]
struct Link {
    href: String,
}

#[derive(Deserialize)]
struct Account {
    display_name: String,
}

/// Reads one event for each branch and tag.
fn read_push(hook: &HookId, body: &[u8]) -> Result<Found, Verdict> {
    let body: PushBody = serde_json::from_slice(body).map_err(unreadable)?;
    let url = GitUrl::of_payload(&body.repository.links.html.href).map_err(unreadable)?;
    let pusher = body.actor.map(|account| account.display_name);
    moves(body.push.changes.iter().map(|change| {
        let Some(moved) = change.new.as_ref().or(change.old.as_ref()) else { return Ok(None) };
        let name = || moved.name.parse().map_err(|error: InvalidText| error.to_string());
        let reference = match moved.kind.as_str() {
            "branch" => PushedRef::Branch(name()?),
            "tag" => PushedRef::Tag(name()?),
            _ => return Ok(None),
        };
        let message = change.new.as_ref().and_then(|new| new.target.message.as_deref());
        Ok(Some(Push {
            hook: Some(hook.clone()),
            url: url.clone(),
            reference,
            before: commit(change.old.as_ref())?,
            after: commit(change.new.as_ref())?,
            default_branch: None,
            pusher: pusher.clone(),
            changed: ChangedFiles::default(),
            asks_to_skip: message.is_some_and(asks_to_skip),
        }))
    }))
}

fn commit(reference: Option<&Reference>) -> Result<Option<CommitId>, String> {
    let hash = reference.map(|reference| reference.target.hash.parse());
    hash.transpose().map_err(|error: InvalidText| error.to_string())
}

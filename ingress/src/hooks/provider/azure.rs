//! Service hooks of Azure DevOps Services and Server. Pushes and changes of pull requests become events.

use std::time::Duration;

use gantry_domain::delivery::Verdict;
use gantry_domain::hook::Provider;
use gantry_domain::mapping::Mapping;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::reading::{Envelope, Found, Meaning, id_or_hash, lenient, unreadable, word};
use super::{Descriptor, MIB, Ping, Setup};
use crate::hooks::verify::Scheme;

mod pull_request;
mod push;

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::AzureDevOps,
    // Azure DevOps sends at most 2 MB.
    largest_body: 3 * MIB,
    // A subscription whose deliveries fail is put on probation, so a slow store is reported with the retried 503.
    store_patience: Duration::from_secs(5),
    object_patience: Duration::from_secs(2),
    proofs: &[Scheme::Password, Scheme::Secret { header: "x-gantry-secret", prefix: "" }],
    content_types: &[JSON],
    kind_header: None,
    id_header: None,
    may_omit_host: false,
    read,
    ping: Ping { headers: &[], body: r#"{"eventType":"ping"}"# },
    setup: Setup { content_type: JSON, events: &[PUSH, CREATED, UPDATED, MERGED], instructions },
};

const JSON: &str = "application/json";

const PUSH: &str = "git.push";
const CREATED: &str = "git.pullrequest.created";
/// Also sent for votes and reviewers.
const UPDATED: &str = "git.pullrequest.updated";
/// A trial merge was made. Also sent for pull requests that are not merged.
const MERGED: &str = "git.pullrequest.merged";

fn instructions(url: &str, secret: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the project's settings, under Service hooks, create a subscription \"Web Hooks\" for each of these events:".to_owned(),
        "Code pushed; for pull requests also Pull request created, Pull request updated and Pull request merge attempted".to_owned(),
        format!("URL: {url}"),
        "Basic authentication username: gantry".to_owned(),
        format!("Basic authentication password: {secret}"),
        "or, instead of both, HTTP headers: X-Gantry-Secret:PASSWORD".to_owned(),
        "Resource details to send: All; Messages and Detailed messages to send: None".to_owned(),
    ]
}

/// The fields that all notifications have, with the resource as `R`.
#[derive(Deserialize)]
struct Notification<R> {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(rename = "eventType")]
    event_type: String,
    // `Option`s have an implicit default, but the bound of a type parameter is explicit.
    #[serde(default = "none")]
    resource: Option<R>,
}

fn none<R>() -> Option<R> {
    None
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let (id, kind) = match serde_json::from_slice::<Notification<IgnoredAny>>(body) {
        Ok(notification) => (notification.id, word(Some(&notification.event_type))),
        Err(error) => {
            let (id, kind) = (id_or_hash(None, body), word(None));
            return Meaning::of(id, kind, Err(unreadable(error)));
        }
    };
    let hook = &envelope.hook;
    let found = match kind.as_str() {
        PUSH => resource(body).and_then(|pushed| push::read(hook, pushed)),
        CREATED | UPDATED | MERGED => {
            resource(body).and_then(|change| pull_request::read(hook, change, kind == CREATED))
        }
        "ping" => Err(Verdict::Ping),
        _ => Ok(Found::nothing(&format!("nothing starts on `{kind}`"))),
    };
    Meaning::of(id_or_hash(id.as_deref(), body), kind, found)
}

/// The resource of a notification, which a subscription can be set to leave out.
fn resource<R: DeserializeOwned>(body: &[u8]) -> Result<R, Verdict> {
    const REMEDY: &str = "set \"Resource details to send\" to \"All\" in the subscription";
    let reduced: Notification<Reduced> = serde_json::from_slice(body).map_err(unreadable)?;
    if reduced.resource.is_none_or(|resource| resource.repository.is_none()) {
        return Err(unreadable(format!("the notification has no repository: {REMEDY}")));
    }
    let whole: Notification<R> = serde_json::from_slice(body).map_err(unreadable)?;
    whole.resource.ok_or_else(|| unreadable(format!("the notification has no resource: {REMEDY}")))
}

#[derive(Deserialize)]
struct Reduced {
    #[serde(default)]
    repository: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Repository {
    id: String,
    remote_url: String,
    #[serde(default, deserialize_with = "lenient")]
    default_branch: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    display_name: String,
}

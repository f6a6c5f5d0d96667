//! Azure Container Registry. A webhook reports one action; pushes of manifests become events.

use std::time::Duration;

use gantry_domain::delivery::Verdict;
use gantry_domain::hook::Provider;
use gantry_domain::mapping::Mapping;
use serde::Deserialize;

use super::reading::{Envelope, Found, Meaning, id_or_hash, lenient, unreadable, word};
use super::registry::{BEARER, MANIFESTS, Report, host_of};
use super::{Descriptor, MIB, Ping, Setup};

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::Acr,
    largest_body: MIB,
    store_patience: Duration::from_secs(5),
    object_patience: Duration::from_secs(2),
    proofs: &[BEARER],
    // A webhook may set its own.
    content_types: &[],
    kind_header: None,
    id_header: None,
    may_omit_host: true,
    read,
    ping: Ping { headers: &[], body: r#"{"action":"ping"}"# },
    setup: Setup { content_type: "application/json", events: &["push"], instructions },
};

fn instructions(url: &str, secret: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the registry in the Azure portal, under Webhooks, add a webhook:".to_owned(),
        format!("Service URI: {url}"),
        format!("Custom headers: Authorization: Bearer {secret}"),
        "Actions: push".to_owned(),
        "Scope: empty for all repositories, or REPOSITORY:TAG, or REPOSITORY:*".to_owned(),
    ]
}

/// What all actions have.
#[derive(Deserialize)]
struct Head {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    action: String,
}

#[derive(Deserialize)]
struct Push {
    target: Target,
    #[serde(default, deserialize_with = "lenient")]
    request: Option<Request>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(default, rename = "mediaType")]
    media_type: String,
    repository: String,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    tag: Option<String>,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default, deserialize_with = "lenient")]
    host: Option<String>,
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let (id, kind) = match serde_json::from_slice::<Head>(body) {
        Ok(head) => (id_or_hash(head.id.as_deref(), body), word(Some(&head.action))),
        Err(error) => {
            return Meaning::of(id_or_hash(None, body), word(None), Err(unreadable(error)));
        }
    };
    let found = match kind.as_str() {
        "push" => read_push(envelope, body),
        "ping" => Err(Verdict::Ping),
        // Deletions, quarantine, and charts in the registry's own format.
        _ => Ok(Found::Never),
    };
    Meaning::of(id, kind, found)
}

fn read_push(envelope: &Envelope, body: &[u8]) -> Result<Found, Verdict> {
    let Push { target, request } = serde_json::from_slice(body).map_err(unreadable)?;
    if !MANIFESTS.contains(&target.media_type.as_str()) {
        return Ok(Found::Never);
    }
    let host = request.and_then(|request| request.host);
    let report = Report {
        host: host_of(host.as_deref(), envelope.home.as_ref()).map_err(unreadable)?,
        repository: &target.repository,
        tag: target.tag.as_deref(),
        digest: target.digest.as_deref(),
        media_type: Some(&target.media_type),
    };
    Ok(Found::one(report.proven(&envelope.hook).map_err(unreadable)?))
}

//! Harbor, in its own format, that of Harbor 1, and as CloudEvents. Pushes of artifacts become events.

use std::time::Duration;

use gantry_domain::delivery::Verdict;
use gantry_domain::hook::Provider;
use gantry_domain::mapping::Mapping;
use serde::Deserialize;

use super::reading::{
    Envelope, Found, Meaning, PING, events_of, id_or_hash, lenient, unreadable, word,
};
use super::registry::{BEARER, Report, host_of, split_host};
use super::{Descriptor, MIB, Ping, Setup};

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::Harbor,
    largest_body: MIB,
    // Harbor gives up after three seconds by default, and tries again a few times.
    store_patience: Duration::from_secs(2),
    object_patience: Duration::from_millis(700),
    proofs: &[BEARER],
    content_types: &[],
    kind_header: None,
    id_header: None,
    may_omit_host: true,
    read,
    ping: Ping { headers: &[], body: PING },
    setup: Setup { content_type: "application/json", events: &["PUSH_ARTIFACT"], instructions },
};

fn instructions(url: &str, secret: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the project, under Webhooks, add a webhook:".to_owned(),
        "Notify type: http; payload format: Default or CloudEvents".to_owned(),
        "Event type: Artifact pushed".to_owned(),
        format!("Endpoint URL: {url}"),
        format!("Auth header: Bearer {secret}"),
    ]
}

/// What all notifications have.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    /// Only CloudEvents have one. It is the same when a delivery is tried again.
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
}

#[derive(Deserialize)]
struct Push {
    /// As CloudEvents, `data`.
    #[serde(alias = "data")]
    event_data: Data,
}

#[derive(Deserialize)]
struct Data {
    resources: Vec<Resource>,
    repository: Repository,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    digest: Option<String>,
    /// The digest, if there is no tag.
    #[serde(default)]
    tag: Option<String>,
    /// Host, repository, and tag or digest.
    #[serde(default)]
    resource_url: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    repo_full_name: String,
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let (id, kind) = match serde_json::from_slice::<Head>(body) {
        Ok(head) => (id_or_hash(head.id.as_deref(), body), word(Some(&head.kind))),
        Err(error) => {
            return Meaning::of(id_or_hash(None, body), word(None), Err(unreadable(error)));
        }
    };
    let found = match kind.as_str() {
        "PUSH_ARTIFACT" | "harbor.artifact.pushed" | "pushImage" => read_push(envelope, body),
        "gantry.ping" => Err(Verdict::Ping),
        // Pulls, deletions, scans, quotas, replication and charts in Harbor's own format.
        _ => Ok(Found::Never),
    };
    Meaning::of(id, kind, found)
}

fn read_push(envelope: &Envelope, body: &[u8]) -> Result<Found, Verdict> {
    let Push { event_data: pushed } = serde_json::from_slice(body).map_err(unreadable)?;
    let report = |resource: &Resource| {
        let host = resource.resource_url.as_deref().and_then(|url| split_host(url).0);
        let report = Report {
            host: host_of(host, envelope.home.as_ref())?,
            repository: &pushed.repository.repo_full_name,
            tag: resource.tag.as_deref(),
            digest: resource.digest.as_deref(),
            media_type: None,
        };
        report.proven(&envelope.hook).map(Some)
    };
    Ok(events_of("resource", pushed.resources.iter().map(report))?.unwrap_or(Found::Never))
}

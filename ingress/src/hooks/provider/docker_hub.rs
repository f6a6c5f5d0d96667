//! Docker Hub. It signs nothing and tells no digest; each delivery is the push of one tag.

use std::time::Duration;

use gantry_domain::delivery::Verdict;
use gantry_domain::hook::Provider;
use gantry_domain::id::HookId;
use gantry_domain::image::DOCKER_HUB;
use gantry_domain::mapping::Mapping;
use serde::Deserialize;

use super::reading::{Envelope, Found, Meaning, PING, id_of_hash, lenient, unreadable};
use super::registry::{ADDRESS_IS_ALL, Report};
use super::{Descriptor, MIB, Ping, Setup};
use crate::hooks::verify::Scheme;

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::DockerHub,
    // The descriptions of the repository are in it.
    largest_body: MIB,
    store_patience: Duration::from_secs(5),
    object_patience: Duration::from_secs(2),
    proofs: &[Scheme::Address],
    content_types: &[],
    kind_header: None,
    id_header: None,
    may_omit_host: false,
    read,
    ping: Ping { headers: &[], body: PING },
    setup: Setup { content_type: "application/json", events: &[KIND], instructions },
};

/// The type of all deliveries.
const KIND: &str = "push";

fn instructions(url: &str, _: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the repository at Docker Hub, under Webhooks, add a webhook:".to_owned(),
        "Webhook name: gantry".to_owned(),
        format!("Webhook URL: {url}"),
        ADDRESS_IS_ALL.to_owned(),
    ]
}

#[derive(Deserialize)]
struct Body {
    push_data: PushData,
    repository: Repository,
}

#[derive(Deserialize)]
struct PushData {
    #[serde(default, deserialize_with = "lenient")]
    tag: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    repo_name: String,
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let id = id_of_hash("body", body);
    if body == PING.as_bytes() {
        return Meaning::of(id, "ping".to_owned(), Err(Verdict::Ping));
    }
    Meaning::of(id, KIND.to_owned(), read_push(&envelope.hook, body))
}

fn read_push(hook: &HookId, body: &[u8]) -> Result<Found, Verdict> {
    let body: Body = serde_json::from_slice(body).map_err(unreadable)?;
    let name = body.repository.repo_name;
    let report = Report {
        host: DOCKER_HUB.parse().map_err(unreadable)?,
        repository: &name,
        tag: body.push_data.tag.as_deref(),
        digest: None,
        media_type: None,
    };
    Ok(Found::one(report.unproven(hook).map_err(unreadable)?))
}

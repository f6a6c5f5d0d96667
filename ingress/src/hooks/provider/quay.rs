//! Quay and quay.io. It signs nothing and tells no digest; a notification lists the tags that moved.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_domain::delivery::Verdict;
use gantry_domain::hook::Provider;
use gantry_domain::id::HookId;
use gantry_domain::image::RegistryHost;
use gantry_domain::mapping::Mapping;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::reading::{Envelope, Found, Meaning, PING, events_of, id_of_hash, unreadable};
use super::registry::{ADDRESS_IS_ALL, Report, split_host};
use super::{Descriptor, MIB, Ping, Setup};
use crate::hooks::verify::Scheme;

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::Quay,
    largest_body: MIB,
    // Quay gives up after ten seconds by default.
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

/// The only notification that is read. Bodies do not name their type.
const KIND: &str = "repo_push";

fn instructions(url: &str, _: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the repository's settings at Quay, under Events and Notifications, create a notification:"
            .to_owned(),
        "When this event occurs: Push to Repository".to_owned(),
        "Then issue a notification: Webhook POST, without a template".to_owned(),
        format!("Webhook URL: {url}"),
        ADDRESS_IS_ALL.to_owned(),
    ]
}

#[derive(Deserialize)]
struct Notification {
    /// Only pushes have it.
    #[serde(default)]
    updated_tags: Option<Tags>,
    /// The host and the repository.
    #[serde(default)]
    docker_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`updated_tags` is neither a list of tags nor an object")]
enum Tags {
    Names(Vec<String>),
    /// Quay until 2014: each tag with the id of an image, which is no digest.
    Images(BTreeMap<String, IgnoredAny>),
}

impl Tags {
    fn into_names(self) -> Vec<String> {
        match self {
            Self::Names(names) => names,
            Self::Images(images) => images.into_keys().collect(),
        }
    }
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let id = id_of_hash("body", body);
    if body == PING.as_bytes() {
        return Meaning::of(id, "ping".to_owned(), Err(Verdict::Ping));
    }
    Meaning::of(id, KIND.to_owned(), read_push(&envelope.hook, body))
}

fn read_push(hook: &HookId, body: &[u8]) -> Result<Found, Verdict> {
    let notification: Notification = serde_json::from_slice(body).map_err(unreadable)?;
    let Some(tags) = notification.updated_tags else { return Ok(Found::Never) };
    let url = notification.docker_url.unwrap_or_default();
    let (host, repository) = split_host(&url);
    let host: RegistryHost = host.unwrap_or_default().parse().map_err(unreadable)?;
    let names = tags.into_names();
    let report = |tag: &String| {
        let (tag, host) = (Some(tag.as_str()), host.clone());
        let report = Report { host, repository, tag, digest: None, media_type: None };
        report.unproven(hook).map(Some)
    };
    Ok(events_of("tag", names.iter().map(report))?.unwrap_or(Found::Never))
}

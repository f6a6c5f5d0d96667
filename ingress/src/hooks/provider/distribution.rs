//! Docker Distribution's notifications: pushed manifests become events; the many others are counted and forgotten.
//!
//! A registry sends one for each blob and for each pull, of gantry's own workers too. Its content type is not what its
//! documentation says, so it is not looked at.

use std::borrow::Cow;

use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, ImagePushed};
use gantry_domain::id::HookId;
use gantry_domain::image::{Digest, ImageReference, RegistryHost, Repository};
use serde::Deserialize;

use super::{MOST_EVENTS, Reading, id_of_hash, id_or_hash, unreadable};

/// What a body means.
#[derive(Debug, PartialEq)]
pub(crate) enum Meaning {
    /// It is to be stored.
    Record(Reading),
    /// Nothing in it can ever matter.
    Never {
        /// The id to answer with.
        id: gantry_domain::id::DeliveryId,
    },
}

const MANIFESTS: [&str; 6] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    events: Vec<Notification<'a>>,
}

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    action: Cow<'a, str>,
    #[serde(borrow, default)]
    target: Target<'a>,
    #[serde(borrow, default)]
    request: Request<'a>,
}

#[derive(Deserialize, Default)]
struct Target<'a> {
    #[serde(borrow, default, rename = "mediaType")]
    media_type: Cow<'a, str>,
    #[serde(borrow, default)]
    digest: Cow<'a, str>,
    #[serde(borrow, default)]
    repository: Cow<'a, str>,
    #[serde(borrow, default)]
    tag: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
struct Request<'a> {
    #[serde(borrow, default)]
    host: Cow<'a, str>,
}

/// Reads a verified body.
pub(crate) fn read(hook: &HookId, body: &[u8]) -> Meaning {
    let envelope: Envelope<'_> = match serde_json::from_slice(body) {
        Ok(envelope) => envelope,
        Err(error) => return refuse(body, unreadable(error)),
    };
    let pushed: Vec<&Notification<'_>> = envelope
        .events
        .iter()
        .filter(|event| event.action == "push" && MANIFESTS.contains(&&*event.target.media_type))
        .collect();
    if pushed.is_empty() {
        let first = envelope.events.first().map(|event| &*event.id);
        return Meaning::Never { id: id_or_hash(first, body) };
    }
    if pushed.len() > MOST_EVENTS {
        let why = format!("it has more than {MOST_EVENTS} events");
        return refuse(body, unreadable(why));
    }
    match pushed.iter().map(|event| image(hook, event)).collect() {
        Ok(events) => Meaning::Record(Reading {
            id: delivery_id(&pushed, body),
            kind: "push".to_owned(),
            verdict: Verdict::Events,
            events,
        }),
        Err(why) => refuse(body, unreadable(why)),
    }
}

fn refuse(body: &[u8], verdict: Verdict) -> Meaning {
    let id = id_of_hash("body", body);
    Meaning::Record(Reading::without_events(id, "unknown".to_owned(), verdict))
}

/// A registry retries a body with the same events until it is taken; several events are known by all of their ids.
fn delivery_id(pushed: &[&Notification<'_>], body: &[u8]) -> gantry_domain::id::DeliveryId {
    match pushed {
        [one] => id_or_hash(Some(&one.id), body),
        many => {
            let ids: Vec<&str> = many.iter().map(|event| &*event.id).collect();
            id_of_hash("several", ids.join(" ").as_bytes())
        }
    }
}

fn image(hook: &HookId, event: &Notification<'_>) -> Result<EventKind, gantry_domain::InvalidText> {
    let host: RegistryHost = event.request.host.parse()?;
    let repository: Repository = event.target.repository.parse()?;
    let digest: Digest = event.target.digest.parse()?;
    let image = if event.target.tag.is_empty() {
        ImageReference::by_digest(host, repository, digest.clone())
    } else {
        ImageReference::tagged(host, repository, event.target.tag.parse()?)
    };
    Ok(EventKind::ImagePushed(ImagePushed {
        hook: hook.clone(),
        image,
        digest,
        media_type: event.target.media_type.clone().into_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:f7013acc0486e095f2aebbb3f3e75d3a0f3b08012f8ac8ba894cab3cce39351c";

    fn event(id: &str, action: &str, media_type: &str, tag: &str) -> serde_json::Value {
        serde_json::json!({
            "id": id, "timestamp": "2026-11-23T06:40:05Z", "action": action,
            "target": {"mediaType": media_type, "digest": DIGEST, "repository": "team/web", "tag": tag},
            "request": {"host": "registry.example:5000", "method": "PUT"},
        })
    }

    fn read_all(events: &[serde_json::Value]) -> Meaning {
        let body = serde_json::json!({ "events": events }).to_string();
        read(&"h1".parse().unwrap(), body.as_bytes())
    }

    fn record(meaning: Meaning) -> Reading {
        match meaning {
            Meaning::Record(reading) => reading,
            never @ Meaning::Never { .. } => panic!("{never:?}"),
        }
    }

    fn image_of(event: &EventKind) -> String {
        match event {
            EventKind::ImagePushed(pushed) => pushed.image.to_string(),
            EventKind::Push(_) | EventKind::TaskSaved { .. } | EventKind::Requested { .. } => {
                panic!("{event:?}")
            }
        }
    }

    #[test]
    fn a_pushed_manifest_is_an_image_under_its_tag_or_digest() {
        let reading = record(read_all(&[
            event("e1", "push", MANIFESTS[0], "v1"),
            event("b1", "push", "application/octet-stream", ""),
            event("e2", "push", MANIFESTS[1], ""),
        ]));
        let images: Vec<String> = reading.events.iter().map(image_of).collect();
        assert_eq!(
            images,
            [
                "registry.example:5000/team/web:v1".to_owned(),
                format!("registry.example:5000/team/web@{DIGEST}"),
            ]
        );
        assert!(reading.id.as_str().starts_with("several-"));
    }

    #[test]
    fn a_retry_has_the_id_of_the_first_time() {
        let one = |tag| record(read_all(&[event("e1", "push", MANIFESTS[0], tag)])).id;
        assert_eq!(one("v1").as_str(), "e1");
        let two =
            [event("e1", "push", MANIFESTS[0], "v1"), event("e2", "push", MANIFESTS[0], "v2")];
        assert_eq!(record(read_all(&two)).id, record(read_all(&two)).id);
    }

    #[test]
    fn pulls_blobs_mounts_and_deletes_are_never_stored() {
        let meaning = read_all(&[
            event("p", "pull", MANIFESTS[0], "v1"),
            event("b", "push", "application/octet-stream", ""),
            event("m", "mount", "application/octet-stream", ""),
            event("d", "delete", "", "v1"),
        ]);
        assert_eq!(meaning, Meaning::Never { id: "p".parse().unwrap() });
        assert!(matches!(read_all(&[]), Meaning::Never { .. }));
    }

    #[test]
    fn what_cannot_be_read_is_recorded_as_such() {
        let hook = "h1".parse().unwrap();
        for body in ["", "{", "{}", "{\"events\":{}}", "\u{feff}{\"events\":[]}"] {
            let reading = record(read(&hook, body.as_bytes()));
            assert!(matches!(reading.verdict, Verdict::Unreadable { .. }), "{body}");
        }
        let mut odd = event("e1", "push", MANIFESTS[0], "v1");
        odd["target"]["repository"] = "NOT/lower".into();
        assert!(matches!(record(read_all(&[odd])).verdict, Verdict::Unreadable { .. }));
    }
}

//! Docker Distribution's notifications. Pushed manifests become events; all others are only counted.
//!
//! A registry sends a notification for each blob and each pull, including those of gantry's own workers. Its content
//! type differs from its documentation, so it is not checked.

use std::borrow::Cow;
use std::time::Duration;

use gantry_domain::delivery::Verdict;
use gantry_domain::event::EventKind;
use gantry_domain::hook::Provider;
use gantry_domain::id::DeliveryId;
use gantry_domain::mapping::Mapping;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::reading::{
    Envelope, MOST_EVENTS, Meaning, Reading, id_of_hash, id_or_hash, shortened, unreadable,
};
use super::registry::{BEARER, MANIFESTS, Report, host_of};
use super::{Descriptor, MIB, Ping, Setup};
pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::Distribution,
    largest_body: 3 * MIB,
    // It gives up after 500 ms, and sends the next notification only after this one.
    store_patience: Duration::from_millis(400),
    object_patience: Duration::from_millis(150),
    proofs: &[BEARER],
    content_types: &[],
    kind_header: None,
    id_header: None,
    may_omit_host: true,
    read,
    ping: Ping { headers: &[], body: r#"{"events":[]}"# },
    setup: Setup {
        content_type: "application/vnd.docker.distribution.events.v2+json",
        events: &["push"],
        instructions,
    },
};

fn instructions(url: &str, secret: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the registry's config.yml, under notifications: endpoints:, add:".to_owned(),
        "- name: gantry".to_owned(),
        format!("  url: {url}"),
        "  headers:".to_owned(),
        format!("    Authorization: [Bearer {secret}]"),
        "  timeout: 1s".to_owned(),
        "  threshold: 5".to_owned(),
        "  backoff: 1s".to_owned(),
        "  ignore:".to_owned(),
        "    actions: [pull]".to_owned(),
    ]
}

#[derive(Deserialize)]
struct Notifications<'a> {
    #[serde(borrow)]
    events: Vec<Item<'a>>,
}

/// One event of an envelope. A malformed one does not affect the others.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item<'a> {
    #[serde(borrow)]
    Notification(Notification<'a>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    action: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    target: Option<Target<'a>>,
    #[serde(borrow, default)]
    request: Option<Request<'a>>,
}

#[derive(Deserialize)]
struct Target<'a> {
    #[serde(borrow, default, rename = "mediaType")]
    media_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    digest: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    repository: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tag: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    host: Option<Cow<'a, str>>,
}

impl Notification<'_> {
    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// The pushed manifest, if it is one.
    fn pushed(&self) -> Option<&Target<'_>> {
        let target = self.target.as_ref()?;
        let is_manifest = MANIFESTS.contains(&target.media_type.as_deref()?);
        (self.action.as_deref() == Some("push") && is_manifest).then_some(target)
    }
}

/// Judges each event separately: a malformed one does not affect the others.
fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let notifications: Notifications<'_> = match serde_json::from_slice(body) {
        Ok(notifications) => notifications,
        Err(error) => return refuse(body, unreadable(error)),
    };
    let mut pushed = Vec::new();
    let mut unread = Vec::new();
    for (place, item) in notifications.events.iter().enumerate() {
        match item {
            Item::Notification(event) => {
                pushed.extend(event.pushed().map(|target| (place, event, target)));
            }
            Item::Other(IgnoredAny) => {
                unread.push(at(place, "its fields are not those of a notification"));
            }
        }
    }
    if pushed.is_empty() && unread.is_empty() {
        let first = notifications.events.first().and_then(|item| match item {
            Item::Notification(event) => event.id.as_deref(),
            Item::Other(IgnoredAny) => None,
        });
        return Meaning::Never { id: id_or_hash(first, body) };
    }
    if pushed.len() > MOST_EVENTS {
        let why = format!("it has more than {MOST_EVENTS} events");
        return refuse(body, unreadable(why));
    }
    let mut events = Vec::with_capacity(pushed.len());
    for (place, event, target) in &pushed {
        match image(envelope, event, target) {
            Ok(image) => events.push(image),
            Err(why) => unread.push(at(*place, why)),
        }
    }
    if events.is_empty() {
        return refuse(body, unreadable(unread.join("; ")));
    }
    unread.truncate(MOST_UNREAD);
    let ids: Vec<&str> = pushed.iter().map(|(_, event, _)| event.id()).collect();
    Meaning::Record(Reading {
        id: delivery_id(&ids, body),
        kind: "push".to_owned(),
        verdict: Verdict::Events,
        events,
        unread,
    })
}

/// How many unreadable events of one envelope are reported.
const MOST_UNREAD: usize = 16;

fn at(place: usize, why: impl std::fmt::Display) -> String {
    shortened(format_args!("event {} of the envelope: {why}", place + 1))
}

fn refuse(body: &[u8], verdict: Verdict) -> Meaning {
    let id = id_of_hash("body", body);
    Meaning::Record(Reading::without_events(id, "unknown".to_owned(), verdict))
}

/// A registry retries the same events until they are accepted. Several events are identified by all of their ids.
fn delivery_id(ids: &[&str], body: &[u8]) -> DeliveryId {
    match ids {
        [one] => id_or_hash(Some(one), body),
        many => id_of_hash("several", many.join(" ").as_bytes()),
    }
}

fn image(
    envelope: &Envelope,
    event: &Notification<'_>,
    target: &Target<'_>,
) -> Result<EventKind, String> {
    // The push's `Host` header. It may be missing behind a proxy.
    let host = event.request.as_ref().and_then(|request| request.host.as_deref());
    let report = Report {
        host: host_of(host, envelope.home.as_ref())?,
        repository: target.repository.as_deref().unwrap_or_default(),
        tag: target.tag.as_deref(),
        digest: target.digest.as_deref(),
        media_type: target.media_type.as_deref(),
    };
    report.proven(&envelope.hook)
}

#[cfg(test)]
mod tests {
    use gantry_domain::image::RegistryHost;

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
        read_text(&body, Some("home.example:5000".parse().unwrap()))
    }

    fn read_text(body: &str, home: Option<RegistryHost>) -> Meaning {
        let hook = "h1".parse().unwrap();
        let envelope =
            Envelope { hook, mapping: None, home, kind: None, id: None, content_type: None };
        read(&envelope, body.as_bytes())
    }

    fn record(meaning: Meaning) -> Reading {
        match meaning {
            Meaning::Record(reading) => reading,
            never @ Meaning::Never { .. } => panic!("{never:?}"),
        }
    }

    fn image_of(event: &EventKind) -> String {
        let EventKind::ImagePushed(pushed) = event else { panic!("{event:?}") };
        pushed.image.to_string()
    }

    #[test]
    fn a_pushed_manifest_is_an_image_event() {
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
    fn each_event_of_an_envelope_is_judged_separately() {
        let hosted = |id: &str, host: serde_json::Value| {
            let mut event = event(id, "push", MANIFESTS[0], id);
            event["request"]["host"] = host;
            event
        };
        let mut without_host = event("none", "push", MANIFESTS[0], "none");
        without_host.as_object_mut().unwrap().remove("request");
        let mut no_tag = event("e9", "push", MANIFESTS[0], "");
        no_tag["target"]["tag"] = serde_json::Value::Null;
        let reading = record(read_all(&[
            hosted("good", "registry.lan:5000".into()),
            hosted("capitals", "REGISTRY.lan".into()),
            hosted("word", "registry".into()),
            hosted("empty", "".into()),
            hosted("null", serde_json::Value::Null),
            without_host,
            hosted("spaces", "a b".into()),
            hosted("number", 7.into()),
            "no event".into(),
            event("e8", "push", MANIFESTS[0], "a:b"),
            no_tag,
        ]));
        let images: Vec<String> = reading.events.iter().map(image_of).collect();
        assert_eq!(
            images,
            [
                "registry.lan:5000/team/web:good".to_owned(),
                "registry.lan/team/web:capitals".to_owned(),
                "home.example:5000/team/web:word".to_owned(),
                "home.example:5000/team/web:empty".to_owned(),
                "home.example:5000/team/web:null".to_owned(),
                "home.example:5000/team/web:none".to_owned(),
                format!("registry.example:5000/team/web@{DIGEST}"),
            ]
        );
        let told: Vec<&str> =
            reading.unread.iter().map(|why| why.split(": ").next().unwrap()).collect();
        assert_eq!(
            told,
            [8, 9, 7, 10].map(|place| format!("event {place} of the envelope")),
            "{:?}",
            reading.unread
        );
    }

    #[test]
    fn a_redelivery_has_the_same_id() {
        let one = |tag| record(read_all(&[event("e1", "push", MANIFESTS[0], tag)])).id;
        assert_eq!(one("v1").as_str(), "e1");
        let two =
            [event("e1", "push", MANIFESTS[0], "v1"), event("e2", "push", MANIFESTS[0], "v2")];
        assert_eq!(record(read_all(&two)).id, record(read_all(&two)).id);
    }

    #[test]
    fn pulls_blobs_mounts_and_deletes_are_not_recorded() {
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
    fn unreadable_bodies_are_recorded() {
        for body in ["", "{", "{}", "{\"events\":{}}", "\u{feff}{\"events\":[]}"] {
            let reading = record(read_text(body, None));
            assert!(matches!(reading.verdict, Verdict::Unreadable { .. }), "{body}");
        }
        let mut odd = event("e1", "push", MANIFESTS[0], "v1");
        odd["target"]["repository"] = "NOT/lower".into();
        assert!(matches!(record(read_all(&[odd])).verdict, Verdict::Unreadable { .. }));
    }
}

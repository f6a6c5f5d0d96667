//! GitHub and GitHub Enterprise Server. Pushes become events; pings and all other types are only acknowledged.

use std::borrow::Cow;
use std::time::Duration;

use gantry_domain::InvalidText;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, Push, PushedRef};
use gantry_domain::hook::Provider;
use gantry_domain::id::HookId;
use gantry_domain::source::{CommitId, GitUrl};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::reading::{Envelope, Meaning, Reading, id_or_hash, is_of_type, unreadable, word};
use super::{Descriptor, MIB, Ping, Setup};
use crate::hooks::verify::Scheme;

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::GitHub,
    largest_body: 25 * MIB,
    // GitHub gives up after ten seconds.
    store_patience: Duration::from_secs(5),
    object_patience: Duration::from_secs(2),
    proof: Scheme::Signature { header: "x-hub-signature-256", prefix: "sha256=" },
    content_types: &[JSON, FORM],
    kind_header: Some("x-github-event"),
    id_header: Some("x-github-delivery"),
    may_omit_host: false,
    read,
    ping: Ping {
        headers: &[("x-github-event", "ping")],
        body: r#"{"zen":"Knock before you enter."}"#,
    },
    setup: Setup { content_type: JSON, events: &["push"], instructions },
};

const JSON: &str = "application/json";

/// A form with one field, `payload`, that holds the JSON. The signature covers the form as it was sent.
const FORM: &str = "application/x-www-form-urlencoded";

fn instructions(url: &str, secret: &str) -> Vec<String> {
    vec![
        "In the repository's settings, under Webhooks, add a webhook:".to_owned(),
        format!("Payload URL: {url}"),
        format!("Content type: {JSON}"),
        format!("Secret: {secret}"),
        "Which events: just the push event".to_owned(),
    ]
}

#[derive(Deserialize)]
struct Form<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

/// The fields of a push that matter, borrowed from the body. The rest is skipped without a copy.
#[derive(Deserialize)]
struct PushBody<'a> {
    #[serde(rename = "ref", borrow)]
    reference: Cow<'a, str>,
    #[serde(borrow)]
    before: Cow<'a, str>,
    #[serde(borrow)]
    after: Cow<'a, str>,
    #[serde(borrow)]
    repository: RepositoryBody<'a>,
    #[serde(default, deserialize_with = "lenient")]
    pusher: Option<Pusher>,
}

#[derive(Deserialize)]
struct RepositoryBody<'a> {
    #[serde(borrow)]
    clone_url: Cow<'a, str>,
    #[serde(default, deserialize_with = "lenient")]
    default_branch: Option<String>,
}

#[derive(Deserialize)]
struct Pusher {
    #[serde(default)]
    name: Option<String>,
}

/// Reads an optional field: a value of an unexpected type counts as missing.
fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any<T> {
        Expected(T),
        Other(IgnoredAny),
    }
    Ok(match Option::<Any<T>>::deserialize(deserializer)? {
        Some(Any::Expected(value)) => Some(value),
        Some(Any::Other(IgnoredAny)) | None => None,
    })
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let id = id_or_hash(envelope.id.as_deref(), body);
    let kind = word(envelope.kind.as_deref());
    Meaning::Record(match kind.as_str() {
        "push" => match read_push(envelope, body) {
            Ok(Some(push)) => {
                let events = vec![EventKind::Push(push)];
                Reading { id, kind, verdict: Verdict::Events, events, unread: Vec::new() }
            }
            Ok(None) => {
                let why = "it moved neither a branch nor a tag".to_owned();
                Reading::without_events(id, kind, Verdict::OfNoInterest { why })
            }
            Err(verdict) => Reading::without_events(id, kind, verdict),
        },
        "ping" => Reading::without_events(id, kind, Verdict::Ping),
        "unknown" => Reading::without_events(id, kind, unreadable("there is no X-GitHub-Event")),
        _ => {
            let why = format!("nothing starts on `{kind}`: gantry acts on `push`");
            Reading::without_events(id, kind, Verdict::OfNoInterest { why })
        }
    })
}

fn read_push(envelope: &Envelope, body: &[u8]) -> Result<Option<Push>, Verdict> {
    if !is_form(envelope, body) {
        return parse_push(&envelope.hook, body);
    }
    let form: Form<'_> = serde_urlencoded::from_bytes(body).map_err(unreadable)?;
    parse_push(&envelope.hook, form.payload.as_bytes())
}

/// Without a content type, as for a stored body, the body decides: a JSON object never begins like a form.
fn is_form(envelope: &Envelope, body: &[u8]) -> bool {
    match &envelope.content_type {
        Some(content_type) => is_of_type(content_type, FORM),
        None => body.starts_with(b"payload="),
    }
}

fn parse_push(hook: &HookId, json: &[u8]) -> Result<Option<Push>, Verdict> {
    // One check for the whole body is faster than one for each string. Invalid UTF-8 in fields that are not read is
    // accepted.
    let body: PushBody<'_> = match std::str::from_utf8(json) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(json),
    }
    .map_err(unreadable)?;
    let Some(reference) = moved_ref(&body.reference).map_err(unreadable)? else {
        return Ok(None);
    };
    Ok(Some(Push {
        hook: Some(hook.clone()),
        url: GitUrl::of_payload(&body.repository.clone_url).map_err(unreadable)?,
        reference,
        before: commit(&body.before).map_err(unreadable)?,
        after: commit(&body.after).map_err(unreadable)?,
        default_branch: body.repository.default_branch.and_then(|branch| branch.parse().ok()),
        pusher: body.pusher.and_then(|pusher| pusher.name),
    }))
}

fn moved_ref(reference: &str) -> Result<Option<PushedRef>, InvalidText> {
    if let Some(branch) = reference.strip_prefix("refs/heads/") {
        return branch.parse().map(PushedRef::Branch).map(Some);
    }
    if let Some(tag) = reference.strip_prefix("refs/tags/") {
        return tag.parse().map(PushedRef::Tag).map(Some);
    }
    Ok(None)
}

/// A commit; all zeros mean none.
fn commit(text: &str) -> Result<Option<CommitId>, InvalidText> {
    if !text.is_empty() && text.bytes().all(|b| b == b'0') {
        return Ok(None);
    }
    text.parse().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "1111111111111111111111111111111111111111";
    const NEW: &str = "2222222222222222222222222222222222222222";
    const ZEROS: &str = "0000000000000000000000000000000000000000";

    fn body(reference: &str, before: &str, after: &str) -> String {
        serde_json::json!({
            "ref": reference, "before": before, "after": after, "commits": [{"id": after}],
            "repository": {"clone_url": "https://github.com/Octo/Hello.git", "default_branch": "main"},
            "pusher": {"name": "mona", "email": null},
        })
        .to_string()
    }

    fn read_with(event: Option<&str>, id: Option<&str>, content_type: &str, body: &str) -> Reading {
        let envelope = Envelope {
            hook: "h1".parse().unwrap(),
            home: None,
            kind: event.map(str::to_owned),
            id: id.map(str::to_owned),
            content_type: Some(content_type.to_owned()),
        };
        match read(&envelope, body.as_bytes()) {
            Meaning::Record(reading) => reading,
            never @ Meaning::Never { .. } => panic!("{never:?}"),
        }
    }

    fn read_as(event: Option<&str>, content_type: &str, body: &str) -> Reading {
        read_with(event, Some("d-1"), content_type, body)
    }

    fn push(reference: &str, before: &str, after: &str) -> Push {
        let mut reading = read_as(Some("push"), JSON, &body(reference, before, after));
        assert_eq!(reading.verdict, Verdict::Events);
        match reading.events.pop() {
            Some(EventKind::Push(push)) => push,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_push_has_reference_before_and_after() {
        let moved = push("refs/heads/feature/x", OLD, NEW);
        assert_eq!(moved.reference, PushedRef::Branch("feature/x".parse().unwrap()));
        assert_eq!(moved.before.unwrap().as_str(), OLD);
        assert_eq!(moved.after.unwrap().as_str(), NEW);
        assert_eq!(moved.url.key().as_str(), "github.com/octo/hello");
        assert_eq!(moved.default_branch.unwrap().as_str(), "main");
        assert_eq!(moved.pusher.unwrap(), "mona");

        assert_eq!(push("refs/heads/main", ZEROS, NEW).before, None);
        assert_eq!(push("refs/heads/main", OLD, ZEROS).after, None);
        assert_eq!(
            push("refs/tags/v1", ZEROS, NEW).reference,
            PushedRef::Tag("v1".parse().unwrap())
        );
    }

    #[test]
    fn a_form_has_the_same_meaning_as_json() {
        let json = body("refs/heads/main", OLD, NEW);
        let form = serde_urlencoded::to_string([("payload", &json)]).unwrap();
        let (_, of_ledger) = crate::hooks::meaning(Provider::GitHub, "push", form.as_bytes());
        assert_eq!(
            read_as(Some("push"), FORM, &form).events,
            read_as(Some("push"), JSON, &json).events
        );
        assert_eq!(of_ledger.len(), 1);
    }

    #[test]
    fn every_other_type_has_a_verdict() {
        let verdict = |event, body: &str| read_as(event, JSON, body).verdict;
        assert_eq!(verdict(Some("ping"), "{}"), Verdict::Ping);
        let nested = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let too_deep = format!("{{\"x\":{nested}}}");
        for (event, body) in [
            (None, "{}"),
            (Some("push"), "{"),
            (Some("push"), "[]"),
            (Some("push"), too_deep.as_str()),
            (Some("push"), &body("refs/heads/main", "", NEW)),
            (Some("push"), &body("refs/heads/../x", OLD, NEW)),
        ] {
            let verdict = verdict(event, body);
            assert!(matches!(verdict, Verdict::Unreadable { .. }), "{event:?} {verdict:?}");
        }
        for (event, body) in
            [(Some("issues"), "not read"), (Some("push"), &*body("refs/notes/x", OLD, NEW))]
        {
            assert!(matches!(verdict(event, body), Verdict::OfNoInterest { .. }));
        }
    }

    #[test]
    fn invalid_optional_fields_do_not_make_a_push_unreadable() {
        for odd in [serde_json::json!(null), 7.into(), serde_json::json!({"a": []}), "..".into()] {
            let mut json: serde_json::Value =
                serde_json::from_str(&body("refs/heads/main", OLD, NEW)).unwrap();
            json["repository"]["default_branch"] = odd.clone();
            json["pusher"] = odd.clone();
            json["repository"]["clone_url"] = "https://octo@GitHub.com:443/Octo/Hello.git/".into();
            let push = parse_push(&"h1".parse().unwrap(), json.to_string().as_bytes());
            let push = push.unwrap().unwrap();
            assert_eq!((push.default_branch.clone(), push.pusher.clone()), (None, None), "{odd}");
            assert_eq!(push.repository().as_str(), "github.com/octo/hello");
        }
    }

    #[test]
    fn a_delivery_without_id_is_identified_by_its_body() {
        let id_of = |id| read_with(Some("ping"), id, JSON, "{}").id;
        assert_eq!(id_of(Some("d-1")).as_str(), "d-1");
        assert_eq!(id_of(None), id_of(Some("no id: it has spaces")));
        assert!(id_of(None).as_str().starts_with("body-"));
    }
}

//! GitHub and GitHub Enterprise Server. Pushes, changes of pull requests, commands in comments and packages become events;
//! all other types are only acknowledged.

use std::borrow::Cow;
use std::time::Duration;

use gantry_domain::delivery::Verdict;
use gantry_domain::event::EventKind;
use gantry_domain::hook::Provider;
use gantry_domain::mapping::Mapping;
use serde::Deserialize;

use super::reading::{Envelope, Found, Meaning, id_or_hash, is_of_type, unreadable, word};
use super::{Descriptor, MIB, Ping, Setup, ghcr};
use crate::hooks::verify::Scheme;

mod pull_request;
mod push;

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::GitHub,
    largest_body: 25 * MIB,
    // GitHub gives up after ten seconds.
    store_patience: Duration::from_secs(5),
    object_patience: Duration::from_secs(2),
    proofs: &[Scheme::Signature { header: "x-hub-signature-256", prefix: "sha256=" }],
    content_types: &[JSON, FORM],
    kind_header: Some("x-github-event"),
    id_header: Some("x-github-delivery"),
    may_omit_host: false,
    read,
    ping: Ping {
        headers: &[("x-github-event", "ping")],
        body: r#"{"zen":"Knock before you enter."}"#,
    },
    setup: Setup {
        content_type: JSON,
        events: &["push", "pull_request", "issue_comment"],
        instructions,
    },
};

const JSON: &str = "application/json";

/// A form with one field, `payload`, that holds the JSON. The signature covers the form as it was sent.
const FORM: &str = "application/x-www-form-urlencoded";

fn instructions(url: &str, secret: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the repository's settings, under Webhooks, add a webhook:".to_owned(),
        format!("Payload URL: {url}"),
        format!("Content type: {JSON}"),
        format!("Secret: {secret}"),
        "Which events: pushes; for pull requests also pull requests and issue comments; for images of ghcr.io also packages"
            .to_owned(),
    ]
}

#[derive(Deserialize)]
struct Form<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let id = id_or_hash(envelope.id.as_deref(), body);
    let kind = word(envelope.kind.as_deref());
    let hook = &envelope.hook;
    let json = match json(envelope, body) {
        Ok(json) => json,
        Err(verdict) => return Meaning::of(id, kind, Err(verdict)),
    };
    let found = match kind.as_str() {
        "push" => push::read(hook, &json).map(|push| match push {
            Some(push) => Found::one(EventKind::Push(push)),
            None => Found::nothing("it moved neither a branch nor a tag"),
        }),
        "pull_request" => pull_request::read(hook, &json).map(|change| match change {
            Some(change) => Found::one(EventKind::PullRequest(change)),
            None => Found::nothing("it changed nothing that is built"),
        }),
        "issue_comment" => pull_request::read_comment(hook, &json).map(|comment| match comment {
            Some(comment) => Found::one(EventKind::Comment(comment)),
            None => Found::nothing("it is no command below a pull request"),
        }),
        "package" | "registry_package" => ghcr::read_package(hook, &json),
        "ping" => Err(Verdict::Ping),
        // A push tells the same, with the commit.
        "create" | "delete" => Ok(Found::nothing("the push of the same branch or tag is acted on")),
        "release" => Ok(Found::nothing("the push of its tag is acted on")),
        "unknown" => Err(unreadable("there is no X-GitHub-Event")),
        _ => Ok(Found::nothing(&format!("nothing starts on `{kind}`"))),
    };
    Meaning::of(id, kind, found)
}

/// The JSON of a body, which may be in a form.
pub(super) fn json<'a>(envelope: &Envelope, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Verdict> {
    if !is_form(envelope, body) {
        return Ok(Cow::Borrowed(body));
    }
    let form: Form<'_> = serde_urlencoded::from_bytes(body).map_err(unreadable)?;
    Ok(Cow::Owned(form.payload.into_owned().into_bytes()))
}

/// Without a content type, as for a stored body, the body decides: a JSON object never begins like a form.
fn is_form(envelope: &Envelope, body: &[u8]) -> bool {
    match &envelope.content_type {
        Some(content_type) => is_of_type(content_type, FORM),
        None => body.starts_with(b"payload="),
    }
}

#[cfg(test)]
mod tests {
    use gantry_domain::event::{Push, PushedRef};
    use gantry_domain::hook::Sender;

    use super::*;
    use crate::hooks::provider::reading::Reading;

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
            mapping: None,
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
        let (_, of_ledger) = crate::hooks::meaning(&Sender::GitHub, None, "push", form.as_bytes());
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
            let push = super::push::read(&"h1".parse().unwrap(), json.to_string().as_bytes());
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

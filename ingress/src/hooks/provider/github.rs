//! GitHub and GitHub Enterprise Server: pushes become events, pings are pings, all else is acknowledged by its type.

use std::borrow::Cow;

use gantry_domain::InvalidText;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, Push, PushedRef};
use gantry_domain::id::HookId;
use gantry_domain::source::{CommitId, GitUrl};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::{Reading, id_or_hash, unreadable, word};

/// How the body is written. The signature covers it as it was sent, in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    /// One field `payload`.
    Form,
}

impl Encoding {
    /// By the `Content-Type` header; `None` for any other.
    pub(crate) fn of_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Some(Self::Form)
        } else {
            None
        }
    }

    /// By the body itself, for one that is read from the ledger: an object never begins as a form does.
    pub(crate) fn of_body(body: &[u8]) -> Self {
        if body.starts_with(b"payload=") { Self::Form } else { Self::Json }
    }
}

/// What came beside the body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub(crate) hook: &'a HookId,
    /// `X-GitHub-Event`.
    pub(crate) event: Option<&'a str>,
    /// `X-GitHub-Delivery`: the same when it is sent again.
    pub(crate) delivery: Option<&'a str>,
    pub(crate) encoding: Encoding,
}

#[derive(Deserialize)]
struct Form<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

/// What a push says, borrowed from the body: the rest of it is skipped without a copy.
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

/// Reads what a push is understood without: of another type than expected, it is as if it were left out.
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

/// Reads a verified body.
pub(crate) fn read(envelope: Envelope<'_>, body: &[u8]) -> Reading {
    let id = id_or_hash(envelope.delivery, body);
    let kind = word(envelope.event);
    match kind.as_str() {
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
    }
}

fn read_push(envelope: Envelope<'_>, body: &[u8]) -> Result<Option<Push>, Verdict> {
    match envelope.encoding {
        Encoding::Json => parse_push(envelope.hook, body),
        Encoding::Form => {
            let form: Form<'_> = serde_urlencoded::from_bytes(body).map_err(unreadable)?;
            parse_push(envelope.hook, form.payload.as_bytes())
        }
    }
}

fn parse_push(hook: &HookId, json: &[u8]) -> Result<Option<Push>, Verdict> {
    // Looked at once for all of it, and not once for each string; where nobody reads them, bytes that are no UTF-8 do no harm.
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

/// A commit; zeros stand for none.
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

    fn read_as(event: Option<&str>, encoding: Encoding, body: &str) -> Reading {
        let hook = "h1".parse().unwrap();
        let envelope = Envelope { hook: &hook, event, delivery: Some("d-1"), encoding };
        read(envelope, body.as_bytes())
    }

    fn push(reference: &str, before: &str, after: &str) -> Push {
        let mut reading = read_as(Some("push"), Encoding::Json, &body(reference, before, after));
        assert_eq!(reading.verdict, Verdict::Events);
        match reading.events.pop() {
            Some(EventKind::Push(push)) => push,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_push_says_what_moved_from_where_to_where() {
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
    fn a_form_holds_the_same() {
        let json = body("refs/heads/main", OLD, NEW);
        let form = serde_urlencoded::to_string([("payload", &json)]).unwrap();
        assert_eq!(Encoding::of_body(form.as_bytes()), Encoding::Form);
        assert_eq!(
            read_as(Some("push"), Encoding::Form, &form).events,
            read_as(Some("push"), Encoding::Json, &json).events
        );
    }

    #[test]
    fn all_else_has_a_verdict_too() {
        let verdict = |event, body: &str| read_as(event, Encoding::Json, body).verdict;
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
    fn what_a_push_is_understood_without_does_not_make_it_unreadable() {
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
    fn a_delivery_without_id_is_known_by_its_body() {
        let hook = "h1".parse().unwrap();
        let read_it = |delivery| {
            let envelope =
                Envelope { hook: &hook, event: Some("ping"), delivery, encoding: Encoding::Json };
            read(envelope, b"{}").id
        };
        assert_eq!(read_it(Some("d-1")).as_str(), "d-1");
        assert_eq!(read_it(None), read_it(Some("no id: it has spaces")));
        assert!(read_it(None).as_str().starts_with("body-"));
    }
}

//! Any sender of JSON about pushes, of sources or of images. The hook's mapping tells where the JSON has what makes a push.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use gantry_domain::InvalidText;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, ImagePushed, Push, PushedRef};
use gantry_domain::hook::Provider;
use gantry_domain::id::HookId;
use gantry_domain::image::{Digest, ImageReference, Tag};
use gantry_domain::mapping::{
    JsonPointer, MappedImage, MappedProof, MappedPush, MappedSource, Mapping,
};
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::source::{CommitId, GitUrl};
use serde_json::Value;

use super::reading::{
    Envelope, Found, Meaning, PING, commit_or_none, id_or_hash, moved_ref, unreadable,
};
use super::{Descriptor, MIB, Ping, Setup};
use crate::hooks::verify::Scheme;

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::Generic,
    // Any value may be pointed to, so the whole body is kept as values, which need much more room than its text.
    largest_body: 2 * MIB,
    store_patience: Duration::from_secs(5),
    object_patience: Duration::from_secs(2),
    proofs: &[Scheme::StandardWebhooks],
    content_types: &[],
    kind_header: None,
    id_header: Some("webhook-id"),
    may_omit_host: true,
    read,
    ping: Ping { headers: &[], body: PING },
    setup: Setup { content_type: "application/json", events: &[KIND], instructions },
};

/// The type of all other deliveries.
const KIND: &str = "push";

fn instructions(url: &str, secret: &str, mapping: Option<&Mapping>) -> Vec<String> {
    let pushed = match mapping.map(|mapping| &mapping.push) {
        Some(MappedPush::Image(_)) => "an image",
        Some(MappedPush::Source(_)) | None => "a branch or tag",
    };
    let mut lines = vec![
        format!("Send each push of {pushed} by POST, as JSON:"),
        format!("URL: {url}"),
        format!("Secret: {secret}"),
    ];
    match mapping.map(|mapping| &mapping.proof) {
        Some(MappedProof::Header(header)) => {
            let prefix = header.prefix.as_ref().map_or("", |prefix| prefix.as_str());
            lines.push(format!(
                "{}: {prefix}SIGNATURE, the HMAC-SHA256 of the body under the secret, in hexadecimal digits or base64",
                header.name
            ));
            lines.push(
                "webhook-id: the delivery's id, the same when it is sent again; may be left out"
                    .to_owned(),
            );
        }
        Some(MappedProof::StandardWebhooks) | None => lines.push(
            "webhook-id, webhook-timestamp, webhook-signature: as Standard Webhooks says, signed with the secret"
                .to_owned(),
        ),
    }
    lines
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let id = id_or_hash(envelope.id.as_deref(), body);
    if body == PING.as_bytes() {
        return Meaning::of(id, "ping".to_owned(), Err(Verdict::Ping));
    }
    let found = match &envelope.mapping {
        Some(mapping) => match &mapping.push {
            MappedPush::Source(source) => read_push(&envelope.hook, source, body),
            MappedPush::Image(image) => read_image(envelope, image, body),
        },
        None => Err(unreadable("its hook was not told where the JSON has what makes a push")),
    };
    Meaning::of(id, KIND.to_owned(), found)
}

fn read_push(hook: &HookId, mapping: &MappedSource, body: &[u8]) -> Result<Found, Verdict> {
    let json: Value = serde_json::from_slice(body).map_err(unreadable)?;
    let at = |pointer| Pointed { json: &json, pointer };
    let url = at(&mapping.repository).text()?.parse(GitUrl::of_payload)?;
    let moved = at(&mapping.reference).text()?.parse(moved_ref_or_branch)?;
    let Some(reference) = moved else {
        return Ok(Found::nothing("it moved neither a branch nor a tag"));
    };
    let after = at(&mapping.commit).commit()?;
    let before = mapping.before.as_ref().map(at).filter(Pointed::is_there);
    Ok(Found::one(EventKind::Push(Push {
        hook: Some(hook.clone()),
        url,
        reference,
        before: before.map(Pointed::commit).transpose()?.flatten(),
        after,
        default_branch: None,
        pusher: None,
        changed: ChangedFiles::default(),
        asks_to_skip: false,
    })))
}

fn read_image(envelope: &Envelope, mapping: &MappedImage, body: &[u8]) -> Result<Found, Verdict> {
    let json: Value = serde_json::from_slice(body).map_err(unreadable)?;
    let name = Pointed { json: &json, pointer: &mapping.image }.text()?;
    let tag: Option<Tag> = find(&json, mapping.tag.as_ref())?;
    let digest: Option<Digest> = find(&json, mapping.digest.as_ref())?;
    let named = name.parse(|name| {
        let name = match &digest {
            Some(digest) if !name.contains('@') => Cow::from(format!("{name}@{digest}")),
            Some(_) | None => Cow::from(name),
        };
        match &envelope.home {
            Some(home) => ImageReference::parse_in(&name, home),
            None => name.parse(),
        }
    })?;
    let tag = tag.or_else(|| named.tag().cloned());
    Ok(Found::one(EventKind::ImagePushed(ImagePushed {
        hook: Some(envelope.hook.clone()),
        digest: named.digest().cloned(),
        image: tag.map_or_else(|| named.clone(), |tag| named.with_tag(tag)),
        media_type: None,
        is_proven: true,
    })))
}

/// A part of an image that the sender may leave out.
fn find<T: FromStr<Err = InvalidText>>(
    json: &Value,
    pointer: Option<&JsonPointer>,
) -> Result<Option<T>, Verdict> {
    let pointed = pointer.map(|pointer| Pointed { json, pointer }).filter(Pointed::is_there);
    let text = pointed.map(Pointed::text_or_null).transpose()?.flatten();
    text.map(|text| text.parse(str::parse)).transpose()
}

/// Some senders write a branch's name alone.
fn moved_ref_or_branch(text: &str) -> Result<Option<PushedRef>, InvalidText> {
    match text.starts_with("refs/") {
        true => moved_ref(text),
        false => text.parse().map(PushedRef::Branch).map(Some),
    }
}

/// What a pointer points to in a body.
#[derive(Clone, Copy)]
struct Pointed<'a> {
    json: &'a Value,
    pointer: &'a JsonPointer,
}

impl<'a> Pointed<'a> {
    /// Below `null` everything is `null`: senders have `"new": null` for a deleted branch and `"new": {"id": …}` for
    /// others.
    fn find(self) -> Option<&'a Value> {
        let mut path = self.pointer.as_str();
        if let Some(found) = self.json.pointer(path) {
            return Some(found);
        }
        while let Some((above, _)) = path.rsplit_once('/') {
            match self.json.pointer(above) {
                Some(found) => return Some(found).filter(|found| found.is_null()),
                None => path = above,
            }
        }
        None
    }

    fn is_there(&self) -> bool {
        self.find().is_some()
    }

    /// A text, or `null`.
    fn text_or_null(self) -> Result<Option<Text<'a>>, Verdict> {
        let pointer = self.pointer;
        let is = match self.find() {
            Some(Value::String(text)) => return Ok(Some(Text { text, pointer })),
            Some(Value::Null) => return Ok(None),
            None => "nothing in this body",
            Some(Value::Bool(_)) => "true or false, not to a text",
            Some(Value::Number(_)) => "a number, not to a text",
            Some(Value::Array(_)) => "a list, not to a text",
            Some(Value::Object(_)) => "an object, not to a text",
        };
        Err(unreadable(format!("`{pointer}` points to {is}")))
    }

    fn text(self) -> Result<Text<'a>, Verdict> {
        let pointer = self.pointer;
        let null = || unreadable(format!("`{pointer}` points to null, not to a text"));
        self.text_or_null()?.ok_or_else(null)
    }

    fn commit(self) -> Result<Option<CommitId>, Verdict> {
        let Some(text) = self.text_or_null()? else { return Ok(None) };
        text.parse(commit_or_none)
    }
}

/// A text with the place where it was found.
#[derive(Clone, Copy)]
struct Text<'a> {
    text: &'a str,
    pointer: &'a JsonPointer,
}

impl Text<'_> {
    fn parse<T>(self, parse: impl FnOnce(&str) -> Result<T, InvalidText>) -> Result<T, Verdict> {
        let pointer = self.pointer;
        parse(self.text).map_err(|error| unreadable(format!("`{pointer}`: {error}")))
    }
}

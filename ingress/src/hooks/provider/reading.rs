//! What a body means: a verdict and events, and what readers of bodies share.

use gantry_domain::delivery::Verdict;
use gantry_domain::event::EventKind;
use gantry_domain::id::{DeliveryId, HookId};
use gantry_domain::image::RegistryHost;
use sha2::{Digest as _, Sha256};

/// More events than one commit should carry. Senders put one, rarely two, into a body.
pub(crate) const MOST_EVENTS: usize = 128;

/// What came beside the body, and what is known of the hook that it came to.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) hook: HookId,
    /// The login server of the hook's registry, if the provider's messages may leave it out.
    pub(crate) home: Option<RegistryHost>,
    /// The provider's word for the delivery's type, if a header tells it.
    pub(crate) kind: Option<String>,
    /// The provider's id of the delivery, if a header tells it: the same when it is sent again.
    pub(crate) id: Option<String>,
    /// `None` for a body from the ledger.
    pub(crate) content_type: Option<String>,
}

/// What a body means.
#[derive(Debug, PartialEq)]
pub(crate) enum Meaning {
    /// It is to be stored.
    Record(Reading),
    /// Nothing in it can ever matter.
    Never {
        /// The id to answer with.
        id: DeliveryId,
    },
}

/// What is stored of a body.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    /// The provider's id of the delivery, or one made of the body.
    pub(crate) id: DeliveryId,
    /// The provider's word for its type.
    pub(crate) kind: String,
    pub(crate) verdict: Verdict,
    /// The events, where the verdict is that there are some.
    pub(crate) events: Vec<EventKind>,
    /// Why parts of it could not be read, beside those that could.
    pub(crate) unread: Vec<String>,
}

impl Reading {
    pub(super) fn without_events(id: DeliveryId, kind: String, verdict: Verdict) -> Self {
        Self { id, kind, verdict, events: Vec::new(), unread: Vec::new() }
    }
}

/// The provider's id where it is one, else one made of `content`, so that the same content is the same delivery.
pub(super) fn id_or_hash(given: Option<&str>, content: &[u8]) -> DeliveryId {
    given.and_then(|id| id.parse().ok()).unwrap_or_else(|| id_of_hash("body", content))
}

pub(super) fn id_of_hash(prefix: &str, content: &[u8]) -> DeliveryId {
    let digits = hex::encode(Sha256::digest(content));
    match format!("{prefix}-{digits}").parse() {
        Ok(id) => id,
        Err(_) => unreachable!("a word and 64 hexadecimal digits are a delivery id"),
    }
}

/// Whether a `Content-Type` header names this type, whatever parameters it adds.
pub(super) fn is_of_type(header: &str, content_type: &str) -> bool {
    header.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(content_type)
}

/// A provider's word, fit for records and pages whatever was sent.
pub(super) fn word(given: Option<&str>) -> String {
    let word: String = given
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '-')
        .take(64)
        .collect();
    if word.is_empty() { "unknown".to_owned() } else { word }
}

pub(super) fn unreadable(why: impl std::fmt::Display) -> Verdict {
    Verdict::Unreadable { why: shortened(why) }
}

/// A parser's message quotes what it read; a body may be long.
pub(super) fn shortened(why: impl std::fmt::Display) -> String {
    why.to_string().chars().take(300).collect()
}

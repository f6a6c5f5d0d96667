//! The result of reading a body, and helpers that readers share.

use std::collections::BTreeSet;

use gantry_domain::InvalidText;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, Push, PushedRef};
use gantry_domain::id::{DeliveryId, HookId};
use gantry_domain::image::RegistryHost;
use gantry_domain::mapping::Mapping;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::source::{CommitId, RefName};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

/// The body of a test delivery, for providers that have no ping of their own.
pub(super) const PING: &str = r#"{"type":"gantry.ping"}"#;

/// The most events of one delivery, so that they fit one commit. Senders put one event into a body, rarely two.
pub(crate) const MOST_EVENTS: usize = 128;

/// The most labels that are kept of a pull request, and the most bytes of one. Providers allow fewer.
const MOST_LABELS: usize = 100;
const LONGEST_LABEL: usize = 1024;

/// The labels of a pull request that are kept.
pub(super) fn labels(names: impl Iterator<Item = String>) -> Vec<String> {
    names.filter(|name| name.len() <= LONGEST_LABEL).take(MOST_LABELS).collect()
}

/// The metadata of a delivery, and what is known about its hook.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) hook: HookId,
    /// Where the body has what makes a push, if the hook was told.
    pub(crate) mapping: Option<Mapping>,
    /// The login server of the hook's registry, if the provider may leave the host out.
    pub(crate) home: Option<RegistryHost>,
    /// The provider's type of the delivery, if a header has it.
    pub(crate) kind: Option<String>,
    /// The provider's id of the delivery, if a header has it. Redeliveries keep their id.
    pub(crate) id: Option<String>,
    /// `None` for a stored body.
    pub(crate) content_type: Option<String>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Meaning {
    /// The delivery is to be recorded.
    Record(Reading),
    /// The delivery can never matter and is not recorded.
    Never {
        /// The delivery's id, for the response.
        id: DeliveryId,
    },
}

impl Meaning {
    /// The result of reading one delivery of this id and kind.
    pub(super) fn of(id: DeliveryId, kind: String, found: Result<Found, Verdict>) -> Self {
        Self::Record(match found {
            Ok(Found::Events { events, unread }) => {
                Reading { id, kind, verdict: Verdict::Events, events, unread }
            }
            Ok(Found::Nothing { why }) => {
                Reading::without_events(id, kind, Verdict::OfNoInterest { why })
            }
            Ok(Found::Never) => return Self::Never { id },
            Err(verdict) => Reading::without_events(id, kind, verdict),
        })
    }
}

/// What is recorded of a delivery.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    /// The provider's id of the delivery, or a hash of the body.
    pub(crate) id: DeliveryId,
    /// The provider's type of the delivery.
    pub(crate) kind: String,
    pub(crate) verdict: Verdict,
    /// Empty unless the verdict says that there are events.
    pub(crate) events: Vec<EventKind>,
    /// Why some parts of the body could not be read, while others could.
    pub(crate) unread: Vec<String>,
}

impl Reading {
    pub(super) fn without_events(id: DeliveryId, kind: String, verdict: Verdict) -> Self {
        Self { id, kind, verdict, events: Vec::new(), unread: Vec::new() }
    }
}

/// What a readable body means.
#[derive(Debug)]
pub(super) enum Found {
    /// One event at least.
    Events { events: Vec<EventKind>, unread: Vec<String> },
    Nothing {
        /// The reason, in words.
        why: String,
    },
    /// It can never matter, and is not recorded.
    Never,
}

impl Found {
    pub(super) fn one(event: EventKind) -> Self {
        Self::Events { events: vec![event], unread: Vec::new() }
    }

    pub(super) fn nothing(why: &str) -> Self {
        Self::Nothing { why: why.to_owned() }
    }
}

/// The most reasons that are kept of one delivery.
const MOST_UNREAD: usize = 10;

/// Reads a push of several references; `None` stands for one that is neither a branch nor a tag.
///
/// # Errors
/// [`Verdict::Unreadable`] if there are branches or tags, but none can be read.
pub(super) fn moves(
    moves: impl Iterator<Item = Result<Option<Push>, String>>,
) -> Result<Found, Verdict> {
    match events_of("reference", moves.map(|push| Ok(push?.map(EventKind::Push))))? {
        Some(found) => Ok(found),
        None => Ok(Found::nothing("it moved neither a branch nor a tag")),
    }
}

/// Reads a body with several parts that may be events, each of them a `what`. `None` if no part is one.
///
/// # Errors
/// [`Verdict::Unreadable`] if there are some, but none can be read.
pub(super) fn events_of(
    what: &str,
    parts: impl Iterator<Item = Result<Option<EventKind>, String>>,
) -> Result<Option<Found>, Verdict> {
    let (mut events, mut unread) = (Vec::new(), Vec::new());
    for (place, part) in parts.enumerate() {
        match part {
            Ok(Some(_)) if events.len() == MOST_EVENTS => {
                unread.push(format!("only the first {MOST_EVENTS} of its events are read"));
                break;
            }
            Ok(Some(event)) => events.push(event),
            Ok(None) => {}
            Err(why) if unread.len() < MOST_UNREAD => unread.push(format!("{what} {place}: {why}")),
            Err(_) => {}
        }
    }
    match (events.is_empty(), unread.is_empty()) {
        (false, _) => Ok(Some(Found::Events { events, unread })),
        (true, true) => Ok(None),
        (true, false) => Err(unreadable(unread.join("; "))),
    }
}

/// The most changed files of one push that are kept, and the most bytes of their names. Longer lists count as unknown.
const MOST_FILES: usize = 1000;
const MOST_FILE_BYTES: usize = 48 << 10;

/// Changed files, gathered from a payload.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    paths: BTreeSet<String>,
    bytes: usize,
    is_cut: bool,
}

impl Files {
    pub(super) fn add(&mut self, path: String) {
        if self.is_cut || self.paths.contains(&path) {
            return;
        }
        self.bytes += path.len();
        if self.paths.len() == MOST_FILES || self.bytes > MOST_FILE_BYTES {
            self.is_cut = true;
            self.paths.clear();
            return;
        }
        self.paths.insert(path);
    }

    pub(super) fn into_changed(self) -> ChangedFiles {
        match self.is_cut {
            true => ChangedFiles::Unknown { why: "the webhook lists very many of them".to_owned() },
            false => ChangedFiles::All { paths: self.paths.into_iter().collect() },
        }
    }
}

/// Reads an optional field: a value of an unexpected type counts as missing.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
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

/// The branch or tag of a full reference; `None` for other references.
pub(super) fn moved_ref(reference: &str) -> Result<Option<PushedRef>, InvalidText> {
    if let Some(branch) = reference.strip_prefix("refs/heads/") {
        return branch.parse().map(PushedRef::Branch).map(Some);
    }
    if let Some(tag) = reference.strip_prefix("refs/tags/") {
        return tag.parse().map(PushedRef::Tag).map(Some);
    }
    Ok(None)
}

/// A commit; all zeros mean none.
pub(super) fn commit_or_none(text: &str) -> Result<Option<CommitId>, InvalidText> {
    if !text.is_empty() && text.bytes().all(|b| b == b'0') {
        return Ok(None);
    }
    text.parse().map(Some)
}

/// The branch of a full reference; `None` if it is none.
pub(super) fn branch_of(reference: &str) -> Option<RefName> {
    reference.strip_prefix("refs/heads/")?.parse().ok()
}

/// The provider's id if it is valid, otherwise a hash of `content`, so that the same content gives the same id.
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

/// Whether a `Content-Type` header names this type, with or without parameters.
pub(super) fn is_of_type(header: &str, content_type: &str) -> bool {
    header.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(content_type)
}

/// A provider's word, restricted to characters that are safe in records and pages.
pub(super) fn word(given: Option<&str>) -> String {
    let word: String = given
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "_-.:".contains(*c))
        .take(64)
        .collect();
    if word.is_empty() { "unknown".to_owned() } else { word }
}

pub(super) fn unreadable(why: impl std::fmt::Display) -> Verdict {
    Verdict::Unreadable { why: shortened(why) }
}

/// A parser's message quotes its input, and a body may be long.
pub(super) fn shortened(why: impl std::fmt::Display) -> String {
    why.to_string().chars().take(300).collect()
}

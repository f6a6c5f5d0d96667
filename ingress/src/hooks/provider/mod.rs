//! What a verified body means, one module a provider. Pure: from bytes to a verdict and events.

use gantry_domain::delivery::Verdict;
use gantry_domain::event::EventKind;
use gantry_domain::hook::Provider;
use gantry_domain::id::DeliveryId;
use sha2::{Digest as _, Sha256};

pub(crate) mod distribution;
pub(crate) mod github;

/// More events than one commit should carry. Senders put one, rarely two, into a body.
pub(crate) const MOST_EVENTS: usize = 128;

/// What a body means.
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
    fn without_events(id: DeliveryId, kind: String, verdict: Verdict) -> Self {
        Self { id, kind, verdict, events: Vec::new(), unread: Vec::new() }
    }
}

/// What a body means for a hook of `provider`: the verdict, and the events. Its sender is believed: before the door it is
/// verified.
#[must_use]
pub fn meaning(provider: Provider, kind: &str, body: &[u8]) -> (Verdict, Vec<EventKind>) {
    let hook = match "tried".parse() {
        Ok(hook) => hook,
        Err(_) => unreachable!("a word is a hook's id"),
    };
    let reading = match provider {
        Provider::GitHub => {
            let encoding = github::Encoding::of_body(body);
            let envelope =
                github::Envelope { hook: &hook, event: Some(kind), delivery: None, encoding };
            github::read(envelope, body)
        }
        Provider::Distribution => match distribution::read(&hook, None, body) {
            distribution::Meaning::Record(reading) => reading,
            distribution::Meaning::Never { id } => {
                let why = "nothing in it can matter".to_owned();
                Reading::without_events(id, kind.to_owned(), Verdict::OfNoInterest { why })
            }
        },
    };
    (reading.verdict, reading.events)
}

/// The provider's id where it is one, else one made of `content`, so that the same content is the same delivery.
fn id_or_hash(given: Option<&str>, content: &[u8]) -> DeliveryId {
    given.and_then(|id| id.parse().ok()).unwrap_or_else(|| id_of_hash("body", content))
}

fn id_of_hash(prefix: &str, content: &[u8]) -> DeliveryId {
    let digits = hex::encode(Sha256::digest(content));
    match format!("{prefix}-{digits}").parse() {
        Ok(id) => id,
        Err(_) => unreachable!("a word and 64 hexadecimal digits are a delivery id"),
    }
}

/// A provider's word, fit for records and pages whatever was sent.
fn word(given: Option<&str>) -> String {
    let word: String = given
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '-')
        .take(64)
        .collect();
    if word.is_empty() { "unknown".to_owned() } else { word }
}

fn unreadable(why: impl std::fmt::Display) -> Verdict {
    Verdict::Unreadable { why: shortened(why) }
}

/// A parser's message quotes what it read; a body may be long.
fn shortened(why: impl std::fmt::Display) -> String {
    why.to_string().chars().take(300).collect()
}

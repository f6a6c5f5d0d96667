//! What a verified body means, one module a provider: from bytes to a verdict and events.

use actix_web::web::Bytes;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::EventKind;
use gantry_domain::hook::Provider;
use gantry_domain::id::DeliveryId;
use gantry_ops::aside;
use sha2::{Digest as _, Sha256};

use crate::error::ApiError;

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

/// A longer body is read beside the runtime: other connections wait for its thread.
const READ_AT_ONCE: usize = 64 << 10;

/// Reads a verified body.
///
/// # Errors
/// [`ApiError::Unavailable`] if it cannot be read now: the sender tries again.
pub(crate) async fn read<T: Send + 'static>(
    body: &Bytes,
    read: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Result<T, ApiError> {
    if body.len() <= READ_AT_ONCE {
        return Ok(read(body));
    }
    let body = body.clone();
    aside::read(move || read(&body)).await.map_err(|error| {
        tracing::error!("a webhook's body of verified origin was not read: {error}");
        ApiError::Unavailable
    })
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn the_runtime_is_free_while_a_long_body_is_read() {
        let body = Bytes::from(vec![b' '; READ_AT_ONCE + 1]);
        let mut turns = 0;
        let others = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        // Whoever reads on the thread of this runtime has read at the first turn.
        tokio::select! {
            biased;
            read = read(&body, |body| body.len()) => assert_eq!(read.unwrap(), READ_AT_ONCE + 1),
            () = others => {}
        }
        assert!(turns > 0);
    }

    #[test]
    fn bodies_made_to_cost_are_read_in_linear_time() {
        let most = 4 << 20;
        let fill = |before: &str, piece: &str, after: &str| {
            format!("{before}{}{after}", piece.repeat(most / piece.len()))
        };
        let began = Instant::now();
        for body in [
            fill("", "[", ""),
            fill("", r#"{"a":"#, ""),
            fill("{", r#""a":0,"#, r#""ref":1}"#),
            fill(r#"{"commits":["#, "{},", "0]}"),
            fill(r#"{"events":["#, "{},", "0]}"),
            fill(r#"{"ref":""#, r"\ud800", r#""}"#),
            fill(r#"{"ref":"refs/heads/"#, "a/", r#""}"#),
            fill("payload=", "%7B", ""),
            fill(r#"{"a":"#, "9", "}"),
        ] {
            for provider in [Provider::GitHub, Provider::Distribution] {
                let (verdict, events) = meaning(provider, "push", body.as_bytes());
                let verdict = serde_json::to_string(&verdict).unwrap();
                assert!(events.len() <= MOST_EVENTS && verdict.len() < 8192, "{verdict}");
            }
        }
        // A quadratic one would take hours.
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }
}

//! The providers: all that differs between senders of webhooks, one module and one [`Descriptor`] each.
//!
//! Nothing outside this folder asks which provider it has before it: it asks the descriptor.

use std::time::Duration;

use actix_web::web::Bytes;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::EventKind;
use gantry_domain::hook::Provider;
use gantry_ops::aside;

use super::verify::Scheme;
use crate::refusal::Refusal;

mod distribution;
mod github;
mod reading;

use reading::is_of_type;
pub(super) use reading::{Envelope, Meaning, Reading};

/// A provider, as far as receiving, trying and explaining a hook goes.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) name: Provider,
    /// The largest body that it sends, in bytes.
    pub(crate) largest_body: u64,
    /// How long the store may take: less than the sender waits for an answer.
    pub(crate) store_patience: Duration,
    /// How long the object store may take for a large body, so that the store still has time within `store_patience`.
    pub(crate) object_patience: Duration,
    /// How a sender proves that it knows the hook's secret.
    pub(crate) proof: Scheme,
    /// What its bodies may be sent as; empty if the header says nothing of use.
    pub(crate) content_types: &'static [&'static str],
    /// The header that tells a delivery's type, if there is one.
    pub(crate) kind_header: Option<&'static str>,
    /// The header that tells a delivery's id, if there is one.
    pub(crate) id_header: Option<&'static str>,
    /// Whether its messages may leave out their host: then it is the login server of the hook's registry.
    pub(crate) may_omit_host: bool,
    /// Reads a verified body. Pure.
    pub(crate) read: fn(&Envelope, &[u8]) -> Meaning,
    pub(crate) ping: Ping,
    pub(crate) setup: Setup,
}

impl Descriptor {
    /// Whether a body is read that is sent as this.
    pub(crate) fn takes(&self, content_type: Option<&str>) -> bool {
        let is_read = |header| self.content_types.iter().any(|known| is_of_type(header, known));
        self.content_types.is_empty() || content_type.is_some_and(is_read)
    }
}

/// A delivery that means nothing, to try a hook with.
#[derive(Debug)]
pub(crate) struct Ping {
    /// Beside content type, id and proof.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) body: &'static str,
}

/// What a user must enter at the sender.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) content_type: &'static str,
    pub(crate) events: &'static [&'static str],
    /// How to enter it there, line by line.
    pub(crate) instructions: fn(url: &str, secret: &str) -> Vec<String>,
}

/// The table of providers.
pub(crate) fn descriptor(provider: Provider) -> &'static Descriptor {
    match provider {
        Provider::GitHub => &github::DESCRIPTOR,
        Provider::Distribution => &distribution::DESCRIPTOR,
    }
}

const MIB: u64 = 1024 * 1024;

/// A longer body is read beside the runtime: other connections wait for its thread.
const READ_AT_ONCE: usize = 64 << 10;

/// Reads a verified body.
///
/// # Errors
/// [`Refusal::Unavailable`] if it cannot be read now: the sender tries again.
pub(super) async fn read(
    provider: &Descriptor,
    envelope: Envelope,
    body: &Bytes,
) -> Result<Meaning, Refusal> {
    let read = provider.read;
    if body.len() <= READ_AT_ONCE {
        return Ok(read(&envelope, body));
    }
    let body = body.clone();
    aside::read(move || read(&envelope, &body)).await.map_err(|error| {
        tracing::error!("a webhook's body of verified origin was not read: {error}");
        Refusal::Unavailable
    })
}

/// What a body means for a hook of `provider`: the verdict, and the events. The body is trusted: callers verify its
/// signature first.
#[must_use]
pub fn meaning(provider: Provider, kind: &str, body: &[u8]) -> (Verdict, Vec<EventKind>) {
    let hook = match "tried".parse() {
        Ok(hook) => hook,
        Err(_) => unreachable!("a word is a hook's id"),
    };
    let kind = Some(kind.to_owned());
    let envelope = Envelope { hook, home: None, kind, id: None, content_type: None };
    match (descriptor(provider).read)(&envelope, body) {
        Meaning::Record(reading) => (reading.verdict, reading.events),
        Meaning::Never { .. } => {
            let why = "nothing in it can matter".to_owned();
            (Verdict::OfNoInterest { why }, Vec::new())
        }
    }
}

#[cfg(test)]
mod tests;

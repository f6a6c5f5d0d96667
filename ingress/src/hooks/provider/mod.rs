//! The providers: all differences between senders of webhooks, in one module and one [`Descriptor`] each.
//!
//! Code outside this folder uses the descriptor and never compares provider names.

use std::time::Duration;

use actix_web::web::Bytes;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::EventKind;
use gantry_domain::hook::{Provider, Sender};
use gantry_domain::image::RegistryHost;
use gantry_domain::mapping::{MappedProof, Mapping, SignatureHeader};
use gantry_ops::aside;

use super::verify::Scheme;
use crate::refusal::Refusal;

mod acr;
mod azure;
mod bitbucket;
mod distribution;
mod docker_hub;
mod generic;
mod ghcr;
mod gitea;
mod github;
mod gitlab;
mod harbor;
mod quay;
mod reading;
mod registry;

use reading::is_of_type;
pub(super) use reading::{Envelope, Meaning, Reading};

/// What receiving, testing and explaining a hook needs to know about its provider.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) name: Provider,
    /// The size of the largest body that the provider sends, in bytes.
    pub(crate) largest_body: u64,
    /// The time limit for the store. Must be less than the sender waits for an answer.
    pub(crate) store_patience: Duration,
    /// The time limit for storing a large body in the object store, which leaves the store enough of `store_patience`.
    pub(crate) object_patience: Duration,
    /// How a sender proves knowledge of the hook's secret, in the order in which they are looked for. Test deliveries use
    /// the first one. A hook with a mapping may say otherwise: see [`Descriptor::proofs_of`].
    pub(crate) proofs: &'static [Scheme<'static>],
    /// The content types that are accepted; empty means any.
    pub(crate) content_types: &'static [&'static str],
    /// The header with the delivery's type, if there is one.
    pub(crate) kind_header: Option<&'static str>,
    /// The header with the delivery's id, if there is one.
    pub(crate) id_header: Option<&'static str>,
    /// Whether its messages may leave out the host, which is then the login server of the hook's registry.
    pub(crate) may_omit_host: bool,
    /// Reads a verified body. Pure.
    pub(crate) read: fn(&Envelope, &[u8]) -> Meaning,
    pub(crate) ping: Ping,
    pub(crate) setup: Setup,
}

impl Descriptor {
    /// Whether its hooks have a secret, which their senders can be told.
    pub(crate) fn has_secret(&self) -> bool {
        self.proofs.iter().any(|scheme| *scheme != Scheme::Address)
    }

    /// How the senders of a hook with this mapping prove that they know its secret.
    pub(crate) fn proofs_of<'a>(&self, mapping: Option<&'a Mapping>) -> Vec<Scheme<'a>> {
        match mapping.map(|mapping| &mapping.proof) {
            Some(MappedProof::Header(SignatureHeader { name, prefix })) => {
                let prefix = prefix.as_ref().map_or("", |prefix| prefix.as_str());
                vec![Scheme::AnySignature { header: name.as_str(), prefix }]
            }
            Some(MappedProof::StandardWebhooks) | None => self.proofs.to_vec(),
        }
    }

    /// Whether bodies of this content type are accepted.
    pub(crate) fn takes(&self, content_type: Option<&str>) -> bool {
        let is_read = |header| self.content_types.iter().any(|known| is_of_type(header, known));
        self.content_types.is_empty() || content_type.is_some_and(is_read)
    }
}

/// A delivery without effect, for testing a hook.
#[derive(Debug)]
pub(crate) struct Ping {
    /// In addition to content type, id and proof.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) body: &'static str,
}

/// What a user must configure at the sender.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) content_type: &'static str,
    pub(crate) events: &'static [&'static str],
    /// Instructions, one line each. The secret is empty if the hook has none.
    pub(crate) instructions: fn(url: &str, secret: &str, mapping: Option<&Mapping>) -> Vec<String>,
}

pub(crate) fn descriptor(provider: Provider) -> &'static Descriptor {
    match provider {
        Provider::GitHub => &github::DESCRIPTOR,
        Provider::AzureDevOps => &azure::DESCRIPTOR,
        Provider::GitLab => &gitlab::DESCRIPTOR,
        Provider::Gitea => &gitea::DESCRIPTOR,
        Provider::Bitbucket => &bitbucket::DESCRIPTOR,
        Provider::Distribution => &distribution::DESCRIPTOR,
        Provider::DockerHub => &docker_hub::DESCRIPTOR,
        Provider::Acr => &acr::DESCRIPTOR,
        Provider::Ghcr => &ghcr::DESCRIPTOR,
        Provider::Harbor => &harbor::DESCRIPTOR,
        Provider::Quay => &quay::DESCRIPTOR,
        Provider::Generic => &generic::DESCRIPTOR,
    }
}

const MIB: u64 = 1024 * 1024;

/// Longer bodies are read on a blocking thread, so that they do not hold up other connections of this thread.
const READ_AT_ONCE: usize = 64 << 10;

///
/// # Errors
/// [`Refusal::Unavailable`] if the body cannot be read now; the sender retries.
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
        tracing::error!("the body of a verified webhook cannot be read: {error}");
        Refusal::Unavailable
    })
}

/// The verdict and events of a body from `sender`. The body is trusted: callers verify its signature first. `home` is the
/// login server of the registry that it is for.
#[must_use]
pub fn meaning(
    sender: &Sender,
    home: Option<&RegistryHost>,
    kind: &str,
    body: &[u8],
) -> (Verdict, Vec<EventKind>) {
    let hook = match "tried".parse() {
        Ok(hook) => hook,
        Err(_) => unreachable!("a word is a hook's id"),
    };
    let kind = Some(kind.to_owned());
    let mapping = sender.mapping().cloned();
    let provider = descriptor(sender.provider());
    let home = home.filter(|_| provider.may_omit_host).cloned();
    let envelope = Envelope { hook, mapping, home, kind, id: None, content_type: None };
    match (provider.read)(&envelope, body) {
        Meaning::Record(reading) => (reading.verdict, reading.events),
        Meaning::Never { .. } => {
            let why = "nothing in it can matter".to_owned();
            (Verdict::OfNoInterest { why }, Vec::new())
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

//! One webhook request: what came, and what became of it.

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind};
use crate::hook::Provider;
use crate::id::{DeliveryId, EventId, HookId, RegistryName, RunPrefix};
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;

/// A verified delivery, as the ledger keeps it: with the events that it means, and beside its body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The provider's id, the same when it is sent again.
    pub id: DeliveryId,
    /// The hook it came to.
    pub hook: HookId,
    /// The hook's provider.
    pub provider: Provider,
    /// The hook's registry.
    pub registry: RegistryName,
    /// The registry's, which tells it from others of its name.
    pub prefix: RunPrefix,
    /// The provider's word for its type: `push`.
    pub kind: String,
    /// When it was accepted first.
    pub received: Timestamp,
    /// SHA-256 of its body in hex: the same id with another body is a conflict.
    pub body_sha256: String,
    /// Length of its body in bytes.
    pub body_bytes: u64,
    /// What became of it.
    pub verdict: Verdict,
    /// W3C trace context of its acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// What it means, in the order of its body: an event each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub meaning: Vec<EventKind>,
    /// Parts of it that could not be read, beside those that could: why, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

impl Delivery {
    /// The ids of its events, in order.
    pub fn event_ids(&self) -> impl Iterator<Item = EventId> {
        (0..self.meaning.len()).map(|place| EventId::of_delivery(&self.hook, &self.id, place))
    }

    /// Its events, in order.
    pub fn events(&self) -> impl Iterator<Item = Event> {
        self.event_ids().zip(&self.meaning).map(|(id, kind)| Event {
            id,
            registry: self.registry.clone(),
            prefix: self.prefix,
            received: self.received,
            trace: self.trace.clone(),
            kind: kind.clone(),
        })
    }
}

/// What became of a verified delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It means something.
    Events,
    /// The provider sent a ping.
    Ping,
    /// Nothing that gantry acts on.
    OfNoInterest {
        /// Why, in words.
        why: String,
    },
    /// The signature holds, the body cannot be read.
    Unreadable {
        /// Why, in words.
        why: String,
    },
    /// An earlier delivery of the same id had another body. That one stands.
    Conflict,
}

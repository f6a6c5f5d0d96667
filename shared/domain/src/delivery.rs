//! Deliveries: webhook requests and their results.

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind};
use crate::hook::Provider;
use crate::id::{DeliveryId, EventId, HookId, RegistryName, RunPrefix};
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;

/// The record of a verified delivery, with its events. Its body is stored beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The provider's id. Redeliveries keep their id.
    pub id: DeliveryId,
    /// The hook that received it.
    pub hook: HookId,
    /// The hook's provider.
    pub provider: Provider,
    /// The hook's registry.
    pub registry: RegistryName,
    /// The registry's prefix, which distinguishes it from others of the same name.
    pub prefix: RunPrefix,
    /// The provider's type of the delivery, like `push`.
    pub kind: String,
    /// When it was first accepted.
    pub received: Timestamp,
    /// The SHA-256 of its body in hexadecimal. The same id with another body is a conflict.
    pub body_sha256: String,
    /// The length of its body in bytes.
    pub body_bytes: u64,
    /// The result.
    pub verdict: Verdict,
    /// The W3C trace context of its acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// The kinds of its events, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub meaning: Vec<EventKind>,
    /// Why some parts of it could not be read, while others could.
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

/// The result of a verified delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It caused events.
    Events,
    /// The provider sent a ping.
    Ping,
    /// Nothing that gantry acts on.
    OfNoInterest {
        /// The reason, in words.
        why: String,
    },
    /// The signature is valid, but the body cannot be read.
    Unreadable {
        /// The reason, in words.
        why: String,
    },
    /// An earlier delivery with this id had another body, which remains valid.
    Conflict,
}

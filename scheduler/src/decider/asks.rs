//! Queries to code hosts. They run beside the decider's loop, so a slow host delays only its own events.

use std::sync::Arc;

use gantry_domain::id::EventId;
use gantry_seams::due::Due;

use super::Decider;
use crate::beside::{Beside, Bounds};

/// Each query is a process, which waits for a slow host.
const BOUNDS: Bounds = Bounds { a_host: 4, at_once: 32, most: 4096 };

/// Whether deciding an event may ask its code host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MayAsk {
    /// Yes; the caller can wait for the host.
    Yes,
    /// No; other events wait for the caller.
    NotNow,
}

/// The events for which this process is querying a code host, or waits to.
#[derive(Debug)]
pub struct Asks(Arc<Beside<EventId>>);

impl Default for Asks {
    fn default() -> Self {
        Self(Arc::new(Beside::new(BOUNDS)))
    }
}

impl Asks {
    pub(crate) fn has(&self, event: &EventId) -> bool {
        self.0.has(event)
    }

    pub(super) fn count(&self) -> usize {
        self.0.count()
    }

    /// Waits until no query is running or waiting. Returns `false` if there was none.
    pub(super) async fn settled(&self) -> bool {
        self.0.settled().await
    }
}

impl Decider {
    /// Spawns a tokio task that decides an event once it may query `host`. Returns `false` if too many events wait, or
    /// this one does already.
    pub(super) fn decide_with_host(&self, due: &Due, host: String) -> bool {
        let Some(begun) = self.asks.0.begin(&due.event) else { return false };
        let (decider, due) = (self.clone(), due.clone());
        tokio::spawn(async move {
            let _until_it_ends = begun;
            let Some(_turn) = decider.asks.0.turn(&host).await else { return };
            if let Err(error) = decider.decide_event(&due, MayAsk::Yes).await {
                tracing::warn!(event.id = %due.event, "event {} stays undecided for now: {error}", due.event);
            }
        });
        true
    }
}

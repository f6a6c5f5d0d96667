//! Queries to code hosts. They run beside the decider's loop, so a slow host delays only its own events.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_domain::id::EventId;
use gantry_seams::due::Due;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Decider;

/// How many queries one host gets at once. Each is a process, which waits for a slow host.
const A_HOST: usize = 4;

/// How many queries run at once in all.
const AT_ONCE: usize = 32;

/// How many events may wait for a query. The others stay due in the store for a later tick.
const MOST: usize = 4096;

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
pub struct Asks {
    events: Mutex<HashSet<EventId>>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
    one_ended: Notify,
}

impl Default for Asks {
    fn default() -> Self {
        Self {
            events: Mutex::default(),
            hosts: Mutex::default(),
            all: Arc::new(Semaphore::new(AT_ONCE)),
            one_ended: Notify::new(),
        }
    }
}

impl Asks {
    pub(crate) fn has(&self, event: &EventId) -> bool {
        self.events().contains(event)
    }

    pub(super) fn count(&self) -> usize {
        self.events().len()
    }

    /// Waits until no query is running or waiting. Returns `false` if there was none.
    pub(super) async fn settled(&self) -> bool {
        let mut waited = false;
        loop {
            let ended = self.one_ended.notified();
            if self.count() == 0 {
                return waited;
            }
            waited = true;
            ended.await;
        }
    }

    /// Waits until `host` may be queried. The permit of the host comes first: an event that waits for a busy host holds
    /// none of the permits that all hosts share.
    async fn turn(&self, host: &str) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let of_host = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            hosts.retain(|_, turns| Arc::strong_count(turns) > 1);
            let turns = hosts.entry(host.to_owned());
            Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(A_HOST))))
        };
        let of_host = of_host.acquire_owned().await.ok()?;
        Some((of_host, Arc::clone(&self.all).acquire_owned().await.ok()?))
    }

    fn events(&self) -> MutexGuard<'_, HashSet<EventId>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes an event from [`Asks`] when its tokio task ends, even by a panic.
struct Asked {
    asks: Arc<Asks>,
    event: EventId,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.asks.events().remove(&self.event);
        self.asks.one_ended.notify_waiters();
    }
}

impl Decider {
    /// Spawns a tokio task that decides an event once it may query `host`. Returns `false` if too many events wait, or
    /// this one does already.
    pub(super) fn decide_with_host(&self, due: &Due, host: String) -> bool {
        if self.asks.count() >= MOST || !self.asks.events().insert(due.event.clone()) {
            return false;
        }
        let asked = Asked { asks: Arc::clone(&self.asks), event: due.event.clone() };
        let (decider, due) = (self.clone(), due.clone());
        tokio::spawn(async move {
            let Some(_turn) = decider.asks.turn(&host).await else { return };
            if let Err(error) = decider.decide_event(&due, MayAsk::Yes).await {
                tracing::warn!(event.id = %asked.event, "event {} stays undecided for now: {error}", asked.event);
            }
        });
        true
    }
}

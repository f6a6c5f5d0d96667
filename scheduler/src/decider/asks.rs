//! Asks of code hosts, beside the loop that decides: a host that is silent holds up no events but its own.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_domain::id::EventId;
use gantry_seams::events::Due;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Decider;

/// How many asks go to one host at once. A silent one is waited for, and each is a process of its own.
const A_HOST: usize = 4;

/// How many asks go on in all.
const AT_ONCE: usize = 32;

/// How many events may wait for their turn. More stay in the store and are looked at later.
const MOST: usize = 4096;

/// Whether deciding an event may ask its code host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MayAsk {
    /// It takes as long as the host does.
    Yes,
    /// Others wait behind it.
    NotNow,
}

/// The events whose code host is being asked, by this process.
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

    /// Waits until nothing is being asked. Answers whether something was.
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

    /// The turn of an event at its host. Whoever waits for a host takes nobody else's place.
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

/// Takes an event off the list, however its task ends.
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
    /// Decides an event in a task of its own, once it is its turn to ask `host`. Answers `false` if too many wait for
    /// theirs, or this one does already.
    pub(super) fn decide_with_host(&self, due: &Due, host: String) -> bool {
        if self.asks.count() >= MOST || !self.asks.events().insert(due.event.clone()) {
            return false;
        }
        let asked = Asked { asks: Arc::clone(&self.asks), event: due.event.clone() };
        let (decider, due) = (self.clone(), due.clone());
        tokio::spawn(async move {
            let Some(_turn) = decider.asks.turn(&host).await else { return };
            if let Err(error) = decider.decide_event(&due, MayAsk::Yes).await {
                tracing::warn!(event.id = %asked.event, "event {} is decided later: {error}", asked.event);
            }
        });
        true
    }
}

//! Limits the memory that the bodies of requests in flight take together, over all connections.
//!
//! When the limit is reached, the oldest unfinished body is dropped. An honest sender is done in a moment, so slow
//! senders only displace each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A body younger than this is never dropped: in a burst, the first senders are served.
const GRACE: Duration = Duration::from_secs(1);

/// What a request takes in addition to its body: head, buffers and task.
const REQUEST: u64 = 16 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct ByteBudget(Arc<Mutex<Ledger>>);

#[derive(Debug)]
struct Ledger {
    free: u64,
    /// In order of arrival.
    holders: BTreeMap<u64, Holder>,
    next: u64,
}

#[derive(Debug)]
struct Holder {
    bytes: u64,
    since: Instant,
    /// Notified when this holder is dropped to make room; `None` once it can no longer be dropped.
    gave_way: Option<Arc<Notify>>,
}

/// A share of the budget, returned when dropped.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: ByteBudget,
    holder: u64,
    gave_way: Arc<Notify>,
}

impl ByteBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(Ledger { free: bytes, holders: BTreeMap::new(), next: 0 })))
    }

    /// Takes the share of a request without a body; `None` if the budget is exhausted.
    pub(crate) fn hold(&self) -> Option<HeldBytes> {
        let gave_way = Arc::new(Notify::new());
        let mut ledger = self.lock();
        let holder = ledger.next;
        ledger.next += 1;
        if !ledger.make_room(REQUEST, holder) {
            return None;
        }
        ledger.free -= REQUEST;
        let (bytes, since) = (REQUEST, Instant::now());
        ledger.holders.insert(holder, Holder { bytes, since, gave_way: Some(gave_way.clone()) });
        Some(HeldBytes { budget: self.clone(), holder, gave_way })
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Whether `bytes` are free, after dropping the oldest bodies if necessary. Never drops `asking` itself.
    fn make_room(&mut self, bytes: u64, asking: u64) -> bool {
        if self.free >= bytes {
            return true;
        }
        let slow: Vec<u64> = self
            .holders
            .iter()
            .take_while(|(_, holder)| holder.since.elapsed() >= GRACE)
            .filter(|(number, holder)| **number != asking && holder.gave_way.is_some())
            .map(|(number, _)| *number)
            .collect();
        for number in slow {
            let Some(holder) = self.holders.remove(&number) else { continue };
            self.free += holder.bytes;
            holder.gave_way.iter().for_each(|gave_way| gave_way.notify_one());
            if self.free >= bytes {
                return true;
            }
        }
        false
    }
}

impl HeldBytes {
    /// Takes `more` bytes; returns whether the budget allows it.
    pub(crate) fn grow(&mut self, more: u64) -> bool {
        let mut ledger = self.budget.lock();
        if !ledger.make_room(more, self.holder) {
            return false;
        }
        let Some(holder) = ledger.holders.get_mut(&self.holder) else { return false };
        holder.bytes += more;
        ledger.free -= more;
        true
    }

    /// Protects this share from being dropped from now on.
    pub(crate) fn stay(&self) {
        if let Some(holder) = self.budget.lock().holders.get_mut(&self.holder) {
            holder.gave_way = None;
        }
    }

    /// Completes when this share is dropped to make room.
    pub(crate) fn gave_way(&self) -> impl Future<Output = ()> + 'static {
        let gave_way = Arc::clone(&self.gave_way);
        async move { gave_way.notified().await }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        let mut ledger = self.budget.lock();
        if let Some(holder) = ledger.holders.remove(&self.holder) {
            ledger.free += holder.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ByteBudget {
        /// Makes all current holders older by this much.
        fn age(&self, by: Duration) {
            for holder in self.lock().holders.values_mut() {
                holder.since = holder.since.checked_sub(by).unwrap();
            }
        }
    }

    fn has_given_way(held: &HeldBytes) -> bool {
        futures_util::FutureExt::now_or_never(held.gave_way()).is_some()
    }

    #[test]
    fn dropping_returns_the_budget() {
        let budget = ByteBudget::new(2 * REQUEST + 10);
        let mut held = budget.hold().unwrap();
        assert!(held.grow(6));
        let mut other = budget.hold().unwrap();
        assert!(!other.grow(5));
        assert!(held.grow(4));
        assert!(budget.hold().is_none());
        drop((held, other));
        assert!(budget.hold().unwrap().grow(10 + REQUEST));
        assert_eq!(budget.lock().free, 2 * REQUEST + 10);
    }

    #[test]
    fn the_oldest_unverified_bodies_are_dropped_first() {
        let budget = ByteBudget::new(4 * REQUEST + 100);
        let held: Vec<HeldBytes> = (0..3).map(|_| budget.hold().unwrap()).collect();
        let [mut proved, mut slow, mut slower] = <[HeldBytes; 3]>::try_from(held).unwrap();
        assert!(proved.grow(20) && slow.grow(30) && slower.grow(50));
        proved.stay();
        budget.age(GRACE);
        let mut honest = budget.hold().unwrap();
        assert!(!has_given_way(&slow), "there was room");
        assert!(honest.grow(10));
        assert!(has_given_way(&slow) && !has_given_way(&slower) && !has_given_way(&proved));
        assert!(!slow.grow(1), "it is over");
        drop(slow);
        assert!(honest.grow(20 + REQUEST + 50 + REQUEST));
        assert!(has_given_way(&slower));
        assert!(!honest.grow(1), "the one that stays, stays");
        drop((proved, slower, honest));
        assert_eq!(budget.lock().free, 4 * REQUEST + 100);
    }
}

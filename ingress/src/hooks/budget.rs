//! How much room the bodies of requests in flight may take together, over all connections.
//!
//! When there is none, the body that has been coming for longest gives way: an honest sender is done in a moment, so
//! whoever sends slowly holds up only others of that kind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A body that came in this time gives way to none: in a burst, those who came first are served.
const GRACE: Duration = Duration::from_secs(1);

/// What a request takes beside its body: its head, its buffers, its task.
const REQUEST: u64 = 16 * 1024;

/// The room that is shared.
#[derive(Debug, Clone)]
pub(crate) struct ByteBudget(Arc<Mutex<Ledger>>);

#[derive(Debug)]
struct Ledger {
    free: u64,
    /// In the order in which they came.
    holders: BTreeMap<u64, Holder>,
    next: u64,
}

#[derive(Debug)]
struct Holder {
    bytes: u64,
    since: Instant,
    /// Rings when this holder gave way; `None` once it does not any more.
    gave_way: Option<Arc<Notify>>,
}

/// Some room that is held; dropping gives it back.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: ByteBudget,
    holder: u64,
    gave_way: Arc<Notify>,
}

impl ByteBudget {
    /// A budget of this many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(Ledger { free: bytes, holders: BTreeMap::new(), next: 0 })))
    }

    /// Holds the room of a request without a body; `None` if there is none.
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
    /// Whether `bytes` are free, if need be after the slowest gave way. `asking` itself does not.
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
    /// Holds `more` bytes as well; answers whether there was room.
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

    /// Gives way to none from here.
    pub(crate) fn stay(&self) {
        if let Some(holder) = self.budget.lock().holders.get_mut(&self.holder) {
            holder.gave_way = None;
        }
    }

    /// Comes to an end when this gave way to others.
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
        /// As if all who hold something had come this much earlier.
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
    fn what_is_dropped_is_free_again() {
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
    fn the_slowest_give_way_and_whoever_proved_itself_does_not() {
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

//! How many bytes of unverified bodies may be held at once, over all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes that are free.
#[derive(Debug, Clone)]
pub(crate) struct ByteBudget(Arc<AtomicU64>);

/// Some bytes that are held; dropping gives them back.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: ByteBudget,
    bytes: u64,
}

impl ByteBudget {
    /// A budget of this many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Holds nothing yet.
    pub(crate) fn hold(&self) -> HeldBytes {
        HeldBytes { budget: self.clone(), bytes: 0 }
    }
}

impl HeldBytes {
    /// Holds `more` bytes as well; answers whether there was room.
    pub(crate) fn grow(&mut self, more: u64) -> bool {
        let taken = self
            .budget
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(more));
        if taken.is_ok() {
            self.bytes += more;
        }
        taken.is_ok()
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_free_again() {
        let budget = ByteBudget::new(10);
        let mut held = budget.hold();
        assert!(held.grow(6));
        assert!(!budget.hold().grow(5));
        assert!(held.grow(4));
        drop(held);
        assert!(budget.hold().grow(10));
    }
}

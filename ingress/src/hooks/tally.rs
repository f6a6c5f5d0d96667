//! What came to each hook since this process started. For people: a hook whose secret is wrong must be seen.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use gantry_domain::id::HookId;

use crate::api::types::HookCounts;

/// Far more hooks than an installation has; those beyond are not counted.
const MOST_HOOKS: usize = 10_000;

/// The counts. Only hooks that exist are counted one by one.
#[derive(Debug, Default)]
pub(crate) struct HookTally {
    by_hook: Mutex<HashMap<HookId, HookCounts>>,
    unknown: AtomicU64,
}

impl HookTally {
    /// Counts something that came to a hook.
    pub(crate) fn count(&self, hook: &HookId, add: impl FnOnce(&mut HookCounts)) {
        let mut by_hook = self.by_hook.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = by_hook.get_mut(hook) {
            add(counts);
        } else if by_hook.len() < MOST_HOOKS {
            add(by_hook.entry(hook.clone()).or_default());
        }
    }

    /// Counts something that came to an address of no hook.
    pub(crate) fn count_unknown(&self) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
    }

    /// What came to addresses of no hook.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// What came to one hook.
    pub(crate) fn of(&self, hook: &HookId) -> HookCounts {
        let by_hook = self.by_hook.lock().unwrap_or_else(PoisonError::into_inner);
        by_hook.get(hook).copied().unwrap_or_default()
    }

    /// The hooks at which something was refused, unreadable or not taken.
    pub(crate) fn failing(&self) -> Vec<(HookId, HookCounts)> {
        let by_hook = self.by_hook.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failing: Vec<_> = by_hook
            .iter()
            .filter(|(_, counts)| counts.unauthorized + counts.unreadable + counts.unavailable > 0)
            .map(|(hook, counts)| (hook.clone(), *counts))
            .collect();
        failing.sort_by(|a, b| a.0.cmp(&b.0));
        failing
    }
}

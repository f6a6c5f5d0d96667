//! Counts what arrived at each hook since this process started, so that people notice a hook with a wrong secret.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_domain::id::HookId;

use gantry_api::HookCounts;

/// Far more hooks than an installation has. Hooks beyond this are not counted.
const MOST_HOOKS: usize = 10_000;

/// How often refusals of one hook are logged: anybody can cause them, and must not be able to flood the log.
const TELL_EACH: Duration = Duration::from_secs(60);

/// Counts requests to hooks that do not exist, so that these take as long as a refusal by an existing hook. Real ids
/// are longer, so it collides with none.
const NOBODY: &str = "nobody";

/// The counts, one set for each existing hook.
#[derive(Debug)]
pub(crate) struct HookTally {
    by_hook: Mutex<HashMap<HookId, HookCounts>>,
    refused: Mutex<HashMap<HookId, Refused>>,
    nobody: HookId,
}

impl Default for HookTally {
    fn default() -> Self {
        let Ok(nobody) = NOBODY.parse() else { unreachable!("six letters are an id") };
        Self { by_hook: Mutex::default(), refused: Mutex::default(), nobody }
    }
}

/// The refusals of one hook since they were last logged.
#[derive(Debug, Default)]
struct Refused {
    told: Option<Instant>,
    since: u64,
}

impl HookTally {
    pub(crate) fn count(&self, hook: &HookId, add: impl FnOnce(&mut HookCounts)) {
        let mut by_hook = self.by_hook.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = by_hook.get_mut(hook) {
            add(counts);
        } else if by_hook.len() < MOST_HOOKS {
            add(by_hook.entry(hook.clone()).or_default());
        }
    }

    /// Counts a refused delivery. If it is time to log, returns how many were refused since the last time.
    pub(crate) fn count_refused(&self, hook: &HookId) -> Option<u64> {
        self.count(hook, |counts| counts.unauthorized += 1);
        let mut by_hook = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if by_hook.len() >= MOST_HOOKS && !by_hook.contains_key(hook) {
            return None;
        }
        let refused = by_hook.entry(hook.clone()).or_default();
        refused.since += 1;
        if refused.told.is_some_and(|told| told.elapsed() < TELL_EACH) {
            return None;
        }
        refused.told = Some(Instant::now());
        Some(std::mem::take(&mut refused.since))
    }

    /// Counts a request to a hook that does not exist.
    pub(crate) fn count_unknown(&self) {
        let _told_by_status = self.count_refused(&self.nobody);
    }

    /// How many requests went to hooks that do not exist.
    pub(crate) fn unknown(&self) -> u64 {
        self.of(&self.nobody).unauthorized
    }

    pub(crate) fn of(&self, hook: &HookId) -> HookCounts {
        let by_hook = self.by_hook.lock().unwrap_or_else(PoisonError::into_inner);
        by_hook.get(hook).copied().unwrap_or_default()
    }

    /// The hooks with refused, unreadable or unaccepted deliveries.
    pub(crate) fn failing(&self) -> Vec<(HookId, HookCounts)> {
        let by_hook = self.by_hook.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failing: Vec<_> = by_hook
            .iter()
            .filter(|(hook, _)| **hook != self.nobody)
            .filter(|(_, counts)| counts.unauthorized + counts.unreadable + counts.unavailable > 0)
            .map(|(hook, counts)| (hook.clone(), *counts))
            .collect();
        failing.sort_by(|a, b| a.0.cmp(&b.0));
        failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_and_logged_once_a_minute() {
        let (tally, hook) = (HookTally::default(), "hook".parse().unwrap());
        assert_eq!(tally.count_refused(&hook), Some(1));
        assert_eq!(tally.count_refused(&hook), None);
        assert_eq!(tally.count_refused(&"other".parse().unwrap()), Some(1));
        assert_eq!(tally.of(&hook).unauthorized, 2);
        tally.count_unknown();
        assert_eq!((tally.unknown(), tally.failing().len()), (1, 2), "it is a hook of no list");
    }
}

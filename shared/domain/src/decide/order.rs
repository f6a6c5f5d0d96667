//! The order in which runs are admitted and taken: by class, with a bound on how often a run is passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::run::{Purpose, Rank};

/// How often a run is passed over by runs of the next better class, before it comes first. Counted in runs and not in
/// time: after a long backlog, age would put all of it before a new run of a person.
const PASSED: u32 = 32;

/// The class of a run. The best comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A person or program requested it, and waits for it.
    Person,
    /// A push or a pull request started it.
    Push,
    /// A timer started it.
    Timer,
    /// New base images started it.
    Wave,
    /// It only reads a source.
    Scan,
}

impl Class {
    /// All classes, the best first.
    pub const ALL: [Self; 5] = [Self::Person, Self::Push, Self::Timer, Self::Wave, Self::Scan];

    /// The class of a run.
    #[must_use]
    pub fn of(purpose: &Purpose, cause: &Cause) -> Self {
        match (purpose, cause) {
            (Purpose::Scan, _) => Self::Scan,
            (Purpose::Execute | Purpose::Leg(_), Cause::Request { .. }) => Self::Person,
            (
                Purpose::Execute | Purpose::Leg(_),
                Cause::Push { .. } | Cause::PullRequest { .. } | Cause::Saved { .. },
            ) => Self::Push,
            (Purpose::Execute | Purpose::Leg(_), Cause::Timer { .. }) => Self::Timer,
            (Purpose::Execute | Purpose::Leg(_), Cause::BaseImages { .. }) => Self::Wave,
        }
    }

    /// Its place among the classes, from 0 for the best.
    #[must_use]
    pub fn place(self) -> u8 {
        match self {
            Self::Person => 0,
            Self::Push => 1,
            Self::Timer => 2,
            Self::Wave => 3,
            Self::Scan => 4,
        }
    }
}

/// The rank of a run in its pool. `turn` counts the runs that were admitted to the pool before.
///
/// Few runs of each class are ready at once, so that a run of a better class has the better rank. But `PASSED` runs of the
/// next better class, or twice as many of the one above it, pass a ready run at most.
#[must_use]
pub fn rank(class: Class, turn: u64) -> Rank {
    let turn = i64::try_from(turn).unwrap_or(i64::MAX);
    Rank(turn.saturating_add(i64::from(class.place()) * i64::from(PASSED)))
}

/// Whose turn it is: the runs of each class are admitted from one registry after another, and within a registry from one
/// task after another. One for each pool, with registries, and one for each registry, with tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// Who was served last in each class.
    #[serde(default)]
    last: BTreeMap<Class, String>,
    /// How often runs of a better class were admitted while runs of this class waited.
    #[serde(default)]
    passed: BTreeMap<Class, u32>,
}

impl Turns {
    /// Who was served last: the turn is that of the next one.
    #[must_use]
    pub fn last(&self, class: Class) -> Option<&str> {
        self.last.get(&class).map(String::as_str)
    }

    /// A run of `who` was admitted, or is about to be.
    pub fn served(&mut self, class: Class, who: &str) {
        self.last.insert(class, who.to_owned());
        self.passed.remove(&class);
    }

    /// A run of a better class was admitted while runs of `class` waited.
    pub fn passed(&mut self, class: Class) {
        let passed = self.passed.entry(class).or_default();
        *passed = passed.saturating_add(1);
    }

    /// The class that comes before `class`, because it was passed over too often; the one that was passed most often.
    #[must_use]
    pub fn overdue(&self, class: Class) -> Option<Class> {
        let overdue =
            self.passed.iter().filter(|(other, passed)| **other > class && **passed >= PASSED);
        overdue.max_by_key(|(_, passed)| **passed).map(|(other, _)| *other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_comes_before_a_push_a_timer_a_wave_and_a_scan_that_became_ready_shortly_before() {
        for (better, worse) in Class::ALL.iter().zip(&Class::ALL[1..]) {
            assert!(better < worse && better.place() < worse.place());
            assert!(rank(*better, 131) < rank(*worse, 100), "{better:?} before {worse:?}");
        }
    }

    #[test]
    fn within_a_class_runs_are_taken_in_the_order_of_their_admission() {
        assert!(Class::ALL.iter().all(|class| rank(*class, 7) < rank(*class, 8)));
    }

    /// One slot, and two ready runs of each class at any time.
    #[test]
    fn every_class_is_taken_while_no_class_ever_runs_dry() {
        let mut turn = 0;
        let mut admit = |class| {
            turn += 1;
            (rank(class, turn), class)
        };
        let mut ready: Vec<(Rank, Class)> =
            Class::ALL.iter().flat_map(|class| [*class, *class]).map(&mut admit).collect();
        let mut taken: BTreeMap<Class, usize> = BTreeMap::new();
        for _ in 0..1000 {
            ready.sort_unstable();
            let (_, class) = ready.remove(0);
            *taken.entry(class).or_default() += 1;
            ready.push(admit(class));
        }
        // Both ready scans are taken whenever 4 × 32 runs have passed them.
        let fewest = 2 * (1000 / (4 * PASSED as usize));
        assert!(Class::ALL.iter().all(|class| taken[class] >= fewest), "{taken:?}");
        assert!(taken[&Class::Person] > taken.values().sum::<usize>() * 3 / 4, "{taken:?}");
    }

    #[test]
    fn a_class_that_was_passed_over_too_often_is_overdue_until_it_is_served() {
        let mut turns = Turns::default();
        for _ in 0..PASSED {
            assert_eq!(turns.overdue(Class::Person), None);
            turns.passed(Class::Wave);
        }
        turns.passed(Class::Push);
        assert_eq!(turns.overdue(Class::Person), Some(Class::Wave));
        assert_eq!(turns.overdue(Class::Wave), None, "only before better classes");
        turns.served(Class::Wave, "web");
        assert_eq!((turns.overdue(Class::Person), turns.last(Class::Wave)), (None, Some("web")));
        assert_eq!(turns.last(Class::Push), None);
    }
}

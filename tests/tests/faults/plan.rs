//! The plan of a round, derived from its seed: pushes, and when the process is killed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The size of rounds, and their duration without kills.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// The time from a process's start to its last action. Each moment within it is equally likely for a kill.
    pub(crate) lifetime: Duration,
    /// The most branches; at least two.
    pub(crate) branches: usize,
    /// The most pushes to a branch; at least one.
    pub(crate) pushes: usize,
    /// The most kills; at least one.
    pub(crate) kills: usize,
}

/// A round.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) branches: Vec<Branch>,
    /// The first process is killed this long after its start, before anything is set up.
    pub(crate) first_kill: Option<Duration>,
    /// Each later process is killed this long after its start.
    pub(crate) kills: Vec<Duration>,
    /// Whether the next process ends the leases of the dead one, or they expire.
    pub(crate) ends_leases: bool,
}

/// A branch with its pushes.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    /// The number of tasks that watch it.
    pub(crate) tasks: usize,
    pub(crate) pushes: Vec<Push>,
}

/// A push.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    /// The pause after the previous push was accepted.
    pub(crate) pause: Duration,
    /// Whether it is delivered twice concurrently.
    pub(crate) is_doubled: bool,
}

impl Push {
    pub(crate) const AT_ONCE: Self = Self { pause: Duration::ZERO, is_doubled: false };
}

impl Plan {
    pub(crate) fn of(seed: u64, scale: Scale) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let branches = random.random_range(2..=scale.branches);
        let mut plan = Self {
            branches: (0..branches).map(|_| branch(&mut random, scale)).collect(),
            first_kill: None,
            kills: Vec::new(),
            ends_leases: random.random(),
        };
        if random.random() {
            plan.first_kill = Some(up_to(&mut random, scale.lifetime / 4));
        }
        for _ in 0..random.random_range(1..=scale.kills) {
            plan.kills.push(up_to(&mut random, scale.lifetime));
        }
        plan
    }
}

fn branch(random: &mut StdRng, scale: Scale) -> Branch {
    let pushes = random.random_range(1..=scale.pushes);
    let pushes = (0..pushes).map(|_| Push {
        pause: up_to(random, scale.lifetime / 4),
        is_doubled: random.random_ratio(1, 3),
    });
    let pushes = pushes.collect();
    Branch { tasks: random.random_range(1..=2), pushes }
}

fn up_to(random: &mut StdRng, most: Duration) -> Duration {
    random.random_range(Duration::ZERO..=most)
}

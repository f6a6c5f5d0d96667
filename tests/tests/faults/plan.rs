//! What happens in a round, as its seed says it: pushes, and the moments at which the process is killed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How large rounds are, and how long they take when nobody is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// From the start of a process to the last thing that it does. Every moment of it is as likely to be its last.
    pub(crate) lifetime: Duration,
    /// At most so many branches, and at least two.
    pub(crate) branches: usize,
    /// At most so many pushes to a branch, and at least one.
    pub(crate) pushes: usize,
    /// At most so many kills, and at least one.
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
    /// Whether the next process ends the leases of the dead one, or waits until they lapse.
    pub(crate) ends_leases: bool,
}

/// A branch that is pushed to.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    /// How many tasks watch it.
    pub(crate) tasks: usize,
    pub(crate) pushes: Vec<Push>,
}

/// A push.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    /// Since the one before was accepted.
    pub(crate) pause: Duration,
    /// It is delivered twice at once.
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

//! How long to wait before trying again.

use std::time::Duration;

/// Doubles from `first` to at most `most`, each wait shortened by up to a quarter at random, so that
/// many who failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// The first wait is about `first`, none is longer than `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, first, most }
    }

    /// The wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.most);
        wait.mul_f64(rand::random_range(0.75..=1.0))
    }

    /// It worked: begin again with the first wait.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

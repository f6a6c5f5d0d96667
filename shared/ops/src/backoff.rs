//! Growing pauses between retries.

use std::time::Duration;

/// Doubles from `first` to at most `most`. Each pause is shortened by up to a quarter at random, so that clients that
/// failed together do not retry together.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Starts at about `first`; no pause is longer than `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, first, most }
    }

    /// The pause before the next try.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.most);
        wait.mul_f64(rand::random_range(0.75..=1.0))
    }

    /// Starts again with the first pause, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

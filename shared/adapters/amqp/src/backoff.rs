//! Growing pauses between retries.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles from 100 ms to 5 s. Each pause is shortened by up to a quarter at random, so that clients do not all
/// reconnect at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    pub(crate) async fn pause(&mut self) {
        let pause = self.next.mul_f64(rand::random_range(0.75..=1.0));
        self.next = (self.next * 2).min(LONGEST);
        tokio::time::sleep(pause).await;
    }

    /// Makes the next pause short again, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

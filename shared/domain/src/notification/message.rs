//! Messages: what a notification sends, and what came of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{MessageId, News, NotificationId, NotificationName};
use crate::id::RunPrefix;
use crate::timestamp::Timestamp;

/// The pauses after failed attempts, as Standard Webhooks recommends them. After the last one, a message is given up.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
];

/// A message, and whether its receiver has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The same in each attempt, so that a receiver can tell that it has it already.
    pub id: MessageId,
    /// The notification.
    pub notification: NotificationId,
    /// The prefix of its registry.
    pub registry: RunPrefix,
    /// Its name there.
    pub name: NotificationName,
    /// What it says.
    pub news: News,
    /// When it was created.
    pub created: Timestamp,
    /// How often it was sent, or an attempt to send it began.
    pub attempts: u32,
    /// Whether its receiver has it.
    pub sending: Sending,
    /// What came of the last attempt that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// Whether the receiver of a message has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "sending")]
pub enum Sending {
    /// It is to be sent.
    Due {
        /// Not before this time.
        at: Timestamp,
        /// How many attempts have failed since it was created, or since somebody asked to send it again.
        failures: u32,
    },
    /// Its receiver has it.
    Sent {
        /// Since when.
        at: Timestamp,
    },
    /// It is not sent any more.
    GivenUp {
        /// Since when.
        at: Timestamp,
    },
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When it came.
    pub at: Timestamp,
    /// The HTTP status, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What it means, and the remedy. Names neither the address nor a secret.
    pub text: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl Sending {
    /// What follows an attempt that failed at `now`, after `failures` others. `asked` is the pause that the receiver
    /// asked for.
    #[must_use]
    pub fn after_failure(failures: u32, now: Timestamp, asked: Option<Duration>) -> Self {
        let pause = usize::try_from(failures).ok().and_then(|failures| PAUSES.get(failures));
        match pause {
            Some(pause) => {
                let pause = asked.map_or(*pause, |asked| asked.max(*pause));
                Self::Due { at: now.after(pause), failures: failures.saturating_add(1) }
            }
            None => Self::GivenUp { at: now },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_attempts_within_eighteen_hours() {
        let (mut now, mut failures, mut attempts) = (Timestamp::default(), 0, 1);
        while let Sending::Due { at, failures: failed } =
            Sending::after_failure(failures, now, None)
        {
            (now, failures, attempts) = (at, failed, attempts + 1);
        }
        assert_eq!(attempts, 7);
        assert_eq!(
            now.since(Timestamp::default()).as_secs(),
            5 + 300 + 1800 + 7200 + 18_000 + 36_000
        );
    }

    #[test]
    fn a_longer_pause_that_the_receiver_asks_for_is_kept() {
        let due = |asked| match Sending::after_failure(0, Timestamp::default(), Some(asked)) {
            Sending::Due { at, .. } => at.as_millis(),
            Sending::Sent { .. } | Sending::GivenUp { .. } => panic!("it is due"),
        };
        assert_eq!(due(Duration::from_secs(60)), 60_000);
        assert_eq!(due(Duration::from_secs(1)), 5000, "and a shorter one is not");
    }
}

//! The statuses that people see, named as in the original.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The status of a run, in the original's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunStatus {
    /// Not leased.
    Queued,
    /// Leased.
    Started,
    /// Its first step began.
    Running,
    /// Ended successfully.
    Succeeded,
    /// Ended: a step failed.
    Failed,
    /// Ended: it was cancelled.
    Canceled,
    /// Ended: the infrastructure failed.
    Error,
    /// Ended: it exceeded its time limit.
    Timeout,
}

impl RunStatus {
    /// All statuses, in the order of a run's life.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Started,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
        Self::Error,
        Self::Timeout,
    ];

    /// Whether the status is final.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self >= Self::Succeeded
    }

    /// The name of the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Started => "Started",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::Error => "Error",
            Self::Timeout => "Timeout",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for RunStatus {
    type Err = crate::InvalidText;

    /// Case-insensitive.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text)).ok_or_else(
            || {
                crate::InvalidText::new(
                    "run status",
                    text,
                    "one of Queued, Started, Running, Succeeded, Failed, Canceled, Error, Timeout",
                )
            },
        )
    }
}

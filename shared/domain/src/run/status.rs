//! The words that people see, those of the original.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The run's status, in the original's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunStatus {
    /// Not leased.
    Queued,
    /// Leased.
    Started,
    /// Its first step began.
    Running,
    /// Done, and all is well.
    Succeeded,
    /// Done: a step failed.
    Failed,
    /// Done: somebody cancelled it.
    Canceled,
    /// Done: the infrastructure failed.
    Error,
    /// Done: it took too long.
    Timeout,
}

impl RunStatus {
    /// Every status, in the order of a run's life.
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

    /// Whether it never changes again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self >= Self::Succeeded
    }

    /// The word.
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

    /// Case does not matter.
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

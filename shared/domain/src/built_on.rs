//! What a run was built on, which decides whether it may move a tag.

use serde::{Deserialize, Serialize};

use crate::fact::FactKey;
use crate::source::{CommitId, RefName, RepositoryKey};

/// A fact at one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactVersion {
    /// The fact.
    pub fact: FactKey,
    /// Its generation.
    pub generation: u64,
}

/// The facts that a run was built on, as far as they are known.
///
/// A run that a push started has them from the beginning. For other runs of a git repository, the worker reports the
/// commit that it read, and a scheduler compares it with the facts. Only then can two runs be ordered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum BuiltOn {
    /// No commit was read: the source has none, or was not fetched yet.
    #[default]
    Unread,
    /// The worker read this commit, which was not compared with the facts yet.
    Read(SourceRead),
    /// These facts at these generations.
    Facts {
        /// At least one.
        facts: Vec<FactVersion>,
    },
    /// No branch of the repository is known to have had the commit as its head.
    Unknown,
}

/// The commit that a worker read from a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRead {
    /// The repository.
    pub repository: RepositoryKey,
    /// The requested or default branch; `None` if a commit was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<RefName>,
    /// The fetched commit.
    pub commit: CommitId,
}

impl BuiltOn {
    /// One fact at one generation.
    #[must_use]
    pub fn fact(fact: FactKey, generation: u64) -> Self {
        Self::Facts { facts: vec![FactVersion { fact, generation }] }
    }

    /// The known facts; empty if there are none.
    #[must_use]
    pub fn facts(&self) -> &[FactVersion] {
        match self {
            Self::Facts { facts } => facts,
            Self::Unread | Self::Read(_) | Self::Unknown => &[],
        }
    }
}

//! What a run was built on: it decides who may move a tag.

use serde::{Deserialize, Serialize};

use crate::fact::FactKey;
use crate::source::{CommitId, RefName, RepositoryKey};

/// A fact as it was at a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactVersion {
    /// The fact.
    pub fact: FactKey,
    /// Its generation.
    pub generation: u64,
}

/// The facts that a run was built on, as far as they are known.
///
/// A run of a push has them from the beginning. For any other run of a git repository the worker reports the commit that it
/// read, and a scheduler compares it with the facts: only then can two runs be put in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum BuiltOn {
    /// No commit was read: the source has none, or was not fetched yet.
    #[default]
    Unread,
    /// The worker read this commit; it is not compared with the facts yet.
    Read(SourceRead),
    /// These facts, at these generations.
    Facts {
        /// At least one.
        facts: Vec<FactVersion>,
    },
    /// A commit that no branch of the repository is known to have had as its head.
    Unknown,
}

/// What a worker read of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRead {
    /// The repository.
    pub repository: RepositoryKey,
    /// The branch that was asked for or is the default; `None` for a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<RefName>,
    /// The commit that was fetched.
    pub commit: CommitId,
}

impl BuiltOn {
    /// One fact at one generation.
    #[must_use]
    pub fn fact(fact: FactKey, generation: u64) -> Self {
        Self::Facts { facts: vec![FactVersion { fact, generation }] }
    }

    /// The facts that are known.
    #[must_use]
    pub fn facts(&self) -> &[FactVersion] {
        match self {
            Self::Facts { facts } => facts,
            Self::Unread | Self::Read(_) | Self::Unknown => &[],
        }
    }
}

//! A code host, as the scheduler asks it: what is a branch's head now?

use async_trait::async_trait;
use gantry_domain::source::{CommitId, GitUrl, RefName};
use gantry_ops::secret::SecretString;

/// Where git repositories live.
#[async_trait]
pub trait CodeHost: Send + Sync {
    /// The head of `branch`, or of the branch that the host calls default.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn head(
        &self,
        url: &GitUrl,
        branch: Option<&RefName>,
        token: Option<&SecretString>,
    ) -> Result<Head, CodeHostError>;
}

/// What a host says of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The branch; `None` when the default was asked for and the host names none.
    pub branch: Option<RefName>,
    /// Its head; `None` when there is no such branch.
    pub commit: Option<CommitId>,
}

/// The host could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct CodeHostError {
    /// What failed, on what, and the remedy.
    pub message: String,
}

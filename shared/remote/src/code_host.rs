//! Asks a code host for the current head of a branch.

use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::source::{CommitId, GitUrl, RefName};
use gantry_ops::secret::{Credentials, ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::git::{Git, GitError, Remote};

/// The time limit for a request.
const WITHIN: Duration = Duration::from_secs(20);

/// A host of git repositories.
#[async_trait]
pub trait CodeHost: Send + Sync {
    /// The head of `branch`, or of the host's default branch.
    ///
    /// # Errors
    /// [`CodeHostError`].
    async fn head(
        &self,
        url: &GitUrl,
        branch: Option<&RefName>,
        token: Option<&SecretString>,
    ) -> Result<BranchHead, CodeHostError>;
}

/// The head of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchHead {
    /// The branch; `None` if the default was requested and the host names none.
    pub branch: Option<RefName>,
    /// The head; `None` if the branch does not exist.
    pub commit: Option<CommitId>,
}

/// A request to a code host failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct CodeHostError {
    /// What failed and where, and the remedy.
    pub message: String,
    /// Whether the host rejected this token. Another one may be accepted.
    pub refused_token: bool,
}

/// Parses a token for git hosts: `user:token`, or a token alone, with which hosts ignore the user.
#[must_use]
pub fn git_credentials(token: &SecretString) -> Credentials {
    match token.expose_secret().split_once(':') {
        Some((user, password)) => {
            Credentials { username: user.to_owned(), password: SecretString::from(password) }
        }
        None => Credentials { username: "gantry".to_owned(), password: token.clone() },
    }
}

/// Any host that supports `git ls-remote`.
#[derive(Debug, Clone)]
pub struct GitCodeHost {
    git: Git,
}

impl GitCodeHost {
    /// Uses `git`.
    #[must_use]
    pub fn new(git: Git) -> Self {
        Self { git }
    }
}

#[async_trait]
impl CodeHost for GitCodeHost {
    async fn head(
        &self,
        url: &GitUrl,
        branch: Option<&RefName>,
        token: Option<&SecretString>,
    ) -> Result<BranchHead, CodeHostError> {
        let credentials = token.map(git_credentials);
        let remote =
            Remote { url, credentials: credentials.as_ref(), deadline: Instant::now() + WITHIN };
        // The full name, because a tag may have the same name as the branch.
        let name = branch.and_then(|branch| format!("refs/heads/{branch}").parse().ok());
        match self.git.resolve(remote, name.as_ref()).await {
            Ok(head) => {
                let branch = branch.cloned().or(head.branch);
                Ok(BranchHead { branch, commit: Some(head.commit) })
            }
            Err(GitError::UnknownRef { .. } | GitError::Empty { .. }) => {
                Ok(BranchHead { branch: branch.cloned(), commit: None })
            }
            Err(error) => {
                let refused_token = matches!(
                    error,
                    GitError::CredentialsWanted { .. }
                        | GitError::Unauthorized { .. }
                        | GitError::NotFound { .. }
                        | GitError::UnusableCredentials
                );
                Err(CodeHostError { message: error.to_string(), refused_token })
            }
        }
    }
}

//! A code host, as the scheduler asks it: what is a branch's head now?

use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::source::{CommitId, GitUrl, RefName};
use gantry_ops::secret::{Credentials, ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::git::{Git, GitError, Remote};

/// How long a host may take to tell a head.
const WITHIN: Duration = Duration::from_secs(20);

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
    ) -> Result<BranchHead, CodeHostError>;
}

/// What a host says of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchHead {
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
    /// The host answered that this token may not know. Another may.
    pub refused_token: bool,
}

/// A token as git hosts take it: `user:token`, or a token alone, beside which hosts ignore the user.
#[must_use]
pub fn git_credentials(token: &SecretString) -> Credentials {
    match token.expose_secret().split_once(':') {
        Some((user, password)) => {
            Credentials { username: user.to_owned(), password: SecretString::from(password) }
        }
        None => Credentials { username: "gantry".to_owned(), password: token.clone() },
    }
}

/// Any host that speaks git: asked with `git ls-remote`.
#[derive(Debug, Clone)]
pub struct GitCodeHost {
    git: Git,
}

impl GitCodeHost {
    /// Asks with `git`.
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
        // In full: a tag may have the name of the branch.
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

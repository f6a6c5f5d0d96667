//! Asks a git server for the current head of a branch, or the commit of a tag.

use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::event::PushedRef;
use gantry_ops::secret::{Credentials, ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{CodeHost, CodeHostError, CodeHostFailure, Head, Heads, RepositoryAccess};
use crate::git::{Git, GitError, Remote};

/// The time limit for a request.
const WITHIN: Duration = Duration::from_secs(20);

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
pub(super) struct GitCodeHost {
    git: Git,
}

impl GitCodeHost {
    /// Uses `git`.
    pub(super) fn new(git: Git) -> Self {
        Self { git }
    }
}

#[async_trait]
impl CodeHost for GitCodeHost {
    async fn head(
        &self,
        at: RepositoryAccess<'_>,
        reference: Option<&PushedRef>,
    ) -> Result<Head, CodeHostError> {
        let (url, credentials) = (at.url, at.token.map(git_credentials));
        let deadline = Instant::now() + WITHIN;
        let remote =
            Remote { url, credentials: credentials.as_ref(), host_keys: at.host_keys, deadline };
        // The full name, because a tag may have the same name as the branch.
        let (name, branch) = match reference {
            Some(PushedRef::Branch(branch)) => (Some(format!("refs/heads/{branch}")), Some(branch)),
            Some(PushedRef::Tag(tag)) => (Some(format!("refs/tags/{tag}")), None),
            None => (None, None),
        };
        let name = name.and_then(|name| name.parse().ok());
        match self.git.resolve(remote, name.as_ref()).await {
            Ok(head) => {
                let branch = branch.cloned().or(head.branch);
                Ok(Head { branch, commit: Some(head.commit) })
            }
            Err(GitError::UnknownRef { .. } | GitError::Empty { .. }) => {
                Ok(Head { branch: branch.cloned(), commit: None })
            }
            Err(error) => Err(failed(&error)),
        }
    }

    async fn heads(&self, at: RepositoryAccess<'_>) -> Result<Heads, CodeHostError> {
        let credentials = at.token.map(git_credentials);
        let remote = Remote {
            url: at.url,
            credentials: credentials.as_ref(),
            host_keys: at.host_keys,
            deadline: Instant::now() + WITHIN,
        };
        self.git.heads(remote).await.map_err(|error| failed(&error))
    }
}

fn failed(error: &GitError) -> CodeHostError {
    let refused_token = matches!(
        error,
        GitError::CredentialsWanted { .. }
            | GitError::Unauthorized { .. }
            | GitError::NotFound { .. }
            | GitError::KeyWanted { .. }
            | GitError::KeyRefused { .. }
            | GitError::UnusableKey { .. }
            | GitError::OtherHostKey { .. }
            | GitError::UnusableCredentials
    );
    let kind = match refused_token {
        true => CodeHostFailure::RefusedToken,
        false => CodeHostFailure::Transient { retry_after: None },
    };
    CodeHostError { message: error.to_string(), kind }
}

//! Why git did not do it, and whether trying again may help.

use std::path::PathBuf;
use std::time::Duration;

use gantry_domain::source::{CommitId, GitUrl};

use crate::guard::OutboundRefused;

/// Why git did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum GitError {
    /// No such branch, tag or commit.
    #[error(
        "`{reference}` is not in {url}: check the branch or tag name; a commit is written in full"
    )]
    UnknownRef {
        /// The repository.
        url: GitUrl,
        /// As asked for.
        reference: String,
    },
    /// Nothing was ever pushed.
    #[error(
        "{url} has no commit that its HEAD names: push one, or name a branch that is there, like `{url}#main`"
    )]
    Empty {
        /// The repository.
        url: GitUrl,
    },
    /// No such folder in the commit.
    #[error(
        "`{folder}` is no folder with files at commit {commit}: check the part behind `:` of the context"
    )]
    NoFolder {
        /// As asked for.
        folder: String,
        /// The commit.
        commit: CommitId,
    },
    /// The host wants to know who asks, and nobody was said.
    #[error("{url} is not public: give an access token with `--git-access-token`")]
    CredentialsWanted {
        /// The repository.
        url: GitUrl,
    },
    /// The host does not take the credentials.
    #[error("{url} refused the access token: check that it is valid and may read the repository")]
    Unauthorized {
        /// The repository.
        url: GitUrl,
    },
    /// No such repository, or not for this user.
    #[error(
        "there is no repository at {url}, or its access token may not see it: check the address"
    )]
    NotFound {
        /// The repository.
        url: GitUrl,
    },
    /// The host answers with another address.
    #[error("{url} has moved: give the address that it redirects to")]
    Moved {
        /// The repository.
        url: GitUrl,
    },
    /// Nobody answered, or not to the end.
    #[error("{url} did not answer: {message}")]
    Unreachable {
        /// The repository.
        url: GitUrl,
        /// Git's words.
        message: String,
    },
    /// It answered that it failed.
    #[error("{url} failed: {message}")]
    HostFailed {
        /// The repository.
        url: GitUrl,
        /// Git's words.
        message: String,
    },
    /// It took too long.
    #[error("{what} was not done within {waited:?}")]
    TimedOut {
        /// `the fetch of https://…`
        what: String,
        /// How long.
        waited: Duration,
    },
    /// More than it may be.
    #[error(
        "{what} is larger than {most}: ask the operator to raise the limit, or make it smaller"
    )]
    TooLarge {
        /// `the history of https://…`
        what: String,
        /// With its unit.
        most: String,
    },
    /// A name that could be taken for git's own folder, or that leads out of the checkout.
    #[error("`{path}` in the commit is a path that no checkout may write: rename or remove it")]
    UnsafePath {
        /// As git shows it.
        path: String,
    },
    /// No room for it.
    #[error("the disk under {} is full: free space there", .folder.display())]
    DiskFull { folder: PathBuf },
    /// The host may not be reached.
    #[error(transparent)]
    Outbound(#[from] OutboundRefused),
    /// There is no git program.
    #[error("cannot run {}: is git installed?", .program.display())]
    NoProgram {
        /// What was tried.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The credentials cannot be handed over.
    #[error("the access token has a line break or is too long: copy it again")]
    UnusableCredentials,
    /// Anything else.
    #[error("{what} failed: {message}")]
    Failed {
        /// `the fetch of https://…`
        what: String,
        /// Git's words, or the system's.
        message: String,
    },
}

impl GitError {
    /// Trying again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::HostFailed { .. }
            | Self::TimedOut { .. }
            | Self::DiskFull { .. } => true,
            // Another worker may have git, and what nobody foresaw is not held against the user.
            Self::NoProgram { .. } | Self::Failed { .. } => true,
            Self::UnknownRef { .. }
            | Self::Empty { .. }
            | Self::NoFolder { .. }
            | Self::CredentialsWanted { .. }
            | Self::Unauthorized { .. }
            | Self::NotFound { .. }
            | Self::Moved { .. }
            | Self::TooLarge { .. }
            | Self::UnsafePath { .. }
            | Self::Outbound(_)
            | Self::UnusableCredentials => false,
        }
    }

    /// Nobody answered, or a gateway for whoever should have.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// The repository on this machine may be at fault, and fetching into a new one may help.
    #[must_use]
    pub fn may_be_local(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

//! Why git failed, and whether a retry may help.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_domain::source::{CommitId, CommitPrefix, GitUrl};

use crate::guard::OutboundRefused;

/// Git failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum GitError {
    /// There is no such branch, tag or commit.
    #[error(
        "`{reference}` is not in {url}: check the name of the branch or tag, or the digits of the commit"
    )]
    UnknownRef {
        /// The repository.
        url: GitUrl,
        /// As requested.
        reference: String,
    },
    /// Several commits have ids that begin like this.
    #[error("several commits in {url} begin with {prefix}: write more of its digits")]
    Ambiguous {
        /// The repository.
        url: GitUrl,
        /// As requested.
        prefix: CommitPrefix,
    },
    /// A submodule cannot be fetched, because of what the repository says of it.
    #[error("the submodule `{path}` cannot be fetched: {why}")]
    Submodule {
        /// Its path in the repository.
        path: String,
        /// The reason and the remedy.
        why: String,
    },
    /// The repository is empty.
    #[error(
        "{url} has no commit that its HEAD names: push one, or name a branch that is there, like `{url}#main`"
    )]
    Empty {
        /// The repository.
        url: GitUrl,
    },
    /// There is no such folder in the commit.
    #[error(
        "`{folder}` is no folder with files at commit {commit}: check the part behind `:` of the context"
    )]
    NoFolder {
        /// As requested.
        folder: String,
        /// The commit.
        commit: CommitId,
    },
    /// The host requires authentication, and there are no credentials.
    #[error("{url} is not public: give an access token with `--git-access-token`")]
    CredentialsWanted {
        /// The repository.
        url: GitUrl,
    },
    /// The host rejected the credentials.
    #[error("{url} refused the access token: check that it is valid and may read the repository")]
    Unauthorized {
        /// The repository.
        url: GitUrl,
    },
    /// A repository is read over ssh, and there is no deploy key or no pinned host key.
    #[error(
        "{url} is read with a deploy key from a known host: give both, with `--git-ssh-key FILE` and `--git-host-key @FILE`"
    )]
    KeyWanted {
        /// The repository.
        url: GitUrl,
    },
    /// The host does not know the deploy key, or it may not read the repository.
    #[error(
        "{url} refused the deploy key: check that its public half is registered there, and the user in the address"
    )]
    KeyRefused {
        /// The repository.
        url: GitUrl,
    },
    /// The deploy key cannot be read by ssh.
    #[error(
        "the deploy key for {url} cannot be used: give a private key without a passphrase, as `ssh-keygen` writes it"
    )]
    UnusableKey {
        /// The repository.
        url: GitUrl,
    },
    /// The host has another key than the pinned ones.
    #[error(
        "the host of {url} has another key than the pinned one, so nothing was sent to it: if it has a new key, compare \
         `ssh-keyscan` with the fingerprint that the host publishes, and pin it with `--git-host-key`"
    )]
    OtherHostKey {
        /// The repository.
        url: GitUrl,
    },
    /// There is no such repository, or this user may not see it.
    #[error(
        "there is no repository at {url}, or its access token or key may not see it: check the address"
    )]
    NotFound {
        /// The repository.
        url: GitUrl,
    },
    /// The host redirects to another address.
    #[error("{url} has moved: give the address that it redirects to")]
    Moved {
        /// The repository.
        url: GitUrl,
    },
    /// The host did not answer, or the connection was lost.
    #[error("{url} did not answer: {message}")]
    Unreachable {
        /// The repository.
        url: GitUrl,
        /// Git's message.
        message: String,
    },
    /// The host returned a server error.
    #[error("{url} failed: {message}")]
    HostFailed {
        /// The repository.
        url: GitUrl,
        /// Git's message.
        message: String,
    },
    /// The deadline passed.
    #[error("{what} did not finish within {waited:?}")]
    TimedOut {
        /// `the fetch of https://…`
        what: String,
        /// The time limit.
        waited: Duration,
    },
    /// A size limit was exceeded.
    #[error(
        "{what} is larger than {most}: ask the operator to raise the limit, or make it smaller"
    )]
    TooLarge {
        /// `the history of https://…`
        what: String,
        /// The limit, with its unit.
        most: String,
    },
    /// The path could be taken for git's own folder, or leads out of the checkout.
    #[error("`{path}` in the commit is a path that no checkout may write: rename or remove it")]
    UnsafePath {
        /// As git prints it.
        path: String,
    },
    /// The disk is full.
    #[error("the disk under {} is full: free space there", .folder.display())]
    DiskFull { folder: PathBuf },
    /// The guard refused the host.
    #[error(transparent)]
    Outbound(#[from] OutboundRefused),
    /// The git program, or ssh, cannot be run.
    #[error("cannot run {}: is it installed?", .program.display())]
    NoProgram {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The credentials cannot be passed to git.
    #[error("the access token has a line break or is too long: copy it again")]
    UnusableCredentials,
    /// Another failure.
    #[error("{what} failed: {message}")]
    Failed {
        /// `the fetch of https://…`
        what: String,
        /// The message of git or of the system.
        message: String,
    },
}

impl GitError {
    /// The error for a file in `folder` that could not be written during `what`.
    #[must_use]
    pub fn of_file(what: String, folder: &Path, error: &std::io::Error) -> Self {
        if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            return Self::DiskFull { folder: folder.to_owned() };
        }
        Self::Failed { what, message: error.to_string() }
    }

    /// Whether a retry may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::HostFailed { .. }
            | Self::TimedOut { .. }
            | Self::DiskFull { .. } => true,
            // Another worker may have git, and an unknown error is not held against the user.
            Self::NoProgram { .. } | Self::Failed { .. } => true,
            Self::UnknownRef { .. }
            | Self::Ambiguous { .. }
            | Self::Submodule { .. }
            | Self::Empty { .. }
            | Self::NoFolder { .. }
            | Self::CredentialsWanted { .. }
            | Self::Unauthorized { .. }
            | Self::KeyWanted { .. }
            | Self::KeyRefused { .. }
            | Self::UnusableKey { .. }
            | Self::OtherHostKey { .. }
            | Self::NotFound { .. }
            | Self::Moved { .. }
            | Self::TooLarge { .. }
            | Self::UnsafePath { .. }
            | Self::Outbound(_)
            | Self::UnusableCredentials => false,
        }
    }

    /// Whether the host did not answer, or a gateway answered in its place.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether the local repository may be damaged, so that fetching into a new one may help.
    #[must_use]
    pub fn may_be_local(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

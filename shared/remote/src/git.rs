//! Reads git repositories with the `git` program.
//!
//! In: a URL, a branch or commit, credentials. Out: the commit, and its files in a folder. No user input becomes an
//! option, a shell word or configuration. The program sees only gantry's configuration, follows no redirects, and
//! connects only to addresses that the guard has resolved and permitted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_domain::source::{CommitId, GitUrl, RefName};
use gantry_domain::ssh::HostKey;
use gantry_ops::secret::Credentials;
use tokio::time::Instant;

use crate::guard::{OutboundPolicy, ResolveError};

mod abbreviated;
mod checkout;
mod command;
mod error;
mod failure;
mod fetch;
mod former;
mod lfs;
mod listing;
mod ssh;
mod submodules;

pub use checkout::is_folder_of;
use command::Command;
pub(crate) use command::user_of;
pub use error::GitError;
pub use submodules::Submodule;

/// The git program, and the limits it runs with.
#[derive(Debug, Clone)]
pub struct Git {
    program: PathBuf,
    /// Marks its processes.
    folder: Option<PathBuf>,
    policy: Arc<OutboundPolicy>,
    limits: GitLimits,
    used: Used,
}

/// Size limits of a repository.
#[derive(Debug, Clone, Copy)]
pub struct GitLimits {
    /// The most bytes of one fetch.
    pub fetched_bytes: u64,
    /// The most bytes of the files of one checkout.
    pub checkout_bytes: u64,
    /// The most files of one checkout.
    pub checkout_files: u64,
}

/// What repositories that belong together have used of the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes that were fetched.
    pub fetched_bytes: u64,
    /// Bytes of checked-out files.
    pub checkout_bytes: u64,
    /// Checked-out files.
    pub checkout_files: u64,
}

/// A repository, the credentials for it, and a deadline.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    /// The repository's URL.
    pub url: &'a GitUrl,
    /// The credentials; `None` for anonymous access. For ssh, the password is the deploy key.
    pub credentials: Option<&'a Credentials>,
    /// The keys of which the host must have one, for ssh.
    pub host_keys: &'a [HostKey],
    /// When to give up.
    pub deadline: Instant,
}

/// The commit that a reference currently points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRef {
    /// The commit.
    pub commit: CommitId,
    /// The full reference, like `refs/heads/main`; `None` if a commit was given.
    pub name: Option<String>,
    /// The branch, if it is one.
    pub branch: Option<RefName>,
}

impl ResolvedRef {
    /// A commit that was named by its id. Whether the host has it is known once it is fetched.
    #[must_use]
    pub fn of_commit(commit: CommitId) -> Self {
        Self { commit, name: None, branch: None }
    }
}

/// The branches and tags of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    /// The default branch; `None` if the host names none.
    pub default_branch: Option<RefName>,
    /// The branches with their heads.
    pub branches: BTreeMap<RefName, CommitId>,
    /// The tags with their commits.
    pub tags: BTreeMap<RefName, CommitId>,
}

impl Git {
    /// Uses the `git` in the search path.
    #[must_use]
    pub fn new(policy: Arc<OutboundPolicy>, limits: GitLimits) -> Self {
        Self { program: "git".into(), folder: None, policy, limits, used: Used::default() }
    }

    /// Uses another program.
    #[must_use]
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Marks every process that it starts with `folder`, and kills processes with this mark that a killed gantry
    /// process left behind. `folder` must be absolute and have one owner at a time. Blocking.
    ///
    /// # Errors
    /// The system's error if a process is found but cannot be killed.
    pub fn owning(self, folder: &Path) -> std::io::Result<Self> {
        let ended = former::end(folder)?;
        if ended > 0 {
            tracing::info!("ended {ended} git processes that a killed process left");
        }
        Ok(Self { folder: Some(folder.to_owned()), ..self })
    }

    /// The limits of a repository.
    #[must_use]
    pub fn limits(&self) -> GitLimits {
        self.limits
    }

    /// The same program, with what is left of the limits.
    #[must_use]
    pub fn having_used(&self, used: Used) -> Self {
        Self { used, ..self.clone() }
    }

    fn bare_command(&self, what: String) -> Command<'_> {
        let mut command = Command::new(&self.program, what);
        if let Some(folder) = &self.folder {
            command.env(former::MARK, folder);
        }
        command
    }

    fn local_command(&self, repository: &Path, what: &str) -> Command<'_> {
        let mut command = self.bare_command(what.to_owned());
        command.repository(repository);
        command
    }

    /// A command that may connect only to `remote`.
    async fn remote_command<'a>(
        &'a self,
        remote: Remote<'a>,
        what: &str,
    ) -> Result<Command<'a>, GitError> {
        let addresses =
            self.policy.resolve(&remote.url.server()).await.map_err(|error| match error {
                ResolveError::Refused(refused) => GitError::Outbound(refused),
                ResolveError::Unknown { host, source } => GitError::Unreachable {
                    url: remote.url.clone(),
                    message: format!("{host} is no known host ({source})"),
                },
            })?;
        let mut command = self.bare_command(format!("{what} {}", remote.url));
        command.speak_to(remote.url, &addresses);
        if remote.url.is_ssh() {
            command.over_ssh(remote, &addresses)?;
        } else if let Some(credentials) = remote.credentials {
            command.credentials(remote.url, credentials)?;
        }
        Ok(command)
    }
}

//! Finds the commit that an abbreviated id means.

use std::path::Path;

use gantry_domain::source::{CommitId, CommitPrefix, ObjectFormat};
use tokio::time::Instant;

use super::fetch::{EVERYTHING, Into};
use super::{Git, GitError, Remote};

/// The most objects of one prefix that are looked at. Of commits, two are too many.
const MOST_OBJECTS: usize = 32;

impl Git {
    /// The only commit in the history of all branches and tags whose id begins with `prefix`.
    ///
    /// Fetches the commits into a new bare repository at `scratch`, without their files if the host supports that. Ask
    /// [`Git::resolve`] first, which looks among the references.
    ///
    /// # Errors
    /// [`GitError::UnknownRef`], [`GitError::Ambiguous`], and other [`GitError`]s.
    pub async fn find_commit(
        &self,
        remote: Remote<'_>,
        prefix: &CommitPrefix,
        scratch: &Path,
    ) -> Result<CommitId, GitError> {
        for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
            let repository = scratch.join(format.to_string());
            self.init(&repository, format, remote.deadline).await?;
            let into = Into { repository: &repository, lock: None };
            match self.fetch_refs(remote, into, &["--filter=tree:0"], &EVERYTHING).await {
                // The repository has the other object format.
                Err(GitError::UnknownRef { .. }) => {}
                fetched => {
                    fetched?;
                    return self.only_commit(remote, prefix, &repository).await;
                }
            }
        }
        Err(unknown(remote, prefix))
    }

    async fn only_commit(
        &self,
        remote: Remote<'_>,
        prefix: &CommitPrefix,
        repository: &Path,
    ) -> Result<CommitId, GitError> {
        let mut command = self.local_command(repository, "looking for a commit");
        command.args(["rev-parse", &format!("--disambiguate={prefix}")]);
        let output = command.output(remote.deadline).await?;
        let output = String::from_utf8_lossy(&output);
        let mut found = None;
        for (number, id) in output.lines().filter_map(|line| line.parse().ok()).enumerate() {
            if number == MOST_OBJECTS {
                return Err(ambiguous(remote, prefix));
            }
            // Tags, and files of a host that does not filter, have such ids as well.
            if self.is_commit(repository, &id, remote.deadline).await?
                && found.replace(id).is_some()
            {
                return Err(ambiguous(remote, prefix));
            }
        }
        found.ok_or_else(|| unknown(remote, prefix))
    }

    async fn is_commit(
        &self,
        repository: &Path,
        id: &CommitId,
        deadline: Instant,
    ) -> Result<bool, GitError> {
        let mut command = self.local_command(repository, "looking at an object");
        command.args(["cat-file", "-t", id.as_str()]);
        Ok(command.output(deadline).await?.trim_ascii() == b"commit")
    }
}

pub(super) fn ambiguous(remote: Remote<'_>, prefix: &CommitPrefix) -> GitError {
    GitError::Ambiguous { url: remote.url.clone(), prefix: prefix.clone() }
}

fn unknown(remote: Remote<'_>, prefix: &CommitPrefix) -> GitError {
    GitError::UnknownRef { url: remote.url.clone(), reference: prefix.to_string() }
}

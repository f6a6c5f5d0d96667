//! Writes the files of a commit.

use std::path::Path;

use gantry_domain::source::{CommitId, SourcePath};
use tokio::time::Instant;

use super::{Git, GitError, Used};

/// The deepest tree that is written. Walking a tree, even to remove it, needs an open file for each level.
const DEEPEST: usize = 128;
/// The longest file name that file systems accept.
const LONGEST_NAME: usize = 255;

impl Git {
    /// Writes the files of a commit into the empty folder `into`. If `folder` is given, writes only that folder, at its
    /// path in the repository.
    ///
    /// The folder is looked up in the commit's tree, where a symbolic link is no folder. A checkout that is too large
    /// is refused before a file is written. Returns what has been used of the limits with it.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn checkout(
        &self,
        repository: &Path,
        commit: &CommitId,
        folder: Option<&SourcePath>,
        into: &Path,
        deadline: Instant,
    ) -> Result<Used, GitError> {
        let temporary = std::env::temp_dir();
        let index = tempfile::TempDir::new_in(&temporary)
            .map_err(|source| GitError::of_file("the checkout".to_owned(), &temporary, &source))?;
        let command = |arguments: &[&str]| {
            let mut command = self.local_command(repository, "the checkout");
            command.env("GIT_INDEX_FILE", index.path().join("index"));
            command.work_tree(into);
            command.args(arguments);
            command
        };
        // The whole tree is read into the index, so that the attributes of parent folders apply.
        // That writes no file of it, and need not wait for the measuring.
        let indexed = command(&["read-tree", commit.as_str()]).output(deadline);
        let measured = self.measure(repository, commit, folder, deadline);
        let (used, _) = tokio::try_join!(measured, indexed)?;
        if used == self.used {
            return Ok(used);
        }
        let wanted = folder.map_or(".", SourcePath::as_str);
        command(&["checkout", "--quiet", "--force", "--", wanted]).output(deadline).await?;
        match folder {
            // A crafted tree can contain a folder and a link of the same name, and then git writes the link.
            Some(folder) if !is_folder_of(into, folder) => {
                Err(GitError::NoFolder { folder: folder.to_string(), commit: commit.clone() })
            }
            _ => Ok(used),
        }
    }

    /// Counts what a checkout would write, and fails if it is too much.
    async fn measure(
        &self,
        repository: &Path,
        commit: &CommitId,
        folder: Option<&SourcePath>,
        deadline: Instant,
    ) -> Result<Used, GitError> {
        let mut command = self.local_command(repository, &format!("the checkout of {commit}"));
        command.args(["ls-tree", "-r", "-l", "-z", "--full-tree", commit.as_str()]);
        if let Some(folder) = folder {
            command.arg("--").arg(format!("{folder}/"));
        }
        let limits = self.limits;
        let mut used = self.used;
        // Stops at the first excess: ten small trees can name more files than could ever be counted.
        command
            .each_entry(deadline, |entry| {
                used.checkout_files += 1;
                used.checkout_bytes = used.checkout_bytes.saturating_add(size_of_entry(entry));
                if used.checkout_files > limits.checkout_files {
                    return Err(format!("{} files", limits.checkout_files));
                }
                if used.checkout_bytes > limits.checkout_bytes {
                    return Err(format!("{} MiB", limits.checkout_bytes >> 20));
                }
                let path = entry.splitn(2, |byte| *byte == b'\t').last().unwrap_or_default();
                let path = path.strip_suffix(b"\0").unwrap_or(path);
                if path.split(|byte| *byte == b'/').count() > DEEPEST + 1 {
                    return Err(format!("{DEEPEST} folders in each other"));
                }
                if path.split(|byte| *byte == b'/').any(|name| name.len() > LONGEST_NAME) {
                    return Err(format!("{LONGEST_NAME} bytes in a name"));
                }
                Ok(())
            })
            .await?;
        match folder {
            Some(folder) if used == self.used => {
                Err(GitError::NoFolder { folder: folder.to_string(), commit: commit.clone() })
            }
            _ => Ok(used),
        }
    }
}

/// Whether `folder` exists in `root` without a symbolic link in its path.
#[must_use]
pub fn is_folder_of(root: &Path, folder: &SourcePath) -> bool {
    let found = root.join(folder.as_str()).canonicalize();
    let wanted = root.canonicalize().map(|root| root.join(folder.as_str()));
    found.is_ok_and(|found| found.is_dir() && wanted.is_ok_and(|wanted| wanted == found))
}

/// Parses `100644 blob <id> <size>\t<path>`; a submodule has no size.
fn size_of_entry(entry: &[u8]) -> u64 {
    let header = entry.split(|byte| *byte == b'\t').next().unwrap_or_default();
    let size = header.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(size).ok().and_then(|size| size.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_from_tree_entries() {
        assert_eq!(size_of_entry(b"100644 blob aaaa     123\tdir/a file"), 123);
        assert_eq!(size_of_entry(b"160000 commit aaaa       -\tsub"), 0);
    }
}

//! Finds out which files of a commit Git LFS keeps elsewhere.

use std::path::Path;

use gantry_domain::source::CommitId;
use tokio::time::Instant;

use super::{Git, GitError};

/// What is done, for errors.
const READING: &str = "reading the attributes";

/// How many paths one program is asked for.
const PATHS_AT_ONCE: usize = 256;

impl Git {
    /// Those of the paths that the attributes in the commit give to Git LFS, with `filter=lfs`.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn kept_by_lfs(
        &self,
        repository: &Path,
        commit: &CommitId,
        paths: Vec<String>,
        deadline: Instant,
    ) -> Result<Vec<String>, GitError> {
        if paths.is_empty() {
            return Ok(paths);
        }
        let temporary = std::env::temp_dir();
        let failed = |source| GitError::of_file(READING.to_owned(), &temporary, &source);
        let folder = tempfile::TempDir::new_in(&temporary).map_err(failed)?;
        beside(repository, folder.path()).map_err(failed)?;
        let command = |arguments: &[&str]| {
            let mut command = self.local_command(folder.path(), READING);
            command.env("GIT_OBJECT_DIRECTORY", repository.join("objects"));
            command.args(arguments);
            command
        };
        // From the index: a checkout of one folder lacks the attributes of those around it.
        command(&["read-tree", commit.as_str()]).output(deadline).await?;
        let mut kept = Vec::new();
        for paths in paths.chunks(PATHS_AT_ONCE) {
            let mut command = command(&["check-attr", "--cached", "-z", "filter", "--"]);
            command.args(paths);
            let output = command.output(deadline).await?;
            kept.extend(parse(&String::from_utf8_lossy(&output)));
        }
        Ok(kept)
    }
}

/// Makes a repository with the same objects, in which the commit's attributes hold: a mirror overrides them, so that a
/// checkout converts nothing.
fn beside(mirror: &Path, folder: &Path) -> std::io::Result<()> {
    for name in ["config", "HEAD"] {
        std::fs::copy(mirror.join(name), folder.join(name))?;
    }
    for name in ["objects", "refs"] {
        std::fs::create_dir(folder.join(name))?;
    }
    Ok(())
}

/// Parses path, attribute and value, each ended by a zero byte.
fn parse(output: &str) -> Vec<String> {
    let words: Vec<&str> = output.split('\0').collect();
    let entries = words.chunks_exact(3).filter(|entry| entry.get(2) == Some(&"lfs"));
    entries.filter_map(|entry| entry.first()).map(|path| (*path).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_with_the_filter_lfs_count() {
        let output = "a\0filter\0lfs\0b\0filter\0unspecified\0c d\0filter\0lfs\0e\0filter\0set\0";
        assert_eq!(parse(output), ["a", "c d"]);
        assert!(parse("").is_empty());
    }
}

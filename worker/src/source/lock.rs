//! Exclusive locks between processes, as files.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a lock that another process holds is tried again.
const INTERVAL: Duration = Duration::from_millis(20);

/// A locked file. The system releases the lock when the last process that has the file open closes it or dies.
#[derive(Debug)]
pub(super) struct FileLock {
    path: PathBuf,
    file: File,
}

impl FileLock {
    /// Waits until no other process holds the lock. The file is created if it does not exist.
    pub(super) async fn acquire(path: &Path) -> io::Result<Self> {
        loop {
            if let Some(lock) = Self::try_acquire(path)? {
                return Ok(lock);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// `None` if another process holds the lock.
    pub(super) fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = File::options().create(true).append(true).open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The holder before may have removed the file, and the next process then locks another one.
            let locked = file.metadata()?;
            if path.metadata().is_ok_and(|found| found.ino() == locked.ino()) {
                return Ok(Some(Self { path: path.to_owned(), file }));
            }
        }
    }

    /// The file, to be kept open by other processes.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Removes the file, and releases the lock.
    pub(super) fn remove(self) {
        // A file that stays is empty, and the lock still works.
        let _stays = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_has_one_holder_even_if_its_file_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::acquire(&path).await.unwrap();
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        let kept_open = first.file().try_clone().unwrap();
        drop(first);
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        drop(kept_open);
        let second = FileLock::try_acquire(&path).unwrap().unwrap();
        second.remove();
        assert!(!path.exists());
        let third = FileLock::try_acquire(&path).unwrap().unwrap();
        assert!(path.exists() && FileLock::try_acquire(&path).unwrap().is_none());
        drop(third);
    }
}

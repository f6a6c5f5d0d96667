//! Limits a directory to one process at a time.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::private;

const LOCK: &str = "gantry.lock";

/// How long a lock is waited for whose holder is gone. A child process that the holder was just starting shares the lock
/// until it executes its program.
const INHERITED: Duration = Duration::from_secs(5);

/// The interval at which it is tried meanwhile.
const RETRY: Duration = Duration::from_millis(20);

/// A locked data directory.
///
/// The kernel releases the lock when the process ends in any way. So the holder of the lock knows that the earlier
/// process is gone.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if necessary, and locks it. Blocks for up to 5 s if the process that locked it is gone.
    ///
    /// # Errors
    /// [`LockError::Held`] if another process holds the lock.
    pub fn lock(path: impl Into<PathBuf>) -> Result<Self, LockError> {
        let path = path.into();
        // Absolute, because child processes like git run in other directories.
        let path = match std::path::absolute(&path) {
            Ok(absolute) => absolute,
            Err(source) => return Err(LockError::Unusable { path, source }),
        };
        match lock_once_inherited(&path) {
            Ok(Ok(lock)) => Ok(Self { path, _lock: lock }),
            Ok(Err(holder)) => Err(LockError::Held { path, holder }),
            Err(source) if source.kind() == io::ErrorKind::StorageFull => {
                Err(LockError::Full { path, source })
            }
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied && is_shared(&path) => {
                Err(LockError::Shared { path })
            }
            Err(source) => Err(LockError::Unusable { path, source }),
        }
    }

    /// The absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn lock_once_inherited(directory: &Path) -> io::Result<Result<File, Holder>> {
    let began = Instant::now();
    loop {
        match lock(directory)? {
            Err(holder) if holder.is_gone() && began.elapsed() < INHERITED => thread::sleep(RETRY),
            locked => return Ok(locked),
        }
    }
}

fn lock(directory: &Path) -> io::Result<Result<File, Holder>> {
    private::create_directory(directory)?;
    make_private(directory)?;
    let mut file = private::open_file(&directory.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => Ok(Err(Holder(read_pid(&mut file)))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the permissions of other users from a directory that is gantry's, or empty. A directory with other content
/// is left unchanged, and refused.
#[cfg(unix)]
fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    if !is_shared(directory) {
        return Ok(());
    }
    let mut is_ours = true;
    for entry in directory.read_dir()? {
        // Every new ext4 file system has `lost+found` in its root.
        let name = entry?.file_name();
        if [LOCK, "gantry.toml", "secret.key"].iter().any(|own| name == *own) {
            is_ours = true;
            break;
        }
        is_ours &= name == "lost+found";
    }
    if !is_ours {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
}

/// Whether users other than the owner may list the directory, or write to it.
#[cfg(unix)]
fn is_shared(directory: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    directory.metadata().is_ok_and(|there| there.permissions().mode() & 0o077 != 0)
}

/// The holder writes its pid after locking, so for a moment there is none.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The holder of a directory, according to its lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(Option<u32>);

impl Holder {
    /// Whether its process has ended. A holder that has not written its pid yet is there.
    fn is_gone(self) -> bool {
        self.0.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

/// A data directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error("{} is in use by {holder}: stop it, or choose another data directory", path.display())]
    Held {
        /// The directory.
        path: PathBuf,
        /// The other process.
        holder: Holder,
    },
    /// The disk is full.
    #[error("the disk of {} is full: free some space there, then start again", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Other users may read it, and it cannot be made private.
    #[error(
        "other users can read {}, and it has something else in it or another owner: make it private with `chmod 700`, or \
         name a folder of its own with --data",
        path.display()
    )]
    Shared {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be created or written to.
    #[error(
        "{} cannot be used as a data directory: let this user write there, or name another with --data",
        path.display()
    )]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_locked_data_directory_names_its_holder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/data");
        let held = DataDir::lock(&path).unwrap();

        let error = DataDir::lock(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");

        drop(held);
        DataDir::lock(&path).unwrap();
    }

    #[test]
    fn a_lock_that_a_child_of_a_dead_process_shares_is_waited_for() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let held = DataDir::lock(&path).unwrap();
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stderr(held._lock.try_clone().unwrap())
            .spawn()
            .unwrap();
        drop(held);
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        std::fs::write(path.join(LOCK), dead.id().to_string()).unwrap();
        assert!(lock(&path).unwrap().is_err(), "the child has it");

        let waiting = std::thread::spawn(move || DataDir::lock(path));
        drop(child.stdin.take());
        waiting.join().unwrap().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_data_directory_has_an_absolute_path() {
        let parent = tempfile::tempdir_in(".").unwrap();
        let relative = Path::new(parent.path().file_name().unwrap()).join("data");
        let held = DataDir::lock(&relative).unwrap();
        assert!(held.path().is_absolute());
        assert_eq!(held.path().canonicalize().unwrap(), relative.canonicalize().unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_a_data_directory() {
        use std::os::unix::fs::PermissionsExt;

        let parent = tempfile::tempdir().unwrap();
        let held = DataDir::lock(parent.path().join("data")).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(held.path()), 0o700);
        assert_eq!(mode(&held.path().join(LOCK)), 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn a_readable_data_directory_is_made_private_or_refused() {
        use std::os::unix::fs::PermissionsExt;

        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let widen = |path: &Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;

        // Created by an operator before the first start, and widened after it.
        std::fs::create_dir(&path).unwrap();
        for _ in 0..2 {
            widen(&path);
            drop(DataDir::lock(&path).unwrap());
            assert_eq!(mode(&path), 0o700);
        }

        let other = parent.path().join("home");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("letter"), "").unwrap();
        widen(&other);
        let refused = DataDir::lock(&other).unwrap_err().to_string();
        assert!(refused.contains("chmod 700"), "{refused}");
        assert_eq!(mode(&other), 0o755);
    }
}

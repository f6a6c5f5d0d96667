//! Repositories that are kept between runs, so that a run fetches only changes.
//!
//! A mirror is only read after the host has answered with the run's own credentials. The total size is limited; the
//! least recently used mirrors are removed first. A mirror that git cannot use is deleted and fetched again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use gantry_domain::source::{GitUrl, ObjectFormat};
use gantry_remote::git::{Git, GitError, Remote, ResolvedRef};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Each fetch adds a pack. Beyond this many, a new shallow fetch is cheaper than working with them.
const MOST_PACKS: usize = 32;

/// The modification time of this file is the last use of the mirror.
const USED: &str = "used";

#[derive(Debug, Clone)]
pub(super) struct Mirrors {
    folder: PathBuf,
    most_bytes: u64,
    locks: Arc<Mutex<HashMap<PathBuf, Arc<RwLock<()>>>>>,
}

/// Whose content a mirror has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// That of the repository.
    Own,
    /// That of forks: a stranger chooses what is in it.
    Fork,
}

/// The mirror of one URL, with one writer or many readers.
#[derive(Debug)]
pub(super) struct Mirror {
    path: PathBuf,
    lock: Arc<RwLock<()>>,
}

/// A mirror that is locked for reading until this is dropped.
#[derive(Debug)]
pub(super) struct Reading {
    path: PathBuf,
    _lock: OwnedRwLockReadGuard<()>,
}

impl Reading {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Mirrors {
    pub(super) fn new(folder: PathBuf, most_bytes: u64) -> Self {
        Self { folder, most_bytes, locks: Arc::default() }
    }

    pub(super) fn make_folder(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)
    }

    /// A host may replace a repository by one with another object format, so each format has a separate mirror. The
    /// unused one is removed eventually.
    pub(super) fn of(&self, url: &GitUrl, format: ObjectFormat, trust: Trust) -> Mirror {
        let of = match trust {
            Trust::Own => format!("{format} {url}"),
            Trust::Fork => format!("{format} {url} forks"),
        };
        let name = hex::encode(Sha256::digest(of));
        let path = self.folder.join(&name[..32]);
        let lock = self.lock(&path);
        Mirror { path, lock }
    }

    fn lock(&self, path: &Path) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(path.to_owned()).or_default())
    }

    /// Removes the least recently used mirrors until the rest is small enough. Mirrors in use stay.
    pub(super) async fn trim(&self) {
        let folder = self.folder.clone();
        let Ok(mut mirrors) = tokio::task::spawn_blocking(move || measured(&folder)).await else {
            return;
        };
        mirrors.sort_by_key(|(used, ..)| *used);
        let mut bytes: u64 = mirrors.iter().map(|(.., bytes)| bytes).sum();
        for (_, path, size) in mirrors {
            if bytes <= self.most_bytes {
                return;
            }
            let Ok(_alone) = self.lock(&path).try_write_owned() else { continue };
            discard(&path).await;
            bytes = bytes.saturating_sub(size);
        }
    }
}

/// The last use, path and size of each mirror.
fn measured(folder: &Path) -> Vec<(SystemTime, PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let path = entry.path();
            let used = std::fs::metadata(path.join(USED)).and_then(|metadata| metadata.modified());
            let bytes = packs(&path).map(|metadata| metadata.len()).sum();
            (used.unwrap_or(SystemTime::UNIX_EPOCH), path, bytes)
        })
        .collect()
}

impl Mirror {
    /// Fetches what is missing, and locks the mirror for reading.
    pub(super) async fn read(
        self,
        git: &Git,
        remote: Remote<'_>,
        head: &ResolvedRef,
    ) -> Result<Reading, GitError> {
        let reading = Arc::clone(&self.lock).read_owned().await;
        if git.has(&self.path, &head.commit, remote.deadline).await? {
            return Ok(self.reading(reading));
        }
        drop(reading);
        let alone = Arc::clone(&self.lock).write_owned().await;
        if packs(&self.path).count() > 2 * MOST_PACKS {
            discard(&self.path).await;
        }
        match git.fetch(remote, head, &self.path).await {
            // A process that was killed while writing may have left a lock or an incomplete file.
            Err(error) if error.may_be_local() => {
                tracing::info!("the mirror of {} is created again: {error}", remote.url);
                discard(&self.path).await;
                git.fetch(remote, head, &self.path).await?;
            }
            done => done?,
        }
        Ok(self.reading(OwnedRwLockWriteGuard::downgrade(alone)))
    }

    fn reading(self, lock: OwnedRwLockReadGuard<()>) -> Reading {
        // If this fails, the mirror only seems less recently used than it is.
        let _untouched = std::fs::write(self.path.join(USED), "");
        Reading { path: self.path, _lock: lock }
    }
}

fn packs(mirror: &Path) -> impl Iterator<Item = std::fs::Metadata> {
    let entries = std::fs::read_dir(mirror.join("objects/pack")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok())
}

async fn discard(mirror: &Path) {
    if let Err(error) = tokio::fs::remove_dir_all(mirror).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove the mirror {}: {error}", mirror.display());
    }
}

//! Repositories that are kept between runs, so that a run fetches only changes.
//!
//! A mirror is only read after the host has answered with the run's own credentials: with the commit, or, if an earlier
//! run has fetched that, with what it lists. The total size is limited; the least recently used mirrors are removed
//! first. A mirror that git cannot use is deleted and fetched again.
//!
//! One run at a time writes to a mirror, also among processes, while others read what is there. Only a mirror that
//! nobody reads is deleted; if another process deletes it all the same, its readers fetch it again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use gantry_domain::source::{GitUrl, ObjectFormat};
use gantry_remote::git::{Git, GitError, Remote, ResolvedRef};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, RwLock};
use tokio::time::{Instant, timeout_at};

use super::lock::FileLock;

/// Each fetch adds a pack. Beyond this many, a new shallow fetch is cheaper than working with them.
const MOST_PACKS: usize = 32;

/// The modification time of this file is the last use of the mirror.
const USED: &str = "used";

/// The ending of a mirror's lock, which lies beside it.
const LOCK: &str = "lock";

#[derive(Debug, Clone)]
pub(super) struct Mirrors {
    folder: PathBuf,
    most_bytes: u64,
    turns: Arc<Mutex<HashMap<PathBuf, Arc<Turns>>>>,
}

/// Whose content a mirror has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// That of the repository.
    Own,
    /// That of forks: a stranger chooses what is in it.
    Fork,
}

/// Whether the host has already shown a commit to a run's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// It listed the commit.
    Already,
    /// The commit was named by others.
    NotYet,
}

/// Who uses one mirror in this process.
#[derive(Debug, Default)]
struct Turns {
    /// One run writes. It holds the lock on the disk as well.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// Many runs read, or one deletes the mirror.
    using: Arc<RwLock<()>>,
    /// How often the mirror was deleted.
    deleted: AtomicU64,
}

/// The mirror of one URL.
#[derive(Debug)]
pub(super) struct Mirror {
    path: PathBuf,
    turns: Arc<Turns>,
}

/// A mirror that no run of this process deletes until this is dropped.
#[derive(Debug)]
pub(super) struct Reading {
    path: PathBuf,
    /// How many bytes were fetched for this.
    fetched: u64,
    /// `Turns::deleted` when it was opened.
    deleted: u64,
    _turn: OwnedRwLockReadGuard<()>,
}

impl Reading {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fetched(&self) -> u64 {
        self.fetched
    }
}

/// The right to write to a mirror.
#[derive(Debug)]
struct Writing {
    disk: FileLock,
    _turn: OwnedMutexGuard<()>,
}

impl Mirrors {
    pub(super) fn new(folder: PathBuf, most_bytes: u64) -> Self {
        Self { folder, most_bytes, turns: Arc::default() }
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
        self.at(self.folder.join(&name[..32]))
    }

    fn at(&self, path: PathBuf) -> Mirror {
        let mut all = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = Arc::clone(all.entry(path.clone()).or_default());
        Mirror { path, turns }
    }

    /// Removes the least recently used mirrors until the rest is small enough. Mirrors in use stay.
    pub(super) async fn trim(&self) {
        self.trim_to(self.most_bytes).await;
    }

    /// Removes all mirrors that are not in use, for a full disk.
    pub(super) async fn clear(&self) {
        self.trim_to(0).await;
    }

    async fn trim_to(&self, most_bytes: u64) {
        let folder = self.folder.clone();
        let Ok(mut mirrors) = tokio::task::spawn_blocking(move || measured(&folder)).await else {
            return;
        };
        mirrors.sort_by_key(|(used, ..)| *used);
        let mut bytes: u64 = mirrors.iter().map(|(.., bytes)| bytes).sum();
        for (_, path, size) in mirrors {
            if bytes <= most_bytes {
                return;
            }
            if self.at(path).remove_unused().await {
                bytes = bytes.saturating_sub(size);
            }
        }
    }
}

/// The last use, path and size of each mirror.
fn measured(folder: &Path) -> Vec<(SystemTime, PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_none_or(|ending| ending != LOCK))
        .map(|path| {
            let used = std::fs::metadata(path.join(USED)).and_then(|metadata| metadata.modified());
            let bytes = packs(&path).map(|metadata| metadata.len()).sum();
            (used.unwrap_or(SystemTime::UNIX_EPOCH), path, bytes)
        })
        .collect()
}

impl Mirror {
    /// Fetches what is missing, and opens the mirror for reading, once the host has shown the commit to these
    /// credentials. Runs that wait for the same commit fetch it once.
    pub(super) async fn read(
        &self,
        git: &Git,
        remote: Remote<'_>,
        head: &ResolvedRef,
        shown: Shown,
    ) -> Result<Reading, GitError> {
        let mut reading = self.reading().await;
        if !git.has(&self.path, &head.commit) {
            // Whoever writes may wait for all readers to go.
            drop(reading);
            let writing = self.write(remote).await?;
            if !git.has(&self.path, &head.commit) {
                return self.fetch(git, remote, head, writing).await;
            }
            reading = self.reading().await;
        }
        if shown == Shown::NotYet {
            git.prove(remote, &head.commit).await?;
        }
        Ok(reading)
    }

    /// Deletes the mirror in which `damaged` could not be read, and fetches the commit again. If another run has done
    /// so already, only fetches the commit.
    pub(super) async fn renew(
        &self,
        git: &Git,
        remote: Remote<'_>,
        head: &ResolvedRef,
        damaged: Reading,
    ) -> Result<Reading, GitError> {
        let seen = damaged.deleted;
        drop(damaged);
        let writing = self.write(remote).await?;
        if self.turns.deleted.load(Ordering::Relaxed) == seen {
            self.delete().await;
        }
        self.fetch(git, remote, head, writing).await
    }

    async fn fetch(
        &self,
        git: &Git,
        remote: Remote<'_>,
        head: &ResolvedRef,
        writing: Writing,
    ) -> Result<Reading, GitError> {
        if packs(&self.path).count() > 2 * MOST_PACKS {
            self.delete().await;
        }
        let is_new = !self.path.exists();
        let lock = Some(writing.disk.file());
        let fetched = match git.fetch(remote, head, &self.path, lock).await {
            // A process that was killed while writing may have left a lock or an incomplete file.
            Err(error) if error.may_be_local() && !is_new => {
                tracing::info!("the mirror of {} is created again: {error}", remote.url);
                self.delete().await;
                git.fetch(remote, head, &self.path, lock).await
            }
            done => done,
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                // A host that shows nothing leaves nothing.
                if packs(&self.path).next().is_none() {
                    self.delete().await;
                    writing.disk.remove();
                }
                return Err(error);
            }
        };
        Ok(Reading { fetched, ..self.reading().await })
    }

    async fn reading(&self) -> Reading {
        let turn = Arc::clone(&self.turns.using).read_owned().await;
        // If this fails, the mirror only seems less recently used than it is, or it does not exist yet.
        let _untouched = std::fs::write(self.path.join(USED), "");
        let deleted = self.turns.deleted.load(Ordering::Relaxed);
        Reading { path: self.path.clone(), fetched: 0, deleted, _turn: turn }
    }

    /// Waits until no other run writes, in this process and in others.
    async fn write(&self, remote: Remote<'_>) -> Result<Writing, GitError> {
        let what = || format!("waiting for other fetches of {}", remote.url);
        let began = Instant::now();
        let lock = self.path.with_extension(LOCK);
        let waiting = async {
            let turn = Arc::clone(&self.turns.writing).lock_owned().await;
            FileLock::acquire(&lock).await.map(|disk| Writing { disk, _turn: turn })
        };
        match timeout_at(remote.deadline, waiting).await {
            Ok(locked) => locked.map_err(|error| GitError::of_file(what(), &lock, &error)),
            Err(_) => Err(GitError::TimedOut { what: what(), waited: began.elapsed() }),
        }
    }

    /// Removes the mirror if no run of this process uses it, and none of another writes to it.
    async fn remove_unused(&self) -> bool {
        let Ok(_turn) = Arc::clone(&self.turns.writing).try_lock_owned() else { return false };
        let Ok(_alone) = Arc::clone(&self.turns.using).try_write_owned() else { return false };
        let lock = FileLock::try_acquire(&self.path.with_extension(LOCK));
        let Ok(Some(lock)) = lock else { return false };
        discard(&self.path).await;
        lock.remove();
        true
    }

    /// Waits until no run of this process reads the mirror, and deletes it. Only for whoever may write.
    async fn delete(&self) {
        let _alone = self.turns.using.write().await;
        self.turns.deleted.fetch_add(1, Ordering::Relaxed);
        discard(&self.path).await;
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

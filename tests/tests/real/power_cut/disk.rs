//! Simulates what a power failure leaves of files, from a trace of the operations on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::trace::{Call, Event};

/// The unit that a disk writes atomically.
const SECTOR: usize = 512;

/// What happens to data that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// It is lost.
    Lost,
    /// Some of it is written, in no order, with the last write torn; chosen at random from this seed.
    Some(u64),
}

type Inode = usize;

/// The state of all files at one moment.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// Names as the process sees them, and names that were synced.
    seen: BTreeMap<PathBuf, Inode>,
    kept: BTreeMap<PathBuf, Inode>,
}

#[derive(Debug, Default)]
struct File {
    is_directory: bool,
    kept: Vec<u8>,
    /// In order, each with its line of the trace.
    changes: Vec<(usize, Change)>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

impl Disk {
    /// The state just before line `cut` of the trace.
    pub(crate) fn at(events: &[Event], cut: usize) -> Result<Self> {
        let mut disk = Self::default();
        for event in events.iter().filter(|event| event.done < cut) {
            disk.apply(event)?;
        }
        Ok(disk)
    }

    fn apply(&mut self, event: &Event) -> Result<()> {
        match &event.call {
            Call::MakeFile { file } => {
                if !self.seen.contains_key(file) {
                    self.make(file, false);
                }
            }
            Call::MakeDirectory { directory } => self.make(directory, true),
            Call::Write { file, offset, bytes } => {
                let change =
                    Change::Write { offset: usize::try_from(*offset)?, bytes: bytes.clone() };
                self.change(file, event.done, change);
            }
            Call::Truncate { file, length } => {
                let length = usize::try_from(*length)?;
                self.change(file, event.done, Change::Truncate { length });
            }
            Call::Rename { from, to } => {
                if let Some(inode) = self.seen.remove(from) {
                    self.seen.insert(to.clone(), inode);
                }
            }
            Call::Link { from, to } => {
                if let Some(inode) = self.seen.get(from) {
                    self.seen.insert(to.clone(), *inode);
                }
            }
            Call::Unlink { file } => {
                self.seen.remove(file);
            }
            Call::Sync { path } => self.sync(path, event.began),
            Call::Answer { .. } => {}
        }
        Ok(())
    }

    fn make(&mut self, path: &Path, is_directory: bool) {
        self.seen.insert(path.to_owned(), self.files.len());
        self.files.push(File { is_directory, ..File::default() });
    }

    fn change(&mut self, file: &Path, done: usize, change: Change) {
        if let Some(inode) = self.seen.get(file) {
            self.files[*inode].changes.push((done, change));
        }
    }

    /// Applies a sync to what was done before it began. Changes during the sync need not be included.
    fn sync(&mut self, path: &Path, began: usize) {
        let Some(inode) = self.seen.get(path).copied() else {
            return self.sync_names(path);
        };
        if self.files[inode].is_directory {
            return self.sync_names(path);
        }
        let file = &mut self.files[inode];
        let changes = std::mem::take(&mut file.changes);
        let (before, after) = changes.into_iter().partition(|(done, _)| *done < began);
        let before: Vec<(usize, Change)> = before;
        before.iter().for_each(|(_, change)| apply(&mut file.kept, change));
        file.changes = after;
    }

    fn sync_names(&mut self, directory: &Path) {
        let is_here = |path: &PathBuf| path.parent() == Some(directory);
        self.kept.retain(|path, _| !is_here(path));
        let names = self.seen.iter().filter(|(path, _)| is_here(path));
        self.kept.extend(names.map(|(path, inode)| (path.clone(), *inode)));
    }

    /// Writes what the power failure leaves of `root`, which existed before the trace began, to `to`.
    pub(crate) fn write(&self, root: &Path, to: &Path, unsynced: Unsynced) -> Result<()> {
        let mut chance = match unsynced {
            Unsynced::Lost => None,
            Unsynced::Some(seed) => Some(StdRng::seed_from_u64(seed)),
        };
        let mut names = self.kept.clone();
        if let Some(chance) = &mut chance {
            // Names that were not synced may exist: a file system writes them in order.
            for (path, inode) in &self.seen {
                if chance.random_bool(0.5) {
                    names.entry(path.clone()).or_insert(*inode);
                }
            }
        }
        std::fs::create_dir_all(to)?;
        // Sorted by name, so that a directory comes before its content.
        for (path, inode) in &names {
            let file = &self.files[*inode];
            let target = to.join(path.strip_prefix(root)?);
            if !target.parent().is_some_and(Path::is_dir) {
                continue;
            }
            if file.is_directory {
                std::fs::create_dir(&target)?;
            } else {
                std::fs::write(&target, file.left(chance.as_mut()))?;
            }
        }
        Ok(())
    }
}

impl File {
    fn left(&self, chance: Option<&mut StdRng>) -> Vec<u8> {
        let mut bytes = self.kept.clone();
        let Some(chance) = chance else { return bytes };
        for (_, change) in &self.changes {
            match change {
                Change::Write { offset, bytes: written } if chance.random_bool(0.3) => {
                    for (number, sector) in written.chunks(SECTOR).enumerate() {
                        if chance.random_bool(0.5) {
                            let offset = offset + number * SECTOR;
                            apply(&mut bytes, &Change::Write { offset, bytes: sector.to_vec() });
                        }
                    }
                }
                change if chance.random_bool(0.5) => apply(&mut bytes, change),
                Change::Write { .. } | Change::Truncate { .. } => {}
            }
        }
        bytes
    }
}

fn apply(file: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Truncate { length } => file.resize(*length, 0),
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[*offset..end].copy_from_slice(bytes);
        }
    }
}

#[test]
fn only_synced_data_and_names_survive() {
    let root = PathBuf::from("/d");
    let file = root.join("f");
    let write = |bytes: &[u8]| Call::Write { file: file.clone(), offset: 0, bytes: bytes.to_vec() };
    let calls = [
        Call::MakeFile { file: file.clone() },
        write(b"one"),
        Call::Sync { path: file.clone() },
        Call::Sync { path: root.clone() },
        write(b"two"),
    ];
    let events: Vec<Event> = calls
        .into_iter()
        .enumerate()
        .map(|(line, call)| Event { began: line, done: line, call })
        .collect();
    let left = |cut| {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::at(&events, cut).unwrap();
        disk.write(&root, folder.path(), Unsynced::Lost).unwrap();
        std::fs::read(folder.path().join("f")).ok()
    };
    assert_eq!(left(3), None, "it has no name yet");
    assert_eq!(left(4).unwrap(), b"one");
    assert_eq!(left(5).unwrap(), b"one");
}

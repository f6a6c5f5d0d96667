//! Selects the files to send: those that the ignore rules leave, and those that the service reads itself.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use gantry_taskfile::encoding::decode_rules;
use gantry_taskfile::ignore::{Ignore, Scope, file_names};

use super::{ALONG, Entry, EntryKind, Pack, REMEDY, dockerfile};
use crate::exit::UsageError;

/// The ignore rules of a build, and their text.
pub(super) struct Rules {
    pub(super) ignore: Ignore,
    pub(super) text: Vec<u8>,
}

impl Rules {
    /// Reads the Dockerfile's own rules, or else the folder's. A Dockerfile from outside may have its own rules beside
    /// it.
    pub(super) fn read(root: &Path, dockerfile: &str, elsewhere: Option<&Path>) -> Result<Self> {
        let [own, general] = file_names(dockerfile);
        let own = elsewhere.map_or(root.join(own), |file| {
            let mut own = file.as_os_str().to_owned();
            own.push(".dockerignore");
            own.into()
        });
        for path in [own, root.join(general)] {
            let text = match fs::read(&path) {
                Err(error) if dockerfile::is_absent(&error) => continue,
                text => text.with_context(|| format!("cannot read {}", path.display()))?,
            };
            let shown = path.display();
            let decoded =
                decode_rules(&text).map_err(|error| UsageError(format!("{shown}: {error}")))?;
            let ignore =
                Ignore::parse(&decoded).map_err(|error| UsageError(format!("{shown}: {error}")))?;
            return Ok(Self { ignore, text });
        }
        Ok(Self { ignore: Ignore::default(), text: Vec::new() })
    }
}

/// Scans a folder, and adds the files to send.
pub(super) struct Walk {
    pub(super) pack: Pack,
    /// The first path of each file with several hard links, by device and inode.
    pub(super) first_names: HashMap<(u64, u64), String>,
}

impl Walk {
    /// Of nothing yet.
    pub(super) fn of(root: &Path, dockerfile: String) -> Self {
        let root = root.to_owned();
        let pack = Pack { root, dockerfile, entries: Vec::new(), bytes: 0, skipped: Vec::new() };
        Self { pack, first_names: HashMap::new() }
    }

    pub(super) fn folder(&mut self, scope: &Scope<'_>) -> Result<()> {
        let folder = self.pack.root.join(scope.path());
        let shown = || format!("cannot read {}: {REMEDY}", folder.display());
        let mut names = fs::read_dir(&folder)
            .and_then(|entries| {
                entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
            })
            .with_context(shown)?;
        names.sort();
        for name in names {
            let Some(name) = name.to_str() else {
                let path = folder.join(&name);
                return Err(UsageError(format!(
                    "{}: its name is not UTF-8: rename it, or exclude its folder in .dockerignore",
                    path.display()
                ))
                .into());
            };
            self.entry(&scope.enter(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, scope: &Scope<'_>) -> Result<()> {
        if scope.is_excluded_whole() {
            return Ok(());
        }
        let is_folder = self.add(scope.path(), !scope.is_excluded())?;
        if is_folder { self.folder(scope) } else { Ok(()) }
    }

    /// Adds one entry if it is `wanted`; returns whether it is a folder.
    fn add(&mut self, path: &str, wanted: bool) -> Result<bool> {
        let full = self.pack.root.join(path);
        let shown = || format!("cannot read {}: {REMEDY}", full.display());
        let metadata = match fs::symlink_metadata(&full) {
            // It was removed after its folder was read.
            Err(error) if dockerfile::is_absent(&error) => return Ok(false),
            metadata => metadata.with_context(shown)?,
        };
        if !wanted {
            return Ok(metadata.is_dir());
        }
        let kind = if metadata.is_dir() {
            EntryKind::Folder
        } else if metadata.is_symlink() {
            EntryKind::Link { target: fs::read_link(&full).with_context(shown)? }
        } else if metadata.is_file() {
            // Checked now, and not when half of the archive is sent.
            File::open(&full).with_context(shown)?;
            self.file(path, &metadata)
        } else if metadata.file_type().is_fifo() {
            EntryKind::Fifo
        } else {
            self.pack.skipped.push(path.to_owned());
            return Ok(false);
        };
        self.pack.entries.push(Entry { path: path.to_owned(), kind });
        Ok(metadata.is_dir())
    }

    fn file(&mut self, path: &str, metadata: &fs::Metadata) -> EntryKind {
        if metadata.nlink() > 1 {
            let file = (metadata.dev(), metadata.ino());
            if let Some(first) = self.first_names.get(&file) {
                return EntryKind::HardLink { first: first.clone() };
            }
            self.first_names.insert(file, path.to_owned());
        }
        self.pack.bytes += metadata.len();
        EntryKind::File
    }

    /// Adds a file that the service reads itself, if it exists, with the links that lead to it. A link out of the
    /// folder is refused, because a folder from a stranger could send any file of this machine with it.
    pub(super) fn always(&mut self, path: &str) -> Result<()> {
        let full = self.pack.root.join(path);
        if !full.is_file() {
            return Ok(());
        }
        let Some(links) = dockerfile::links_of(&self.pack.root, path) else {
            let (full, root) = (full.display(), self.pack.root.display());
            return Err(UsageError(format!(
                "{full} is a link that leads out of {root}: put the file there, or name a Dockerfile elsewhere with -f"
            ))
            .into());
        };
        for path in links {
            if !self.pack.entries.iter().any(|entry| entry.path == path) {
                self.add(&path, true)?;
            }
        }
        Ok(())
    }

    /// Adds a Dockerfile from outside, with its ignore rules.
    pub(super) fn along(&mut self, dockerfile: Vec<u8>, rules: &[u8]) -> Result<()> {
        let taken = self.pack.root.join(ALONG);
        if fs::symlink_metadata(&taken).is_ok() {
            let taken = taken.display();
            return Err(UsageError(format!(
                "{taken} is in the way of a Dockerfile from elsewhere: rename it"
            ))
            .into());
        }
        let mut rules = rules.to_owned();
        rules.extend(format!("\n{ALONG}\n").into_bytes());
        let [own, _] = file_names(&self.pack.dockerfile);
        self.text(self.pack.dockerfile.clone(), dockerfile);
        self.text(own, rules);
        Ok(())
    }

    fn text(&mut self, path: String, content: Vec<u8>) {
        self.pack.bytes += content.len() as u64;
        self.pack.entries.push(Entry { path, kind: EntryKind::Text { content } });
    }
}

//! The attributes of a context's entries, besides name and content.
//!
//! Stored separately from the files, because this machine's disk cannot represent all of them (because of the umask,
//! setuid files of strangers, device nodes), and the engine must receive them unchanged.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The attributes of a tar entry, besides name, content and owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    /// The permissions, with setuid, setgid and sticky bits.
    pub(super) mode: u32,
    pub(super) modified: Modified,
    /// By name, like `security.capability`.
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
    /// Set for a device or fifo, which is an empty file on the disk.
    pub(super) node: Option<Node>,
}

/// A modification time, possibly before 1970; `nanos` always count forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Modified {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

/// An entry without content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Fifo,
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
}

/// The attributes of all entries of a checkout.
#[derive(Debug, Clone)]
pub(super) enum Manifest {
    /// A commit has only two modes. Those on the disk depend on the umask, except for the owner's execute bit.
    Commit,
    /// The attributes in the archive, by path, without folders that it only implies.
    Archive(HashMap<PathBuf, Attributes>),
}

impl Manifest {
    /// The attributes of the entry at `path`, relative to the root of the checkout. `metadata` is that of the file on
    /// the disk.
    pub(super) fn of(&self, path: &Path, metadata: &Metadata) -> Cow<'_, Attributes> {
        match self {
            Self::Commit => Cow::Owned(as_a_commit_has_it(metadata)),
            Self::Archive(entries) => entries
                .get(path)
                .map_or_else(|| Cow::Owned(as_a_commit_has_it(metadata)), Cow::Borrowed),
        }
    }

    /// The attributes of the entries in a folder, by their paths in it.
    pub(super) fn below(&self, folder: &Path) -> Self {
        match self {
            Self::Commit => Self::Commit,
            Self::Archive(entries) => {
                let inside = entries.iter().filter_map(|(path, attributes)| {
                    Some((path.strip_prefix(folder).ok()?.to_owned(), attributes.clone()))
                });
                Self::Archive(inside.collect())
            }
        }
    }

    /// Whether the file at `path` represents a device or fifo.
    pub(super) fn is_node(&self, path: &Path) -> bool {
        match self {
            Self::Commit => false,
            Self::Archive(entries) => entries.get(path).is_some_and(|entry| entry.node.is_some()),
        }
    }
}

fn as_a_commit_has_it(metadata: &Metadata) -> Attributes {
    let mode = if metadata.is_symlink() {
        0o777
    } else if metadata.is_dir() || metadata.mode() & 0o100 != 0 {
        0o755
    } else {
        0o644
    };
    let nanos = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
    let modified = Modified { seconds: metadata.mtime(), nanos };
    Attributes { mode, modified, xattrs: Vec::new(), node: None }
}

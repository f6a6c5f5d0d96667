//! What the entries of a context are, beside their names and contents.
//!
//! Kept apart from the disk: the disk of this machine cannot hold all of it (the umask, setuid files of strangers,
//! device nodes), and what went in is what the engine must get.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What a tar says of an entry beside its name, its content and its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    /// The permissions with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) modified: Modified,
    /// By name: `security.capability`.
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
    /// Set for a device or fifo, for which an empty file stands on the disk.
    pub(super) node: Option<Node>,
}

/// A time of change, before 1970 too: `nanos` always count forward.
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
    /// A commit knows two modes. Those on the disk depend on the umask, except for the owner's execute bit.
    Commit,
    /// What the archive said, by path. A folder that it only implied is not among them.
    Archive(HashMap<PathBuf, Attributes>),
}

impl Manifest {
    /// The attributes of the entry at `path`, beneath the root of the checkout, which is `metadata` on the disk.
    pub(super) fn of(&self, path: &Path, metadata: &Metadata) -> Cow<'_, Attributes> {
        match self {
            Self::Commit => Cow::Owned(as_a_commit_has_it(metadata)),
            Self::Archive(entries) => entries
                .get(path)
                .map_or_else(|| Cow::Owned(as_a_commit_has_it(metadata)), Cow::Borrowed),
        }
    }

    /// Whether a device or fifo is meant by the file at `path`.
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

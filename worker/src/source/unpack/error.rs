//! How much an archive may be, and why one was not unpacked.

use std::path::{Path, PathBuf};

use gantry_ops::terminal::one_line;

/// How much an archive may be.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// As it comes.
    pub archive_bytes: u64,
    /// All its files together.
    pub unpacked_bytes: u64,
    /// Its files, folders and links.
    pub entries: u64,
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum UnpackError {
    /// Something else.
    #[error("what came is no tar archive, plain or with gzip: pack it with `tar -czf`")]
    NoArchive,
    /// An archive of another kind.
    #[error(
        "the archive is packed with {format}: only a tar, plain or with gzip, is unpacked: pack it with `tar -czf`"
    )]
    UnknownFormat { format: &'static str },
    /// An entry that could write where it should not.
    #[error("`{path}` in the archive {problem}: pack only what is in one folder")]
    Unsafe {
        /// As it stands in the archive.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Larger than it may be.
    #[error(
        "the archive holds more than {most} of {what}: leave out what the build does not need, with .dockerignore"
    )]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        most: String,
    },
    /// It did not come to its end.
    #[error("the archive broke off")]
    BrokeOff {
        /// What the reader said.
        source: std::io::Error,
    },
    /// It came, but is damaged.
    #[error("the archive is damaged: pack it again with `tar -czf`, and send all of it")]
    Damaged {
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// No room for it.
    #[error("the disk under {} is full: free space there", .folder.display())]
    DiskFull { folder: PathBuf },
    /// A file of it could not be written.
    #[error("cannot unpack `{path}`")]
    Write {
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl UnpackError {
    pub(super) fn unsafe_entry(path: &Path, problem: &'static str) -> Self {
        Self::Unsafe { path: shown(path), problem }
    }

    pub(super) fn too_large(what: &'static str, most: String) -> Self {
        Self::TooLarge { what, most }
    }

    /// Trying again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::BrokeOff { .. } | Self::DiskFull { .. })
    }
}

/// In one line that steers no terminal: whoever packed the archive chose it.
pub(super) fn shown(path: &Path) -> String {
    one_line(&path.display().to_string().chars().take(200).collect::<String>())
}

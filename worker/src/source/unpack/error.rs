//! Limits of archives, and why one was not unpacked.

use std::path::{Path, PathBuf};

use gantry_ops::terminal::one_line;

/// The limits of an archive.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// The most bytes of the archive as received.
    pub archive_bytes: u64,
    /// The most bytes of all its files.
    pub unpacked_bytes: u64,
    /// The most files, folders and links.
    pub entries: u64,
}

/// An archive was not unpacked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum UnpackError {
    /// The content is not a tar archive.
    #[error(
        "this is not a tar archive, plain or with gzip, zstd, xz or bzip2: pack it with `tar -czf`"
    )]
    NoArchive,
    /// The archive has another format.
    #[error(
        "the archive is packed with {format}: only a tar, plain or with gzip, zstd, xz or bzip2, is unpacked: pack it with `tar -czf`"
    )]
    UnknownFormat { format: &'static str },
    /// An entry could write to a forbidden place.
    #[error("`{path}` in the archive {problem}: pack only what is in one folder")]
    Unsafe {
        /// As in the archive.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A limit was exceeded.
    #[error(
        "the archive holds more than {most} of {what}: leave out what the build does not need, with .dockerignore"
    )]
    TooLarge {
        /// What is limited.
        what: &'static str,
        /// The limit.
        most: String,
    },
    /// The archive was cut off.
    #[error("the archive was cut off")]
    BrokeOff {
        /// The reader's error.
        source: std::io::Error,
    },
    /// The archive is complete but corrupt.
    #[error("the archive is damaged: pack it again with `tar -czf`, and send all of it")]
    Damaged {
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The disk is full.
    #[error("the disk under {} is full: free space there", .folder.display())]
    DiskFull { folder: PathBuf },
    /// A file could not be written.
    #[error("cannot unpack `{path}`")]
    Write {
        path: String,
        /// The system's error.
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

    /// Whether a retry may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::BrokeOff { .. } | Self::DiskFull { .. })
    }
}

/// The path on one line without terminal control sequences, because it comes from the archive.
pub(super) fn shown(path: &Path) -> String {
    one_line(&path.display().to_string().chars().take(200).collect::<String>())
}

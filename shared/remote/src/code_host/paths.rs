//! Collects the paths of a change.

use std::collections::BTreeSet;

use gantry_domain::pull_request::ChangedFiles;

/// The largest total size of the paths, in bytes. Larger changes are too large to be compared with path filters.
const MOST_BYTES: usize = 4 << 20;

/// The paths so far.
#[derive(Debug, Default)]
pub(super) struct Paths {
    paths: BTreeSet<String>,
    bytes: usize,
}

impl Paths {
    /// Adds a path, unless there are too many already.
    pub(super) fn add(&mut self, path: &str) {
        if self.bytes <= MOST_BYTES && self.paths.insert(path.to_owned()) {
            self.bytes += path.len();
        }
    }

    /// The paths as the complete list.
    pub(super) fn complete(self) -> ChangedFiles {
        if self.bytes > MOST_BYTES {
            return unknown("the names of its files are longer than 4 MiB together");
        }
        ChangedFiles::All { paths: self.paths.into_iter().collect() }
    }
}

/// An incomplete list, with the reason.
pub(super) fn unknown(why: impl Into<String>) -> ChangedFiles {
    ChangedFiles::Unknown { why: why.into() }
}

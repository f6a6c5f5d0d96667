//! What a build needs to know of a checkout before its files are sent: the Dockerfile and the ignore rules.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;

use gantry_domain::source::SourcePath;
use gantry_taskfile::ignore::{self, Ignore, IgnoreError};

use super::{Checkout, pack};
use crate::engine::ContextStream;

/// No Dockerfile is larger; what is has another purpose.
const LARGEST_FILE: u64 = 1 << 20;

/// Why a checkout cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// No such file.
    #[error(
        "there is no `{path}` in the source: check `--file`, and the folder behind `:` of the context"
    )]
    Missing {
        /// As asked for.
        path: String,
    },
    /// A link that leads out of the source.
    #[error("`{path}` is a link that leads out of the source")]
    Outside {
        /// As asked for.
        path: String,
    },
    /// A folder, or a file that is no text.
    #[error("`{path}` is no text file of at most 1 MiB")]
    NoText {
        /// As asked for.
        path: String,
    },
    /// An ignore file with a mistake.
    #[error("{path} cannot be used")]
    Ignore {
        /// Which.
        path: String,
        /// The line and what is wrong with it.
        source: IgnoreError,
    },
    /// This machine could not read it.
    #[error("cannot read `{path}` of the source")]
    Unreadable {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Checkout {
    /// The text of the Dockerfile, looked up beneath the context's root. A link is followed as long as it stays there.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn dockerfile(&self, path: &SourcePath) -> Result<String, ContextError> {
        self.text(path.as_str())
    }

    /// The ignore rules of a build with this Dockerfile: its own, or the source's, or none.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn ignore(&self, dockerfile: &SourcePath) -> Result<Ignore, ContextError> {
        for path in ignore::file_names(dockerfile.as_str()) {
            match self.text(&path) {
                Ok(text) => {
                    return Ignore::parse(&text)
                        .map_err(|source| ContextError::Ignore { path, source });
                }
                Err(ContextError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Ignore::default())
    }

    /// The files that a build sees, as a tar.
    #[must_use]
    pub fn pack(&self, ignore: Ignore) -> ContextStream {
        pack(self.root.clone(), ignore)
    }

    fn text(&self, path: &str) -> Result<String, ContextError> {
        let no_text = || ContextError::NoText { path: path.to_owned() };
        let unreadable = |source| ContextError::Unreadable { path: path.to_owned(), source };
        let file = File::open(self.inside(path)?).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(no_text());
        }
        let mut bytes = Vec::new();
        file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(no_text());
        }
        String::from_utf8(bytes).map_err(|_| no_text())
    }

    /// Where `path` really is. Nothing changes a checkout while it is looked at, so what was checked is what is opened.
    fn inside(&self, path: &str) -> Result<PathBuf, ContextError> {
        let unreadable = |source: std::io::Error| {
            let path = path.to_owned();
            match matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                true => ContextError::Missing { path },
                false => ContextError::Unreadable { path, source },
            }
        };
        let root = self.root.canonicalize().map_err(unreadable)?;
        let found = self.root.join(path).canonicalize().map_err(unreadable)?;
        if found.starts_with(&root) {
            Ok(found)
        } else {
            Err(ContextError::Outside { path: path.to_owned() })
        }
    }
}

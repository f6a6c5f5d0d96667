//! What a build needs to know of a checkout before its files are sent: the Dockerfile and the ignore rules.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use gantry_domain::source::SourcePath;
use gantry_ops::terminal::one_line;
use gantry_taskfile::encoding::{self, EncodingError};
use gantry_taskfile::ignore::{self, Ignore, IgnoreError};

use super::Checkout;
use super::pack::pack;
use crate::engine::ContextStream;

/// No Dockerfile is larger; what is has another purpose.
const LARGEST_FILE: u64 = 1 << 20;

/// How many links one path may lead through, as for Linux.
const MOST_LINKS: usize = 40;

/// Why a checkout cannot be built.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum ContextError {
    /// No such file.
    #[error(
        "there is no `{path}` in the source: check `--file`, and the folder behind `:` of the context"
    )]
    Missing {
        /// As asked for.
        path: String,
    },
    /// A link to nothing.
    #[error(
        "`{path}` is a link to `{target}`, which is not in the source: add the file or mend the link"
    )]
    Dangling {
        /// As asked for.
        path: String,
        /// Where it leads, beneath the source's root.
        target: String,
    },
    /// Links that lead to each other.
    #[error("`{path}` is a link that leads back to itself: let it lead to a file")]
    Loop {
        /// As asked for.
        path: String,
    },
    /// A link that leads out of the source.
    #[error("`{path}` is a link that leads out of the source: copy the file into the source")]
    Outside {
        /// As asked for.
        path: String,
    },
    /// A folder.
    #[error("`{path}` is a folder: name a file in it")]
    Folder {
        /// As asked for.
        path: String,
    },
    /// A device or a pipe.
    #[error("`{path}` is a device or pipe: only a file can be read")]
    Node {
        /// As asked for.
        path: String,
    },
    /// More than anybody writes.
    #[error("`{path}` is larger than {} MiB: is it the right file?", LARGEST_FILE >> 20)]
    TooLarge {
        /// As asked for.
        path: String,
    },
    /// A file that is not encoded in a way that can be read.
    #[error("`{path}` {source}")]
    Encoding {
        /// As asked for.
        path: String,
        /// How it is encoded.
        #[source]
        source: EncodingError,
    },
    /// An ignore file with a mistake.
    #[error("{path} cannot be used")]
    Ignore {
        path: String,
        /// The line and what is wrong with it.
        source: IgnoreError,
    },
    /// This machine could not read it.
    #[error("cannot read `{path}` of the source")]
    Unreadable {
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Checkout {
    /// The text of the Dockerfile, looked up beneath the context's root. A link is followed as long as it stays there.
    /// Where there is no `Dockerfile`, `dockerfile` beside it stands in, as for engines.
    ///
    /// Bytes that are not UTF-8 are in the text as [`encoding`] writes them.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn dockerfile(&self, path: &SourcePath) -> Result<String, ContextError> {
        let path = path.as_str();
        let (read, bytes) = match (self.bytes(path), ignore::lower_case_dockerfile(path)) {
            (Err(missing @ ContextError::Missing { .. }), Some(lower)) => {
                match self.bytes(&lower) {
                    Err(ContextError::Missing { .. }) => return Err(missing),
                    bytes => (lower, bytes?),
                }
            }
            (bytes, _) => (path.to_owned(), bytes?),
        };
        encoding::decode(&bytes).map_err(|source| ContextError::Encoding { path: read, source })
    }

    /// The ignore rules of a build with this Dockerfile: its own, or the source's, or none.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn ignore(&self, dockerfile: &SourcePath) -> Result<Ignore, ContextError> {
        for path in ignore::file_names(dockerfile.as_str()) {
            let bytes = match self.bytes(&path) {
                Err(ContextError::Missing { .. } | ContextError::Dangling { .. }) => continue,
                bytes => bytes?,
            };
            return match encoding::decode_rules(&bytes) {
                Ok(text) => {
                    Ignore::parse(&text).map_err(|source| ContextError::Ignore { path, source })
                }
                Err(source) => Err(ContextError::Encoding { path, source }),
            };
        }
        Ok(Ignore::default())
    }

    /// The files that a build sees, as a tar.
    #[must_use]
    pub fn pack(&self, ignore: Ignore) -> ContextStream {
        pack(self.root.clone(), Arc::clone(&self.manifest), ignore)
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>, ContextError> {
        let named = || path.to_owned();
        let unreadable = |source| ContextError::Unreadable { path: named(), source };
        let found = self.inside(path)?;
        if self.manifest.is_node(&found.path) {
            return Err(ContextError::Node { path: named() });
        }
        let file = self.source_path(&found.path);
        match file.symlink_metadata() {
            Ok(metadata) if metadata.is_file() => {}
            Ok(metadata) if metadata.is_dir() => {
                return Err(ContextError::Folder { path: named() });
            }
            Ok(_) => return Err(ContextError::Node { path: named() }),
            Err(source) if is_absent(&source) => {
                let target = one_line(&found.path.to_string_lossy());
                return Err(match found.is_behind_link {
                    true => ContextError::Dangling { path: named(), target },
                    false => ContextError::Missing { path: named() },
                });
            }
            Err(source) => return Err(unreadable(source)),
        }
        let mut bytes = Vec::new();
        let file = File::open(file).map_err(unreadable)?;
        file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(ContextError::TooLarge { path: named() });
        }
        Ok(bytes)
    }

    fn source_path(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// Where `path` leads beneath the root, link by link: nothing outside is looked at on the way. Nothing changes a
    /// checkout while it is looked at, so what was checked is what is opened.
    fn inside(&self, path: &str) -> Result<Found, ContextError> {
        let outside = || ContextError::Outside { path: path.to_owned() };
        let mut found = PathBuf::new();
        let mut links = 0;
        let mut rest = components(Path::new(path)).ok_or_else(outside)?;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                if !found.pop() {
                    return Err(outside());
                }
                continue;
            }
            found.push(name);
            // What is no link is looked at where it is opened.
            let Ok(target) = self.source_path(&found).read_link() else { continue };
            links += 1;
            if links > MOST_LINKS {
                return Err(ContextError::Loop { path: path.to_owned() });
            }
            found.pop();
            for name in components(&target).ok_or_else(outside)?.into_iter().rev() {
                rest.push_front(name);
            }
        }
        Ok(Found { path: found, is_behind_link: links > 0 })
    }
}

/// A path without links beneath the root.
struct Found {
    path: PathBuf,
    is_behind_link: bool,
}

/// The names and `..` of a path; `None` if it begins at the root of the machine.
fn components(path: &Path) -> Option<VecDeque<OsString>> {
    let mut names = VecDeque::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push_back(name.to_owned()),
            Component::ParentDir => names.push_back("..".into()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(names)
}

fn is_absent(error: &std::io::Error) -> bool {
    let absent = [ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::InvalidFilename];
    absent.contains(&error.kind())
}

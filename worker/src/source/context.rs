//! Reads the Dockerfile and ignore rules of a checkout, before its files are sent.

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

/// No Dockerfile is larger; a larger file is something else.
const LARGEST_FILE: u64 = 1 << 20;

/// The most symbolic links in one path, as in Linux.
const MOST_LINKS: usize = 40;

/// A checkout cannot be built.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum ContextError {
    /// The file does not exist.
    #[error(
        "there is no `{path}` in the source: check `--file`, and the folder behind `:` of the context"
    )]
    Missing {
        /// As requested.
        path: String,
    },
    /// The file is a link to a file that does not exist.
    #[error(
        "`{path}` is a link to `{target}`, which is not in the source: add the file or correct the link"
    )]
    Dangling {
        /// As requested.
        path: String,
        /// The target, relative to the source's root.
        target: String,
    },
    /// The file is a link in a cycle.
    #[error("`{path}` is a link that leads back to itself: make it point to a file")]
    Loop {
        /// As requested.
        path: String,
    },
    /// The file is a link that leads out of the source.
    #[error("`{path}` is a link that leads out of the source: copy the file into the source")]
    Outside {
        /// As requested.
        path: String,
    },
    /// The path is a folder.
    #[error("`{path}` is a folder: name a file in it")]
    Folder {
        /// As requested.
        path: String,
    },
    /// The folder does not exist.
    #[error("there is no folder `{path}` in the source: check the context of the build")]
    NoFolder {
        /// As requested.
        path: String,
    },
    /// The path is a device or pipe.
    #[error("`{path}` is a device or pipe: only a file can be read")]
    Node {
        /// As requested.
        path: String,
    },
    /// The file is too large.
    #[error("`{path}` is larger than {} MiB: is it the right file?", LARGEST_FILE >> 20)]
    TooLarge {
        /// As requested.
        path: String,
    },
    /// The file's encoding is not supported.
    #[error("`{path}` {source}")]
    Encoding {
        /// As requested.
        path: String,
        /// The encoding.
        #[source]
        source: EncodingError,
    },
    /// The ignore file has a mistake.
    #[error("{path} cannot be used")]
    Ignore {
        path: String,
        /// The line, and what is wrong with it.
        source: IgnoreError,
    },
    /// The file could not be read.
    #[error("cannot read `{path}` of the source")]
    Unreadable {
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Checkout {
    /// Reads the Dockerfile, relative to the context's root. Links are followed within that root. If there is no
    /// `Dockerfile`, `dockerfile` in the same folder is used, as in engines.
    ///
    /// Bytes that are not UTF-8 are converted as [`encoding`] does.
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

    /// The ignore rules for this Dockerfile: those of the Dockerfile itself, of the source, or none.
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

    /// A folder of it, as a checkout of its own with the same files. Links are followed within the root.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn folder(&self, path: &str) -> Result<Self, ContextError> {
        let found = self.inside(path)?.path;
        let root = self.source_path(&found);
        if !root.is_dir() || self.manifest.is_node(&found) {
            return Err(ContextError::NoFolder { path: path.to_owned() });
        }
        Ok(Self {
            folder: self.folder.clone(),
            root,
            manifest: Arc::new(self.manifest.below(&found)),
            commit: self.commit.clone(),
            branch: self.branch.clone(),
            notes: self.notes.clone(),
        })
    }

    /// Reads a text file, relative to the context's root. Links are followed within that root.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn text(&self, path: &str) -> Result<String, ContextError> {
        let bytes = self.bytes(path)?;
        encoding::decode(&bytes)
            .map_err(|source| ContextError::Encoding { path: path.to_owned(), source })
    }

    /// Streams the files that a build sees, as a tar.
    #[must_use]
    pub fn pack(&self, ignore: Ignore) -> ContextStream {
        pack(self.root.clone(), Arc::clone(&self.manifest), ignore)
    }

    /// Reads a file, relative to the context's root. Links are followed within that root.
    ///
    /// # Errors
    /// [`ContextError`].
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>, ContextError> {
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

    /// Resolves `path` relative to the root, link by link, without reading anything outside of it. Nothing changes a
    /// checkout meanwhile, so the checked file is the one that is opened.
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
            // Whatever is not a link is handled when it is opened.
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

/// A path without links, relative to the root.
struct Found {
    path: PathBuf,
    is_behind_link: bool,
}

/// The names and `..` of a path; `None` if the path is absolute.
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

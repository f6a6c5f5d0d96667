//! Fetches a run's source into a folder.
//!
//! In: a git repository, an uploaded archive, an archive's URL, or an artifact in a registry. Out: a [`Checkout`], with its Dockerfile and ignore
//! rules to be read, and its files to be streamed to the engine. All content is untrusted: it is limited in bytes and
//! entries, cannot leave its folder, and no link in it is followed to the outside.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::source::{CommitId, RefName, SourcePath, TarballUrl};
use gantry_remote::git::{Git, GitError};
use gantry_remote::guard::OutboundRefused;
use gantry_remote::http::{OutboundClient, OutboundError, StatusCode};
use gantry_remote::lfs::LfsError;
use gantry_remote::registry::RegistryError;
use tempfile::TempDir;
use tokio::io::AsyncRead;
use tokio::time::Instant;

mod artifact;
mod attributes;
mod context;
mod download;
mod git;
mod hashed;
mod lfs;
mod lock;
mod mirrors;
mod pack;
mod pull_request;
mod unpack;

pub use context::ContextError;
pub use pull_request::Chosen;
pub use unpack::{UnpackError, UnpackLimits, unpack};

use attributes::Manifest;
use hashed::hashed;
use mirrors::Mirrors;

/// Fetches sources. Clones share the mirrors.
#[derive(Debug, Clone)]
pub struct Sources {
    git: Git,
    http: OutboundClient,
    folder: PathBuf,
    mirrors: Mirrors,
    limits: UnpackLimits,
}

/// A source in a folder, which is removed when this is dropped.
#[derive(Debug)]
pub struct Checkout {
    /// Shared with views of its folders.
    folder: Option<Arc<TempDir>>,
    root: PathBuf,
    manifest: Arc<Manifest>,
    commit: Option<CommitId>,
    branch: Option<RefName>,
    notes: Vec<String>,
}

impl Checkout {
    /// The root of the context.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The commit, if it came from git.
    #[must_use]
    pub fn commit(&self) -> Option<&CommitId> {
        self.commit.as_ref()
    }

    /// The requested or default branch, if it came from git.
    #[must_use]
    pub fn branch(&self) -> Option<&RefName> {
        self.branch.as_ref()
    }

    /// Lines for the log: about each submodule that it contains, and about files of Git LFS.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn of_archive(folder: TempDir, manifest: Manifest) -> Self {
        let root = folder.path().to_owned();
        let manifest = Arc::new(manifest);
        Self {
            folder: Some(Arc::new(folder)),
            root,
            manifest,
            commit: None,
            branch: None,
            notes: Vec::new(),
        }
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take().and_then(Arc::into_inner) else { return };
        // Removing a large tree takes a while, and nothing waits for it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(folder));
        }
    }
}

/// A source could not be fetched.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum SourceError {
    /// An error of git.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A submodule cannot be fetched.
    #[error("the submodule `{path}` could not be fetched")]
    Submodule {
        /// Its place in the source.
        path: SourcePath,
        /// The error.
        source: Box<SourceError>,
    },
    /// A file of Git LFS cannot be fetched.
    #[error("the file `{path}`, which Git LFS keeps, could not be fetched")]
    Lfs {
        /// Its place in its repository.
        path: String,
        /// The error.
        source: Box<LfsError>,
    },
    /// The archive cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The guard refused the archive's URL.
    #[error(transparent)]
    Outbound(#[from] OutboundRefused),
    /// The archive's server did not answer.
    #[error("the archive {url} could not be fetched")]
    Download {
        /// Without its query, which may be a signature.
        url: Box<TarballUrl>,
        /// The error.
        source: OutboundError,
    },
    /// The archive's server returned an error.
    #[error(
        "the archive {url} could not be fetched: the server answered {status}: check the address"
    )]
    Status {
        /// Without its query.
        url: Box<TarballUrl>,
        /// The status.
        status: StatusCode,
    },
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What the registry has is no artifact with files.
    #[error(
        "oci://{image} has no files: it is an image or an index, and not an artifact as `oras push` makes it"
    )]
    NoArtifact { image: Box<ImageReference> },
    /// A layer is not the one of its digest.
    #[error(
        "the registry sent something else than the layer `{name}` of oci://{image}: push the artifact again"
    )]
    OtherLayer {
        image: Box<ImageReference>,
        /// The name of the file or folder.
        name: String,
    },
    /// The archive in the object store is not the uploaded one.
    #[error(
        "the archive in the object store has the SHA-256 {hash}, and {digest} was uploaded: something else than gantry wrote \
         there, so it is not built: find out who may write to the object store (docs/redis-acl.md), then upload it again"
    )]
    Exchanged {
        /// The hash of what is in the object store.
        hash: String,
        /// The digest of what was uploaded.
        digest: Digest,
    },
    /// The deadline passed.
    #[error("fetching the source timed out: raise the run's timeout, or make the source smaller")]
    TimedOut,
    /// The source could not be stored.
    #[error("cannot keep the source under {}", .folder.display())]
    Folder {
        folder: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl SourceError {
    /// Whether a retry may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Git(error) => error.is_transient(),
            Self::Submodule { source, .. } => source.is_transient(),
            Self::Lfs { source, .. } => source.is_transient(),
            Self::Unpack(error) => error.is_transient(),
            Self::Download { source, .. } => source.is_transient(),
            Self::Registry(error) => error.is_transient(),
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::TimedOut | Self::Folder { .. } => true,
            Self::Outbound(_)
            | Self::NoArtifact { .. }
            | Self::OtherLayer { .. }
            | Self::Exchanged { .. } => false,
        }
    }

    /// Whether the server did not answer, or a gateway answered in its place.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Git(error) => error.is_away(),
            Self::Submodule { source, .. } => source.is_away(),
            Self::Lfs { source, .. } => source.is_away(),
            Self::Download { source, .. } => source.is_transient(),
            Self::Status { status, .. } => gantry_remote::http::says_away(*status),
            Self::Registry(error) => error.is_away(),
            Self::Unpack(_)
            | Self::NoArtifact { .. }
            | Self::OtherLayer { .. }
            | Self::Exchanged { .. }
            | Self::TimedOut
            | Self::Folder { .. }
            | Self::Outbound(_) => false,
        }
    }

    /// Whether the disk of this machine is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Git(error) => matches!(error, GitError::DiskFull { .. }),
            Self::Submodule { source, .. } => source.is_disk_full(),
            Self::Unpack(error) => matches!(error, UnpackError::DiskFull { .. }),
            Self::Folder { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Lfs { .. }
            | Self::Download { .. }
            | Self::Status { .. }
            | Self::Registry(_)
            | Self::NoArtifact { .. }
            | Self::OtherLayer { .. }
            | Self::TimedOut
            | Self::Outbound(_)
            | Self::Exchanged { .. } => false,
        }
    }
}

impl Sources {
    /// Stores sources, and at most `mirror_bytes` of mirrors, in `folder`, which must be absolute and used by nobody
    /// else. Git processes that a killed owner left are killed first, so that none of them writes to a mirror in use.
    ///
    /// # Errors
    /// [`SourceError::Folder`] if the folder cannot be created.
    pub fn open(
        folder: PathBuf,
        git: Git,
        http: OutboundClient,
        limits: UnpackLimits,
        mirror_bytes: u64,
    ) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Folder { folder: folder.clone(), source };
        let git = git.owning(&folder).map_err(failed)?;
        let checkouts = folder.join("checkouts");
        // A checkout that a killed process left is of no use without its run.
        let _absent = std::fs::remove_dir_all(&checkouts);
        let mirrors = Mirrors::new(folder.join("mirrors"), mirror_bytes);
        let made = std::fs::create_dir_all(&checkouts).and_then(|()| mirrors.make_folder());
        made.map_err(failed)?;
        Ok(Self { git, http, folder: checkouts, mirrors, limits })
    }

    /// Unpacks an archive: a tar, plain or gzipped.
    ///
    /// # Errors
    /// [`SourceError::Unpack`], [`SourceError::Folder`], [`SourceError::TimedOut`].
    pub async fn from_archive(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
        deadline: Instant,
    ) -> Result<Checkout, SourceError> {
        unpack::unpack(archive, self.new_folder()?, self.limits, deadline).await
    }

    /// Unpacks an uploaded archive, if it has this digest.
    ///
    /// # Errors
    /// [`SourceError::Exchanged`], and those of [`Sources::from_archive`].
    pub async fn from_upload(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Checkout, SourceError> {
        let (archive, hash) = hashed(archive);
        let checkout = self.from_archive(archive, deadline).await?;
        let hash = tokio::time::timeout_at(deadline, hash.finish()).await;
        let hash = hash.map_err(|_| SourceError::TimedOut)?;
        let hash = hash.map_err(|source| UnpackError::BrokeOff { source })?;
        if digest.as_str().strip_prefix("sha256:") != Some(hash.as_str()) {
            return Err(SourceError::Exchanged { hash, digest: digest.clone() });
        }
        Ok(checkout)
    }

    /// Downloads an archive from a web server and unpacks it.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn from_tarball(
        &self,
        url: &TarballUrl,
        deadline: Instant,
    ) -> Result<Checkout, SourceError> {
        let archive = download::open(&self.http, url, deadline).await?;
        self.from_archive(archive, deadline).await
    }

    fn new_folder(&self) -> Result<TempDir, SourceError> {
        TempDir::new_in(&self.folder)
            .map_err(|source| SourceError::Folder { folder: self.folder.clone(), source })
    }
}

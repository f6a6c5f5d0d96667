//! Fetches and checks out a commit, with its submodules and its files of Git LFS if the source wants them.
//!
//! A submodule is a repository like any other: its address goes through the guard, it has a mirror, and its commit is
//! fetched by its id. What all of them fetch and write counts against the limits of one source. The run's token is sent
//! to the host of the source alone, and for a fork's submodules, which a stranger has chosen, not at all.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use gantry_domain::source::{GitSource, GitUrl, RefName, SourcePath};
use gantry_ops::secret::Credentials;
use gantry_remote::git::{GitError, Remote, ResolvedRef, Submodule, Used, is_folder_of};
use tempfile::TempDir;
use tokio::time::Instant;

use super::attributes::Manifest;
use super::lfs::Kept;
use super::mirrors::{Shown, Trust};
use super::{Checkout, SourceError, Sources};

/// The most submodules of a source, all levels together.
const MOST_SUBMODULES: usize = 128;
/// The most submodules in each other.
const DEEPEST: usize = 8;

/// A commit to be fetched and written.
struct Part<'a> {
    remote: Remote<'a>,
    head: &'a ResolvedRef,
    shown: Shown,
    trust: Trust,
    /// The only folder that is written.
    inner: Option<&'a SourcePath>,
    has_submodules: bool,
    has_lfs: bool,
}

/// A submodule to be fetched, with its place in the source and the number of repositories around it.
struct Below {
    submodule: Submodule,
    path: SourcePath,
    depth: usize,
}

impl Sources {
    /// Fetches a commit of a git repository. The root of the context is the source's folder in it.
    ///
    /// # Errors
    /// [`SourceError::Git`], [`SourceError::Submodule`], [`SourceError::Folder`], [`SourceError::TimedOut`].
    pub async fn from_git(
        &self,
        source: &GitSource,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<Checkout, SourceError> {
        let host_keys = &source.host_keys;
        let remote = Remote { url: &source.url, credentials, host_keys, deadline };
        let (head, shown) = match source.reference.as_ref().and_then(RefName::commit) {
            Some(commit) => (ResolvedRef::of_commit(commit), Shown::NotYet),
            None => (self.resolve(remote, source.reference.as_ref()).await?, Shown::Already),
        };
        self.checkout_of(remote, head, shown, source, Trust::Own).await
    }

    /// Asks the host for the commit of a reference, or of an abbreviated id, which may be anywhere in the history.
    async fn resolve(
        &self,
        remote: Remote<'_>,
        reference: Option<&RefName>,
    ) -> Result<ResolvedRef, SourceError> {
        let unknown = match self.git.resolve(remote, reference).await {
            Err(unknown @ GitError::UnknownRef { .. }) => unknown,
            resolved => return Ok(resolved?),
        };
        let Some(prefix) = reference.and_then(RefName::commit_prefix) else {
            return Err(unknown.into());
        };
        let scratch = self.new_folder()?;
        let commit = Box::pin(self.git.find_commit(remote, &prefix, scratch.path())).await?;
        Ok(ResolvedRef::of_commit(commit))
    }

    /// Fetches and checks out a commit, once the host has shown it to these credentials.
    pub(super) async fn checkout_of(
        &self,
        remote: Remote<'_>,
        head: ResolvedRef,
        shown: Shown,
        source: &GitSource,
        trust: Trust,
    ) -> Result<Checkout, SourceError> {
        let inner = source.folder.as_ref();
        let (has_submodules, has_lfs) = (source.submodules, source.lfs);
        let top = Part { remote, head: &head, shown, trust, inner, has_submodules, has_lfs };
        // In a box, because the stack of a thread does not hold everything that a source needs.
        let work = Box::pin(self.check_out(&top));
        let work = tokio::time::timeout_at(remote.deadline, work).await;
        let (folder, notes) = match work.map_err(|_| SourceError::TimedOut)? {
            Err(error) if error.is_disk_full() => {
                // The run is tried again, and files of runs are worth more than mirrors.
                self.mirrors.clear().await;
                return Err(error);
            }
            done => done?,
        };
        let root = inner
            .map_or_else(|| folder.path().to_owned(), |inner| folder.path().join(inner.as_str()));
        Ok(Checkout {
            folder: Some(Arc::new(folder)),
            root,
            manifest: Arc::new(Manifest::Commit),
            commit: Some(head.commit),
            branch: head.branch,
            notes,
        })
    }

    /// Writes a commit and its submodules into a new folder. Also returns a line about each submodule, and about files of Git
    /// LFS.
    async fn check_out(&self, top: &Part<'_>) -> Result<(TempDir, Vec<String>), SourceError> {
        let folder = self.new_folder()?;
        let mut used = Used::default();
        let mut lines = Vec::new();
        let found = Box::pin(self.write(top, folder.path(), &mut used, &mut lines)).await?;
        let mut waiting = VecDeque::new();
        wait(&mut waiting, found, None)?;
        let mut submodules = 0;
        while let Some(below) = waiting.pop_front() {
            let Below { submodule, path, depth } = below;
            if submodules == MOST_SUBMODULES {
                return Err(too_many(top.remote.url, format!("{MOST_SUBMODULES} submodules")));
            }
            let of_path = |source: SourceError| SourceError::Submodule {
                path: path.clone(),
                source: Box::new(source),
            };
            submodules += 1;
            let into = folder.path();
            let found = self.write_submodule(top, &submodule, (&path, into), &mut used, &mut lines);
            let found = Box::pin(found).await.map_err(of_path)?;
            lines.push(format!("submodule {path} is {} at {}", submodule.url, submodule.commit));
            wait(&mut waiting, found, Some((&path, depth)))?;
        }
        self.mirrors.trim().await;
        Ok((folder, lines))
    }

    async fn write_submodule(
        &self,
        top: &Part<'_>,
        submodule: &Submodule,
        (path, root): (&SourcePath, &Path),
        used: &mut Used,
        lines: &mut Vec<String>,
    ) -> Result<Vec<Submodule>, SourceError> {
        let into = root.join(path.as_str());
        // Git has made it. If a link is there instead, it leads elsewhere.
        if !is_folder_of(root, path) {
            let why = "there is no folder at its path".to_owned();
            return Err(GitError::Submodule { path: path.to_string(), why }.into());
        }
        let Remote { url, credentials, host_keys, deadline } = top.remote;
        let may_have = top.trust == Trust::Own && is_one_host(url, &submodule.url);
        let credentials = credentials.filter(|_| may_have);
        let host_keys = if may_have { host_keys } else { &[] };
        let part = Part {
            remote: Remote { url: &submodule.url, credentials, host_keys, deadline },
            head: &ResolvedRef::of_commit(submodule.commit.clone()),
            shown: Shown::NotYet,
            trust: top.trust,
            inner: None,
            has_submodules: true,
            has_lfs: top.has_lfs,
        };
        self.write(&part, &into, used, lines).await
    }

    /// Writes a commit into an empty folder, and returns its submodules if they are wanted.
    async fn write(
        &self,
        part: &Part<'_>,
        into: &Path,
        used: &mut Used,
        lines: &mut Vec<String>,
    ) -> Result<Vec<Submodule>, SourceError> {
        let Part { remote, head, shown, trust, inner, has_submodules, has_lfs } = *part;
        let mirror = self.mirrors.of(remote.url, head.commit.object_format(), trust);
        let git = self.git.having_used(*used);
        let mut reading = mirror.read(&git, remote, head, shown).await?;
        let (commit, deadline) = (&head.commit, remote.deadline);
        let written = match git.checkout(reading.path(), commit, inner, into, deadline).await {
            Err(error) if error.may_be_local() => {
                tracing::info!("the mirror of {} is damaged: {error}", remote.url);
                self.empty(into)?;
                reading = mirror.renew(&git, remote, head, reading).await?;
                git.checkout(reading.path(), commit, inner, into, deadline).await?
            }
            written => written?,
        };
        *used = Used { fetched_bytes: used.fetched_bytes + reading.fetched(), ..written };
        if has_lfs {
            // For a fork a stranger has chosen what is fetched.
            let credentials = remote.credentials.filter(|_| trust == Trust::Own);
            let remote = Remote { credentials, ..remote };
            let kept = Kept { remote, mirror: reading.path(), commit, into };
            lines.extend(Box::pin(self.fetch_kept(kept, used)).await?);
        }
        if !has_submodules {
            return Ok(Vec::new());
        }
        let most = MOST_SUBMODULES;
        let (path, url) = (reading.path(), remote.url);
        Ok(git.submodules(path, commit, inner, url, most, deadline).await?)
    }

    fn empty(&self, folder: &Path) -> Result<(), SourceError> {
        let emptied = std::fs::remove_dir_all(folder).and_then(|()| std::fs::create_dir(folder));
        emptied.map_err(|source| SourceError::Folder { folder: folder.to_owned(), source })
    }
}

/// Adds the submodules of a repository, which is itself one at a path, in so many others.
fn wait(
    waiting: &mut VecDeque<Below>,
    found: Vec<Submodule>,
    around: Option<(&SourcePath, usize)>,
) -> Result<(), SourceError> {
    for submodule in found {
        let (path, depth) = match around {
            None => (submodule.path.clone(), 1),
            Some((_, DEEPEST)) => {
                return Err(too_many(
                    &submodule.url,
                    format!("{DEEPEST} submodules in each other"),
                ));
            }
            Some((around, depth)) => {
                let path = format!("{around}/{}", submodule.path);
                let refused = |error: gantry_domain::InvalidText| GitError::Submodule {
                    path: submodule.path.to_string(),
                    why: error.to_string(),
                };
                (path.parse().map_err(refused)?, depth + 1)
            }
        };
        waiting.push_back(Below { submodule, path, depth });
    }
    Ok(())
}

fn too_many(url: &GitUrl, most: String) -> SourceError {
    GitError::TooLarge { what: format!("the source at {url}"), most }.into()
}

/// Whether a token for one repository may be sent for the other.
fn is_one_host(one: &GitUrl, other: &GitUrl) -> bool {
    let (one, other) = (one.as_url(), other.as_url());
    one.scheme() == other.scheme()
        && one.username() == other.username()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

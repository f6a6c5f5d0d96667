//! Replaces the pointers of Git LFS in a checkout by their files.
//!
//! A file is a pointer if it parses as one and the commit's attributes give it to Git LFS. Whatever `.lfsconfig` says, the
//! server is the repository's own. What is fetched and written counts against the limits of the source, and is compared
//! with its size and SHA-256 before it takes the pointer's place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_domain::source::CommitId;
use gantry_ops::aside;
use gantry_remote::git::{GitError, Remote, Used};
use gantry_remote::lfs::{FILES_A_REQUEST, LONGEST_POINTER, LfsError, LfsServer, Located, Pointer};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::time::{Instant, timeout_at};

use super::{SourceError, Sources};

/// How many files are fetched at once.
const AT_ONCE: usize = 4;

/// How much is written to a file at once.
const PIECE: usize = 256 << 10;

/// A checked-out commit whose files Git LFS may keep.
pub(super) struct Kept<'a> {
    pub(super) remote: Remote<'a>,
    pub(super) mirror: &'a Path,
    pub(super) commit: &'a CommitId,
    pub(super) into: &'a Path,
}

/// The paths of a file, relative to the checkout: it may be there several times.
type Places = BTreeMap<Pointer, Vec<String>>;

impl Sources {
    /// Fetches the files that Git LFS keeps of a checked-out commit. Returns lines about them for the log.
    pub(super) async fn fetch_kept(
        &self,
        kept: Kept<'_>,
        used: &mut Used,
    ) -> Result<Vec<String>, SourceError> {
        let Kept { remote, mirror, commit, into } = kept;
        let mut lines = Vec::new();
        let server = LfsServer::of(&self.http, remote.url, remote.credentials);
        let server = server.map_err(|error| of_path(".", error))?;
        if into.join(".lfsconfig").is_file() {
            let address = server.address();
            lines.push(format!("`.lfsconfig` is not obeyed: files are fetched from {address}"));
        }
        let folder = into.to_owned();
        let found = aside::read(move || pointers(&folder)).await;
        let failed = |source| SourceError::Folder { folder: into.to_owned(), source };
        let found = found.map_err(std::io::Error::other).and_then(|found| found).map_err(failed)?;
        let paths = found.keys().cloned().collect();
        let named = self.git.kept_by_lfs(mirror, commit, paths, remote.deadline).await?;
        let mut places = Places::new();
        for path in named {
            if let Some(pointer) = found.get(&path) {
                places.entry(pointer.clone()).or_default().push(path);
            }
        }
        if places.is_empty() {
            return Ok(lines);
        }
        self.count(&places, remote, used)?;
        let (files, bytes) = (places.values().flatten().count(), total(&places));
        self.fetch_files_of(&server, places, into, remote.deadline).await?;
        let address = server.address();
        lines
            .push(format!("{files} files of Git LFS from {address}, {} KiB", bytes.div_ceil(1024)));
        Ok(lines)
    }

    /// Counts what will be fetched and written against the limits.
    fn count(
        &self,
        places: &Places,
        remote: Remote<'_>,
        used: &mut Used,
    ) -> Result<(), SourceError> {
        let limits = self.git.limits();
        let what = || format!("the source at {}, with what Git LFS keeps,", remote.url);
        for (pointer, paths) in places {
            let written = pointer.size.saturating_mul(paths.len() as u64);
            used.fetched_bytes = used.fetched_bytes.saturating_add(pointer.size);
            used.checkout_bytes = used.checkout_bytes.saturating_add(written);
            let over = [
                (used.fetched_bytes, limits.fetched_bytes),
                (used.checkout_bytes, limits.checkout_bytes),
            ];
            if let Some((_, most)) = over.into_iter().find(|(used, most)| used > most) {
                let most = format!("{} MiB", most >> 20);
                return Err(GitError::TooLarge { what: what(), most }.into());
            }
        }
        Ok(())
    }

    async fn fetch_files_of(
        &self,
        server: &LfsServer,
        places: Places,
        into: &Path,
        deadline: Instant,
    ) -> Result<(), SourceError> {
        let all: Vec<(Pointer, Vec<String>)> = places.into_iter().collect();
        for part in all.chunks(FILES_A_REQUEST) {
            let pointers: Vec<Pointer> = part.iter().map(|(pointer, _)| pointer.clone()).collect();
            let first = part.first().and_then(|(_, paths)| paths.first());
            let first = first.map_or(".", String::as_str);
            let located = server.locate(&pointers, deadline).await;
            let located = located.map_err(|error| of_path(first, error))?;
            // An address is used soon after it was given: it may hold for minutes only.
            let fetching = part.iter().zip(located).map(|((pointer, paths), located)| {
                let fetched = self.fetch_one(server, pointer, located, paths, into, deadline);
                async move {
                    let path = paths.first().map_or(".", String::as_str);
                    fetched.await.map_err(|error| error.of(path))
                }
            });
            let fetching: Vec<_> = fetching.collect();
            stream::iter(fetching).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        }
        Ok(())
    }

    /// Fetches a file into each of its places.
    async fn fetch_one(
        &self,
        server: &LfsServer,
        pointer: &Pointer,
        located: Result<Located, LfsError>,
        paths: &[String],
        into: &Path,
        deadline: Instant,
    ) -> Result<(), Unfetched> {
        let located = located?;
        let file = NamedTempFile::new_in(&self.folder).map_err(Unfetched::Disk)?;
        let writing = write(server, pointer, &located, file.as_file(), deadline);
        timeout_at(deadline, writing).await.map_err(|_| LfsError::TimedOut)??;
        let places: Vec<PathBuf> = paths.iter().map(|path| into.join(path)).collect();
        let placed = aside::read(move || place(file, &places)).await;
        placed.map_err(std::io::Error::other).and_then(|placed| placed).map_err(Unfetched::Disk)
    }
}

/// Why a file was not fetched.
enum Unfetched {
    Lfs(LfsError),
    Disk(std::io::Error),
}

impl From<LfsError> for Unfetched {
    fn from(error: LfsError) -> Self {
        Self::Lfs(error)
    }
}

impl Unfetched {
    fn of(self, path: &str) -> SourceError {
        match self {
            Self::Lfs(error) => of_path(path, error),
            Self::Disk(source) => SourceError::Folder { folder: PathBuf::from(path), source },
        }
    }
}

fn of_path(path: &str, error: LfsError) -> SourceError {
    SourceError::Lfs { path: path.to_owned(), source: Box::new(error) }
}

fn total(places: &Places) -> u64 {
    places.keys().fold(0, |bytes, pointer| bytes.saturating_add(pointer.size))
}

/// Writes the content of a file, if it is that of the pointer.
async fn write(
    server: &LfsServer,
    pointer: &Pointer,
    located: &Located,
    mut file: &File,
    deadline: Instant,
) -> Result<(), Unfetched> {
    let mut response = server.open(located, deadline).await?;
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let other = || LfsError::OtherContent { server: host.clone(), oid: pointer.oid.clone() };
    let (mut hasher, mut length, mut piece) = (Sha256::new(), 0_u64, Vec::new());
    loop {
        let chunk = server.next(&mut response).await?;
        let is_end = chunk.is_none();
        let chunk = chunk.unwrap_or_default();
        length = length.saturating_add(chunk.len() as u64);
        if length > pointer.size {
            return Err(other().into());
        }
        piece.extend_from_slice(&chunk);
        if piece.len() >= PIECE || is_end {
            // In pieces that a disk takes at once, like the files of archives.
            file.write_all(&piece).map_err(Unfetched::Disk)?;
            hasher.update(&piece);
            piece.clear();
        }
        if is_end {
            break;
        }
    }
    match length == pointer.size && hex::encode(hasher.finalize()) == pointer.oid {
        true => Ok(()),
        false => Err(other().into()),
    }
}

/// Puts a file in the places of its pointers, with their modes.
fn place(file: NamedTempFile, places: &[PathBuf]) -> std::io::Result<()> {
    let Some((last, others)) = places.split_last() else { return Ok(()) };
    for place in others {
        let mode = std::fs::symlink_metadata(place)?.permissions();
        std::fs::remove_file(place)?;
        std::fs::copy(file.path(), place)?;
        std::fs::set_permissions(place, mode)?;
    }
    let mode = std::fs::symlink_metadata(last)?.permissions();
    file.as_file().set_permissions(mode)?;
    file.persist(last).map_err(|error| error.error)?;
    Ok(())
}

/// The pointers below a folder, by their paths in it. Follows no link. A file whose name is no text is none: no attribute of
/// Git LFS is meant for it.
fn pointers(root: &Path) -> std::io::Result<BTreeMap<String, Pointer>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && let Some(pointer) = pointer(&path)?
                && let Ok(relative) = path.strip_prefix(root)
                && let Ok(name) = std::str::from_utf8(relative.as_os_str().as_bytes())
            {
                found.insert(name.to_owned(), pointer);
            }
        }
    }
    Ok(found)
}

fn pointer(path: &Path) -> std::io::Result<Option<Pointer>> {
    if std::fs::symlink_metadata(path)?.len() > LONGEST_POINTER {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST_POINTER + 1).read_to_end(&mut bytes)?;
    Ok(Pointer::parse(&bytes))
}

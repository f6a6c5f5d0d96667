//! An archive from strangers, unpacked into a folder that it cannot leave.
//!
//! Links are made last, when every file stands: while files are written there is no link that a path could lead
//! through. Where a link points is not looked at, because nothing here follows one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufRead as _, BufReader, ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry};
use tempfile::TempDir;
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout_at};
use tokio_util::io::SyncIoBridge;

use super::SourceError;
use error::shown;
use reading::{CopyError, End, Incoming, Metered, copy};

mod error;
mod reading;

pub use error::{UnpackError, UnpackLimits};

/// What stands between two files of an archive: headers, names, what is skipped. A name says how long it is and is taken
/// into memory, so this is what memory is bounded by.
const MOST_BETWEEN: u64 = 1 << 20;
/// What each entry may take of it without the next having less.
const BETWEEN_EACH: u64 = 4096;

/// Folders in each other. Whoever walks a tree, be it to remove it, holds one open file for each.
const DEEPEST: usize = 128;

/// How compressed archives begin that are not unpacked.
const UNKNOWN_FORMATS: [(&[u8], &str); 6] = [
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
];

/// Unpacks into `folder`, on a thread of its own, and gives the folder back.
///
/// Dropped or late, it ends at the next piece that is read; the folder is removed when the thread is done with it.
///
/// # Errors
/// [`SourceError`]: the archive was refused, broke off or took too long.
pub async fn unpack(
    archive: impl AsyncRead + Send + Unpin + 'static,
    folder: TempDir,
    limits: UnpackLimits,
    deadline: Instant,
) -> Result<TempDir, SourceError> {
    let stop = StopOnDrop::default();
    let stopped = Arc::clone(&stop.0);
    let bridge = SyncIoBridge::new(archive);
    let work = tokio::task::spawn_blocking(move || {
        let incoming = Incoming::new(bridge, limits.archive_bytes, stopped);
        Unpacking::new(folder.path(), limits).run(incoming).map(|()| folder)
    });
    let done = timeout_at(deadline, work).await.map_err(|_| SourceError::TimedOut)?;
    match done {
        Ok(unpacked) => Ok(unpacked?),
        // The thread ended without a result: it panicked.
        Err(source) => Err(UnpackError::Damaged { source: std::io::Error::other(source) }.into()),
    }
}

#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A folder whose mode and time are set when nothing is written into it any more.
struct Folder {
    path: PathBuf,
    mode: u32,
    changed: SystemTime,
}

struct Unpacking<'a> {
    into: &'a Path,
    limits: UnpackLimits,
    bytes: u64,
    entries: u64,
    folders: Vec<Folder>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl<'a> Unpacking<'a> {
    fn new(into: &'a Path, limits: UnpackLimits) -> Self {
        Self { into, limits, bytes: 0, entries: 0, folders: Vec::new(), links: BTreeMap::new() }
    }

    fn run(mut self, mut incoming: Incoming<impl Read>) -> Result<(), UnpackError> {
        let result = self.read(&mut incoming);
        match incoming.end() {
            End::No => result,
            End::TooLarge => Err(UnpackError::too_large("bytes", mib(self.limits.archive_bytes))),
            End::Broke(source) => Err(UnpackError::BrokeOff { source }),
        }
    }

    fn read(&mut self, incoming: &mut impl Read) -> Result<(), UnpackError> {
        let mut buffered = BufReader::with_capacity(128 << 10, incoming);
        let damaged = |source| UnpackError::Damaged { source };
        let start = buffered.fill_buf().map_err(damaged)?;
        if let Some((_, format)) =
            UNKNOWN_FORMATS.iter().find(|(magic, _)| start.starts_with(magic))
        {
            return Err(UnpackError::UnknownFormat { format });
        }
        if start.starts_with(&[0x1f, 0x8b]) {
            self.entries_of(MultiGzDecoder::new(buffered))?;
        } else {
            self.entries_of(buffered)?;
        }
        self.make_links()?;
        self.finish_folders()
    }

    fn entries_of(&mut self, tar: impl Read) -> Result<(), UnpackError> {
        let budget = Rc::new(Cell::new(MOST_BETWEEN));
        let mut archive = Archive::new(Metered { inner: tar, budget: Rc::clone(&budget) });
        let mut entries = archive.entries().map_err(|source| UnpackError::Damaged { source })?;
        let mut between = MOST_BETWEEN;
        loop {
            budget.set(between);
            let next = entries.next();
            let left = budget.replace(self.limits.unpacked_bytes - self.bytes + 1);
            between = (left + BETWEEN_EACH).min(MOST_BETWEEN);
            let entry = match next {
                None => break,
                Some(Ok(entry)) => entry,
                Some(Err(_)) if left == 0 => {
                    return Err(UnpackError::too_large(
                        "names and bytes outside of files",
                        mib(MOST_BETWEEN),
                    ));
                }
                Some(Err(_)) if self.entries == 0 => return Err(UnpackError::NoArchive),
                Some(Err(source)) => return Err(UnpackError::Damaged { source }),
            };
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(UnpackError::too_large(
                    "files, folders and links",
                    self.limits.entries.to_string(),
                ));
            }
            self.add(entry)?;
        }
        // A tar of nothing still has its end; no bytes at all are no tar.
        if self.entries == 0 { Err(UnpackError::NoArchive) } else { Ok(()) }
    }

    fn add(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let named = entry.path().map_err(|source| UnpackError::Damaged { source })?.into_owned();
        let Some(path) = beneath(&named)? else { return Ok(()) };
        self.refuse_behind_link(&path, &named)?;
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        let changed = changed(&entry);
        if kind.is_dir() {
            self.add_folder(&path, mode, changed)
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            self.add_file(&path, mode, changed, &mut entry)
        } else if kind.is_symlink() {
            self.make_room(&path)?;
            self.links.insert(path, link_target(&entry)?);
            Ok(())
        } else if kind.is_hard_link() {
            self.add_hard_link(&path, &link_target(&entry)?)
        } else {
            Err(UnpackError::unsafe_entry(&named, "is no file, folder or link"))
        }
    }

    fn add_folder(
        &mut self,
        path: &Path,
        mode: u32,
        changed: SystemTime,
    ) -> Result<(), UnpackError> {
        self.links.remove(path);
        let target = self.into.join(path);
        std::fs::create_dir_all(&target).map_err(|source| self.write_error(path, source))?;
        // Its owner, who is this process, must be able to look into it and to remove it.
        self.folders.push(Folder { path: target, mode: mode | 0o700, changed });
        Ok(())
    }

    fn add_file(
        &mut self,
        path: &Path,
        mode: u32,
        changed: SystemTime,
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        self.make_room(path)?;
        let error = |source| self.write_error(path, source);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.into.join(path))
            .map_err(error)?;
        let left = self.limits.unpacked_bytes - self.bytes;
        let copied =
            copy(&mut content.take(left + 1), &mut file).map_err(|failed| match failed {
                CopyError::Read(source) => UnpackError::Damaged { source },
                CopyError::Write(source) => self.write_error(path, source),
            })?;
        self.count(copied)?;
        let error = |source| self.write_error(path, source);
        file.set_modified(changed).map_err(error)?;
        file.set_permissions(Permissions::from_mode(mode | 0o400)).map_err(error)
    }

    fn add_hard_link(&mut self, path: &Path, target: &Path) -> Result<(), UnpackError> {
        let refused = || UnpackError::unsafe_entry(path, "is a link to no file before it");
        let inner = beneath(target)?.ok_or_else(refused)?;
        if self.links.contains_key(&inner) {
            let link = self.links[&inner].clone();
            self.make_room(path)?;
            self.links.insert(path.to_owned(), link);
            return Ok(());
        }
        self.refuse_behind_link(&inner, path)?;
        let target = self.into.join(&inner);
        let metadata = target.symlink_metadata().map_err(|_| refused())?;
        if !metadata.is_file() || inner == path {
            return Err(refused());
        }
        // It takes no room here, but it will in the context that is sent.
        self.count(metadata.len())?;
        self.make_room(path)?;
        std::fs::hard_link(target, self.into.join(path))
            .map_err(|source| self.write_error(path, source))
    }

    fn count(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.bytes += bytes;
        if self.bytes > self.limits.unpacked_bytes {
            return Err(UnpackError::too_large("bytes", mib(self.limits.unpacked_bytes)));
        }
        Ok(())
    }

    /// Makes the folder that `path` stands in and removes what stood there before: the last entry of a name counts.
    fn make_room(&mut self, path: &Path) -> Result<(), UnpackError> {
        self.links.remove(path);
        let target = self.into.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(|source| self.write_error(path, source))?;
        }
        match std::fs::remove_file(&target) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(self.write_error(path, source))
            }
            _ => Ok(()),
        }
    }

    fn refuse_behind_link(&self, path: &Path, named: &Path) -> Result<(), UnpackError> {
        match path.ancestors().skip(1).any(|folder| self.links.contains_key(folder)) {
            true => Err(UnpackError::unsafe_entry(named, "lies behind a link")),
            false => Ok(()),
        }
    }

    fn make_links(&self) -> Result<(), UnpackError> {
        for (path, target) in &self.links {
            symlink(target, self.into.join(path))
                .map_err(|source| self.write_error(path, source))?;
        }
        Ok(())
    }

    /// Inner folders come last in an archive, so they are finished first.
    fn finish_folders(&self) -> Result<(), UnpackError> {
        for folder in self.folders.iter().rev() {
            let finished =
                std::fs::set_permissions(&folder.path, Permissions::from_mode(folder.mode))
                    .and_then(|()| File::open(&folder.path)?.set_modified(folder.changed));
            finished.map_err(|source| self.write_error(&folder.path, source))?;
        }
        Ok(())
    }

    fn write_error(&self, path: &Path, source: std::io::Error) -> UnpackError {
        let is_one_of = |kinds: &[ErrorKind]| kinds.contains(&source.kind());
        if is_one_of(&[ErrorKind::StorageFull, ErrorKind::QuotaExceeded]) {
            return UnpackError::DiskFull { folder: self.into.to_owned() };
        }
        if is_one_of(&[ErrorKind::NotADirectory, ErrorKind::IsADirectory, ErrorKind::AlreadyExists])
        {
            return UnpackError::unsafe_entry(path, "is both a file and a folder");
        }
        if source.kind() == ErrorKind::InvalidFilename {
            return UnpackError::unsafe_entry(path, "has a longer name than this system takes");
        }
        UnpackError::Write { path: shown(path), source }
    }
}

/// The path without `.`; `None` for the root itself.
fn beneath(named: &Path) -> Result<Option<PathBuf>, UnpackError> {
    let mut path = PathBuf::new();
    if named.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(UnpackError::unsafe_entry(named, "has a NUL in its name"));
    }
    for component in named.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err(UnpackError::unsafe_entry(named, "has `..` in it")),
            Component::RootDir | Component::Prefix(_) => {
                return Err(UnpackError::unsafe_entry(named, "begins at the root of the machine"));
            }
        }
    }
    if path.components().count() > DEEPEST + 1 {
        return Err(UnpackError::unsafe_entry(named, "lies in more than 128 folders"));
    }
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

fn link_target(entry: &Entry<'_, impl Read>) -> Result<PathBuf, UnpackError> {
    let damaged = |source| UnpackError::Damaged { source };
    let target = entry.link_name().map_err(damaged)?;
    let target = target.filter(|target| !target.as_os_str().is_empty());
    target
        .map(std::borrow::Cow::into_owned)
        .ok_or_else(|| damaged(std::io::Error::other("a link has no target")))
}

fn changed(entry: &Entry<'_, impl Read>) -> SystemTime {
    let seconds = entry.header().mtime().unwrap_or(0);
    // Beyond what a disk can keep it is nonsense.
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX)))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use tar::EntryType;

    use super::*;

    const LIMITS: UnpackLimits =
        UnpackLimits { archive_bytes: 1 << 20, unpacked_bytes: 1 << 20, entries: 20 };

    /// `(kind, path, content or target)`; paths are written raw, as an attacker would.
    fn tar(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_mtime(1_000_000_000);
            let is_file = kind.is_file();
            if !is_file {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_size(if is_file { content.len() as u64 } else { 0 });
            header.set_cksum();
            let content = if is_file { content.as_bytes() } else { &[] };
            builder.append(&header, content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn unpacked(bytes: Vec<u8>, limits: UnpackLimits) -> Result<TempDir, UnpackError> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let folder = TempDir::new().unwrap();
        match unpack(std::io::Cursor::new(bytes), folder, limits, deadline).await {
            Ok(folder) => Ok(folder),
            Err(SourceError::Unpack(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    use EntryType::{Directory, Link, Regular, Symlink};

    #[tokio::test]
    async fn a_tar_plain_or_with_gzip_gives_its_files_links_modes_and_times() {
        let tar = tar(&[
            (Directory, "./", ""),
            (Directory, "d/", ""),
            (Regular, "d/a", "one"),
            (Regular, "./d/a", "two"),
            (Symlink, "d/out", "/etc/passwd"),
            (Symlink, "up", "../x"),
            (Link, "hard", "d/a"),
            (Regular, "e/f/g", ""),
        ]);
        for bytes in [gzip(&tar), tar] {
            let folder = unpacked(bytes, LIMITS).await.unwrap();
            let at = |path: &str| folder.path().join(path);
            assert_eq!(std::fs::read_to_string(at("d/a")).unwrap(), "two");
            assert_eq!(std::fs::read_to_string(at("hard")).unwrap(), "two");
            assert_eq!(std::fs::read_link(at("d/out")).unwrap(), Path::new("/etc/passwd"));
            assert_eq!(std::fs::read_link(at("up")).unwrap(), Path::new("../x"));
            assert!(at("e/f/g").is_file());
            for path in ["d", "d/a"] {
                let metadata = std::fs::metadata(at(path)).unwrap();
                assert_eq!(metadata.permissions().mode() & 0o777, 0o755, "{path}");
                let age =
                    metadata.modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
                assert_eq!(age.as_secs(), 1_000_000_000, "{path}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_written_outside() {
        let outside = TempDir::new().unwrap();
        let out = outside.path().to_str().unwrap();
        let file = format!("{out}/file");
        for entries in [
            vec![(Regular, "../x", "x")],
            vec![(Regular, "a/../../x", "x")],
            vec![(Regular, file.as_str(), "x")],
            vec![(Symlink, "l", out), (Regular, "l/file", "x")],
            vec![(Symlink, "l", out), (Directory, "l/dir", "")],
            vec![(Symlink, "l", out), (Symlink, "l/link", "x")],
            vec![(Link, "h", file.as_str())],
            vec![(Link, "h", "../../etc/passwd")],
            vec![(Link, "h", "absent")],
            vec![(Regular, "d/x", "x"), (Symlink, "d", out)],
            vec![(EntryType::Char, "dev", "")],
            vec![(EntryType::Fifo, "fifo", "")],
        ] {
            let error = unpacked(tar(&entries), LIMITS).await.unwrap_err();
            assert!(matches!(error, UnpackError::Unsafe { .. }), "{entries:?}: {error}");
            assert!(!error.is_transient());
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "{entries:?}");
        }
        // A link that a file replaces is gone before the file is written.
        let folder =
            unpacked(tar(&[(Symlink, "l", &file), (Regular, "l", "x")]), LIMITS).await.unwrap();
        assert!(!folder.path().join("l").is_symlink());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn bounds_hold_for_what_comes_and_for_what_it_becomes() {
        let bomb = gzip(&tar(&[(Regular, "zeros", &"\0".repeat(3 << 20))]));
        assert!(bomb.len() < 100_000);
        let error = unpacked(bomb, LIMITS).await.unwrap_err();
        assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");

        let many = tar(&vec![(Regular, "x", ""); 21]);
        let error = unpacked(many, LIMITS).await.unwrap_err();
        assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");

        let half = "x".repeat(600 << 10);
        let copies = tar(&[(Regular, "x", &half), (Link, "y", "x")]);
        let error = unpacked(copies, LIMITS).await.unwrap_err();
        assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");

        let long = tar(&[(Regular, "x", &half)]);
        let error =
            unpacked(long, UnpackLimits { archive_bytes: 1000, ..LIMITS }).await.unwrap_err();
        assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_archive_or_half_of_one_is_told_apart() {
        for bytes in
            [b"".to_vec(), b"FROM scratch\n".to_vec(), vec![0; 1024], b"\x1f\x8bxxx".to_vec()]
        {
            let error = unpacked(bytes, LIMITS).await.unwrap_err();
            assert!(matches!(error, UnpackError::NoArchive), "{error:?}");
        }
        let whole = tar(&[(Regular, "a", &"x".repeat(5000))]);
        let error = unpacked(whole[..3000].to_vec(), LIMITS).await.unwrap_err();
        assert!(matches!(error, UnpackError::Damaged { .. }), "{error:?}");

        let broken = tokio_util::io::StreamReader::new(futures_util::stream::iter([
            Ok(bytes::Bytes::from(whole[..3000].to_vec())),
            Err(std::io::Error::from(ErrorKind::ConnectionReset)),
        ]));
        let deadline = Instant::now() + Duration::from_secs(10);
        let error = unpack(broken, TempDir::new().unwrap(), LIMITS, deadline).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
    }

    #[tokio::test]
    async fn a_silent_sender_does_not_hold_longer_than_the_deadline() {
        let (_silent, reader) = tokio::io::duplex(64);
        let deadline = Instant::now() + Duration::from_millis(50);
        let error = unpack(reader, TempDir::new().unwrap(), LIMITS, deadline).await.unwrap_err();
        assert!(matches!(error, SourceError::TimedOut), "{error}");
    }
}

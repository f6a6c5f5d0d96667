//! Unpacks an untrusted archive into a folder that it cannot leave.
//!
//! Links are created last, when all files exist, so while files are written there is no link that a path could lead
//! through. Targets of links are not checked, because nothing here follows them. Modes, times and other attributes are
//! kept in the checkout's manifest and not on the disk: no file of a stranger is setuid here, and the umask does not
//! change an image.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout_at};
use tokio_util::io::SyncIoBridge;

use super::attributes::{Attributes, Manifest};
use super::{Checkout, SourceError};
use error::shown;
use formats::Tar;
use members::{Member, Members, Sparse};
use reading::{CopyError, End, Incoming, Metered, copy};

mod error;
mod formats;
mod members;
mod reading;

pub use error::{UnpackError, UnpackLimits};

/// The most bytes between two files of an archive: headers, names, skipped content. Names are read into memory and have
/// a length field, so this is what bounds memory.
const MOST_BETWEEN: u64 = 1 << 20;
/// What each entry may use without reducing the budget of the next one.
const BETWEEN_EACH: u64 = 4096;

/// The most nested folders. Walking a tree, even to remove it, needs an open file for each level.
const DEEPEST: usize = 128;

/// Unpacks into `folder`, on a separate thread.
///
/// If the future is dropped or the deadline passes, the thread ends at the next read; the folder is removed when the
/// thread has ended.
///
/// # Errors
/// [`SourceError`]: the archive was refused, was cut off, or took too long.
pub async fn unpack(
    archive: impl AsyncRead + Send + Unpin + 'static,
    folder: TempDir,
    limits: UnpackLimits,
    deadline: Instant,
) -> Result<Checkout, SourceError> {
    let unpacking = Unpacking::new(folder, limits);
    Ok(unpacking.add(Part::Archive, archive, deadline).await?.finish()?)
}

/// What is added to a folder: the files of an archive, or one file at this path.
pub(super) enum Part {
    Archive,
    File(PathBuf),
}

#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A folder that archives and files are added to. The limits are for all of them together.
pub(super) struct Unpacking {
    folder: TempDir,
    limits: UnpackLimits,
    received: u64,
    bytes: u64,
    entries: u64,
    attributes: HashMap<PathBuf, Attributes>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Unpacking {
    pub(super) fn new(folder: TempDir, limits: UnpackLimits) -> Self {
        let (attributes, links) = (HashMap::new(), BTreeMap::new());
        Self { folder, limits, received: 0, bytes: 0, entries: 0, attributes, links }
    }

    /// Adds a part on a separate thread, which ends early if the future is dropped or the deadline passes.
    pub(super) async fn add(
        mut self,
        part: Part,
        content: impl AsyncRead + Send + Unpin + 'static,
        deadline: Instant,
    ) -> Result<Self, SourceError> {
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        let bridge = SyncIoBridge::new(content);
        let work = tokio::task::spawn_blocking(move || {
            let left = self.limits.archive_bytes - self.received;
            self.read(part, Incoming::new(bridge, left, stopped)).map(|()| self)
        });
        let done = timeout_at(deadline, work).await.map_err(|_| SourceError::TimedOut)?;
        match done {
            Ok(added) => Ok(added?),
            // The thread ended without a result because it panicked.
            Err(source) => {
                Err(UnpackError::Damaged { source: std::io::Error::other(source) }.into())
            }
        }
    }

    /// Makes the links, when all files exist.
    pub(super) fn finish(self) -> Result<Checkout, UnpackError> {
        for (path, target) in &self.links {
            symlink(target, self.at(path)).map_err(|source| self.write_error(path, source))?;
        }
        Ok(Checkout::of_archive(self.folder, Manifest::Archive(self.attributes)))
    }

    fn read(&mut self, part: Part, mut incoming: Incoming<impl Read>) -> Result<(), UnpackError> {
        let before = incoming.left();
        let result = match part {
            Part::Archive => Tar::of(&mut incoming).and_then(|tar| self.entries_of(tar)),
            Part::File(path) => self.count_entry().and_then(|()| self.file(&path, &mut incoming)),
        };
        self.received += before - incoming.left();
        match incoming.end() {
            End::No => result,
            End::TooLarge => Err(UnpackError::too_large("bytes", mib(self.limits.archive_bytes))),
            End::Broke(source) => Err(UnpackError::BrokeOff { source }),
        }
    }

    fn file(&mut self, named: &Path, content: &mut impl Read) -> Result<(), UnpackError> {
        let path = beneath(named)?;
        let path = path.ok_or_else(|| UnpackError::unsafe_entry(named, "is the folder itself"))?;
        self.refuse_behind_link(&path, named)?;
        self.attributes.remove(&path);
        self.add_file(&path, None, content)
    }

    fn count_entry(&mut self) -> Result<(), UnpackError> {
        self.entries += 1;
        match self.entries > self.limits.entries {
            false => Ok(()),
            true => Err(UnpackError::too_large(
                "files, folders and links",
                self.limits.entries.to_string(),
            )),
        }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.folder.path().join(path)
    }

    fn entries_of(&mut self, tar: Tar<'_>) -> Result<(), UnpackError> {
        let failed = tar.failed();
        let budget = Rc::new(Cell::new(MOST_BETWEEN));
        let mut members = Members::new(Metered { inner: tar, budget: Rc::clone(&budget) });
        let (mut between, mut is_empty) = (MOST_BETWEEN, true);
        loop {
            budget.set(between);
            let next = members.next();
            let left = budget.replace(self.limits.unpacked_bytes - self.bytes + 1);
            between = (left + BETWEEN_EACH).min(MOST_BETWEEN);
            let member = match next {
                Ok(None) => break,
                Ok(Some(member)) => member,
                Err(_) if left == 0 => {
                    return Err(UnpackError::too_large(
                        "names and bytes outside of files",
                        mib(MOST_BETWEEN),
                    ));
                }
                Err(_) if is_empty && !failed.get() => {
                    return Err(UnpackError::NoArchive);
                }
                Err(source) => return Err(UnpackError::Damaged { source }),
            };
            self.count_entry()?;
            self.add_member(member, &mut members)?;
            is_empty = false;
        }
        // An empty tar still has its end-of-archive blocks; zero bytes are no tar.
        if is_empty { Err(UnpackError::NoArchive) } else { Ok(()) }
    }

    fn add_member(&mut self, member: Member, content: &mut impl Read) -> Result<(), UnpackError> {
        let Member { name, kind, target, attributes, sparse } = member;
        let Some(path) = beneath(&name)? else { return Ok(()) };
        self.refuse_behind_link(&path, &name)?;
        if kind.is_dir() {
            self.add_folder(&path)?;
        } else if attributes.node.is_some() {
            self.add_file(&path, None, &mut std::io::empty())?;
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            self.add_file(&path, sparse, content)?;
        } else if kind.is_symlink() {
            self.make_room(&path)?;
            self.links.insert(path.clone(), target_of(target)?);
        } else if kind.is_hard_link() {
            self.add_hard_link(&path, &target_of(target)?, &attributes)?;
        } else {
            return Err(UnpackError::unsafe_entry(&name, "is no file, folder, link or device"));
        }
        self.attributes.insert(path, attributes);
        Ok(())
    }

    fn add_folder(&mut self, path: &Path) -> Result<(), UnpackError> {
        self.links.remove(path);
        let target = self.at(path);
        std::fs::create_dir_all(target).map_err(|source| self.write_error(path, source))
    }

    fn add_file(
        &mut self,
        path: &Path,
        sparse: Option<Sparse>,
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        self.make_room(path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.at(path))
            .map_err(|source| self.write_error(path, source))?;
        let Some(sparse) = sparse else {
            let left = self.limits.unpacked_bytes - self.bytes;
            let copied = self.copy(path, &mut content.take(left + 1), &mut file)?;
            return self.count(copied);
        };
        // Holes take no space here, but they will in the context.
        self.count(sparse.size)?;
        file.set_len(sparse.size).map_err(|source| self.write_error(path, source))?;
        for piece in sparse.pieces {
            file.seek(SeekFrom::Start(piece.offset))
                .map_err(|source| self.write_error(path, source))?;
            self.copy(path, &mut content.take(piece.length), &mut file)?;
        }
        Ok(())
    }

    fn copy(
        &self,
        path: &Path,
        content: &mut impl Read,
        file: &mut File,
    ) -> Result<u64, UnpackError> {
        copy(content, file).map_err(|failed| match failed {
            CopyError::Read(source) => UnpackError::Damaged { source },
            CopyError::Write(source) => self.write_error(path, source),
        })
    }

    fn add_hard_link(
        &mut self,
        path: &Path,
        target: &Path,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        let refused = || UnpackError::unsafe_entry(path, "is a link to no file before it");
        let inner = beneath(target)?.ok_or_else(refused)?;
        if self.links.contains_key(&inner) {
            let link = self.links[&inner].clone();
            self.make_room(path)?;
            self.links.insert(path.to_owned(), link);
            return Ok(());
        }
        self.refuse_behind_link(&inner, path)?;
        let target = self.at(&inner);
        let metadata = target.symlink_metadata().map_err(|_| refused())?;
        if !metadata.is_file() || inner == path {
            return Err(refused());
        }
        // A hard link takes no space here, but it will in the context.
        self.count(metadata.len())?;
        self.make_room(path)?;
        std::fs::hard_link(target, self.at(path))
            .map_err(|source| self.write_error(path, source))?;
        // All names are the same file, and its last entry counts.
        self.attributes.insert(inner, attributes.clone());
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.bytes += bytes;
        if self.bytes > self.limits.unpacked_bytes {
            return Err(UnpackError::too_large("bytes", mib(self.limits.unpacked_bytes)));
        }
        Ok(())
    }

    /// Creates the parent folder of `path`, and removes what was at `path`: the last entry of a name counts.
    fn make_room(&mut self, path: &Path) -> Result<(), UnpackError> {
        self.links.remove(path);
        let target = self.at(path);
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

    fn write_error(&self, path: &Path, source: std::io::Error) -> UnpackError {
        let is_one_of = |kinds: &[ErrorKind]| kinds.contains(&source.kind());
        if is_one_of(&[ErrorKind::StorageFull, ErrorKind::QuotaExceeded]) {
            return UnpackError::DiskFull { folder: self.folder.path().to_owned() };
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

fn target_of(target: Option<PathBuf>) -> Result<PathBuf, UnpackError> {
    let missing = || std::io::Error::other("a link has no target");
    target.ok_or_else(|| UnpackError::Damaged { source: missing() })
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use tar::EntryType;

    use super::*;

    const LIMITS: UnpackLimits =
        UnpackLimits { archive_bytes: 1 << 20, unpacked_bytes: 1 << 20, entries: 20 };

    /// Entries of `(kind, path, content or target)`; paths are written raw, as an attacker would.
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

    /// A tar in each format.
    fn packed(tar: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(tar).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(tar).unwrap();
        vec![
            ("gzip", gzip(tar)),
            ("zstd", zstd::encode_all(tar, 1).unwrap()),
            ("xz", xz.finish().unwrap()),
            ("bzip2", bzip2.finish().unwrap()),
        ]
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn unpacked(bytes: Vec<u8>, limits: UnpackLimits) -> Result<Checkout, UnpackError> {
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
    async fn tars_are_unpacked_plain_and_in_each_format() {
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
        let mut archives = packed(&tar);
        archives.push(("tar", tar));
        for (format, bytes) in archives {
            let folder = unpacked(bytes, LIMITS).await.expect(format);
            let at = |path: &str| folder.root().join(path);
            assert_eq!(std::fs::read_to_string(at("d/a")).unwrap(), "two");
            assert_eq!(std::fs::read_to_string(at("hard")).unwrap(), "two");
            assert_eq!(std::fs::read_link(at("d/out")).unwrap(), Path::new("/etc/passwd"));
            assert_eq!(std::fs::read_link(at("up")).unwrap(), Path::new("../x"));
            assert!(at("e/f/g").is_file());
            for path in ["d", "d/a", "hard", "up"] {
                let metadata = std::fs::symlink_metadata(at(path)).unwrap();
                let attributes = folder.manifest.of(Path::new(path), &metadata).into_owned();
                assert_eq!(attributes.mode, 0o755, "{path}");
                assert_eq!(attributes.modified.seconds, 1_000_000_000, "{path}");
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
        ] {
            let error = unpacked(tar(&entries), LIMITS).await.unwrap_err();
            assert!(matches!(error, UnpackError::Unsafe { .. }), "{entries:?}: {error}");
            assert!(!error.is_transient());
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "{entries:?}");
        }
        // If a file replaces a link, the link is removed before the file is written.
        let folder =
            unpacked(tar(&[(Symlink, "l", &file), (Regular, "l", "x")]), LIMITS).await.unwrap();
        assert!(!folder.root().join("l").is_symlink());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn limits_apply_to_archives_and_their_content() {
        for (format, bomb) in packed(&tar(&[(Regular, "zeros", &"\0".repeat(3 << 20))])) {
            assert!(bomb.len() < 100_000, "{format}");
            let error = unpacked(bomb, LIMITS).await.unwrap_err();
            assert!(matches!(error, UnpackError::TooLarge { .. }), "{format}: {error}");
        }

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
    async fn other_content_and_truncated_archives_are_distinguished() {
        let text = b"FROM scratch\n".to_vec();
        for bytes in [b"".to_vec(), gzip(&text), text, vec![0; 1024]] {
            let error = unpacked(bytes, LIMITS).await.unwrap_err();
            assert!(matches!(error, UnpackError::NoArchive), "{error:?}");
        }
        let whole = tar(&[(Regular, "a", &"x".repeat(5000))]);
        for (format, bytes) in packed(&whole) {
            for cut in [6, bytes.len() / 2] {
                let error = unpacked(bytes[..cut].to_vec(), LIMITS).await.unwrap_err();
                assert!(matches!(error, UnpackError::Damaged { .. }), "{format}: {error:?}");
            }
            let mut damaged = bytes;
            damaged[6..].fill(0xa5);
            let error = unpacked(damaged, LIMITS).await.unwrap_err();
            assert!(matches!(error, UnpackError::Damaged { .. }), "{format}: {error:?}");
        }
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

    /// `zstd --long=31` and the like would take gigabytes of memory from a few bytes.
    #[tokio::test]
    async fn an_archive_that_needs_too_much_memory_is_refused() {
        let content = "x".repeat(1000);
        let tar = tar(&[(Regular, "a", &content)]);
        let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
        zstd.window_log(30).unwrap();
        zstd.long_distance_matching(true).unwrap();
        zstd.write_all(&tar).unwrap();
        let mut options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
        options.dict_size(512 << 20);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let check = liblzma::stream::Check::Crc32;
        let stream = liblzma::stream::Stream::new_stream_encoder(&filters, check).unwrap();
        let mut xz = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        xz.write_all(&tar).unwrap();
        for bytes in [zstd.finish().unwrap(), xz.finish().unwrap()] {
            let error = unpacked(bytes, LIMITS).await.unwrap_err();
            let UnpackError::Damaged { source } = &error else { panic!("{error:?}") };
            assert!(source.to_string().contains("memory"), "{source}");
        }
    }

    #[tokio::test]
    async fn an_archive_that_arrives_byte_by_byte_is_recognized() {
        let (mut sender, reader) = tokio::io::duplex(1);
        let bytes = gzip(&tar(&[(Regular, "a", "one")]));
        let send = async move { tokio::io::AsyncWriteExt::write_all(&mut sender, &bytes).await };
        let deadline = Instant::now() + Duration::from_secs(10);
        let receive = unpack(reader, TempDir::new().unwrap(), LIMITS, deadline);
        // What follows the tar's own end is not read.
        let (_cut, received) = tokio::join!(send, receive);
        assert_eq!(std::fs::read_to_string(received.unwrap().root().join("a")).unwrap(), "one");
    }

    #[tokio::test]
    async fn a_silent_sender_times_out_at_the_deadline() {
        let (_silent, reader) = tokio::io::duplex(64);
        let deadline = Instant::now() + Duration::from_millis(50);
        let error = unpack(reader, TempDir::new().unwrap(), LIMITS, deadline).await.unwrap_err();
        assert!(matches!(error, SourceError::TimedOut), "{error}");
    }
}

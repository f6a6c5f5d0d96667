//! Streams a folder as a tar, for the engine.
//!
//! In: a folder, its manifest and the ignore rules. Out: its files in the order of names, owned by root as engines
//! treat files from a client, with the attributes of the manifest; links as links. Nothing outside of the folder is
//! read, and only the current chunk is in memory.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{DirEntry, File, Metadata};
use std::io::{BufWriter, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use gantry_taskfile::ignore::{Ignore, Scope};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use super::attributes::{Attributes, Manifest, Node};
use crate::engine::ContextStream;

/// The size of a chunk, and how many of them may be queued.
const PIECE: usize = 128 << 10;
const WAITING: usize = 4;

/// Streams the files of `root` that `ignore` does not exclude, from a separate thread.
///
/// A file that cannot be read ends the stream with an error. If the stream is dropped, the thread ends at the next
/// file.
#[must_use]
pub(super) fn pack(root: PathBuf, manifest: Arc<Manifest>, ignore: Ignore) -> ContextStream {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let pieces = BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        if let Err(error) = write(&root, &manifest, &ignore, pieces, &|| sender.is_closed()) {
            // If the reader is gone, the error does not matter.
            let _reader_gone = sender.blocking_send(Err(error));
        }
    });
    Box::pin(StreamReader::new(ReceiverStream::new(receiver)))
}

struct Pieces(mpsc::Sender<std::io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(piece))).map_err(gone)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write(
    root: &Path,
    manifest: &Manifest,
    ignore: &Ignore,
    to: impl Write,
    is_dropped: &dyn Fn() -> bool,
) -> std::io::Result<()> {
    let mut packing = Packing {
        builder: Builder::new(to),
        manifest,
        written: HashMap::new(),
        unwritten: Vec::new(),
        is_dropped,
    };
    packing.entries_of(root, Path::new(""), &ignore.root())?;
    packing.builder.into_inner()?.flush()
}

struct Packing<'a, W: Write> {
    builder: Builder<W>,
    manifest: &'a Manifest,
    /// The first name of each file with several hard links, by device and inode; the other names become links to it.
    written: HashMap<(u64, u64), PathBuf>,
    /// Checked explicitly, because no write fails while rules exclude very many files.
    is_dropped: &'a dyn Fn() -> bool,
    /// Excluded parent folders, which are written once something in them is included again.
    unwritten: Vec<(PathBuf, Metadata)>,
}

impl<W: Write> Packing<'_, W> {
    /// `inner` is the path of `folder` in the archive.
    fn entries_of(
        &mut self,
        folder: &Path,
        inner: &Path,
        scope: &Scope<'_>,
    ) -> std::io::Result<()> {
        for (name, entry) in sorted(folder)? {
            if (self.is_dropped)() {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            // A name that is not UTF-8 is still a valid file; for the rules, its invalid bytes are replaced.
            let scope = scope.enter(&name.to_string_lossy());
            let inner = inner.join(name);
            // The metadata of the link itself, if it is one.
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                self.folder(&entry.path(), &inner, &scope, metadata)?;
            } else if !scope.is_excluded() {
                self.leaf(&entry.path(), &inner, &metadata)?;
            }
        }
        Ok(())
    }

    fn folder(
        &mut self,
        folder: &Path,
        inner: &Path,
        scope: &Scope<'_>,
        metadata: Metadata,
    ) -> std::io::Result<()> {
        if scope.is_excluded_whole() {
            return Ok(());
        }
        let above = self.unwritten.len();
        self.unwritten.push((inner.to_owned(), metadata));
        if !scope.is_excluded() {
            self.write_folders_above()?;
        }
        self.entries_of(folder, inner, scope)?;
        self.unwritten.truncate(above);
        Ok(())
    }

    fn leaf(&mut self, path: &Path, inner: &Path, metadata: &Metadata) -> std::io::Result<()> {
        let is_file = metadata.is_file();
        if !is_file && !metadata.is_symlink() {
            // Sockets and pipes on the disk are not part of a context.
            return Ok(());
        }
        self.write_folders_above()?;
        let manifest = self.manifest;
        let attributes = manifest.of(inner, metadata);
        if !is_file {
            let target = std::fs::read_link(path)?;
            let mut header = self.header(&attributes, EntryType::Symlink)?;
            return self.builder.append_link(&mut header, inner, target);
        }
        if let Some(first) = self.first_name(inner, metadata) {
            let mut header = self.header(&attributes, EntryType::Link)?;
            return self.builder.append_link(&mut header, inner, first);
        }
        let Some(node) = attributes.node else {
            let mut header = self.header(&attributes, EntryType::Regular)?;
            header.set_size(metadata.len());
            let content = File::open(path)?.take(metadata.len());
            return self.builder.append_data(&mut header, inner, content);
        };
        let (kind, major, minor) = match node {
            Node::Fifo => (EntryType::Fifo, 0, 0),
            Node::Character { major, minor } => (EntryType::Char, major, minor),
            Node::Block { major, minor } => (EntryType::Block, major, minor),
        };
        let mut header = self.header(&attributes, kind)?;
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
        self.builder.append_data(&mut header, inner, std::io::empty())
    }

    /// The first name of the file, if it has several and this is not the first.
    fn first_name(&mut self, inner: &Path, metadata: &Metadata) -> Option<PathBuf> {
        if metadata.nlink() == 1 {
            return None;
        }
        let file = (metadata.dev(), metadata.ino());
        let first = self.written.get(&file).cloned();
        if first.is_none() {
            self.written.insert(file, inner.to_owned());
        }
        first
    }

    fn write_folders_above(&mut self) -> std::io::Result<()> {
        for (inner, metadata) in std::mem::take(&mut self.unwritten) {
            let manifest = self.manifest;
            let attributes = manifest.of(&inner, &metadata);
            let mut header = self.header(&attributes, EntryType::Directory)?;
            self.builder.append_data(&mut header, inner, std::io::empty())?;
        }
        Ok(())
    }

    /// The header of an entry. Writes a PAX header first, if there is something that it has no fields for.
    fn header(&mut self, attributes: &Attributes, kind: EntryType) -> std::io::Result<Header> {
        let mut records: Vec<(String, Vec<u8>)> = attributes
            .xattrs
            .iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone()))
            .collect();
        if let Some(mtime) = exact_mtime(attributes) {
            records.push(("mtime".to_owned(), mtime.into_bytes()));
        }
        if !records.is_empty() {
            let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.builder.append_pax_extensions(records)?;
        }
        Ok(header(attributes, kind))
    }
}

/// The modification time as PAX writes it, if the header's whole seconds cannot represent it.
fn exact_mtime(attributes: &Attributes) -> Option<String> {
    let modified = attributes.modified;
    match (modified.seconds, modified.nanos) {
        (0.., 0) => None,
        (seconds @ 0.., nanos) => Some(format!("{seconds}.{nanos:09}")),
        (seconds, 0) => Some(seconds.to_string()),
        // The sign applies to the fraction too.
        (seconds, nanos) => Some(format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos)),
    }
}

fn sorted(folder: &Path) -> std::io::Result<Vec<(OsString, DirEntry)>> {
    let entries = std::fs::read_dir(folder)?;
    let mut entries =
        entries.map(|entry| entry.map(|it| (it.file_name(), it))).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(entries)
}

fn header(attributes: &Attributes, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    // A time before 1970 is in the PAX header instead.
    header.set_mtime(u64::try_from(attributes.modified.seconds).unwrap_or(0));
    // The owners on this machine do not exist in the image.
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn packed(root: &Path, rules: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ignore = Ignore::parse(rules).unwrap();
        let manifest = Arc::new(Manifest::Commit);
        pack(root.to_owned(), manifest, ignore).read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    /// Entries as `d/`, `file=content`, `link -> target`.
    fn shown(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
            let path = entry.path().unwrap().display().to_string();
            let mut content = String::new();
            std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
            match entry.link_name().unwrap() {
                Some(target) => format!("{path} -> {}", target.display()),
                None if entry.header().entry_type().is_dir() => format!("{path}/"),
                None => format!("{path}={content}"),
            }
        });
        entries.collect()
    }

    fn files(names: &[&str]) -> TempDir {
        let root = TempDir::new().unwrap();
        for name in names {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        root
    }

    #[tokio::test]
    async fn files_are_packed_in_order_with_links() {
        let root = files(&["b", "a/x", "a/y"]);
        symlink("/etc/passwd", root.path().join("out")).unwrap();
        symlink("/etc", root.path().join("folder")).unwrap();
        std::fs::create_dir(root.path().join("empty")).unwrap();
        let bytes = packed(root.path(), "").await;
        let expected =
            ["a/", "a/x=a/x", "a/y=a/y", "b=b", "empty/", "folder -> /etc", "out -> /etc/passwd"];
        assert_eq!(shown(&bytes), expected);
        assert_eq!(packed(root.path(), "").await, bytes);
    }

    #[tokio::test]
    async fn excluded_files_are_left_out_and_included_ones_have_folders() {
        let root = files(&["Dockerfile", "keep", "a/b/c/yes", "a/b/no", "a/no", "x/no"]);
        let bytes = packed(root.path(), "*\n!keep\n!a/b/c/yes").await;
        assert_eq!(shown(&bytes), ["a/", "a/b/", "a/b/c/", "a/b/c/yes=a/b/c/yes", "keep=keep"]);
    }

    #[tokio::test]
    async fn long_names_and_executable_files_survive() {
        let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
        let root = files(&[&long]);
        let path = root.path().join(&long);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let bytes = packed(root.path(), "").await;
        assert_eq!(shown(&bytes)[1], format!("{long}={long}"));
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().unwrap().nth(1).unwrap().unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o755);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_ends_the_stream_with_an_error() {
        let mut bytes = Vec::new();
        let missing = PathBuf::from("/nonexistent/context");
        let error = pack(missing, Arc::new(Manifest::Commit), Ignore::default())
            .read_to_end(&mut bytes)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}

//! A folder, packed as the context of a build.
//!
//! In: a folder and the path of its Dockerfile. Out: a `.tar.gz` without what `.dockerignore` excludes, as a stream, so
//! that a context of any size passes through little memory. Owners are left out: a build gives every file to root.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_taskfile::ignore::{Ignore, Scope, file_names};
use tokio::sync::mpsc;

use crate::exit::UsageError;

/// What will be sent of a folder.
#[derive(Debug)]
pub(crate) struct Pack {
    root: PathBuf,
    entries: Vec<Entry>,
    /// The bytes of all files, before compression.
    pub(crate) bytes: u64,
    /// Sockets and the like, which no archive holds.
    pub(crate) skipped: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    path: String,
    kind: EntryKind,
}

#[derive(Debug)]
enum EntryKind {
    Folder,
    File { bytes: u64 },
    Link { target: PathBuf },
}

impl Pack {
    /// Looks through the folder.
    ///
    /// # Errors
    /// [`UsageError`] when there is no Dockerfile at `dockerfile`; else what the system says.
    pub(crate) fn of(root: &Path, dockerfile: &str) -> Result<Self> {
        if !root.join(dockerfile).is_file() {
            let root = root.display();
            return Err(UsageError(format!(
                "there is no {dockerfile} in {root}: `-f` names the Dockerfile relative to that folder"
            ))
            .into());
        }
        let ignore = read_ignore(root, dockerfile)?;
        // The build reads these itself, so they go along even if excluded.
        let [own, general] = file_names(dockerfile);
        let mut walk = Walk {
            always: [dockerfile.to_owned(), own, general],
            pack: Self {
                root: root.to_owned(),
                entries: Vec::new(),
                bytes: 0,
                skipped: Vec::new(),
            },
        };
        walk.folder(&ignore.root())?;
        walk.add_excluded()?;
        Ok(walk.pack)
    }

    pub(crate) fn files(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.kind, EntryKind::File { .. })).count()
    }

    /// Packs in a thread of its own; `packed` counts the bytes of files as they go.
    pub(crate) fn stream(self, packed: Arc<AtomicU64>) -> mpsc::Receiver<io::Result<Vec<u8>>> {
        let (sender, receiver) = mpsc::channel(8);
        tokio::task::spawn_blocking(move || {
            let pieces = Pieces { sender: sender.clone(), piece: Vec::with_capacity(PIECE) };
            if let Err(error) = self.write(pieces, &packed) {
                // The receiver may be gone: then nobody asks any more.
                let _gone = sender.blocking_send(Err(error));
            }
        });
        receiver
    }

    fn write(&self, pieces: Pieces, packed: &Arc<AtomicU64>) -> io::Result<()> {
        let mut archive = tar::Builder::new(GzEncoder::new(pieces, Compression::fast()));
        for entry in &self.entries {
            self.append(&mut archive, entry, packed).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("{}: {error}", self.root.join(&entry.path).display()),
                )
            })?;
        }
        archive.into_inner()?.finish()?.flush()
    }

    fn append<W: Write>(
        &self,
        archive: &mut tar::Builder<W>,
        entry: &Entry,
        packed: &Arc<AtomicU64>,
    ) -> io::Result<()> {
        let path = self.root.join(&entry.path);
        let mut header = tar::Header::new_gnu();
        header.set_metadata_in_mode(&fs::symlink_metadata(&path)?, tar::HeaderMode::Complete);
        header.set_uid(0);
        header.set_gid(0);
        match &entry.kind {
            EntryKind::Folder => {
                archive.append_data(&mut header, format!("{}/", entry.path), io::empty())
            }
            EntryKind::Link { target } => {
                header.set_size(0);
                archive.append_link(&mut header, &entry.path, target)
            }
            EntryKind::File { bytes } => {
                // A file that grows meanwhile is cut, one that shrinks is filled: the header has said its length.
                header.set_size(*bytes);
                let content = File::open(path)?.take(*bytes).chain(io::repeat(0)).take(*bytes);
                archive.append_data(&mut header, &entry.path, Counted { content, packed })
            }
        }
    }
}

fn read_ignore(root: &Path, dockerfile: &str) -> Result<Ignore> {
    for name in file_names(dockerfile) {
        let path = root.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let shown = path.display();
                return Ok(Ignore::parse(&text)
                    .map_err(|error| UsageError(format!("{shown}: {error}")))?);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        }
    }
    Ok(Ignore::default())
}

struct Walk {
    always: [String; 3],
    pack: Pack,
}

impl Walk {
    fn folder(&mut self, scope: &Scope<'_>) -> Result<()> {
        let folder = self.pack.root.join(scope.path());
        let shown = || format!("cannot read {}", folder.display());
        let mut names = fs::read_dir(&folder)
            .and_then(|entries| {
                entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
            })
            .with_context(shown)?;
        names.sort();
        for name in names {
            let Some(name) = name.to_str() else {
                let path = folder.join(&name);
                return Err(UsageError(format!(
                    "{}: its name is not UTF-8: rename it, or exclude its folder in .dockerignore",
                    path.display()
                ))
                .into());
            };
            self.entry(&scope.enter(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, scope: &Scope<'_>) -> Result<()> {
        if scope.is_excluded_whole() {
            return Ok(());
        }
        let is_folder = self.add(scope.path(), !scope.is_excluded())?;
        if is_folder { self.folder(scope) } else { Ok(()) }
    }

    /// Adds one entry if it is `wanted`; says whether it is a folder.
    fn add(&mut self, path: &str, wanted: bool) -> Result<bool> {
        let full = self.pack.root.join(path);
        let shown = || format!("cannot read {}", full.display());
        let metadata = fs::symlink_metadata(&full).with_context(shown)?;
        let kind = if metadata.is_dir() {
            EntryKind::Folder
        } else if metadata.is_symlink() {
            EntryKind::Link { target: fs::read_link(&full).with_context(shown)? }
        } else if metadata.is_file() {
            EntryKind::File { bytes: metadata.len() }
        } else {
            if wanted {
                self.pack.skipped.push(path.to_owned());
            }
            return Ok(false);
        };
        if wanted {
            if let EntryKind::File { bytes } = kind {
                self.pack.bytes += bytes;
            }
            self.pack.entries.push(Entry { path: path.to_owned(), kind });
        }
        Ok(metadata.is_dir())
    }

    fn add_excluded(&mut self) -> Result<()> {
        for path in self.always.clone() {
            let has = self.pack.entries.iter().any(|entry| entry.path == path);
            if !has && self.pack.root.join(&path).is_file() {
                self.add(&path, true)?;
            }
        }
        Ok(())
    }
}

/// How many bytes go to the network at once.
const PIECE: usize = 64 << 10;

/// Gives what is written away, piece by piece; waits while nobody takes it.
struct Pieces {
    sender: mpsc::Sender<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        if piece.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

struct Counted<'a, R> {
    content: R,
    packed: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.packed.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    async fn unpacked(pack: Pack) -> BTreeMap<String, String> {
        let mut stream = pack.stream(Arc::default());
        let mut bytes = Vec::new();
        while let Some(piece) = stream.recv().await {
            bytes.extend(piece.unwrap());
        }
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                text = format!("-> {}", target.display());
            }
            assert_eq!(entry.header().uid().unwrap(), 0);
            found.insert(path, text);
        }
        found
    }

    #[tokio::test]
    async fn what_dockerignore_excludes_stays_here_but_the_build_reads_its_own_files() {
        let folder = folder(&[
            ("Dockerfile", "FROM scratch"),
            (".dockerignore", "*\n!src\nsrc/*.o\n"),
            ("secret.txt", "s"),
            ("src/main.c", "int main;"),
            ("src/main.o", "o"),
        ]);
        let found = unpacked(Pack::of(folder.path(), "Dockerfile").unwrap()).await;
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "src/", "src/main.c"]);
        assert_eq!(found["src/main.c"], "int main;");
    }

    #[tokio::test]
    async fn links_stay_links_and_long_names_and_large_files_arrive_whole() {
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
        let large = "0123456789abcdef".repeat(64 << 10);
        let folder = folder(&[("Dockerfile", "FROM scratch"), (&long, "long"), ("large", &large)]);
        symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let pack = Pack::of(folder.path(), "Dockerfile").unwrap();
        assert_eq!((pack.files(), pack.bytes), (3, 12 + 4 + large.len() as u64));
        let found = unpacked(pack).await;
        assert_eq!(found["link"], "-> /etc/passwd");
        assert_eq!(found[&long], "long");
        assert!(found["large"] == large);
    }

    #[test]
    fn a_folder_without_dockerfile_says_what_the_option_means() {
        let folder = folder(&[("a/Dockerfile", "")]);
        let error = Pack::of(folder.path(), "Dockerfile").unwrap_err();
        assert!(error.is::<UsageError>());
        assert!(
            error.to_string().contains("`-f` names the Dockerfile relative to that folder"),
            "{error}"
        );
    }
}

//! Packs a folder as the context of a build.
//!
//! In: a folder and the path of its Dockerfile. Out: a tar without what `.dockerignore` excludes, as a stream, so that
//! contexts of any size need little memory. Owners are left out: in a build, all files belong to root.
//!
//! Files that cannot be read are reported before anything is sent, and files that change meanwhile are reported by
//! name, so that neither looks like a network error.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use gantry_taskfile::ignore::file_names;

use dockerfile::DockerfilePath;
use walk::{Rules, Walk};

mod dockerfile;
mod walk;

/// The remedy for a file that cannot be packed.
const REMEDY: &str = "make it readable, or exclude it in .dockerignore";

/// The folder for a Dockerfile from outside. The ignore rules beside it exclude it from the build's context.
const ALONG: &str = ".gantry-dockerfile";

/// The files to send.
#[derive(Debug)]
pub(crate) struct Pack {
    root: PathBuf,
    /// The path of the Dockerfile for the service.
    pub(crate) dockerfile: String,
    entries: Vec<Entry>,
    /// The bytes of all files, before compression.
    pub(crate) bytes: u64,
    /// Sockets and devices.
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
    File,
    /// A hard link to the file at this path.
    HardLink {
        first: String,
    },
    Link {
        target: PathBuf,
    },
    Fifo,
    /// A file from outside of the folder.
    Text {
        content: Vec<u8>,
    },
}

impl Pack {
    /// Scans the folder, without a file that must be in it.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn folder(root: &Path) -> Result<Self> {
        let rules = Rules::read(root, "Dockerfile", None)?;
        let mut walk = Walk::of(root, "Dockerfile".to_owned());
        walk.folder(&rules.ignore.root())?;
        walk.always(".dockerignore")?;
        Ok(walk.pack)
    }

    /// Scans the folder. `dockerfile` is relative to it or absolute; one outside of the folder is added.
    ///
    /// # Errors
    /// [`crate::exit::UsageError`] if there is no file at `dockerfile`; otherwise the system's error.
    pub(crate) fn of(root: &Path, dockerfile: &str) -> Result<Self> {
        let path = dockerfile::find(root, dockerfile)?;
        let (asked, elsewhere) = match &path {
            DockerfilePath::Inside { asked, .. } => (asked.clone(), None),
            DockerfilePath::Outside(file) => (format!("{ALONG}/Dockerfile"), Some(file.as_path())),
        };
        let rules = Rules::read(root, &asked, elsewhere)?;
        let mut walk = Walk::of(root, asked);
        walk.folder(&rules.ignore.root())?;
        // The service reads these itself, so they are sent even if they are excluded.
        walk.always(".dockerignore")?;
        match &path {
            DockerfilePath::Inside { asked, file } => {
                walk.always(file)?;
                let [own, _] = file_names(asked);
                walk.always(&own)?;
            }
            DockerfilePath::Outside(file) => walk.along(dockerfile::read(file)?, &rules.text)?,
        }
        Ok(walk.pack)
    }

    pub(crate) fn files(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Text { .. }))
            .count()
    }

    /// Writes a tar. `packed` counts the bytes of files written so far.
    ///
    /// # Errors
    /// The system's error, with the file that could not be read, or that changed meanwhile.
    pub(crate) fn write<W: Write>(&self, into: W, packed: &Arc<AtomicU64>) -> Result<W> {
        let mut archive = tar::Builder::new(into);
        for entry in &self.entries {
            let shown = || format!("cannot pack {}", self.root.join(&entry.path).display());
            self.append(&mut archive, entry, packed).with_context(shown)?;
        }
        Ok(archive.into_inner()?)
    }

    fn append<W: Write>(
        &self,
        archive: &mut tar::Builder<W>,
        entry: &Entry,
        packed: &Arc<AtomicU64>,
    ) -> Result<()> {
        let path = self.root.join(&entry.path);
        let mut header = tar::Header::new_gnu();
        if let EntryKind::Text { content } = &entry.kind {
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(content.len() as u64);
            return Ok(archive.append_data(&mut header, &entry.path, content.as_slice())?);
        }
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if dockerfile::is_absent(&error) => {
                return Err(changed("it was removed meanwhile"));
            }
            metadata => metadata?,
        };
        fill(&mut header, &metadata, archive)?;
        header.set_size(0);
        match &entry.kind {
            EntryKind::Folder => {
                archive.append_data(&mut header, format!("{}/", entry.path), io::empty())?;
            }
            EntryKind::Link { target } => archive.append_link(&mut header, &entry.path, target)?,
            EntryKind::HardLink { first } => {
                header.set_entry_type(tar::EntryType::Link);
                archive.append_link(&mut header, &entry.path, first)?;
            }
            EntryKind::Fifo => archive.append_data(&mut header, &entry.path, io::empty())?,
            EntryKind::File if !metadata.is_file() => {
                return Err(changed("it is no file any more"));
            }
            EntryKind::File => {
                let mut file = File::open(path)?;
                append_file(archive, &mut header, &entry.path, &mut file, packed)?;
            }
            EntryKind::Text { .. } => {}
        }
        Ok(())
    }
}

fn changed(what: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{what}: run this again while nothing writes to it, or exclude it in .dockerignore"
    )
}

fn fill<W: Write>(
    header: &mut tar::Header,
    metadata: &fs::Metadata,
    archive: &mut tar::Builder<W>,
) -> io::Result<()> {
    header.set_metadata_in_mode(metadata, tar::HeaderMode::Complete);
    header.set_uid(0);
    header.set_gid(0);
    if metadata.mtime() < 0 {
        // The header has no sign.
        header.set_mtime(0);
        let mtime = metadata.mtime().to_string();
        archive.append_pax_extensions([("mtime", mtime.as_bytes())])?;
    }
    Ok(())
}

/// Appends a file in its current state. Its length is already in the header, so a change of its length is an error.
fn append_file<W: Write>(
    archive: &mut tar::Builder<W>,
    header: &mut tar::Header,
    path: &str,
    file: &mut File,
    packed: &Arc<AtomicU64>,
) -> Result<()> {
    let before = file.metadata()?;
    header.set_size(before.len());
    let mut content = Counted { content: file.take(before.len()), read: 0, packed };
    archive.append_data(header, path, &mut content)?;
    let read = content.read;
    let after = file.metadata()?;
    let is_as_before = after.len() == before.len()
        && (after.mtime(), after.mtime_nsec()) == (before.mtime(), before.mtime_nsec());
    if read == before.len() && is_as_before { Ok(()) } else { Err(changed("it changed meanwhile")) }
}

struct Counted<'a, R> {
    content: R,
    read: u64,
    packed: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.read += read as u64;
        self.packed.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    use gantry_taskfile::ignore::Ignore;

    use super::*;
    use crate::exit::UsageError;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn unpacked(pack: Pack) -> BTreeMap<String, String> {
        let bytes = pack.write(Vec::new(), &Arc::default()).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
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

    #[test]
    fn excluded_files_are_not_sent_except_those_that_the_build_reads() {
        let folder = folder(&[
            ("Dockerfile", "FROM scratch"),
            (".dockerignore", "*\n!src\nsrc/*.o\n"),
            ("secret.txt", "s"),
            ("src/main.c", "int main;"),
            ("src/main.o", "o"),
        ]);
        let found = unpacked(Pack::of(folder.path(), "Dockerfile").unwrap());
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "src/", "src/main.c"]);
        assert_eq!(found["src/main.c"], "int main;");
    }

    #[test]
    fn links_long_names_and_large_files_are_packed() {
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
        let large = "0123456789abcdef".repeat(64 << 10);
        let folder = folder(&[("Dockerfile", "FROM scratch"), (&long, "long"), ("large", &large)]);
        symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let pack = Pack::of(folder.path(), "Dockerfile").unwrap();
        assert_eq!((pack.files(), pack.bytes), (3, 12 + 4 + large.len() as u64));
        let found = unpacked(pack);
        assert_eq!(found["link"], "-> /etc/passwd");
        assert_eq!(found[&long], "long");
        assert!(found["large"] == large);
    }

    #[test]
    fn a_linked_or_lower_case_dockerfile_is_sent_even_if_excluded() {
        let folder = folder(&[("docker/prod", "FROM scratch"), (".dockerignore", "docker")]);
        symlink("docker/prod", folder.path().join("Dockerfile")).unwrap();
        let found = unpacked(Pack::of(folder.path(), "Dockerfile").unwrap());
        assert_eq!(found["Dockerfile"], "-> docker/prod");
        assert_eq!(found["docker/prod"], "FROM scratch");

        let folder = self::folder(&[("dockerfile", "FROM lower"), (".dockerignore", "*")]);
        let found = unpacked(Pack::of(folder.path(), "Dockerfile").unwrap());
        assert_eq!(found["dockerfile"], "FROM lower");
    }

    #[test]
    fn a_dockerfile_may_be_absolute_or_outside_the_folder() {
        let around = folder(&[
            ("app/Dockerfile", "FROM inside"),
            ("app/.dockerignore", "*.log"),
            ("docker/Dockerfile", "FROM outside"),
        ]);
        let app = around.path().join("app");
        let inside = Pack::of(&app, app.join("Dockerfile").to_str().unwrap()).unwrap();
        assert_eq!(inside.dockerfile, "Dockerfile");
        let absolute = around.path().join("docker/Dockerfile");
        for asked in ["../docker/Dockerfile", absolute.to_str().unwrap()] {
            let pack = Pack::of(&app, asked).unwrap();
            let dockerfile = pack.dockerfile.clone();
            let found = unpacked(pack);
            assert_eq!(found[&dockerfile], "FROM outside", "{asked}");
            // The build does not copy it.
            let rules = &found[&format!("{dockerfile}.dockerignore")];
            let ignore = Ignore::parse(rules).unwrap();
            assert!(ignore.excludes(&dockerfile) && ignore.excludes("a.log"), "{rules}");
        }
    }

    #[test]
    fn a_link_out_of_the_folder_sends_no_file_of_this_machine() {
        let around = folder(&[("secret", "key"), ("app/x", ""), ("rules/Dockerfile", "FROM a")]);
        for (folder, link) in [("app", "Dockerfile"), ("rules", ".dockerignore")] {
            let root = around.path().join(folder);
            symlink("../secret", root.join(link)).unwrap();
            let error = Pack::of(&root, "Dockerfile").unwrap_err();
            assert!(error.is::<UsageError>(), "{error:?}");
            assert!(error.to_string().contains("is a link that leads out of"), "{error}");
        }
    }

    #[test]
    fn an_unusable_dockerfile_is_reported_with_the_reason() {
        let folder = folder(&[("sub/x", "")]);
        let root = folder.path();
        for (name, target) in [("loop", "loop"), ("broken", "absent"), ("device", "/dev/null")] {
            symlink(target, root.join(name)).unwrap();
        }
        for (asked, said) in [
            ("loop", "is a link that leads back to itself: make it point to a file"),
            ("broken", "is a broken link: correct it"),
            ("device", "is a device or pipe: `-f` names a file"),
            ("sub", "is a folder: name the Dockerfile in it with `-f`"),
            ("../absent", "`-f` names a file relative to that folder"),
            ("/nonexistent/Dockerfile", "`-f` names a file relative to that folder"),
        ] {
            let error = Pack::of(root, asked).unwrap_err();
            assert!(error.is::<UsageError>() && error.to_string().ends_with(said), "{error}");
        }
    }

    #[test]
    fn a_file_that_changes_after_the_walk_is_a_local_error_with_its_name() {
        for change in [(|path| fs::remove_file(path).unwrap()) as fn(&Path), |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }] {
            let folder = folder(&[("Dockerfile", "FROM scratch"), ("data", "x")]);
            let pack = Pack::of(folder.path(), "Dockerfile").unwrap();
            change(&folder.path().join("data"));
            let error = pack.write(Vec::new(), &Arc::default()).unwrap_err();
            let told = format!("{error:#}");
            assert!(told.contains("cannot pack ") && told.contains("/data: it "), "{told}");
            assert!(told.ends_with("or exclude it in .dockerignore"), "{told}");
        }
    }

    #[test]
    fn a_file_that_shrinks_or_grows_while_it_is_read_is_refused() {
        struct Writing<F>(Option<F>);
        impl<F: FnOnce()> Write for Writing<F> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if let Some(change) = self.0.take() {
                    change();
                }
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for size in [10, 1 << 20, 300_000] {
            let folder = folder(&[("data", &"x".repeat(300_000))]);
            let path = folder.path().join("data");
            let mut file = File::open(&path).unwrap();
            let change = || {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_len(size).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            };
            // The change is made after the header was written, and before the content is read.
            let mut archive = tar::Builder::new(Writing(Some(change)));
            let mut header = tar::Header::new_gnu();
            let packed = Arc::default();
            let error = append_file(&mut archive, &mut header, "data", &mut file, &packed);
            assert!(error.unwrap_err().to_string().starts_with("it changed meanwhile"), "{size}");
        }
    }

    #[test]
    fn a_missing_dockerfile_explains_the_option() {
        let folder = folder(&[("a/Dockerfile", "")]);
        let error = Pack::of(folder.path(), "Dockerfile").unwrap_err();
        assert!(error.is::<UsageError>());
        assert!(error.to_string().contains("`-f` names a file relative to that folder"), "{error}");
    }
}

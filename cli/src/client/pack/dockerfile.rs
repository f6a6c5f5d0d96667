//! Finds the Dockerfile of a folder, and the other files that the service needs to read it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};
use gantry_taskfile::ignore::lower_case_dockerfile;

use crate::exit::UsageError;

/// The service has the same limit.
const LARGEST: u64 = 1 << 20;
const MOST_LINKS: usize = 40;

/// The location of the Dockerfile that `-f` names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DockerfilePath {
    /// In the folder: `asked` in the service's form, and `file`, which may be `dockerfile` instead.
    Inside { asked: String, file: String },
    /// Elsewhere on this machine.
    Outside(PathBuf),
}

/// Finds the Dockerfile. `asked` is relative to `root` or absolute.
///
/// # Errors
/// [`UsageError`] if there is none.
pub(super) fn find(root: &Path, asked: &str) -> Result<DockerfilePath> {
    let Some(inner) = beneath(root, Path::new(asked)) else {
        let file = root.join(asked);
        if file.is_dir() || !file.exists() {
            return Err(none(root, asked));
        }
        return Ok(DockerfilePath::Outside(file));
    };
    let candidates = [Some(inner.clone()), lower_case_dockerfile(&inner)];
    for file in candidates.into_iter().flatten() {
        match fs::symlink_metadata(root.join(&file)) {
            Ok(_) => {
                check(root, &file)?;
                return Ok(DockerfilePath::Inside { asked: inner, file });
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot read {}", root.join(&file).display()));
            }
        }
    }
    Err(none(root, asked))
}

fn none(root: &Path, asked: &str) -> anyhow::Error {
    let root = root.display();
    UsageError(format!("there is no {asked} in {root}: `-f` names a file relative to that folder"))
        .into()
}

/// Checks that the service will be able to read the file, with errors that name the local path.
fn check(root: &Path, file: &str) -> Result<()> {
    let shown = root.join(file);
    let problem = match fs::metadata(&shown) {
        Ok(metadata) if metadata.is_dir() => "is a folder: name the Dockerfile in it with `-f`",
        Ok(metadata) if !metadata.is_file() => "is a device or pipe: `-f` names a file",
        Ok(metadata) if metadata.len() > LARGEST => "is larger than 1 MiB: is it the Dockerfile?",
        Ok(_) => return Ok(()),
        Err(error) if is_absent(&error) => "is a broken link: correct it",
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "is a link that leads back to itself: make it point to a file"
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", shown.display()));
        }
    };
    Err(UsageError(format!("{} {problem}", shown.display())).into())
}

/// The path relative to the folder, without `.` and `..`; `None` if it is outside.
fn beneath(root: &Path, asked: &Path) -> Option<String> {
    let relative = if asked.is_absolute() {
        // Either may be written with symbolic links: `/tmp` is one on many machines.
        let parent = asked.parent()?.canonicalize().ok()?;
        let inner = parent.strip_prefix(root.canonicalize().ok()?).ok()?;
        inner.join(asked.file_name()?)
    } else {
        let mut inner = PathBuf::new();
        for component in asked.components() {
            match component {
                Component::Normal(name) => inner.push(name),
                Component::ParentDir if !inner.pop() => return None,
                Component::ParentDir
                | Component::CurDir
                | Component::RootDir
                | Component::Prefix(_) => {}
            }
        }
        inner
    };
    relative.to_str().map(str::to_owned)
}

/// The links on the way to `file`, and the file itself, as paths relative to `root`; `None` if it is outside.
pub(super) fn links_of(root: &Path, file: &str) -> Option<Vec<String>> {
    let mut passed = Vec::new();
    let mut found = PathBuf::new();
    let mut rest = names(Path::new(file))?;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            if !found.pop() {
                return None;
            }
            continue;
        }
        found.push(name);
        let Ok(target) = root.join(&found).read_link() else { continue };
        passed.push(found.to_str()?.to_owned());
        if passed.len() > MOST_LINKS {
            return None;
        }
        found.pop();
        for name in names(&target)?.into_iter().rev() {
            rest.push_front(name);
        }
    }
    passed.push(found.to_str()?.to_owned());
    Some(passed)
}

fn names(path: &Path) -> Option<VecDeque<OsString>> {
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

/// Reads a file outside of the folder, which may be a pipe.
///
/// # Errors
/// The system's error; [`UsageError`] if the file is too large.
pub(super) fn read(file: &Path) -> Result<Vec<u8>> {
    let shown = file.display();
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(LARGEST + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {shown}"))?;
    if bytes.len() as u64 > LARGEST {
        return Err(
            UsageError(format!("{shown} is larger than 1 MiB: is it the right file?")).into()
        );
    }
    Ok(bytes)
}

pub(super) fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

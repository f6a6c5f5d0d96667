//! Copies the objects of a folder that is in use.
//!
//! An object is written once, under a unique name, and never changed. So an object that exists in the copy is up to
//! date.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Copies the objects of `from` that `to` does not have. Returns the paths of all objects.
///
/// # Errors
/// The system's error, with the file's name.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut objects = BTreeSet::new();
    copy_below(from, to, Path::new(""), &mut objects)?;
    Ok(objects)
}

/// Removes the objects from a copy that are not in `objects`.
///
/// # Errors
/// The system's error, with the file's name.
pub fn keep_only(copy: &Path, objects: &BTreeSet<PathBuf>) -> io::Result<()> {
    remove_below(copy, Path::new(""), objects)
}

fn copy_below(
    from: &Path,
    to: &Path,
    below: &Path,
    objects: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    let (source, target) = (from.join(below), to.join(below));
    fs::create_dir_all(&target).map_err(named(&target))?;
    let mut has_new = false;
    for entry in entries(&source)? {
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_below(from, to, &path, objects)?;
        } else if !is_unfinished(&entry) {
            match copy_object(&from.join(&path), &to.join(&path)) {
                Ok(is_new) => {
                    has_new |= is_new;
                    objects.insert(path);
                }
                // It was deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(named(&path)(error)),
            }
        }
    }
    if has_new {
        File::open(&target)?.sync_all().map_err(named(&target))?;
    }
    Ok(())
}

/// Returns whether it was copied.
fn copy_object(from: &Path, to: &Path) -> io::Result<bool> {
    let mut source = File::open(from)?;
    let length = source.metadata()?.len();
    if fs::metadata(to).is_ok_and(|there| there.len() == length) {
        return Ok(false);
    }
    let mut unfinished = to.as_os_str().to_owned();
    unfinished.push("#copy");
    let mut target = File::create(&unfinished)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()?;
    fs::rename(&unfinished, to)?;
    Ok(true)
}

fn remove_below(copy: &Path, below: &Path, objects: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in entries(&copy.join(below))? {
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_below(copy, &path, objects)?;
            // A folder that is not empty stays.
            let _has_objects = fs::remove_dir(copy.join(&path));
        } else if !objects.contains(&path) {
            fs::remove_file(copy.join(&path)).map_err(named(&path))?;
        }
    }
    Ok(())
}

/// The entries of a folder; none if it does not exist.
fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(named(folder)(error)),
    }
}

/// `object_store` writes `x` as `x#1` first.
fn is_unfinished(file: &fs::DirEntry) -> bool {
    file.file_name().as_encoded_bytes().contains(&b'#')
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_brought_up_to_date_and_loses_what_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("logs/ca1")).unwrap();
        fs::write(from.join("logs/ca1/0"), "one").unwrap();
        fs::write(from.join("logs/ca1/1#1"), "unfini").unwrap();
        assert_eq!(copy_folder(&from, &to).unwrap().len(), 1);
        assert!(!to.join("logs/ca1/1#1").exists());

        fs::remove_dir_all(from.join("logs/ca1")).unwrap();
        fs::write(from.join("body"), "two").unwrap();
        let objects = copy_folder(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("logs/ca1/0")).unwrap(), b"one");
        keep_only(&to, &objects).unwrap();
        assert!(!to.join("logs").exists());
        assert_eq!(fs::read(to.join("body")).unwrap(), b"two");
    }
}

//! Removes objects that a killed process left unfinished: `object_store` writes `x` as `x#1` first, does not list that
//! file, and never cleans it up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

/// Removes unfinished objects older than `age` in the background, since there may be many directories to search.
pub(crate) fn remove_in_background(directory: PathBuf, age: Duration) {
    #[expect(clippy::disallowed_methods, reason = "compared with the times of files")]
    let now = SystemTime::now();
    let before = now - age;
    let remove = move || match remove(&directory, before) {
        Ok(0) => {}
        Ok(count) => info!("removed {count} unfinished objects of an earlier process"),
        Err(error) => {
            warn!("unfinished objects of an earlier process could not be removed: {error}")
        }
    };
    if let Err(error) = thread::Builder::new().name("gantry-unfinished".to_owned()).spawn(remove) {
        warn!("unfinished objects of an earlier process are left: {error}");
    }
}

fn remove(directory: &Path, before: SystemTime) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let removed = if entry.file_type()?.is_dir() {
            remove(&entry.path(), before)
        } else {
            remove_if_unfinished(&entry, before)
        };
        count += match removed {
            // Other tasks delete objects meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            result => result?,
        };
    }
    Ok(count)
}

fn remove_if_unfinished(file: &fs::DirEntry, before: SystemTime) -> io::Result<u64> {
    if !file.file_name().as_encoded_bytes().contains(&b'#')
        || file.metadata()?.modified()? >= before
    {
        return Ok(0);
    }
    fs::remove_file(file.path())?;
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_unfinished_objects_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        let write = |name: &str, seconds| {
            let file = fs::File::create(below.join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        write("whole", 1);
        write("left#1", 1);
        write("left#12", 1);
        write("at work#1", 100);

        let before = SystemTime::UNIX_EPOCH + Duration::from_secs(50);
        assert_eq!(remove(directory.path(), before).unwrap(), 2);
        let mut names: Vec<_> =
            fs::read_dir(&below).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["at work#1", "whole"]);
    }
}

//! A wall clock that a test can step, for processes that it starts. As with a real step, their monotonic clock is not
//! affected.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// The folders of Debian's package `faketime`.
const LIBRARIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// The clock. Until it is stepped it shows the machine's time.
#[derive(Debug)]
pub struct SteppedClock {
    folder: TempDir,
    library: PathBuf,
}

impl SteppedClock {
    /// A clock that was not stepped yet.
    ///
    /// # Errors
    /// `faketime` is not installed.
    pub fn new() -> Result<Self> {
        let files = LIBRARIES.iter().map(|at| Path::new(at).join("faketime/libfaketimeMT.so.1"));
        let library = files.into_iter().find(|file| file.exists());
        let library = library.context("install faketime: deploy/bootstrap.sh install test")?;
        let clock = Self { folder: tempfile::tempdir()?, library };
        clock.step(0)?;
        Ok(clock)
    }

    /// Sets the difference to the machine's clock, in seconds.
    ///
    /// # Errors
    /// The system's error.
    pub fn step(&self, seconds: i64) -> Result<()> {
        let next = self.folder.path().join("next");
        std::fs::write(&next, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(next, self.file())?)
    }

    /// The environment variables for a process with this clock.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let library = self.library.display().to_string();
        let file = self.file().display().to_string();
        let set = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ];
        set.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}

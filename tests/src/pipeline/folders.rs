//! What attempts leave behind.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_worker::engine::scripted::ScriptedEngine;
use tempfile::TempDir;

/// The folders of all workers. Dropped, they and the engine must be empty.
pub(super) struct WorkFolders {
    pub(super) folder: TempDir,
    pub(super) engine: ScriptedEngine,
    /// An attempt was cut off for good, and leaves what it had.
    pub(super) may_be_left: AtomicBool,
}

impl Drop for WorkFolders {
    /// # Panics
    /// If an image is left in the engine, or a file in a worker's folder.
    fn drop(&mut self) {
        if std::thread::panicking() || self.may_be_left.load(Ordering::Relaxed) {
            return;
        }
        let images = self.engine.images();
        assert!(images.is_empty(), "left in the engine: {images:?}");
        let files = self.files();
        assert!(files.is_empty(), "left in the folders of workers: {files:?}");
    }
}

impl WorkFolders {
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// All files except those of mirrors, which workers keep.
    fn files(&self) -> Vec<PathBuf> {
        let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = entries(self.path())
            .map(|entry| entry.path())
            .filter(|path| path.is_dir() && !path.ends_with("objects"))
            .collect();
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for path in entries(&folder).map(|entry| entry.path()) {
                let into =
                    if path.is_dir() && !path.is_symlink() { &mut folders } else { &mut files };
                into.push(path);
            }
        }
        // A mirror may have the lock of a git that was killed: the next fetch then creates it again.
        files.retain(|path| path.components().all(|part| part.as_os_str() != "mirrors"));
        files
    }
}

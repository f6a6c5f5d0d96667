//! What strangers may write, tried with bytes that nobody would: one function for each thing that reads it.
//!
//! A target takes any bytes, and panics where a promise is broken: no panic of the reader, bounded answers, and what was
//! read, written and read again is the same. [`mutate`] plays them for a moment in the suite; `make fuzz` gives them to
//! libFuzzer, which looks for bytes that reach new code.

use std::path::PathBuf;

mod archives;
mod hooks;
#[cfg(test)]
mod moment;
pub mod mutate;
mod records;
mod references;
mod taskfiles;
mod terminal;

/// Something that reads what strangers write.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder of examples.
    pub name: &'static str,
    /// Reads bytes, and panics where a promise is broken.
    pub run: fn(&[u8]),
    /// Words that random bytes would never hit upon.
    pub words: &'static [&'static str],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    archives::TARGET,
    hooks::GITHUB,
    hooks::DISTRIBUTION,
    records::TARGET,
    references::TARGET,
    taskfiles::DOCKERFILE,
    taskfiles::IGNORE,
    terminal::TARGET,
];

/// A target by its name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// What it begins with: good examples, and what broke it once.
    #[must_use]
    pub fn examples(&self) -> Vec<Vec<u8>> {
        let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let mut folders = vec![fixtures.join("fuzz").join(self.name)];
        if self.name == hooks::DISTRIBUTION.name {
            folders.push(fixtures.join("registry-notifications"));
        }
        let mut files: Vec<PathBuf> = folders
            .iter()
            .flat_map(|folder| std::fs::read_dir(folder).expect("it has examples"))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }
}

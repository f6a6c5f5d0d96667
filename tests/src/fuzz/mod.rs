//! Fuzz targets: one function for each parser of untrusted input.
//!
//! A target takes any bytes and panics if an invariant is broken: the parser must not panic, its output must be
//! bounded, and a value that was parsed and written must parse to the same value. [`mutate`] runs them briefly in the
//! test suite; `make fuzz` runs them under libFuzzer, which searches for input that reaches new code.

use std::path::PathBuf;

mod archives;
mod hooks;
#[cfg(test)]
mod moment;
pub mod mutate;
mod records;
mod references;
mod taskfiles;
mod tasks;
mod templates;
mod terminal;

/// A parser of untrusted input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name, also of its folder of examples.
    pub name: &'static str,
    /// Parses the bytes, and panics if an invariant is broken.
    pub run: fn(&[u8]),
    /// Words that random bytes would never contain.
    pub words: &'static [&'static str],
}

/// All targets.
pub const TARGETS: &[Target] = &[
    archives::TARGET,
    hooks::GITHUB,
    hooks::DISTRIBUTION,
    hooks::WEBHOOK,
    records::TARGET,
    references::TARGET,
    taskfiles::DOCKERFILE,
    taskfiles::IGNORE,
    templates::TARGET,
    tasks::TASK_FILE,
    tasks::VALUES,
    terminal::TARGET,
];

/// Finds a target by its name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// The corpus: valid examples, and input that once broke it.
    #[must_use]
    pub fn examples(&self) -> Vec<Vec<u8>> {
        let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let mut folders = vec![fixtures.join("fuzz").join(self.name)];
        if self.name == hooks::DISTRIBUTION.name {
            folders.push(fixtures.join("registry-notifications"));
        }
        if self.name == hooks::WEBHOOK.name {
            let of_providers =
                std::fs::read_dir(fixtures.join("webhooks")).expect("it has examples");
            folders = of_providers.map(|entry| entry.unwrap().path()).collect();
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

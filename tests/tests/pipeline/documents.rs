//! Checks that the tests that documents cite exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The documents that cite tests.
const DOCUMENTS: &[&str] =
    &["ARCHITECTURE.md", "SECURITY.md", "docs/guarantees.md", "tests/benches/README.md"];

/// A name in a document with at least this many words is a test's.
const WORDS: usize = 5;

#[test]
fn every_test_cited_by_a_document_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let there = functions(root);
    let mut named = 0;
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(root.join(document)).unwrap();
        for name in text.split('`').skip(1).step_by(2).filter(|word| is_sentence(word)) {
            named += 1;
            if !there.contains(name) {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(named > 50, "only {named} were found: are they quoted in another way now?");
    assert!(missing.is_empty(), "there is no such test:\n{}", missing.join("\n"));
}

fn is_sentence(word: &str) -> bool {
    word.split('_').count() >= WORDS
        && word.chars().all(|one| one == '_' || one.is_ascii_lowercase() || one.is_ascii_digit())
}

/// The names of all functions of the project.
fn functions(root: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in sources(root) {
        for line in fs::read_to_string(file).unwrap().lines() {
            if let Some((_, rest)) = line.split_once("fn ") {
                names.extend(rest.split_once(['(', '<']).map(|(name, _)| name.to_owned()));
            }
        }
    }
    names
}

/// All Rust files below a folder, without build output.
pub(super) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

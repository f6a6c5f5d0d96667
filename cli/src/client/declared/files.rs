//! Reads documents from files and folders.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Object;
use crate::exit::UsageError;

/// The limits of what is read.
const MOST_FILES: usize = 10_000;
const LONGEST_FILE: u64 = 4 << 20;
const DEEPEST: usize = 16;

/// An object, and where it is declared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Declared {
    pub(crate) object: Object,
    /// The file, and which of its documents.
    pub(crate) place: String,
    /// The folder that paths of secrets are relative to.
    pub(crate) folder: PathBuf,
}

/// Reads every `.yaml` and `.yml` in a folder and the folders in it, one file, or standard input for `-`.
///
/// # Errors
/// [`UsageError`] with all mistakes; otherwise the system's error.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Declared>> {
    let (mut declared, mut mistakes) = (Vec::new(), Vec::new());
    for path in paths {
        let mut files = Vec::new();
        find(path, 0, &mut files)?;
        if files.is_empty() {
            mistakes.push(format!("{}: there is no .yaml and no .yml file in it", path.display()));
        }
        for file in files {
            match documents(&file) {
                Ok(found) => declared.extend(found),
                Err(found) => mistakes.extend(found),
            }
        }
    }
    match mistakes.is_empty() {
        true => Ok(declared),
        false => Err(UsageError(mistakes.join("\n")).into()),
    }
}

fn find(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if path == Path::new("-") || !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let cannot_read = || format!("cannot read the folder {}", path.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).with_context(cannot_read)? {
        entries.push(entry.with_context(cannot_read)?.path());
    }
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_yaml = name.ends_with(".yaml") || name.ends_with(".yml");
        if name.starts_with('.') {
            continue;
        }
        if entry.is_dir() && depth < DEEPEST {
            find(&entry, depth + 1, files)?;
        } else if is_yaml && entry.is_file() {
            files.push(entry);
        }
        if files.len() > MOST_FILES {
            let message = format!("{} holds more than {MOST_FILES} files", path.display());
            return Err(UsageError(message).into());
        }
    }
    Ok(())
}

/// The documents of a file, or its mistakes.
fn documents(file: &Path) -> Result<Vec<Declared>, Vec<String>> {
    let shown = file.display();
    let text = text(file).map_err(|error| vec![format!("{shown}: {error:#}")])?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|error| vec![format!("{shown}: {}", error.to_string().trim_end())])?;
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let (mut declared, mut mistakes) = (Vec::new(), Vec::new());
    for (number, document) in documents.into_iter().enumerate() {
        let place = format!("{shown}, document {}", number + 1);
        match Object::declared(document) {
            Ok(object) => declared.push(Declared { object, place, folder: folder.clone() }),
            Err(error) => mistakes.push(format!("{place}: {error}")),
        }
    }
    if mistakes.is_empty() { Ok(declared) } else { Err(mistakes) }
}

fn text(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin().take(LONGEST_FILE + 1).read_to_string(&mut text),
        false => fs::File::open(file)?.take(LONGEST_FILE + 1).read_to_string(&mut text),
    };
    read?;
    anyhow::ensure!(
        text.len() as u64 <= LONGEST_FILE,
        "it is larger than {} MiB: is it the right file?",
        LONGEST_FILE >> 20
    );
    Ok(text)
}

//! What was uploaded before: the chunks of each folder's last upload, in the user's cache folder.
//!
//! The file only saves sending again. If it is lost, damaged or outdated, the next upload is a whole one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gantry_api::StoredBytes;
use gantry_ops::secret::write_private;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::client::Client;
use crate::environment::Environment;

/// How many folders are remembered, those uploaded last.
const MOST: usize = 50;

/// An upload, and its chunks in order.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) upload: String,
    pub(super) chunks: Vec<SentChunk>,
}

/// A chunk of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(String, u32, String)", into = "(String, u32, String)")]
pub(super) struct SentChunk {
    /// The SHA-256 of its content.
    pub(super) content: [u8; 32],
    /// Its length in the upload, where it is compressed, in bytes.
    pub(super) length: u32,
    /// The SHA-256 of these bytes.
    pub(super) stored: [u8; 32],
}

impl From<SentChunk> for (String, u32, String) {
    fn from(chunk: SentChunk) -> Self {
        (hex::encode(chunk.content), chunk.length, hex::encode(chunk.stored))
    }
}

impl TryFrom<(String, u32, String)> for SentChunk {
    type Error = hex::FromHexError;

    fn try_from((content, length, stored): (String, u32, String)) -> Result<Self, Self::Error> {
        let (mut chunk, mut bytes) = ([0; 32], [0; 32]);
        hex::decode_to_slice(content, &mut chunk)?;
        hex::decode_to_slice(stored, &mut bytes)?;
        Ok(Self { content: chunk, length, stored: bytes })
    }
}

impl Sent {
    /// Where the upload has each chunk.
    pub(super) fn by_content(&self) -> HashMap<[u8; 32], StoredBytes> {
        let mut offset = 0;
        let places = self.chunks.iter().map(|chunk| {
            let place = StoredBytes { offset, length: chunk.length, sha256: chunk.stored };
            offset += u64::from(chunk.length);
            (chunk.content, place)
        });
        places.collect()
    }
}

/// Where the last upload of a folder is remembered.
pub(super) struct Memory(PathBuf);

impl Memory {
    /// The one of a folder, for uploads to this registry with this token; `None` without a cache folder.
    pub(super) fn of(client: &Client, registry: &str, folder: &Path) -> Option<Self> {
        let mut name = Sha256::new_with_prefix(client.api.identity());
        name.update(Sha256::digest(registry));
        name.update(folder.canonicalize().ok()?.as_os_str().as_encoded_bytes());
        let name = hex::encode(&name.finalize()[..16]);
        Some(Self(cache(&client.environment)?.join(format!("{name}.json"))))
    }

    /// The last upload, if it is known.
    pub(super) fn recall(&self) -> Option<Sent> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    /// Remembers an upload, and forgets the oldest of many. If it fails, the next upload is a whole one.
    pub(super) fn keep(&self, sent: &Sent) {
        if let Err(error) = self.write(sent) {
            tracing::debug!("the upload is not remembered in {}: {error}", self.0.display());
        }
    }

    /// Forgets it.
    pub(super) fn forget(&self) {
        let _absent = fs::remove_file(&self.0);
    }

    fn write(&self, sent: &Sent) -> std::io::Result<()> {
        let Some(folder) = self.0.parent() else { return Ok(()) };
        fs::create_dir_all(folder)?;
        write_private(&self.0, &serde_json::to_vec(sent)?)?;
        forget_all_but(MOST, folder)
    }
}

/// The user's cache folder for this, by the rules of the XDG base directories.
fn cache(environment: &Environment) -> Option<PathBuf> {
    let folder = match (environment.get("XDG_CACHE_HOME"), environment.get("HOME")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, home) => Path::new(home?).join(".cache"),
    };
    folder.is_absolute().then(|| folder.join("gantry/uploads"))
}

fn forget_all_but(most: usize, folder: &Path) -> std::io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort();
    for (_, file) in files.iter().rev().skip(most) {
        fs::remove_file(file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: u8, length: u32) -> SentChunk {
        SentChunk { content: [n; 32], length, stored: [n + 100; 32] }
    }

    #[test]
    fn chunks_lie_one_after_the_other() {
        let sent =
            Sent { upload: "u".to_owned(), chunks: vec![chunk(1, 10), chunk(2, 5), chunk(3, 1)] };
        let places = sent.by_content();
        assert_eq!(places[&[3; 32]], StoredBytes { offset: 15, length: 1, sha256: [103; 32] });
        assert_eq!(places[&[1; 32]].offset, 0);
    }

    #[test]
    fn an_upload_is_recalled_until_it_is_forgotten_or_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory(folder.path().join("deep/a.json"));
        let sent = Sent { upload: "u".to_owned(), chunks: vec![chunk(1, 10)] };
        assert_eq!(memory.recall(), None);
        memory.keep(&sent);
        assert_eq!(memory.recall(), Some(sent));
        fs::write(&memory.0, r#"{"upload":"u","chunks":[["00",1,"00"]]}"#).unwrap();
        assert_eq!(memory.recall(), None);
        memory.forget();
        memory.forget();
        assert!(!memory.0.exists());
    }

    #[test]
    fn the_oldest_of_many_folders_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let second = std::time::Duration::from_secs(1);
        for n in 0..5 {
            let file = fs::File::create(folder.path().join(format!("{n}.json"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + second * n).unwrap();
        }
        forget_all_but(2, folder.path()).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["3.json", "4.json"]);
    }
}

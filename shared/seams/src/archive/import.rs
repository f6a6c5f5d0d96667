//! Reads files into a store.
//!
//! A mark is in the store from the first write to the last, so that no process starts on a partial import. A repeated
//! import writes the same items again. The installation's record is written last, in the commit that removes the mark.

use std::path::{Path, PathBuf};

use tokio::fs::{self, File};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::line::Line;
use super::{ArchiveError, FORMAT, Header, Moved, OBJECTS, RECORDS, at, mark};
use crate::blobs::Blobs;
use crate::collection::commit_unconditional;
use crate::installation;
use crate::store::{Batch, CommitError, Store, StoreError, Stored};

/// The most that one commit writes.
const CHANGES: usize = 200;
const BYTES: usize = 2 << 20;

/// Reads an archive into an empty store, or resumes an interrupted import of the same archive.
///
/// # Errors
/// [`ArchiveError`]. After the first write no process starts on the store until the import is repeated.
pub async fn import(
    store: &dyn Store,
    blobs: &dyn Blobs,
    folder: &Path,
) -> Result<Moved, ArchiveError> {
    let header = check_whole(folder).await?;
    begin(store, &header).await?;
    let objects = copy_objects(blobs, &folder.join(OBJECTS)).await?;
    let mut moved = Moved { objects, ..Moved::default() };

    let mut reader = Reader::open(folder).await?;
    let mut last = Batch::default();
    let mut some = Pending::default();
    while let Some(line) = reader.next().await? {
        if matches!(line, Line::Header(_) | Line::End { .. }) {
            continue;
        }
        let stored = line.into_stored().map_err(|message| reader.broken(message))?;
        match stored {
            Stored::Record(key, bytes) => {
                moved.records += 1;
                if key == installation::key() {
                    last.put(key, bytes);
                } else {
                    some.bytes += bytes.len();
                    some.batch.put(key, bytes);
                }
            }
            Stored::Entry(index, entry) => {
                moved.entries += 1;
                some.batch.index.push((index, entry));
            }
        }
        if some.is_full() {
            commit_unconditional(store, std::mem::take(&mut some).batch).await?;
        }
    }
    commit_unconditional(store, some.batch).await?;
    last.delete.push(mark());
    commit_unconditional(store, last).await?;
    Ok(moved)
}

#[derive(Default)]
struct Pending {
    batch: Batch,
    bytes: usize,
}

impl Pending {
    fn is_full(&self) -> bool {
        self.batch.put.len() + self.batch.index.len() >= CHANGES || self.bytes >= BYTES
    }
}

/// Writes the mark into an empty store, or finds the mark of an earlier attempt.
async fn begin(store: &dyn Store, header: &Header) -> Result<(), ArchiveError> {
    if let Some(found) = installation::find(store).await? {
        return Err(ArchiveError::StoreInUse { installation: found.id });
    }
    let told = serde_json::to_vec(header).map_err(|error| undecodable(&error))?;
    let mut batch = Batch::default();
    batch.create(mark(), told);
    match store.commit(batch).await {
        Ok(()) => return Ok(()),
        Err(CommitError::Conflict { .. }) => {}
        Err(CommitError::Store(error)) => return Err(error.into()),
    }
    let found = store.load(&[mark()]).await?.pop().flatten();
    let former = found.map(|record| record.bytes).unwrap_or_default();
    let former: Header = serde_json::from_slice(&former).map_err(|error| undecodable(&error))?;
    if former == *header {
        return Ok(());
    }
    Err(ArchiveError::OtherUnfinished { installation: former.installation })
}

fn undecodable(error: &serde_json::Error) -> StoreError {
    StoreError::Undecodable { key: mark(), message: error.to_string() }
}

/// Reads the whole archive once before anything is written.
async fn check_whole(folder: &Path) -> Result<Header, ArchiveError> {
    let mut reader = Reader::open(folder).await?;
    let Some(Line::Header(header)) = reader.next().await? else {
        return Err(reader.broken("it is no archive of gantry: it has no header".to_owned()));
    };
    if header.format != FORMAT {
        let (written, known) = (header.format, FORMAT);
        return Err(reader.broken(format!(
            "it has format {written}, this gantry knows {known}: use gantry {}",
            header.gantry
        )));
    }
    let mut lines = 0;
    while let Some(line) = reader.next().await? {
        if let Line::End { lines: said } = line {
            if said == lines {
                return Ok(header);
            }
            return Err(reader.broken(format!("{said} lines were written, {lines} are here")));
        }
        line.into_stored().map_err(|message| reader.broken(message))?;
        lines += 1;
    }
    Err(reader.broken("it breaks off: export again".to_owned()))
}

async fn copy_objects(blobs: &dyn Blobs, objects: &Path) -> Result<u64, ArchiveError> {
    let mut folders = vec![objects.to_owned()];
    let mut copied = 0;
    while let Some(folder) = folders.pop() {
        let mut entries = fs::read_dir(&folder).await.map_err(at(&folder))?;
        while let Some(entry) = entries.next_entry().await.map_err(at(&folder))? {
            let path = entry.path();
            if entry.file_type().await.map_err(at(&path))?.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(objects).unwrap_or(&path).to_string_lossy().into_owned();
            let file = File::open(&path).await.map_err(at(&path))?;
            blobs.put_stream(&name, Box::pin(file), u64::MAX).await?;
            copied += 1;
        }
    }
    Ok(copied)
}

struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    line: u64,
}

impl Reader {
    async fn open(folder: &Path) -> Result<Self, ArchiveError> {
        let path = folder.join(RECORDS);
        let file = File::open(&path).await.map_err(at(&path))?;
        Ok(Self { path, file: BufReader::with_capacity(1 << 20, file), line: 0 })
    }

    async fn next(&mut self) -> Result<Option<Line>, ArchiveError> {
        let mut line = Vec::new();
        let read = self.file.read_until(b'\n', &mut line).await.map_err(at(&self.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        serde_json::from_slice(&line).map(Some).map_err(|error| self.broken(error.to_string()))
    }

    fn broken(&self, message: String) -> ArchiveError {
        ArchiveError::Broken { path: self.path.clone(), line: self.line, message }
    }
}

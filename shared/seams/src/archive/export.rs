//! Writes a store's contents to files.

use std::path::Path;

use futures_util::TryStreamExt as _;
use tokio::fs::{self, File};
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::sync::mpsc;

use super::line::Line;
use super::{ArchiveError, FORMAT, Header, Moved, OBJECTS, RECORDS, at};
use crate::blobs::Blobs;
use crate::installation;
use crate::store::{Stored, Walk};

/// How many chunks of the store may wait for the disk.
const AHEAD: usize = 4;

/// Writes a whole installation into `folder`, which must be new or empty. `version` is gantry's own version.
///
/// # Errors
/// [`ArchiveError`]. A failed export is recognizable: it has no `store.jsonl`.
pub async fn export(
    store: &dyn Walk,
    blobs: &dyn Blobs,
    folder: &Path,
    version: &str,
) -> Result<Moved, ArchiveError> {
    let installation = installation::find(store).await?.ok_or(ArchiveError::NothingThere)?;
    let header = Header {
        format: FORMAT,
        gantry: version.to_owned(),
        installation: installation.id,
        exported: store.now().await?,
    };
    make_private(folder).await?;
    let mut moved = Moved { objects: copy_objects(blobs, folder).await?, ..Moved::default() };

    let unfinished = folder.join(format!("{RECORDS}.unfinished"));
    let mut file = Lines::create(&unfinished).await?;
    file.write(&Line::Header(header)).await?;
    let (sender, mut pieces) = mpsc::channel(AHEAD);
    let writing = async {
        while let Some(piece) = pieces.recv().await {
            for stored in piece {
                match &stored {
                    Stored::Record(..) => moved.records += 1,
                    Stored::Entry(..) => moved.entries += 1,
                }
                file.write(&Line::of(stored)).await?;
            }
        }
        Ok::<_, ArchiveError>(())
    };
    let walking = async { Ok(store.walk(sender).await?) };
    tokio::try_join!(walking, writing)?;
    file.end(moved.records + moved.entries).await?;
    let whole = folder.join(RECORDS);
    fs::rename(&unfinished, &whole).await.map_err(at(whole))?;
    Ok(moved)
}

/// Only the owner may read it: the archive contains sealed secrets and hashes of tokens.
async fn make_private(folder: &Path) -> Result<(), ArchiveError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).await.map_err(at(folder))?;
    let mut entries = fs::read_dir(folder).await.map_err(at(folder))?;
    match entries.next_entry().await.map_err(at(folder))? {
        Some(_) => Err(ArchiveError::FolderInUse { path: folder.to_owned() }),
        None => Ok(()),
    }
}

async fn copy_objects(blobs: &dyn Blobs, folder: &Path) -> Result<u64, ArchiveError> {
    let objects = folder.join(OBJECTS);
    fs::create_dir(&objects).await.map_err(at(&objects))?;
    let mut paths = blobs.list("")?;
    let mut copied = 0;
    while let Some(path) = paths.try_next().await? {
        let mut object = blobs.get_stream(&path).await?;
        let target = objects.join(&path);
        let parent = target.parent().unwrap_or(&objects);
        fs::create_dir_all(parent).await.map_err(at(parent))?;
        let mut file = File::create_new(&target).await.map_err(at(&target))?;
        tokio::io::copy(&mut object, &mut file).await.map_err(at(&target))?;
        file.sync_all().await.map_err(at(&target))?;
        copied += 1;
    }
    Ok(copied)
}

struct Lines<'a> {
    path: &'a Path,
    file: BufWriter<File>,
}

impl<'a> Lines<'a> {
    async fn create(path: &'a Path) -> Result<Self, ArchiveError> {
        let file = File::create_new(path).await.map_err(at(path))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 20, file) })
    }

    async fn write(&mut self, line: &Line) -> Result<(), ArchiveError> {
        let failed = |error: serde_json::Error| at(self.path)(error.into());
        let mut bytes = serde_json::to_vec(line).map_err(failed)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).await.map_err(at(self.path))
    }

    async fn end(mut self, lines: u64) -> Result<(), ArchiveError> {
        self.write(&Line::End { lines }).await?;
        self.file.flush().await.map_err(at(self.path))?;
        self.file.get_ref().sync_all().await.map_err(at(self.path))
    }
}

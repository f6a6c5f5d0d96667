//! Uploads: archives for builds, streamed to the object store.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use gantry_domain::id::{RegistryName, TokenId, UploadId};
use gantry_domain::image::Digest;
use gantry_ops::secret::random_hex;
use gantry_seams::CreateError;
use gantry_seams::store::Store;
use gantry_seams::uploads::{self, Kept, Upload};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use crate::access::{Allowed, Run};
use crate::refusal::Refusal;
use crate::state::State;

mod delta;

pub(crate) use delta::create_from;

/// An upload reserves its registry's quota in steps of this size.
const ANNOUNCED_AT_ONCE: u64 = 64 << 20;

/// The time limit between two pieces of a body.
const PIECE_PATIENCE: Duration = Duration::from_secs(60);

/// How many pieces, each about 64 KiB at most, are buffered between network and disk.
const PIECES_UNDER_WAY: usize = 16;

/// The offset of a `.tar` archive's magic bytes.
const TAR_MAGIC_AT: usize = 257;
const TAR_MAGIC: &[u8] = b"ustar";
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// The bytes of an archive as they arrive.
pub(crate) trait Pieces: Stream<Item = io::Result<Bytes>> + Unpin {}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Pieces for S {}

/// An arriving archive, and its `Content-Length` if there is one.
pub(crate) struct Archive<S> {
    pub(crate) pieces: S,
    pub(crate) declared: Option<u64>,
}

/// Stores an archive, `.tar.gz` or `.tar`. An incomplete upload leaves nothing behind.
pub(crate) async fn create(
    state: &State,
    allowed: &Allowed<Run>,
    registry: &RegistryName,
    archive: Archive<impl Pieces>,
) -> Result<Upload, Refusal> {
    let registry = allowed.registry(state.store.as_ref(), registry).await?;
    state.intake.check()?;
    let Archive { mut pieces, declared } = archive;
    let most = state.settings.upload_limit;
    if declared.is_some_and(|length| length > most) {
        return Err(Refusal::TooLarge { most });
    }
    check_disk(state).await?;
    let random = random_hex::<16>()?;
    let id: UploadId = random
        .parse()
        .map_err(|error: gantry_domain::InvalidText| Refusal::invalid("id", error.to_string()))?;
    let head = read_head(&mut pieces).await?;
    check_magic(&head)?;
    let room = Room {
        state,
        kept: Kept { registry: registry.name, id },
        announced: AtomicU64::new(0),
        refused: Mutex::default(),
    };
    let taken = take(&room, declared, head, pieces, allowed.by()).await;
    if taken.is_err() {
        forget(state, &room.kept).await;
    }
    taken
}

async fn take(
    room: &Room<'_>,
    declared: Option<u64>,
    head: Bytes,
    pieces: impl Pieces,
    by: TokenId,
) -> Result<Upload, Refusal> {
    let store = room.state.store.as_ref();
    room.announce(declared.unwrap_or(head.len() as u64)).await?;
    let (bytes, digest) = store_archive(room, head, pieces).await?;
    let Kept { registry, id } = room.kept.clone();
    record(store, Upload { id, registry, by, bytes, digest, created: store.now().await? }).await
}

/// Fails while the disk has less space than is reserved for the store and logs.
async fn check_disk(state: &State) -> Result<(), Refusal> {
    match state.blobs.free_bytes().await {
        Some(free) if free < state.settings.min_free => {
            tracing::error!(
                "an upload was refused: {free} bytes are free on the objects' disk, less than `objects.min_free`"
            );
            Err(Refusal::ObjectsFull)
        }
        Some(_) | None => Ok(()),
    }
}

/// An upload's share of its registry's quota.
struct Room<'a> {
    state: &'a State,
    kept: Kept,
    announced: AtomicU64,
    refused: Mutex<Option<Refusal>>,
}

impl Room<'_> {
    /// Reserves so many bytes in total, in steps.
    async fn announce(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes <= self.announced.load(Ordering::Relaxed) {
            return Ok(());
        }
        let bytes = bytes.next_multiple_of(ANNOUNCED_AT_ONCE);
        let store = self.state.store.as_ref();
        check_disk(self.state).await?;
        let taken = uploads::announce(store, &self.kept, bytes, store.now().await?).await?;
        self.announced.store(bytes, Ordering::Relaxed);
        let most = self.state.settings.uploads_limit;
        // The last step may be larger than what still arrives.
        if taken > most.saturating_add(ANNOUNCED_AT_ONCE - 1) {
            return Err(Refusal::Conflict {
                code: "uploads_full",
                message: format!(
                    "the uploads of registry {} take more than {most} bytes (`limits.uploads`): remove some with \
                     `DELETE /api/v1/registries/{}/uploads/ID`, or wait until `retention.unused_uploads` is over",
                    self.kept.registry, self.kept.registry
                ),
            });
        }
        Ok(())
    }
}

/// Removes an upload. Waiting runs that build from it will fail.
pub(crate) async fn delete(
    state: &State,
    allowed: &Allowed<Run>,
    registry: &RegistryName,
    id: UploadId,
) -> Result<(), Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, registry).await?.name;
    let found = uploads::find(store, &id).await?.filter(|upload| upload.registry == registry);
    if found.is_none() {
        return Err(Refusal::no_upload(&id));
    }
    state.blobs.delete(&uploads::blob_path(&id)).await?;
    uploads::delete(store, &Kept { registry, id }).await?;
    Ok(())
}

async fn record(store: &dyn Store, upload: Upload) -> Result<Upload, Refusal> {
    match uploads::create(store, &upload).await {
        Ok(()) => Ok(upload),
        Err(CreateError::Exists { .. }) => Err(Refusal::Internal),
        Err(CreateError::Store(error)) => Err(error.into()),
    }
}

/// Removes a failed upload. What cannot be removed now is removed by retention.
async fn forget(state: &State, kept: &Kept) {
    let id = &kept.id;
    if let Err(error) = state.blobs.delete(&uploads::blob_path(id)).await {
        tracing::warn!("the data of failed upload {id} will be removed later: {error}");
    } else if let Err(error) = uploads::delete(state.store.as_ref(), kept).await {
        tracing::debug!("the record of failed upload {id} will be removed later: {error}");
    }
}

async fn store_archive(
    room: &Room<'_>,
    head: Bytes,
    pieces: impl Pieces,
) -> Result<(u64, Digest), Refusal> {
    // The body's stream may be bound to one thread, and the object store may read from any other.
    let (sender, receiver) = mpsc::channel(PIECES_UNDER_WAY);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    let reader = Box::pin(StreamReader::new(stream.boxed()));
    let path = uploads::blob_path(&room.kept.id);
    let put = room.state.blobs.put_stream(&path, reader, room.state.settings.upload_limit);
    let (stored, digest) = tokio::join!(put, send_pieces(room, head, pieces, sender));
    if let Some(error) = room.refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    Ok((stored?, digest))
}

/// Reads enough to tell the archive's type.
async fn read_head(pieces: &mut impl Pieces) -> Result<Bytes, Refusal> {
    let mut head = BytesMut::new();
    while head.len() < TAR_MAGIC_AT + TAR_MAGIC.len() && !head.starts_with(GZIP_MAGIC) {
        match next_piece(pieces).await {
            None => break,
            Some(Ok(piece)) => head.extend_from_slice(&piece),
            Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Refusal::TooSlow { patience: PIECE_PATIENCE });
            }
            Some(Err(_)) => return Err(Refusal::BrokenOff),
        }
    }
    Ok(head.freeze())
}

fn check_magic(head: &[u8]) -> Result<(), Refusal> {
    let is_tar = head.get(TAR_MAGIC_AT..).is_some_and(|rest| rest.starts_with(TAR_MAGIC));
    if is_tar || head.starts_with(GZIP_MAGIC) {
        return Ok(());
    }
    Err(Refusal::UnsupportedMedia(
        "the body is neither a .tar nor a .tar.gz: pack the folder, as `gantry build` does".into(),
    ))
}

/// Sends the pieces to the object store and returns their digest.
async fn send_pieces(
    room: &Room<'_>,
    head: Bytes,
    mut pieces: impl Pieces,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> Digest {
    let mut hasher = Sha256::new();
    let mut sent = 0;
    let mut next = Some(Ok(head));
    while let Some(piece) = next {
        let mut piece = piece;
        if let Ok(bytes) = &piece {
            hasher.update(bytes);
            sent += bytes.len() as u64;
            if let Err(error) = room.announce(sent).await {
                *room.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                piece = Err(io::ErrorKind::Other.into());
            }
        }
        let is_broken = piece.is_err();
        // The receiver stopped; its own result says why.
        if sender.send(piece).await.is_err() || is_broken {
            break;
        }
        next = next_piece(&mut pieces).await;
    }
    match format!("sha256:{}", hex::encode(hasher.finalize())).parse() {
        Ok(digest) => digest,
        Err(_) => unreachable!("it is the form of a digest"),
    }
}

async fn next_piece(pieces: &mut impl Pieces) -> Option<io::Result<Bytes>> {
    match tokio::time::timeout(PIECE_PATIENCE, pieces.next()).await {
        Ok(piece) => piece,
        Err(_) => Some(Err(io::ErrorKind::TimedOut.into())),
    }
}

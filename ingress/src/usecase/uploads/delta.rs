//! An upload that is sent as a difference to an earlier one of the same token.
//!
//! The whole archive is put together here and stored as an upload of its own, so nothing later depends on the earlier
//! one. Copied bytes are compared with their digest: what does not fit is refused, and the client then sends everything.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::try_unfold;
use futures_util::{FutureExt as _, Stream, TryStreamExt as _};
use gantry_api::{DeltaPart, InvalidDelta, LONGEST_PART, StoredBytes};
use gantry_domain::id::{RegistryName, UploadId};
use gantry_ops::aside;
use gantry_seams::blobs::{BlobError, SharedBlobs};
use gantry_seams::uploads::{self, Upload};
use sha2::{Digest as _, Sha256};

use super::{Archive, Pieces, create, next_piece};
use crate::access::{Allowed, Run};
use crate::refusal::Refusal;
use crate::state::State;

/// How many copies are read and compared while the bytes before them are hashed and stored.
const COPIES_AT_ONCE: usize = 2;

/// Stores an archive that is sent as a difference to the upload `from`.
pub(crate) async fn create_from(
    state: &State,
    allowed: &Allowed<Run>,
    registry: &RegistryName,
    from: &UploadId,
    delta: impl Pieces,
) -> Result<Upload, Refusal> {
    let known = allowed.registry(state.store.as_ref(), registry).await?.name;
    let base = uploads::find(state.store.as_ref(), from).await?;
    let is_own = |upload: &Upload| upload.registry == known && upload.by == allowed.by();
    let base = base.filter(is_own).ok_or_else(|| Refusal::no_upload(from))?;
    let refused = Arc::default();
    let assembly = Assembly {
        delta,
        read: BytesMut::new(),
        copies: Copies::default(),
        new_bytes: 0,
        is_complete: false,
        base,
        blobs: Arc::clone(&state.blobs),
        refused: Arc::clone(&refused),
    };
    let archive = Archive { pieces: Box::pin(assembly.pieces()), declared: None };
    let created = create(state, allowed, registry, archive).await;
    match refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(refusal) => Err(refusal),
        None => created,
    }
}

/// Bytes of the archive, which may still have to be read.
type Piece = BoxFuture<'static, Result<Bytes, Refusal>>;

/// Why the archive could not be put together; the stream of its bytes only breaks off.
type Refused = Arc<Mutex<Option<Refusal>>>;

struct Assembly<D> {
    delta: D,
    /// What has arrived and is not used yet.
    read: BytesMut,
    copies: Copies,
    /// How many new bytes are still to be passed on.
    new_bytes: usize,
    is_complete: bool,
    base: Upload,
    blobs: SharedBlobs,
    refused: Refused,
}

/// Bytes to copy that follow each other in the earlier upload, and are read at once.
#[derive(Default)]
struct Copies {
    parts: Vec<StoredBytes>,
    bytes: u64,
}

impl Copies {
    fn end(&self) -> Option<u64> {
        self.parts.first().map(|first| first.offset + self.bytes)
    }

    /// Takes the part if it continues these.
    fn take(&mut self, part: StoredBytes) -> bool {
        let length = u64::from(part.length);
        let continues = self.end().is_none_or(|end| end == part.offset);
        if !continues || self.bytes + length > u64::from(LONGEST_PART) {
            return false;
        }
        self.parts.push(part);
        self.bytes += length;
        true
    }
}

impl<D: Pieces> Assembly<D> {
    /// The bytes of the archive.
    fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> {
        let refused = Arc::clone(&self.refused);
        let pieces = try_unfold(self, |mut assembly| async move {
            Ok(assembly.next().await?.map(|piece| (piece, assembly)))
        });
        pieces.try_buffered(COPIES_AT_ONCE).map_err(move |refusal| {
            *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
            io::Error::other("the delta was refused")
        })
    }

    /// The next bytes of the archive, which may still have to be read.
    async fn next(&mut self) -> Result<Option<Piece>, Refusal> {
        loop {
            if self.new_bytes > 0 && !self.read.is_empty() {
                let length = self.new_bytes.min(self.read.len());
                self.new_bytes -= length;
                let new = self.read.split_to(length).freeze();
                return Ok(Some(ready(Ok(new)).boxed()));
            }
            if self.is_complete {
                return self.nothing_follows().await.map(|()| None);
            }
            if self.new_bytes > 0 {
                self.read_more().await?;
                continue;
            }
            match DeltaPart::parse(&self.read) {
                Err(InvalidDelta) => return Err(invalid("it is no delta")),
                Ok(None) => self.read_more().await?,
                Ok(Some((part, length))) => {
                    let is_continued = match part {
                        DeltaPart::Copy(part) => self.copies.take(self.within(part)?),
                        DeltaPart::New { .. } | DeltaPart::End => self.copies.parts.is_empty(),
                    };
                    if !is_continued {
                        return Ok(Some(self.copy()));
                    }
                    self.read.advance(length);
                    match part {
                        DeltaPart::New { length } => {
                            self.new_bytes = usize::try_from(length).unwrap_or(usize::MAX);
                        }
                        DeltaPart::End => self.is_complete = true,
                        DeltaPart::Copy(_) => {}
                    }
                }
            }
        }
    }

    fn within(&self, part: StoredBytes) -> Result<StoredBytes, Refusal> {
        let end = part.offset.checked_add(u64::from(part.length));
        match end.is_some_and(|end| end <= self.base.bytes) {
            true => Ok(part),
            false => Err(does_not_fit()),
        }
    }

    async fn read_more(&mut self) -> Result<(), Refusal> {
        match next_piece(&mut self.delta).await {
            Some(Ok(piece)) => self.read.extend_from_slice(&piece),
            Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Refusal::TooSlow { patience: super::PIECE_PATIENCE });
            }
            Some(Err(_)) | None => return Err(Refusal::BrokenOff),
        }
        Ok(())
    }

    async fn nothing_follows(&mut self) -> Result<(), Refusal> {
        while self.read.is_empty() {
            match next_piece(&mut self.delta).await {
                None => return Ok(()),
                Some(Ok(piece)) => self.read.extend_from_slice(&piece),
                Some(Err(_)) => return Err(Refusal::BrokenOff),
            }
        }
        Err(invalid("bytes follow its end"))
    }

    fn copy(&mut self) -> Piece {
        let copies = std::mem::take(&mut self.copies);
        read(Arc::clone(&self.blobs), self.base.id.clone(), copies).boxed()
    }
}

/// Reads what is to be copied, and compares it.
async fn read(blobs: SharedBlobs, base: UploadId, copies: Copies) -> Result<Bytes, Refusal> {
    let Copies { parts, bytes } = copies;
    let start = parts.first().map_or(0, |first| first.offset);
    let found = match blobs.get_range(&uploads::blob_path(&base), start..start + bytes).await {
        Ok(found) => found,
        Err(BlobError::Absent { .. }) => return Err(Refusal::no_upload(&base)),
        Err(error) => return Err(error.into()),
    };
    // A few bytes of a delta cause all of this hashing, so it is done beside the requests of others.
    let compared = found.clone();
    let fits = aside::read(move || {
        let mut rest = compared.as_ref();
        parts.iter().all(|part| {
            let length = usize::try_from(part.length).unwrap_or(usize::MAX);
            let Some((copied, after)) = rest.split_at_checked(length) else { return false };
            rest = after;
            Sha256::digest(copied).as_slice() == part.sha256
        })
    });
    match fits.await {
        Ok(true) => Ok(found),
        Ok(false) => Err(does_not_fit()),
        Err(error) => {
            tracing::error!("the bytes of an upload could not be compared: {error}");
            Err(Refusal::Internal)
        }
    }
}

fn invalid(problem: &str) -> Refusal {
    Refusal::invalid("body", format!("{problem}: send the whole archive instead"))
}

fn does_not_fit() -> Refusal {
    Refusal::Conflict {
        code: "other_upload",
        message:
            "the earlier upload has other bytes than the delta says: send the whole archive instead"
                .to_owned(),
    }
}

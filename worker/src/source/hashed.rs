//! Hashes an archive while it is read.

use std::io;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

/// The size of a piece in bytes, and how many of them may be read ahead.
const PIECE: usize = 128 << 10;
const AHEAD: usize = 8;

/// The hash of an archive that is being read. The reading ends if this is dropped.
pub(super) struct Hash(AbortOnDropHandle<io::Result<String>>);

impl Hash {
    /// Waits until everything was read, also what was not unpacked, and returns the SHA-256 of it, in hexadecimal digits.
    ///
    /// # Errors
    /// The error of the archive's reader.
    pub(super) async fn finish(self) -> io::Result<String> {
        self.0.await.map_err(io::Error::other)?
    }
}

/// Reads an archive on a task of its own, ahead of whoever unpacks it.
pub(super) fn hashed(
    archive: impl AsyncRead + Send + Unpin + 'static,
) -> (impl AsyncRead + Send + Unpin + 'static, Hash) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let hash = AbortOnDropHandle::new(tokio::spawn(read(archive, sender)));
    (StreamReader::new(ReceiverStream::new(receiver)), Hash(hash))
}

async fn read(
    mut archive: impl AsyncRead + Unpin,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<String> {
    let (mut hasher, mut buffer) = (Sha256::new(), BytesMut::new());
    loop {
        // What short reads leave of a piece is for the next ones.
        if buffer.capacity() == 0 {
            buffer.reserve(PIECE);
        }
        match archive.read_buf(&mut buffer).await {
            Ok(0) => return Ok(hex::encode(hasher.finalize())),
            Ok(_) => {
                let piece = buffer.split().freeze();
                hasher.update(&piece);
                // Nobody unpacks bytes after the archive's own end, but they belong to it as well.
                let _is_unpacked = sender.send(Ok(piece)).await;
            }
            Err(error) => {
                let kind = error.kind();
                let _is_unpacked = sender.send(Err(error)).await;
                return Err(kind.into());
            }
        }
    }
}

//! Hashes an archive while it is read.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

/// A reader with the hash of what was read so far. Clones continue where the others stopped.
pub(super) struct Hashed<R>(Arc<Mutex<State<R>>>);

struct State<R> {
    archive: R,
    hasher: Sha256,
}

impl<R> Clone for Hashed<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: AsyncRead + Unpin> Hashed<R> {
    pub(super) fn new(archive: R) -> Self {
        Self(Arc::new(Mutex::new(State { archive, hasher: Sha256::new() })))
    }

    /// Reads the rest, and returns the SHA-256 of everything, in hexadecimal digits.
    ///
    /// # Errors
    /// The error of the archive's reader.
    pub(super) async fn finish(mut self) -> std::io::Result<String> {
        let mut rest = vec![0; 64 << 10];
        while self.read(&mut rest).await? > 0 {}
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(hex::encode(state.hasher.clone().finalize()))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Hashed<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = buffer.filled().len();
        let read = Pin::new(&mut state.archive).poll_read(context, buffer);
        state.hasher.update(&buffer.filled()[before..]);
        read
    }
}

//! Keeps a body until its signature is verified: a short one in memory, a longer one in a file.
//!
//! So a large unsigned body takes disk space for a moment, but no memory. The file is unlinked, so closing it frees the
//! space.

use std::io;

use actix_web::web::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

/// Most bodies are shorter.
const MOST_IN_MEMORY: usize = 256 * 1024;

/// The part of a body that has arrived.
pub(super) struct KeptBody {
    length: usize,
    storage: Storage,
}

enum Storage {
    /// The pieces as they arrived, usually one.
    Memory(Vec<Bytes>),
    File(File),
}

impl KeptBody {
    pub(super) fn new() -> Self {
        Self { length: 0, storage: Storage::Memory(Vec::new()) }
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) async fn push(&mut self, piece: Bytes) -> io::Result<()> {
        self.length += piece.len();
        match &mut self.storage {
            Storage::File(file) => file.write_all(&piece).await,
            Storage::Memory(pieces) => {
                pieces.push(piece);
                if self.length > MOST_IN_MEMORY {
                    let file = write(std::mem::take(pieces)).await?;
                    self.storage = Storage::File(file);
                }
                Ok(())
            }
        }
    }

    /// Reads the whole body into memory.
    pub(super) async fn into_bytes(self) -> io::Result<Bytes> {
        match self.storage {
            Storage::Memory(mut pieces) if pieces.len() == 1 => Ok(pieces.remove(0)),
            Storage::Memory(pieces) => {
                let mut whole = BytesMut::with_capacity(self.length);
                for piece in pieces {
                    whole.extend_from_slice(&piece);
                }
                Ok(whole.freeze())
            }
            Storage::File(mut file) => {
                file.rewind().await?;
                let mut whole = Vec::with_capacity(self.length);
                file.read_to_end(&mut whole).await?;
                Ok(whole.into())
            }
        }
    }
}

async fn write(pieces: Vec<Bytes>) -> io::Result<File> {
    let made = tokio::task::spawn_blocking(tempfile::tempfile).await;
    let mut file = File::from_std(made.map_err(io::Error::other)??);
    for piece in pieces {
        file.write_all(&piece).await?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_of_any_length_is_kept_unchanged() {
        for count in [0, 1, 2, MOST_IN_MEMORY / 1000, MOST_IN_MEMORY / 1000 + 1, 1000] {
            let mut kept = KeptBody::new();
            let mut whole = Vec::new();
            for number in 0..count {
                let piece = vec![u8::try_from(number % 251).unwrap(); 1000];
                whole.extend_from_slice(&piece);
                kept.push(piece.into()).await.unwrap();
            }
            assert_eq!(kept.length(), whole.len());
            assert_eq!(matches!(kept.storage, Storage::File(_)), whole.len() > MOST_IN_MEMORY);
            assert_eq!(kept.into_bytes().await.unwrap(), whole);
        }
    }
}

//! Build contexts.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use futures_util::{Stream, stream};

/// The media type of contexts.
pub(crate) const TAR: &str = "application/x-tar";

/// A context that is being packed.
pub(crate) struct Context(tar::Builder<Vec<u8>>);

impl Context {
    /// A context with only this Dockerfile.
    pub(crate) fn new(dockerfile: &str) -> Result<Self> {
        Self(tar::Builder::new(Vec::new())).with("Dockerfile", dockerfile.as_bytes())
    }

    /// Adds a file.
    pub(crate) fn with(mut self, path: &str, content: &[u8]) -> Result<Self> {
        let mut header = header(content.len() as u64);
        self.0.append_data(&mut header, path, content)?;
        Ok(self)
    }

    /// The packed context.
    pub(crate) fn archive(self) -> Result<Bytes> {
        Ok(self.0.into_inner()?.into())
    }

    /// The packed context, with `count` more files of `piece.len()` × `pieces` bytes, which are never in memory at
    /// once.
    pub(crate) fn with_large_files(
        self,
        count: usize,
        piece: Bytes,
        pieces: usize,
    ) -> Result<impl Stream<Item = Result<Bytes, Infallible>>> {
        const END: usize = 1024;
        let mut head: Vec<u8> = self.0.into_inner()?;
        head.truncate(head.len() - END);
        let mut parts = vec![(Bytes::from(head), 1)];
        for number in 0..count {
            let mut header = header((piece.len() * pieces) as u64);
            header.set_path(format!("large-{number}"))?;
            header.set_cksum();
            parts.push((Bytes::copy_from_slice(header.as_bytes()), 1));
            parts.push((piece.clone(), pieces));
        }
        parts.push((Bytes::from_static(&[0; END]), 1));
        let parts = parts.into_iter().flat_map(|(bytes, times)| std::iter::repeat_n(bytes, times));
        Ok(stream::iter(parts.map(Ok)))
    }
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    header
}

//! Readers for an archive: one counts received bytes, one limits what tar reads; and a copy that tells read errors from
//! write errors.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Counts the archive's received bytes. It remembers why it ended, because the layers above wrap its errors.
pub(super) struct Incoming<R> {
    inner: R,
    left: u64,
    stopped: Arc<AtomicBool>,
    ended: End,
}

pub(super) enum End {
    No,
    TooLarge,
    Broke(std::io::Error),
}

impl<R> Incoming<R> {
    /// Reads at most `most` bytes, and none once `stopped` is set.
    pub(super) fn new(inner: R, most: u64, stopped: Arc<AtomicBool>) -> Self {
        Self { inner, left: most, stopped, ended: End::No }
    }

    /// How many bytes may still be read.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Why the reader ended.
    pub(super) fn end(self) -> End {
        self.ended
    }
}

impl<R: Read> Read for Incoming<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let end = match self.inner.read(buffer) {
            _ if self.stopped.load(Ordering::Relaxed) => {
                End::Broke(std::io::Error::other("nobody waits for it any more"))
            }
            Ok(read) if read as u64 > self.left => End::TooLarge,
            Ok(read) => {
                self.left -= read as u64;
                return Ok(read);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => End::Broke(error),
        };
        self.ended = end;
        Err(std::io::Error::other("the archive ended early"))
    }
}

/// Limits the bytes that tar reads to a budget, which is set for each part.
pub(super) struct Metered<R> {
    pub(super) inner: R,
    pub(super) budget: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.budget.get();
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if most == 0 && !buffer.is_empty() {
            return Err(std::io::Error::other("more than may be read here"));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        self.budget.set(left - read as u64);
        Ok(read)
    }
}

/// Whether reading or writing failed.
pub(super) enum CopyError {
    Read(std::io::Error),
    Write(std::io::Error),
}

/// Like `std::io::copy`, but tells whether reading or writing failed.
pub(super) fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<u64, CopyError> {
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        to.write_all(&buffer[..read]).map_err(CopyError::Write)?;
        copied += read as u64;
    }
}

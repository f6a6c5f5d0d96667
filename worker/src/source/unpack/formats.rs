//! What an archive is packed with, told by its first bytes.

use std::cell::Cell;
use std::io::{BufReader, Cursor, ErrorKind, Read};
use std::rc::Rc;

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::UnpackError;

/// Enough of an archive to tell its format.
const HEAD: u64 = 6;

/// The window of zstd, as a power of two: 128 MiB, like that of `zstd` without `--long`.
const LARGEST_WINDOW: u32 = 27;
/// The memory of xz, in bytes: `xz -9` needs 65 MiB.
const MOST_MEMORY: u64 = 128 << 20;

/// How formats begin that are not unpacked.
const REFUSED: [(&[u8], &str); 3] =
    [(b"PK\x03\x04", "zip"), (b"\x04\x22\x4d\x18", "lz4"), (b"7z\xbc\xaf\x27\x1c", "7z")];

/// The tar in an archive.
pub(super) struct Tar<'a> {
    inner: Box<dyn Read + 'a>,
    /// Whether reading has failed, because the layers above wrap its errors.
    failed: Rc<Cell<bool>>,
}

impl<'a> Tar<'a> {
    /// Reads the start of an archive. Several packed files after each other are one archive.
    ///
    /// # Errors
    /// [`UnpackError::UnknownFormat`], [`UnpackError::Damaged`].
    pub(super) fn of(mut archive: impl Read + 'a) -> Result<Self, UnpackError> {
        let mut head = Vec::new();
        let read = archive.by_ref().take(HEAD).read_to_end(&mut head);
        read.map_err(|source| UnpackError::Damaged { source })?;
        if let Some((_, format)) = REFUSED.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Err(UnpackError::UnknownFormat { format });
        }
        let inner = unpacked(head, archive).map_err(|source| UnpackError::Damaged { source })?;
        Ok(Self { inner, failed: Rc::default() })
    }

    /// Tells, also later, whether reading has failed: what is packed is damaged, or needs more memory than is allowed.
    pub(super) fn failed(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.failed)
    }
}

fn unpacked<'a>(head: Vec<u8>, rest: impl Read + 'a) -> std::io::Result<Box<dyn Read + 'a>> {
    let begins = |magic: &[u8]| head.starts_with(magic);
    let (is_gzip, is_bzip2) = (begins(b"\x1f\x8b"), begins(b"BZh"));
    let (is_zstd, is_xz) = (begins(b"\x28\xb5\x2f\xfd"), begins(b"\xfd7zXZ\0"));
    let whole = BufReader::with_capacity(128 << 10, Cursor::new(head).chain(rest));
    Ok(if is_gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if is_zstd {
        let mut decoder = zstd::Decoder::with_buffer(whole)?;
        decoder.window_log_max(LARGEST_WINDOW)?;
        Box::new(decoder)
    } else if is_xz {
        let stream = Stream::new_stream_decoder(MOST_MEMORY, CONCATENATED)?;
        Box::new(XzDecoder::new_stream(whole, stream))
    } else if is_bzip2 {
        Box::new(MultiBzDecoder::new(whole))
    } else {
        Box::new(whole)
    })
}

impl Read for Tar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer);
        if read.as_ref().is_err_and(|error| error.kind() != ErrorKind::Interrupted) {
            self.failed.set(true);
        }
        read
    }
}

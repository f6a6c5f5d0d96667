//! Cuts the tar of a folder into chunks, and compresses each of them alone.
//!
//! Where a chunk ends depends only on the bytes around, so a changed file changes the chunks that it lies in, and no
//! others. A chunk is a gzip file of its own. One after the other they are a `.tar.gz` like any other, and a chunk that
//! an earlier upload had can be copied from there.

use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;
use std::thread;

use fastcdc::v2020::FastCDC;
use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_api::{DeltaPart, StoredBytes};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::sent::{Sent, SentChunk};

/// The sizes of chunks in bytes. Smaller ones would find more that is equal, and cost more to list and to copy.
const SMALLEST: usize = 64 << 10;
const AVERAGE: usize = 256 << 10;
const LARGEST: usize = 1 << 20;

/// How much is cut at once, on all processors.
const BATCH: usize = 8 << 20;

/// The size in bytes of the pieces that tell whether a chunk is worth compressing, and how many there are at most.
const PROBED: usize = 4 << 10;
const PROBES: usize = 4;

/// The size of the pieces for the network, in bytes.
const PIECE: usize = 64 << 10;

/// The pieces of a request's body.
pub(super) type Sender = mpsc::Sender<io::Result<Vec<u8>>>;

/// Sends the chunks of what is written. Blocks while the receiver is busy.
pub(super) struct Chunks {
    /// Where the earlier upload has a chunk, by its SHA-256 before compression. `None` for a whole upload.
    known: Option<HashMap<[u8; 32], StoredBytes>>,
    written: Vec<u8>,
    piece: Vec<u8>,
    sender: Sender,
    sent: Vec<SentChunk>,
    bytes: u64,
}

/// What is to be sent of a chunk.
struct Packed {
    sha256: [u8; 32],
    content: Content,
}

enum Content {
    Known(StoredBytes),
    New { compressed: Vec<u8>, sha256: [u8; 32] },
}

impl Chunks {
    /// Sends a whole upload, or a difference to `base`.
    pub(super) fn new(sender: Sender, base: Option<&Sent>) -> Self {
        let known = base.map(Sent::by_content);
        let (written, piece) = (Vec::new(), Vec::new());
        Self { known, written, piece, sender, sent: Vec::new(), bytes: 0 }
    }

    /// Where the pieces are sent.
    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Sends the rest. Returns all chunks in order, and how many bytes were sent.
    pub(super) fn finish(mut self) -> io::Result<(Vec<SentChunk>, u64)> {
        self.cut(true)?;
        if self.known.is_some() {
            self.put(&DeltaPart::End.encode())?;
        }
        self.send()?;
        Ok((self.sent, self.bytes))
    }

    /// Cuts what was written. The last bytes stay until more follow them, unless they are the end.
    fn cut(&mut self, is_end: bool) -> io::Result<()> {
        let written = std::mem::take(&mut self.written);
        let is_decided = |chunk: &Range<usize>| is_end || chunk.start + LARGEST <= written.len();
        let chunks = FastCDC::new(&written, SMALLEST, AVERAGE, LARGEST);
        let chunks = chunks.map(|chunk| chunk.offset..chunk.offset + chunk.length);
        let chunks: Vec<Range<usize>> = chunks.take_while(is_decided).collect();
        for packed in self.pack(&written, &chunks)? {
            self.add(packed)?;
        }
        let end = chunks.last().map_or(0, |last| last.end);
        self.written.extend_from_slice(&written[end..]);
        Ok(())
    }

    /// Packs chunks on all processors.
    fn pack(&self, written: &[u8], chunks: &[Range<usize>]) -> io::Result<Vec<Packed>> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let each = chunks.len().div_ceil(threads).max(1);
        thread::scope(|scope| {
            let packing: Vec<_> = chunks
                .chunks(each)
                .map(|chunks| {
                    scope.spawn(|| {
                        let packed =
                            chunks.iter().map(|chunk| self.packed(&written[chunk.clone()]));
                        packed.collect::<io::Result<Vec<_>>>()
                    })
                })
                .collect();
            let mut packed = Vec::with_capacity(chunks.len());
            for thread in packing {
                let done = thread.join().map_err(|_| io::Error::other("a thread panicked"))?;
                packed.extend(done?);
            }
            Ok(packed)
        })
    }

    fn packed(&self, chunk: &[u8]) -> io::Result<Packed> {
        let sha256 = Sha256::digest(chunk).into();
        if let Some(stored) = self.known.as_ref().and_then(|known| known.get(&sha256)) {
            return Ok(Packed { sha256, content: Content::Known(*stored) });
        }
        let compressed = gzip(chunk, compression_of(chunk)?)?;
        let content = Content::New { sha256: Sha256::digest(&compressed).into(), compressed };
        Ok(Packed { sha256, content })
    }

    fn add(&mut self, packed: Packed) -> io::Result<()> {
        let (length, stored) = match &packed.content {
            Content::Known(stored) => {
                self.put(&DeltaPart::Copy(*stored).encode())?;
                (stored.length, stored.sha256)
            }
            Content::New { compressed, sha256 } => {
                let length = u32::try_from(compressed.len()).map_err(io::Error::other)?;
                if self.known.is_some() {
                    self.put(&DeltaPart::New { length }.encode())?;
                }
                self.put(compressed)?;
                (length, *sha256)
            }
        };
        self.sent.push(SentChunk { content: packed.sha256, length, stored });
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.piece.extend_from_slice(bytes);
        match self.piece.len() >= PIECE {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        self.bytes += piece.len() as u64;
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// How to compress a chunk, judged by some pieces of it. Content that does not become smaller is stored: compressing it
/// would only cost time, here and where it is unpacked.
fn compression_of(chunk: &[u8]) -> io::Result<Compression> {
    let pieces = chunk.chunks(PROBED).step_by(chunk.len().div_ceil(PROBED * PROBES).max(1));
    let probe = pieces.collect::<Vec<_>>().concat();
    let is_smaller = gzip(&probe, Compression::fast())?.len() < probe.len() / 100 * 95;
    Ok(if is_smaller { Compression::fast() } else { Compression::none() })
}

fn gzip(chunk: &[u8], how: Compression) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::with_capacity(chunk.len()), how);
    gzip.write_all(chunk)?;
    gzip.finish()
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        if self.written.len() >= BATCH {
            self.cut(false)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::MultiGzDecoder;

    use super::*;

    /// Bytes that look random and are always the same.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    /// The body of an upload that is written in pieces of this size, and its chunks.
    fn body(content: &[u8], base: Option<&Sent>, each: usize) -> (Vec<u8>, Vec<SentChunk>) {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut chunks = Chunks::new(sender, base);
        let sending = std::thread::scope(|scope| {
            let sending = scope.spawn(move || {
                content.chunks(each).for_each(|piece| chunks.write_all(piece).unwrap());
                chunks.finish().unwrap()
            });
            let mut body = Vec::new();
            while let Some(piece) = receiver.blocking_recv() {
                body.extend(piece.unwrap());
            }
            (body, sending.join().unwrap())
        });
        let (body, (chunks, bytes)) = sending;
        assert_eq!(body.len() as u64, bytes);
        (body, chunks)
    }

    fn unpacked(body: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        MultiGzDecoder::new(body).read_to_end(&mut content).unwrap();
        content
    }

    /// What a server makes of a delta.
    fn applied(mut delta: &[u8], base: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        loop {
            let (part, length) = DeltaPart::parse(delta).unwrap().unwrap();
            delta = &delta[length..];
            match part {
                DeltaPart::End => return whole,
                DeltaPart::New { length } => {
                    let (new, rest) = delta.split_at(length as usize);
                    whole.extend(new);
                    delta = rest;
                }
                DeltaPart::Copy(StoredBytes { offset, length, sha256 }) => {
                    let offset = usize::try_from(offset).unwrap();
                    let copied = &base[offset..][..length as usize];
                    assert_eq!(Sha256::digest(copied).as_slice(), sha256);
                    whole.extend(copied);
                }
            }
        }
    }

    #[test]
    fn a_whole_upload_is_a_gzip_of_what_was_written_however_that_came() {
        for length in [1, SMALLEST, LARGEST, BATCH - 1, BATCH, BATCH + LARGEST + 7] {
            let content = noise(1, length);
            let (one, one_chunks) = body(&content, None, length);
            let (many, many_chunks) = body(&content, None, 10_000);
            assert!(unpacked(&one) == content, "{length}");
            assert!(one == many && one_chunks == many_chunks, "{length}: cut in other places");
        }
    }

    #[test]
    fn a_difference_has_only_what_changed_and_leads_to_the_new_content() {
        let before = noise(1, 20 << 20);
        let (base, chunks) = body(&before, None, 100_000);
        let sent = Sent { upload: "before".to_owned(), chunks };
        let changes: [(&str, Vec<u8>); 5] = [
            ("nothing", before.clone()),
            ("a byte", [&before[..5_000_000], b"x", &before[5_000_001..]].concat()),
            ("an insertion", [&before[..777], noise(2, 1000).as_slice(), &before[777..]].concat()),
            ("a removal", before[3_000_000..].to_vec()),
            ("another order", [&before[10 << 20..], &before[..10 << 20]].concat()),
        ];
        for (change, after) in changes {
            let (delta, chunks) = body(&after, Some(&sent), 100_000);
            assert!(delta.len() < 3 << 20, "{change}: {} bytes", delta.len());
            let whole = applied(&delta, &base);
            assert!(unpacked(&whole) == after, "{change}");
            // The new upload is the base of the next one.
            let next = Sent { upload: "after".to_owned(), chunks };
            let (delta, _) = body(&after, Some(&next), 100_000);
            assert!(applied(&delta, &whole) == whole, "{change}");
            assert!(delta.len() < 10_000, "{change}: {} bytes", delta.len());
        }
    }

    #[test]
    fn what_does_not_compress_is_stored_as_it_is() {
        let (stored, chunks) = body(&noise(4, 3 << 20), None, 100_000);
        assert!(stored.len() < (3 << 20) + 128 * chunks.len(), "{} bytes", stored.len());
        let (compressed, _) = body("Lorem ipsum. ".repeat(100_000).as_bytes(), None, 100_000);
        assert!(compressed.len() < 100_000, "{} bytes", compressed.len());
    }

    #[test]
    fn what_was_never_sent_is_all_new() {
        let sent = Sent { upload: "before".to_owned(), chunks: Vec::new() };
        let content = noise(3, 3 << 20);
        let (delta, _) = body(&content, Some(&sent), 100_000);
        assert!(unpacked(&applied(&delta, b"")) == content);
    }
}

//! The members of a tar in all formats that GNU tar, bsdtar and Go write: V7, ustar, GNU and PAX, with sparse files.
//!
//! The crate `tar` parses the fields of a header. Its own iterator is not used: it splits PAX records at line breaks,
//! which values may contain, and treats PAX sparse files as ordinary ones.

use std::ffi::OsString;
use std::io::{Error, Read, Result};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use tar::{EntryType, GnuExtSparseHeader, GnuHeader, Header};

use super::super::attributes::{Attributes, Modified, Node};
use pax::Records;
pub(super) use sparse::Sparse;

mod pax;
mod sparse;

const BLOCK: u64 = 512;

/// Reads one member after the other, and skips unread content.
pub(super) struct Members<R> {
    inner: R,
    /// The remaining bytes of the current member's content, and of its padding.
    content: u64,
    padding: u64,
}

/// A file, folder, link or node. Its content is read from [`Members`].
pub(super) struct Member {
    pub(super) name: PathBuf,
    pub(super) kind: EntryType,
    /// The target, if it is a link.
    pub(super) target: Option<PathBuf>,
    pub(super) attributes: Attributes,
    /// The map of its content, if it has holes.
    pub(super) sparse: Option<Sparse>,
}

/// The content of the extended headers before a member.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: Records,
}

impl<R: Read> Members<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, content: 0, padding: 0 }
    }

    /// The next member; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        let mut extended = Extended::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            self.holds(header.entry_size()?)?;
            let kind = header.entry_type();
            if kind.is_gnu_longname() {
                extended.name = Some(until_nul(self.whole()?));
            } else if kind.is_gnu_longlink() {
                extended.target = Some(until_nul(self.whole()?));
            } else if kind.is_pax_local_extensions() {
                extended.records = Records::parse(&self.whole()?)?;
            } else if !kind.is_pax_global_extensions() {
                return self.member(&header, extended).map(Some);
            }
            // Global extended headers are ignored, as engines do.
        }
    }

    fn member(&mut self, header: &Header, extended: Extended) -> Result<Member> {
        let records = extended.records;
        if let Some(size) = records.number("size")? {
            self.holds(size)?;
        }
        let mut name = records
            .bytes("path")
            .or(extended.name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let sparse = match header.as_gnu() {
            Some(gnu) if header.entry_type().is_gnu_sparse() => Some(self.gnu_sparse(gnu)?),
            _ => self.pax_sparse(&records)?,
        };
        if sparse.is_some()
            && let Some(real) = records.bytes("GNU.sparse.name")
        {
            name = real;
        }
        let mut kind = header.entry_type();
        // Before there was a type for folders, they were marked by a trailing slash.
        if kind.is_file() && name.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let target = records
            .bytes("linkpath")
            .or(extended.target)
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .filter(|target| !target.is_empty());
        Ok(Member {
            name: path(name),
            kind,
            target: target.map(path),
            attributes: Attributes {
                mode: header.mode().unwrap_or(0o644) & 0o7777,
                modified: records.modified()?.unwrap_or_else(|| modified(header)),
                xattrs: records.xattrs(),
                node: node(header, kind),
            },
            sparse,
        })
    }

    fn gnu_sparse(&mut self, header: &GnuHeader) -> Result<Sparse> {
        let mut sparse = Sparse::new(header.real_size()?);
        let mut is_extended = header.is_extended();
        for block in header.sparse.iter().filter(|block| !block.is_empty()) {
            sparse.add(block.offset()?, block.length()?)?;
        }
        while is_extended {
            let mut more = GnuExtSparseHeader::new();
            self.inner.read_exact(more.as_mut_bytes())?;
            for block in more.sparse.iter().filter(|block| !block.is_empty()) {
                sparse.add(block.offset()?, block.length()?)?;
            }
            is_extended = more.is_extended();
        }
        sparse.finish(self.content)
    }

    fn pax_sparse(&mut self, records: &Records) -> Result<Option<Sparse>> {
        let version = (records.bytes("GNU.sparse.major"), records.bytes("GNU.sparse.minor"));
        let sparse = match version {
            (None, None) => {
                let Some(size) = records.number("GNU.sparse.size")? else { return Ok(None) };
                records.sparse(size)?
            }
            (Some(major), Some(minor)) if (&*major, &*minor) == (b"1", b"0") => {
                let size = records.number("GNU.sparse.realsize")?;
                Sparse::read_map(size.ok_or_else(|| malformed("no real size"))?, self)?
            }
            (Some(major), Some(minor)) if &*major == b"0" && matches!(&*minor, b"0" | b"1") => {
                let size = records.number("GNU.sparse.size")?;
                records.sparse(size.ok_or_else(|| malformed("no real size"))?)?
            }
            _ => return Err(malformed("an unknown version of its map")),
        };
        sparse.finish(self.content).map(Some)
    }

    /// The next header, with its checksum verified; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let said = header.cksum()?;
        if sums(header.as_bytes()).contains(&i64::from(said)) {
            Ok(Some(header))
        } else {
            Err(Error::other("the sum of a header is wrong"))
        }
    }

    /// Sets the length of the following content.
    fn holds(&mut self, size: u64) -> Result<()> {
        let padded = size.checked_next_multiple_of(BLOCK);
        self.padding = padded.ok_or_else(|| Error::other("a size is too large"))? - size;
        self.content = size;
        Ok(())
    }

    /// The content of an extended header. The underlying reader limits it.
    fn whole(&mut self) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        Ok(content)
    }

    fn skip(&mut self) -> Result<()> {
        std::io::copy(self, &mut std::io::sink())?;
        let skipped =
            std::io::copy(&mut (&mut self.inner).take(self.padding), &mut std::io::sink())?;
        if skipped < self.padding {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.padding = 0;
        Ok(())
    }
}

/// Reads the content of the current member, as it is stored.
impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = buffer.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= read as u64;
        Ok(read)
    }
}

/// The checksum of a header, computed with its own field as spaces; some old programs summed signed bytes.
fn sums(block: &[u8; 512]) -> [i64; 2] {
    let bytes = || block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]);
    let signed = |byte: &u8| i64::from(i8::from_ne_bytes([*byte]));
    [bytes().map(|byte| i64::from(*byte)).sum(), bytes().map(signed).sum()]
}

fn modified(header: &Header) -> Modified {
    // A time before 1970 is stored in two's complement, of which this is the lower half.
    Modified { seconds: header.mtime().unwrap_or(0).cast_signed(), nanos: 0 }
}

fn node(header: &Header, kind: EntryType) -> Option<Node> {
    let number = |number: Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
    let (major, minor) = (number(header.device_major()), number(header.device_minor()));
    if kind.is_fifo() {
        Some(Node::Fifo)
    } else if kind.is_character_special() {
        Some(Node::Character { major, minor })
    } else if kind.is_block_special() {
        Some(Node::Block { major, minor })
    } else {
        None
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    bytes
}

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

fn malformed(what: &str) -> Error {
    Error::other(format!("a sparse file has {what}"))
}

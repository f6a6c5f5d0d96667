//! An upload as a difference to an earlier one: which of its bytes to copy, and new bytes.
//!
//! The parts of a delta follow each other in the body of the request. Numbers are big-endian:
//!
//! ```text
//! copy  1  offset: u64  length: u32  SHA-256 of the copied bytes: 32 bytes
//! new   2  length: u32  the bytes
//! end   0
//! ```

/// The content type of a delta.
pub const DELTA_TYPE: &str = "application/vnd.gantry.delta";

/// The most bytes of one part.
pub const LONGEST_PART: u32 = 4 << 20;

const END: u8 = 0;
const COPY: u8 = 1;
const NEW: u8 = 2;

/// The head of a part of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeltaPart {
    /// Bytes of the earlier upload follow.
    Copy(StoredBytes),
    /// So many new bytes follow.
    New {
        /// 1 to [`LONGEST_PART`].
        length: u32,
    },
    /// The upload is complete.
    End,
}

/// Some bytes of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBytes {
    /// Where they begin, in bytes.
    pub offset: u64,
    /// 1 to [`LONGEST_PART`] bytes.
    pub length: u32,
    /// Their SHA-256, which the server compares.
    pub sha256: [u8; 32],
}

/// What is no part of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidDelta;

impl DeltaPart {
    /// Its bytes in a delta, without the new bytes themselves.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::End => vec![END],
            Self::New { length } => [&[NEW], length.to_be_bytes().as_slice()].concat(),
            Self::Copy(StoredBytes { offset, length, sha256 }) => {
                [&[COPY], offset.to_be_bytes().as_slice(), &length.to_be_bytes(), sha256].concat()
            }
        }
    }

    /// Reads the part that `bytes` begins with, and its length in bytes. `None` if some of it is still to come.
    ///
    /// # Errors
    /// [`InvalidDelta`] for another first byte, and for a length out of range.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, InvalidDelta> {
        let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
        let part = match *kind {
            END => Some((Self::End, 1)),
            NEW => number(rest).map(|(length, _)| (Self::New { length }, 5)),
            COPY => copied(rest).map(|stored| (Self::Copy(stored), 45)),
            _ => return Err(InvalidDelta),
        };
        match part {
            Some((Self::New { length } | Self::Copy(StoredBytes { length, .. }), _))
                if !(1..=LONGEST_PART).contains(&length) =>
            {
                Err(InvalidDelta)
            }
            part => Ok(part),
        }
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn copied(bytes: &[u8]) -> Option<StoredBytes> {
    let (offset, rest) = bytes.split_first_chunk()?;
    let (length, rest) = number(rest)?;
    let (sha256, _) = rest.split_first_chunk()?;
    Some(StoredBytes { offset: u64::from_be_bytes(*offset), length, sha256: *sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_as_it_was_written_once_it_is_whole() {
        let copy = StoredBytes { offset: u64::MAX, length: LONGEST_PART, sha256: [7; 32] };
        for part in [DeltaPart::Copy(copy), DeltaPart::New { length: 1 }, DeltaPart::End] {
            let mut bytes = part.encode();
            let length = bytes.len();
            for end in 0..length {
                assert_eq!(DeltaPart::parse(&bytes[..end]), Ok(None), "{part:?} to {end}");
            }
            bytes.push(9);
            assert_eq!(DeltaPart::parse(&bytes), Ok(Some((part, length))));
        }
    }

    #[test]
    fn other_bytes_and_lengths_are_refused() {
        let zero = DeltaPart::New { length: 0 }.encode();
        let long = DeltaPart::New { length: LONGEST_PART + 1 }.encode();
        let copy = StoredBytes { offset: 0, length: 0, sha256: [0; 32] };
        for bytes in [vec![3], b"\x1f\x8b".to_vec(), zero, long, DeltaPart::Copy(copy).encode()] {
            assert_eq!(DeltaPart::parse(&bytes), Err(InvalidDelta), "{bytes:?}");
        }
    }
}

//! Files with holes: the positions of their stored pieces.

use std::io::{Error, Read, Result};

use super::malformed;

/// The pieces of a file, in order; the gaps are zeros.
pub(in super::super) struct Sparse {
    pub(in super::super) size: u64,
    pub(in super::super) pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Piece {
    pub(in super::super) offset: u64,
    pub(in super::super) length: u64,
}

impl Sparse {
    pub(super) fn new(size: u64) -> Self {
        Self { size, pieces: Vec::new() }
    }

    /// Adds the next piece, which must be after the others and within the file.
    pub(super) fn add(&mut self, offset: u64, length: u64) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size);
        let before = self.pieces.last().map_or(0, |piece| piece.offset + piece.length);
        if end.is_none() || offset < before {
            return Err(malformed("pieces that overlap or lie behind its end"));
        }
        if length > 0 {
            self.pieces.push(Piece { offset, length });
        }
        Ok(())
    }

    /// Checks that the pieces have `stored` bytes in total.
    pub(super) fn finish(self, stored: u64) -> Result<Self> {
        if self.pieces.iter().map(|piece| piece.length).sum::<u64>() == stored {
            Ok(self)
        } else {
            Err(malformed("more or less content than its map says"))
        }
    }

    /// Reads the map of version 1.0: the number of pieces, then offset and length of each, one number per line, in
    /// whole blocks before the content. The reader limits its length.
    pub(super) fn read_map(size: u64, content: &mut impl Read) -> Result<Self> {
        let mut lines = Lines { content, block: [0; LINES_BLOCK], at: LINES_BLOCK };
        let mut sparse = Self::new(size);
        for _ in 0..lines.number()? {
            let offset = lines.number()?;
            sparse.add(offset, lines.number()?)?;
        }
        Ok(sparse)
    }
}

/// The map is padded to whole blocks.
const LINES_BLOCK: usize = 512;

struct Lines<'a, R> {
    content: &'a mut R,
    block: [u8; LINES_BLOCK],
    at: usize,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> Result<u64> {
        let mut number: Option<u64> = None;
        loop {
            let byte = self.byte()?;
            let digit = match byte {
                b'\n' => return number.ok_or_else(wrong),
                b'0'..=b'9' => u64::from(byte - b'0'),
                _ => return Err(wrong()),
            };
            let shifted = number.unwrap_or(0).checked_mul(10);
            number =
                Some(shifted.and_then(|shifted| shifted.checked_add(digit)).ok_or_else(wrong)?);
        }
    }

    fn byte(&mut self) -> Result<u8> {
        if self.at == self.block.len() {
            self.content.read_exact(&mut self.block)?;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}

fn wrong() -> Error {
    malformed("a map that is no list of numbers")
}

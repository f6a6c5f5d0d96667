//! Encodes the place of a member in an index as bytes that sort like (score, member).
//!
//! The scores of a sorted set are floating point and cannot tell neighbours above 2⁵³ apart. So all scores are 0, which
//! makes Redis sort by the bytes of the elements, and each element begins with its score: 8 bytes, big-endian, with the
//! sign bit flipped, so that negative numbers sort before positive ones.

use gantry_seams::store::{Entry, From};

const SIGN: u64 = 1 << 63;

/// A score as bytes that sort like it.
pub(crate) fn place(score: i64) -> [u8; 8] {
    (score.cast_unsigned() ^ SIGN).to_be_bytes()
}

/// The lower bound of a range, in the syntax of `ZRANGE … BYLEX`.
pub(crate) fn bound(from: &From) -> Vec<u8> {
    match from {
        From::Start => b"-".to_vec(),
        From::Score(score) => [b"[".as_slice(), &place(*score)].concat(),
        From::After(Entry { score, member }) => {
            [b"(".as_slice(), &place(*score), member.as_bytes()].concat()
        }
    }
}

/// Decodes an element of a sorted set; `None` if gantry did not write it.
pub(crate) fn entry(element: &[u8]) -> Option<Entry> {
    let (place, member) = element.split_first_chunk()?;
    let score = (u64::from_be_bytes(*place) ^ SIGN).cast_signed();
    Some(Entry { score, member: String::from_utf8(member.to_vec()).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_sort_like_scores_and_round_trip() {
        let scores = [i64::MIN, -10, -9, -1, 0, 1, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, i64::MAX];
        assert!(scores.map(place).is_sorted());
        for score in scores {
            let element = [&place(score), b"member".as_slice()].concat();
            assert_eq!(entry(&element), Some(Entry { score, member: "member".to_owned() }));
        }
        assert_eq!(entry(b"short"), None);
    }
}

//! The records of a PAX header: `length key=value
//! `, where a value may be any bytes.

use std::io::{Error, Result};

use super::super::super::attributes::Modified;
use super::malformed;
use super::sparse::Sparse;

const XATTR: &str = "SCHILY.xattr.";

/// In order, because the blocks of sparse files repeat their keys.
#[derive(Default)]
pub(super) struct Records(Vec<(String, Vec<u8>)>);

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let (record, rest) =
                split(bytes).ok_or_else(|| Error::other("a record is malformed"))?;
            records.push(record);
            bytes = rest;
        }
        Ok(Self(records))
    }

    /// The last value of this key. An empty value removes the key.
    pub(super) fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        let (_, value) = self.0.iter().rfind(|(other, _)| other == key)?;
        (!value.is_empty()).then(|| value.clone())
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>> {
        self.bytes(key).map(|value| number(&value)).transpose()
    }

    pub(super) fn modified(&self) -> Result<Option<Modified>> {
        let Some(value) = self.bytes("mtime") else { return Ok(None) };
        let time = std::str::from_utf8(&value).ok().and_then(modified);
        time.map(Some).ok_or_else(|| Error::other("a time is malformed"))
    }

    pub(super) fn xattrs(&self) -> Vec<(String, Vec<u8>)> {
        let records = self.0.iter();
        let named = |(key, value): &(String, Vec<u8>)| {
            key.strip_prefix(XATTR).map(|name| (name.to_owned(), value.clone()))
        };
        records.filter_map(named).collect()
    }

    /// The blocks of a sparse file of version 0.0 or 0.1, which are stored in the records.
    pub(super) fn sparse(&self, size: u64) -> Result<Sparse> {
        let mut sparse = Sparse::new(size);
        if let Some(map) = self.bytes("GNU.sparse.map") {
            let mut numbers = map.split(|byte| *byte == b',').map(number);
            while let Some(offset) = numbers.next() {
                let length = numbers.next().ok_or_else(|| malformed("half a block"))?;
                sparse.add(offset?, length?)?;
            }
            return Ok(sparse);
        }
        let mut offset = None;
        for (key, value) in &self.0 {
            match key.as_str() {
                "GNU.sparse.offset" => offset = Some(number(value)?),
                "GNU.sparse.numbytes" => {
                    let offset = offset.take().ok_or_else(|| malformed("half a block"))?;
                    sparse.add(offset, number(value)?)?;
                }
                _ => {}
            }
        }
        Ok(sparse)
    }
}

/// A key and its value.
type Record = (String, Vec<u8>);

/// The first record, and the bytes after it.
fn split(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&bytes[..space]).ok()?).ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let key = std::str::from_utf8(&record[..equals]).ok()?.to_owned();
    Some(((key, record[equals + 1..].to_vec()), &bytes[length..]))
}

fn number(digits: &[u8]) -> Result<u64> {
    let digits = std::str::from_utf8(digits).ok();
    // `parse` would accept a sign.
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| Error::other("a number is malformed"))
}

/// Parses a time: `-12.5` is 13 seconds before 1970, plus half a second.
fn modified(text: &str) -> Option<Modified> {
    let (is_before, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = i64::try_from(number(seconds.as_bytes()).ok()?).ok()?;
    let fraction = fraction.get(..9).unwrap_or(fraction);
    let nanos = u32::try_from(number(format!("{fraction:0<9}").as_bytes()).ok()?).ok()?;
    Some(match (is_before, nanos) {
        (false, nanos) => Modified { seconds, nanos },
        (true, 0) => Modified { seconds: -seconds, nanos: 0 },
        (true, nanos) => Modified { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_contain_line_breaks() {
        let records = Records::parse(b"14 path=a\n9 x\n7 mt=1\n").unwrap();
        assert_eq!(records.bytes("path").unwrap(), b"a\n9 x");
        assert_eq!(records.bytes("mt").unwrap(), b"1");
        for wrong in [&b"5 a=b"[..], b"9 a=b\n", b"6 abc\n", b"x a=b\n", b"0 a=b\n", b"-6 a=b\n"] {
            assert!(Records::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_count_forward_on_both_sides_of_1970() {
        for (text, seconds, nanos) in [
            ("12", 12, 0),
            ("12.5", 12, 500_000_000),
            ("-12", -12, 0),
            ("-12.25", -13, 750_000_000),
            ("0.1234567891", 0, 123_456_789),
        ] {
            assert_eq!(modified(text), Some(Modified { seconds, nanos }), "{text}");
        }
        assert_eq!(modified("1e3"), None);
    }
}

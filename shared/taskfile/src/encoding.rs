//! Dockerfiles and ignore files in encodings other than UTF-8.
//!
//! Engines read bytes, so a Latin-1 name in a comment must not fail a build. Bytes of a Dockerfile that are not UTF-8
//! are mapped to private-use characters, which [`encode`] maps back to the same bytes.

/// Stands for byte 0x80; the others follow. These code points are for private use, and no font has glyphs for them.
const FIRST: u32 = 0x0010_ff00;

/// Why a file cannot be read as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// The file is UTF-16.
    #[error("is encoded in UTF-16: save it as UTF-8")]
    Utf16,
    /// The file is UTF-32.
    #[error("is encoded in UTF-32: save it as UTF-8")]
    Utf32,
    /// A character that [`decode`] uses to stand for a byte.
    #[error("has a character between U+10FF00 and U+10FF7F: remove it")]
    Reserved,
    /// A rule of an ignore file that is not UTF-8.
    #[error("line {line} is not encoded in UTF-8 (in Latin-1, perhaps): save it as UTF-8")]
    Line {
        /// The line, from 1.
        line: usize,
    },
}

/// Decodes a Dockerfile. [`encode`] returns the original bytes.
///
/// # Errors
/// [`EncodingError`], except [`EncodingError::Line`].
pub fn decode(bytes: &[u8]) -> Result<String, EncodingError> {
    refuse_wide(bytes)?;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        if chunk.valid().chars().any(|c| byte_of(c).is_some()) {
            return Err(EncodingError::Reserved);
        }
        text.push_str(chunk.valid());
        let stand_in = |byte: &u8| char::from_u32(FIRST + u32::from(*byte) - 0x80);
        text.extend(chunk.invalid().iter().filter_map(stand_in));
    }
    Ok(text)
}

/// The original bytes of a text from [`decode`].
#[must_use]
pub fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Decodes an ignore file. Comments may be in any encoding. Rules are compared with file names, so they must be UTF-8.
///
/// # Errors
/// [`EncodingError`].
pub fn decode_rules(bytes: &[u8]) -> Result<String, EncodingError> {
    refuse_wide(bytes)?;
    let mut text = String::with_capacity(bytes.len());
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match std::str::from_utf8(line) {
            Ok(line) => text.push_str(line),
            Err(_) if line.starts_with(b"#") => text.push_str("#\n"),
            Err(_) => return Err(EncodingError::Line { line: index + 1 }),
        }
    }
    Ok(text)
}

fn byte_of(c: char) -> Option<u8> {
    let above = u32::from(c).checked_sub(FIRST)?;
    u8::try_from(above).ok()?.checked_add(0x80)
}

/// Recognizes wide encodings by their byte order mark, or by the zero bytes of ASCII characters.
fn refuse_wide(bytes: &[u8]) -> Result<(), EncodingError> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Err(EncodingError::Utf32),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(EncodingError::Utf16),
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] if *a != 0 && *b != 0 => Err(EncodingError::Utf16),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[test]
    fn every_byte_of_a_dockerfile_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in
            [&all[1..], b"# J\xfcrgen\nFROM scratch\n", "\u{feff}FROM ü\u{f780}".as_bytes()]
        {
            assert_eq!(encode(&decode(bytes).unwrap()), bytes);
        }
        assert_eq!(decode("FROM ü".as_bytes()).unwrap(), "FROM ü");
        assert_eq!(decode("RUN \u{10ff01}".as_bytes()), Err(EncodingError::Reserved));
    }

    #[test]
    fn wide_encodings_are_refused_by_their_name() {
        for text in ["FROM scratch\n", "\u{feff}FROM scratch\n"] {
            for to_bytes in [u16::to_le_bytes, u16::to_be_bytes] {
                let bytes = utf16(text, to_bytes);
                assert_eq!(decode(&bytes), Err(EncodingError::Utf16));
                assert_eq!(decode_rules(&bytes), Err(EncodingError::Utf16));
            }
        }
        assert_eq!(decode(b"\xff\xfe\0\0F\0\0\0"), Err(EncodingError::Utf32));
    }

    #[test]
    fn a_rule_must_be_utf_8_and_a_comment_need_not() {
        assert_eq!(decode_rules(b"# J\xfcrgen\n*.log\n").unwrap(), "#\n*.log\n");
        let error = decode_rules(b"*.log\nJ\xfcrgen").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2 is not encoded in UTF-8 (in Latin-1, perhaps): save it as UTF-8"
        );
    }
}

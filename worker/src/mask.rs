//! Masks secrets in output.
//!
//! In: bytes in arbitrary chunks. Out: the same with each secret replaced, including one that is split across chunks:
//! bytes that may be the beginning of a secret are held back until more is known. A secret is recognized in the
//! encodings that programs commonly use: see [`forms`]. Secrets shorter than [`SHORTEST`] bytes are not masked, because
//! they would match too many ordinary words.
//!
//! The cost is linear in the length of the output, for any secrets: an automaton reads each byte once.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use gantry_ops::secret::{ExposeSecret, SecretString};

mod finder;
mod forms;

use finder::{Cursor, Finder};

/// Shorter secrets are not masked.
const SHORTEST: usize = 4;

/// The replacement of a secret.
const MASK: &str = "***";

/// The secrets of one run.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Option<Arc<Patterns>>);

struct Patterns {
    /// Matched against the stream as it is.
    plain: Finder,
    /// Base64 and hexadecimal, which programs wrap: matched against the stream without line breaks.
    wrapped: Finder,
}

impl Secrets {
    /// Prepares to match these secrets. Takes about a hundred times as much memory as they do.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut texts: BTreeSet<&str> = BTreeSet::new();
        for secret in secrets {
            let secret = secret.expose_secret();
            texts.extend([secret, secret.trim()]);
            texts.extend(secret.lines().map(str::trim));
        }
        texts.retain(|text| text.len() >= SHORTEST);
        if texts.is_empty() {
            return Self(None);
        }
        let plain = Finder::new(texts.iter().flat_map(|text| forms::plain(text)));
        let wrapped = Finder::new(texts.iter().flat_map(|text| forms::wrapped(text)));
        Self(Some(Arc::new(Patterns { plain, wrapped })))
    }

    /// Masks a whole text.
    pub(crate) fn mask(&self, text: &str) -> String {
        let mut masker = Masker::new(self.clone());
        let mut masked = masker.push(text.as_bytes());
        masked.extend(masker.finish());
        String::from_utf8_lossy(&masked).into_owned()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// Masks one stream.
#[derive(Debug)]
pub(crate) struct Masker {
    secrets: Secrets,
    plain: Cursor,
    wrapped: Wrapped,
    /// Bytes that may be part of a secret.
    held: VecDeque<u8>,
    /// The number of bytes before `held`.
    given: u64,
    /// The secrets in `held`, in order and not overlapping.
    found: VecDeque<Found>,
    /// All bytes before this offset are covered by a mask.
    masked_to: u64,
}

/// The position of a secret in the stream.
#[derive(Debug, Clone, Copy)]
struct Found {
    start: u64,
    end: u64,
}

impl Masker {
    /// A masker for the beginning of a stream.
    pub(crate) fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            plain: Cursor::default(),
            wrapped: Wrapped::default(),
            held: VecDeque::new(),
            given: 0,
            found: VecDeque::new(),
            masked_to: 0,
        }
    }

    /// Adds bytes, and returns those that are known not to be part of a secret, with masks.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(patterns) = self.secrets.0.clone() else { return bytes.to_vec() };
        let mut masked = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            let at = self.given + self.held.len() as u64;
            self.held.push_back(byte);
            if let Some(length) = self.plain.advance(&patterns.plain, byte) {
                self.found(at + 1 - length as u64, at + 1);
            }
            if let Some(start) = self.wrapped.advance(&patterns.wrapped, byte, at) {
                self.found(start, at + 1);
            }
            let open = at + 1 - self.plain.depth(&patterns.plain) as u64;
            self.give(open.min(self.wrapped.open(at + 1)), &mut masked);
        }
        masked
    }

    /// Ends the stream, and returns what was held back.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut masked = Vec::with_capacity(self.held.len());
        self.give(self.given + self.held.len() as u64, &mut masked);
        (self.plain, self.wrapped) = (Cursor::default(), Wrapped::default());
        masked
    }

    /// Records a secret that ends with the last byte. Overlapping ones are merged.
    fn found(&mut self, mut start: u64, end: u64) {
        while let Some(last) = self.found.pop_back_if(|last| last.end > start) {
            start = start.min(last.start);
        }
        self.found.push_back(Found { start, end });
    }

    /// Outputs everything before `until`.
    fn give(&mut self, until: u64, masked: &mut Vec<u8>) {
        while self.given < until {
            if let Some(found) = self.found.pop_front_if(|found| found.start <= self.given) {
                if found.start >= self.masked_to {
                    masked.extend_from_slice(MASK.as_bytes());
                }
                self.masked_to = self.masked_to.max(found.end);
                continue;
            }
            let Some(byte) = self.held.pop_front() else { return };
            if self.given >= self.masked_to {
                masked.push(byte);
            }
            self.given += 1;
        }
    }
}

/// Matches a stream without its line breaks and the blanks that follow them.
#[derive(Debug, Default)]
struct Wrapped {
    cursor: Cursor,
    /// The offsets of the bytes that may begin a form.
    digits: VecDeque<u64>,
    is_behind_break: bool,
}

impl Wrapped {
    /// How much of a form must come before a line break for the line to be held back. A shorter beginning is output, so
    /// that lines do not wait for the next one because of their last letters.
    const HELD_OVER_BREAK: usize = 3;

    /// The offset of the form that ends with this byte.
    fn advance(&mut self, finder: &Finder, byte: u8, at: u64) -> Option<u64> {
        let is_break = matches!(byte, b'\n' | b'\r');
        if is_break || (self.is_behind_break && matches!(byte, b' ' | b'\t')) {
            self.is_behind_break = true;
            return None;
        }
        self.is_behind_break = false;
        let found = self.cursor.advance(finder, byte);
        self.digits.push_back(at);
        // A form that ends here may be longer than what can still begin another one.
        let length = found.unwrap_or(0);
        let start = self
            .digits
            .len()
            .checked_sub(length)
            .and_then(|first| (length > 0).then(|| self.digits.get(first).copied()).flatten());
        while self.digits.len() > self.cursor.depth(finder) {
            self.digits.pop_front();
        }
        start
    }

    /// The offset from which the stream may be the beginning of a form; `end` if it is none.
    fn open(&self, end: u64) -> u64 {
        match self.digits.front() {
            Some(_) if self.is_behind_break && self.digits.len() < Self::HELD_OVER_BREAK => end,
            Some(start) => *start,
            None => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn secrets(texts: &[&str]) -> Secrets {
        let texts: Vec<SecretString> = texts.iter().map(|text| SecretString::from(*text)).collect();
        Secrets::new(&texts)
    }

    #[test]
    fn a_secret_split_anywhere_is_masked() {
        let text = "before hunter2-hunter3 after hunter2";
        for cut in 0..text.len() {
            for second in cut..text.len() {
                let mut masker = Masker::new(secrets(&["hunter2", "hunter2-hunter3"]));
                let mut masked = masker.push(&text.as_bytes()[..cut]);
                masked.extend(masker.push(&text.as_bytes()[cut..second]));
                masked.extend(masker.push(&text.as_bytes()[second..]));
                masked.extend(masker.finish());
                assert_eq!(String::from_utf8(masked).unwrap(), "before *** after ***");
            }
        }
    }

    #[test]
    fn only_possible_secrets_are_held_back() {
        let mut masker = Masker::new(secrets(&["hunter2"]));
        assert_eq!(masker.push(b"a whole line\n"), b"a whole line\n");
        assert_eq!(masker.push(b"hunt"), b"");
        assert_eq!(masker.push(b"ing\n"), b"hunting\n");
    }

    #[test]
    fn encoded_and_split_secrets_are_masked() {
        let secrets = secrets(&["p@ss word!", "line one\nline two"]);
        for said in ["p@ss word!", "cEBzcyB3b3JkIQ==", "p%40ss%20word%21", "line one", "line two"] {
            assert_eq!(secrets.mask(&format!("<{said}>")), "<***>", "{said}");
        }
        assert_eq!(secrets.mask("<7040737320776F726421>"), "<***>");
        for (around, masked) in [
            ("ci:p@ss word!", "Y2k6***"),
            ("user:p@ss word!\n", "dXNlcjp***Cg=="),
            ("me:line two~", "bWU6***9+"),
        ] {
            assert_eq!(secrets.mask(&STANDARD.encode(around)), masked, "{around}");
        }
        assert_eq!(secrets.mask("nothing here"), "nothing here");
    }

    #[test]
    fn a_very_short_secret_does_not_black_out_the_log() {
        assert_eq!(secrets(&["a", ""]).mask("a banana"), "a banana");
    }

    #[test]
    fn secrets_that_overlap_are_masked_as_one() {
        assert_eq!(secrets(&["abcd", "cdef"]).mask("<abcdef>"), "<***>");
        assert_eq!(secrets(&["abcd"]).mask("<abcdabcd>"), "<******>");
    }

    #[test]
    fn wrapped_encodings_are_masked_at_any_width() {
        let secret =
            "correct horse battery staple \u{e9}\u{fc} 0123456789 and so on, for more than a line";
        let secrets = secrets(&[secret]);
        let whole = STANDARD.encode(format!("user:{secret}\n"));
        for (encoded, kept) in [(whole, 12), (hex::encode(secret), 0), (STANDARD.encode(secret), 0)]
        {
            for width in 1..=80 {
                for line_end in ["\n", "\r\n", "\n    "] {
                    let lines: Vec<&str> = encoded
                        .as_bytes()
                        .chunks(width)
                        .map(|line| str::from_utf8(line).unwrap())
                        .collect();
                    let said = lines.join(line_end);
                    let shown: String = secrets.mask(&said).split_whitespace().collect();
                    assert!(shown.contains("***"), "{width} {shown}");
                    // In addition to the surrounding text, at most the digits that a line was not held back for.
                    assert!(shown.len() <= kept + 3 + 2, "{width} {line_end:?} {shown}");
                }
            }
        }
    }

    #[test]
    fn a_line_is_not_held_back_for_its_last_letters() {
        let secret = "password1";
        let first = STANDARD.encode(secret).remove(0);
        let line = format!("ends with {first}\n");
        assert_eq!(Masker::new(secrets(&[secret])).push(line.as_bytes()), line.as_bytes());
    }

    #[test]
    fn common_encodings_of_a_secret_are_masked() {
        let secrets = secrets(&["a\"b'c\\d/e <f> \u{e9}&$\tg"]);
        for said in [
            r#"a\"b'c\\d/e <f> é&$\tg"#,
            r#"a\"b'c\\d\/e <f> é&$\tg"#,
            r#"a\"b'c\\d/e <f> \u00e9&$\tg"#,
            r#"a\"b'c\\d/e \u003cf\u003e \u00e9\u0026$\tg"#,
            "a\"b'\\''c\\d/e <f> é&$\tg",
            "a%22b%27c%5cd%2fe%20%3cf%3e%20%c3%a9%26%24%09g",
            "a%22b%27c%5Cd%2Fe+%3Cf%3E+%C3%A9%26%24%09g",
            "a%22b'c%5Cd%2Fe%20%3Cf%3E%20%C3%A9%26%24%09g",
        ] {
            assert_eq!(secrets.mask(&format!("<{said}>")), "<***>", "{said}");
        }
    }

    #[test]
    fn masking_a_multi_line_secret_takes_linear_time() {
        // Each line begins like the log, so that each of them is a candidate at every offset.
        let secret: String = (0..450).map(|n| format!("{}{n}\n", "a".repeat(64))).collect();
        let secrets = secrets(&[&secret]);
        let log = "a".repeat(1 << 20);
        let began = std::time::Instant::now();
        let mut masker = Masker::new(secrets);
        let given: usize = log.as_bytes().chunks(1000).map(|piece| masker.push(piece).len()).sum();
        assert_eq!(given + masker.finish().len(), log.len());
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }
}

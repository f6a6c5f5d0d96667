//! Takes secrets out of what is said.
//!
//! In: bytes as they come, cut anywhere. Out: the same with each secret replaced, also one that came in two pieces: what
//! may be the beginning of a secret is held until more is known. A secret is also found in base64, by itself or with what
//! stands around it, in hexadecimal and percent-encoded, and line by line where it has several. One shorter than
//! [`SHORTEST`] bytes is not looked for: it would black out every second word.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use gantry_ops::secret::{ExposeSecret, SecretString};

/// Shorter secrets are not masked.
const SHORTEST: usize = 4;

/// Fewer digits of base64 stand in too many words.
const SHORTEST_DIGITS: usize = 6;

/// What stands where a secret stood.
const MASK: &str = "***";

/// The secrets of one run.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Option<Arc<Patterns>>);

struct Patterns {
    texts: Vec<Vec<u8>>,
    longest: usize,
    finder: AhoCorasick,
}

impl Secrets {
    /// Looks for these.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            let secret = secret.expose_secret();
            let lines = secret.lines().map(str::trim);
            for text in std::iter::once(secret).chain(std::iter::once(secret.trim())).chain(lines) {
                if text.len() >= SHORTEST {
                    texts.push(text.into());
                    for alphabet in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
                        texts.push(alphabet.encode(text).into());
                    }
                    texts.extend(within_base64(text));
                    texts.push(percent_encoded(text).into());
                    texts.push(hex::encode(text).into());
                    texts.push(hex::encode_upper(text).into());
                }
            }
        }
        texts.sort_unstable();
        texts.dedup();
        let Some(longest) = texts.iter().map(Vec::len).max() else { return Self(None) };
        match AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts) {
            Ok(finder) => Self(Some(Arc::new(Patterns { texts, longest, finder }))),
            // Only a limit of 2^31 states makes it fail; the API's limit on a request is far below.
            Err(error) => unreachable!("a few short texts fit an automaton: {error}"),
        }
    }

    /// A whole text without secrets.
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

/// What of a text's base64 is the same whatever stands before and after it, like the user before a password: one for each
/// place that its first byte may have among three.
fn within_base64(text: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (before, touched) in [(0, 0), (1, 2), (2, 3)] {
        let shifted = [&b"\0\0"[..before], text.as_bytes()].concat();
        let whole_digits = shifted.len() * 8 / 6;
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let digits = &alphabet.encode(&shifted)[touched..whole_digits];
            if digits.len() >= SHORTEST_DIGITS {
                all.push(digits.into());
            }
        }
    }
    all
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Masks one stream.
#[derive(Debug)]
pub(crate) struct Masker {
    secrets: Secrets,
    held: Vec<u8>,
}

impl Masker {
    /// A masker at the beginning of a stream.
    pub(crate) fn new(secrets: Secrets) -> Self {
        Self { secrets, held: Vec::new() }
    }

    /// Takes the next bytes and gives those of which it is known that they are no secret.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(patterns) = &self.secrets.0 else { return bytes.to_vec() };
        self.held.extend_from_slice(bytes);
        let hold_from = patterns.hold_from(&self.held);
        let (masked, used) = patterns.mask(&self.held, hold_from);
        self.held.drain(..used);
        masked
    }

    /// The stream ends: what was held is no secret, or only the beginning of one.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        match &self.secrets.0 {
            None => held,
            Some(patterns) => patterns.mask(&held, held.len()).0,
        }
    }
}

impl Patterns {
    /// From where on the bytes may be the beginning of a secret.
    fn hold_from(&self, bytes: &[u8]) -> usize {
        let earliest = bytes.len().saturating_sub(self.longest - 1);
        (earliest..bytes.len())
            .find(|&from| {
                let tail = &bytes[from..];
                self.texts.iter().any(|text| text.len() > tail.len() && text.starts_with(tail))
            })
            .unwrap_or(bytes.len())
    }

    /// Masks up to `until`, and beyond it a secret that begins before it. Tells how many bytes that used.
    fn mask(&self, bytes: &[u8], until: usize) -> (Vec<u8>, usize) {
        let mut masked = Vec::with_capacity(bytes.len());
        let mut used = 0;
        for found in self.finder.find_iter(bytes) {
            if found.start() >= until {
                break;
            }
            masked.extend_from_slice(&bytes[used..found.start()]);
            masked.extend_from_slice(MASK.as_bytes());
            used = found.end();
        }
        if used < until {
            masked.extend_from_slice(&bytes[used..until]);
            used = until;
        }
        (masked, used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(texts: &[&str]) -> Secrets {
        let texts: Vec<SecretString> = texts.iter().map(|text| SecretString::from(*text)).collect();
        Secrets::new(&texts)
    }

    #[test]
    fn a_secret_cut_anywhere_never_appears() {
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
    fn only_what_may_be_a_secret_is_held() {
        let mut masker = Masker::new(secrets(&["hunter2"]));
        assert_eq!(masker.push(b"a whole line\n"), b"a whole line\n");
        assert_eq!(masker.push(b"hunt"), b"");
        assert_eq!(masker.push(b"ing\n"), b"hunting\n");
    }

    #[test]
    fn encoded_and_split_forms_are_secrets_too() {
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
}

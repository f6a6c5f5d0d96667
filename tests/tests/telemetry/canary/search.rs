//! Searches for secrets in plain text and in common encodings.

use std::collections::BTreeSet;
use std::io::Read as _;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The texts to search for, with names.
pub(crate) struct Search {
    finder: AhoCorasick,
    names: Vec<&'static str>,
}

impl Search {
    pub(crate) fn new(secrets: &[(&'static str, String)]) -> Self {
        let (mut names, mut forms) = (Vec::new(), Vec::new());
        for (name, secret) in secrets {
            assert!(secret.len() >= 16, "{name} could be found by chance");
            for form in forms_of(secret) {
                names.push(*name);
                forms.push(form);
            }
        }
        Self { finder: AhoCorasick::new(forms).unwrap(), names }
    }

    /// The names of the texts in these bytes, or in their unpacked content.
    pub(crate) fn of(&self, bytes: &[u8]) -> BTreeSet<&'static str> {
        let found = self.finder.find_overlapping_iter(bytes);
        let mut all: BTreeSet<_> = found.map(|at| self.names[at.pattern().as_usize()]).collect();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut unpacked = Vec::new();
            // Truncated data is searched as far as it goes.
            let _broken = flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut unpacked);
            all.extend(self.of(&unpacked));
        }
        all
    }
}

fn forms_of(secret: &str) -> Vec<Vec<u8>> {
    let percent = |upper: bool| -> Vec<u8> {
        let encode = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                vec![byte]
            }
            _ if upper => format!("%{byte:02X}").into_bytes(),
            _ => format!("%{byte:02x}").into_bytes(),
        };
        secret.bytes().flat_map(encode).collect()
    };
    let mut forms = vec![
        secret.into(),
        percent(true),
        percent(false),
        hex::encode(secret).into(),
        hex::encode_upper(secret).into(),
    ];
    // For each position within what was encoded.
    for (before, touched) in [(0, 0), (1, 2), (2, 3)] {
        let shifted = [&b"\0\0"[..before], secret.as_bytes()].concat();
        let whole = shifted.len() * 8 / 6;
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            forms.push(alphabet.encode(&shifted)[touched..whole].into());
        }
    }
    if let Ok(bytes) = hex::decode(secret) {
        forms.push(bytes);
    }
    forms
}

#[test]
fn a_planted_secret_is_found_in_every_form() {
    use std::io::Write as _;

    let secret = "a planted/secret+1";
    let search = Search::new(&[("planted", secret.to_owned())]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(format!("text {secret} text").as_bytes()).unwrap();
    let encoded = base64::engine::general_purpose::STANDARD;
    let mut planted = vec![
        secret.as_bytes().to_vec(),
        b"x=a%20planted%2Fsecret%2B1&y".to_vec(),
        b"x=a%20planted%2fsecret%2b1&y".to_vec(),
        hex::encode(secret).into_bytes(),
        packed.finish().unwrap(),
    ];
    for around in ["", "u", "us", "use", "user:"] {
        planted.push(encoded.encode(format!("{around}{secret}{around}")).into_bytes());
    }
    for (at, bytes) in planted.iter().enumerate() {
        assert!(search.of(bytes).contains("planted"), "{at}");
    }
    assert!(search.of(b"a planted secret 1").is_empty());
}

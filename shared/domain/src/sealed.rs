//! A secret that only its keyring can open.

use serde::{Deserialize, Serialize};

use crate::text::text_type;

text_type!(
    /// What a key of the service is known by where the key itself must not be.
    KeyFingerprint,
    "key fingerprint",
    "16 hexadecimal digits in lower case",
    |text| text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);

/// A sealed secret, fit for a record. What is inside is known only to the keyring that made it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    /// Wraps what a keyring sealed.
    #[must_use]
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    /// What a keyring sealed.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(..)")
    }
}

//! Sealed secrets, which only the right keys open.

use serde::{Deserialize, Serialize};

use crate::text::text_type;

text_type!(
    /// Identifies a key of the service where the key itself must not appear.
    KeyFingerprint,
    "key fingerprint",
    "16 hexadecimal digits in lower case",
    |text| text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);

/// A sealed secret in a form for records. Only the keyring that made it can open it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    /// Wraps the output of a keyring.
    #[must_use]
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    /// The output of a keyring.
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

//! A secret that only its keyring can open.

use serde::{Deserialize, Serialize};

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

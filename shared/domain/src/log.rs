//! Log frames.

use serde::{Deserialize, Serialize};

use crate::id::StepId;
use crate::timestamp::Timestamp;

/// The origin of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Messages of gantry about the run.
    Gantry,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of an attempt's log. Already masked: it contains no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFrame {
    /// The offset of its first byte in the attempt's log, from 0.
    #[serde(rename = "o")]
    pub offset: u64,
    /// When the worker read it, by the worker's clock. Only for people.
    #[serde(rename = "t")]
    pub at: Timestamp,
    /// The step that wrote it; `None` for the run itself.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// The stream.
    #[serde(rename = "f")]
    pub stream: OutputStream,
    /// The text: whole characters, often whole lines, at most 64 KiB.
    #[serde(rename = "b")]
    pub text: String,
}

impl LogFrame {
    /// The offset after its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.text.len() as u64
    }
}

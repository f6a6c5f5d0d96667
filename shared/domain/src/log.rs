//! A run's log: frames in one order.

use serde::{Deserialize, Serialize};

use crate::id::StepId;
use crate::timestamp::Timestamp;

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// gantry's own words about the run.
    Gantry,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One piece of an attempt's log. Already masked: no secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFrame {
    /// Where its first byte stands in the attempt's log, from 0.
    #[serde(rename = "o")]
    pub offset: u64,
    /// When the worker read it, by the worker's clock: for people only.
    #[serde(rename = "t")]
    pub at: Timestamp,
    /// The step that said it; `None` for the run itself.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// Which stream.
    #[serde(rename = "f")]
    pub stream: OutputStream,
    /// What it said: whole characters, often whole lines, at most 64 KiB.
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

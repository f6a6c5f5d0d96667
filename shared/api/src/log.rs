//! The live log as server-sent events. The id of each event is the position to resume from.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Run;

/// One server-sent event of `GET /runs/{run}/log/events`. Its id is `attempt:offset`, the position after it.
#[derive(Debug, Clone, PartialEq)]
pub enum LogEvent {
    /// `status`: the run's status changed, or what it waits for.
    Status(LogStatus),
    /// `attempt`: the following events belong to this attempt.
    Attempt(LogAttempt),
    /// `log`: output.
    Log(LogChunk),
    /// `hole`: output was lost.
    Hole(LogHole),
    /// `end`: the run has ended and all of its log was sent. The last event.
    End(Box<Run>),
}

impl LogEvent {
    /// Parses an event from its name and data; `None` for an unknown name.
    ///
    /// # Errors
    /// The data does not match the name.
    pub fn parse(name: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "status" => Self::Status(serde_json::from_str(data)?),
            "attempt" => Self::Attempt(serde_json::from_str(data)?),
            "log" => Self::Log(serde_json::from_str(data)?),
            "hole" => Self::Hole(serde_json::from_str(data)?),
            "end" => Self::End(serde_json::from_str(data)?),
            _ => return Ok(None),
        }))
    }
}

/// The status of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogStatus {
    /// As in [`Run::status`].
    pub status: String,
    /// As in [`Run::waits_for`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// The start of an attempt's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogAttempt {
    /// The attempt, from 1.
    pub attempt: u32,
}

/// Some output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogChunk {
    /// The attempt, from 1.
    pub attempt: u32,
    /// The offset of its first byte in the attempt's log.
    pub offset: u64,
    /// When the worker read it, by the worker's clock.
    pub at: String,
    /// The step that wrote it; absent for the run itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// `gantry`, `stdout` or `stderr`.
    pub stream: String,
    /// The output.
    pub text: String,
}

/// Lost output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogHole {
    /// The attempt, from 1.
    pub attempt: u32,
    /// The offset of the first lost byte.
    pub offset: u64,
    /// The offset where the log continues.
    pub until: u64,
}

//! The live log: server-sent events, each with the place to go on from as its id.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Run;

/// One server-sent event of `GET /runs/{run}/log/events`. Its id is `attempt:offset`, the place after it.
#[derive(Debug, Clone, PartialEq)]
pub enum LogEvent {
    /// `status`: the run moved, or waits for something else.
    Status(LogStatus),
    /// `attempt`: what follows is of this attempt.
    Attempt(LogAttempt),
    /// `log`: output.
    Log(LogChunk),
    /// `hole`: output that is lost.
    Hole(LogHole),
    /// `end`: the run has ended and all of its log was sent. The last event.
    End(Box<Run>),
}

impl LogEvent {
    /// Reads an event by its name and data; `None` for a name that this build does not know.
    ///
    /// # Errors
    /// Data that is not what the name says.
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

/// Where the run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogStatus {
    /// As in [`Run::status`].
    pub status: String,
    /// As in [`Run::waits_for`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// An attempt's log begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogAttempt {
    /// From 1.
    pub attempt: u32,
}

/// Some output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogChunk {
    /// The attempt, from 1.
    pub attempt: u32,
    /// Where its first byte stands in the attempt's log.
    pub offset: u64,
    /// When the worker read it, by the worker's clock.
    pub at: String,
    /// The step that said it; absent for the run itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// `gantry`, `stdout` or `stderr`.
    pub stream: String,
    /// What it said.
    pub text: String,
}

/// Output that is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogHole {
    /// The attempt, from 1.
    pub attempt: u32,
    /// The first byte that is lost.
    pub offset: u64,
    /// Where the log goes on.
    pub until: u64,
}

//! Timers of tasks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Starts runs by the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Timer {
    /// Its name in the task: 1 to 50 letters, digits, `-` or `_`.
    pub name: String,
    /// When it is due: minute, hour, day of the month, month and day of the week, all of which must match.
    #[schema(example = "0 9 * * 1-5")]
    pub schedule: String,
    /// The IANA time zone of the schedule.
    #[serde(default = "utc")]
    #[schema(example = "Europe/Berlin")]
    pub timezone: String,
    /// `Enabled` or `Disabled`.
    #[serde(default = "enabled")]
    pub status: String,
    /// What happens to instants that were missed by more than a minute: `skip` them, start one run for all of them
    /// (`once`), or one for each (`all`, at most 100).
    #[serde(default = "once")]
    pub misfire: String,
    /// How long ago a missed instant may be, in seconds: 60 to 86400.
    #[serde(default = "an_hour")]
    pub catch_up: u32,
    /// What happens if earlier runs of the timer have not ended: `allow` both, `skip` the new one, `queue` it until they
    /// end, or `cancel` the earlier ones.
    #[serde(default = "allow")]
    pub overlap: String,
    /// When it is due next, as the scheduler has it; absent in lists, and if it is disabled. Ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub next: Option<String>,
}

impl Timer {
    /// A timer with the default choices.
    #[must_use]
    pub fn new(name: &str, schedule: &str) -> Self {
        Self {
            name: name.to_owned(),
            schedule: schedule.to_owned(),
            timezone: utc(),
            status: enabled(),
            misfire: once(),
            catch_up: an_hour(),
            overlap: allow(),
            next: None,
        }
    }
}

fn utc() -> String {
    "UTC".to_owned()
}

fn enabled() -> String {
    "Enabled".to_owned()
}

fn once() -> String {
    "once".to_owned()
}

fn an_hour() -> u32 {
    3600
}

fn allow() -> String {
    "allow".to_owned()
}

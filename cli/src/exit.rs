//! The exit codes of the program.

use std::fmt;
use std::process::ExitCode;

use gantry_domain::run::RunStatus;

use crate::client::http::ApiError;

/// How the program ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Success.
    Ok,
    /// A step failed, or the request was refused.
    Failed,
    /// Wrong usage; the same code as that of the argument parser.
    Usage,
    /// The run was cancelled.
    Canceled,
    /// The run exceeded its time limit.
    Timeout,
    /// The infrastructure failed, or the connection to it.
    Infrastructure,
    /// Ctrl-C: the run continues. 128 + SIGINT, as shells and scripts expect; neither 0 nor 1 would be true for a run
    /// that has not ended.
    Interrupted,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Canceled => 3,
            Self::Timeout => 4,
            Self::Infrastructure => 5,
            Self::Interrupted => 130,
        }
    }

    /// The exit code for a run's status.
    pub(crate) fn of_run(status: RunStatus) -> Self {
        match status {
            // A run that has not ended is a success for a command that did not wait for it.
            RunStatus::Queued | RunStatus::Started | RunStatus::Running | RunStatus::Succeeded => {
                Self::Ok
            }
            RunStatus::Failed => Self::Failed,
            RunStatus::Canceled => Self::Canceled,
            RunStatus::Error => Self::Infrastructure,
            RunStatus::Timeout => Self::Timeout,
        }
    }

    /// The exit code for an error.
    pub(crate) fn of_error(error: &anyhow::Error) -> Self {
        if error.is::<UsageError>() {
            return Self::Usage;
        }
        error.downcast_ref::<ApiError>().map_or(Self::Failed, ApiError::exit)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The arguments are valid for the parser, but make no sense.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_is_the_exit_code() {
        let codes = RunStatus::ALL.map(|status| (status.as_str(), Exit::of_run(status).code()));
        assert_eq!(
            codes,
            [
                ("Queued", 0),
                ("Started", 0),
                ("Running", 0),
                ("Succeeded", 0),
                ("Failed", 1),
                ("Canceled", 3),
                ("Error", 5),
                ("Timeout", 4),
            ]
        );
    }

    #[test]
    fn an_error_keeps_its_exit_code_under_any_context() {
        let usage = anyhow::Error::new(UsageError("no".to_owned())).context("while reading");
        assert_eq!(Exit::of_error(&usage), Exit::Usage);
        assert_eq!(Exit::of_error(&anyhow::anyhow!("no")), Exit::Failed);
    }
}

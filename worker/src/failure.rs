//! Classifies errors, and decides how an attempt ends.
//!
//! The user's failures end the run as Failed at once. Failures of the infrastructure are retried.

use std::error::Error;
use std::time::Duration;

use gantry_domain::id::{StepId, UploadId};
use gantry_domain::run::{ErrorCode, Outcome, RunError};
use gantry_remote::git::GitError;
use gantry_remote::lfs::LfsError;
use gantry_remote::registry::RegistryError;
use gantry_seams::blobs::BlobError;
use gantry_seams::runs::Finish;

use crate::engine::containers::{ContainerError, PullError};
use crate::engine::{BuildError, EngineError, PushError};
use crate::source::{ContextError, SourceError};

/// The pause before the second attempt; the pause before the third is four times as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause that a registry may request.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    error: RunError,
    whose: Whose,
    /// The pause that the failing server requested.
    not_before: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The user's fault: a retry would fail in the same way.
    Users,
    /// The infrastructure's fault: a retry may succeed.
    Infrastructures,
    /// A server does not answer, and is expected to be back.
    Away,
    /// The user's fault, unless the code host soon has what it announced.
    Behind,
}

impl Failure {
    /// A failure that the user can fix, and a retry cannot.
    pub(crate) fn users(code: ErrorCode, error: &(dyn Error + 'static)) -> Self {
        Self::new(code, Whose::Users, chain(error))
    }

    /// A failure that a retry may fix.
    pub(crate) fn infrastructures(code: ErrorCode, error: &(dyn Error + 'static)) -> Self {
        Self::new(code, Whose::Infrastructures, chain(error))
    }

    /// A failure because of an outage, which does not use up an attempt.
    pub(crate) fn away(code: ErrorCode, error: &(dyn Error + 'static)) -> Self {
        Self::new(code, Whose::Away, chain(error))
    }

    /// Turns a user's failure into one that waits for the code host to have what it announced.
    pub(crate) fn unless_behind(mut self) -> Self {
        if self.whose == Whose::Users && self.error.code == ErrorCode::SourceNotFound {
            self.whose = Whose::Behind;
        }
        self
    }

    /// A failure that the user can fix, with a message that says how.
    pub(crate) fn in_words(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(code, Whose::Users, message.into())
    }

    /// A process of a step ended with an error.
    pub(crate) fn exit(code: i64, message: impl Into<String>) -> Self {
        let mut failure = Self::in_words(ErrorCode::StepFailed, message);
        failure.error.exit_code = Some(code);
        failure
    }

    /// Whether a retry of the run would fail in the same way.
    pub(crate) fn is_users(&self) -> bool {
        self.whose == Whose::Users
    }

    fn new(code: ErrorCode, whose: Whose, message: String) -> Self {
        let error = RunError { code, step: None, exit_code: None, message };
        Self { error, whose, not_before: Duration::ZERO }
    }

    /// Adds the step in which it happened.
    pub(crate) fn in_step(mut self, step: &StepId) -> Self {
        self.error.step = Some(step.clone());
        self
    }

    /// Masks the secrets in its message.
    pub(crate) fn masked(mut self, mask: impl Fn(&str) -> String) -> Self {
        self.error.message = mask(&self.error.message);
        self
    }

    /// The error.
    pub(crate) fn error(&self) -> &RunError {
        &self.error
    }

    /// How the attempt ends because of it.
    pub(crate) fn finish(self, attempt: u32) -> Finish {
        match self.whose {
            Whose::Users => Finish::Outcome(Outcome::Failed { error: self.error }),
            Whose::Away => Finish::Unavailable {
                error: self.error,
                not_before: self.not_before.min(LONGEST_PAUSE),
            },
            Whose::Behind => Finish::NotYetThere { error: self.error },
            Whose::Infrastructures => {
                let pause = FIRST_PAUSE * 4_u32.saturating_pow(attempt.saturating_sub(1).min(4));
                let pause = pause.max(self.not_before.min(LONGEST_PAUSE));
                Finish::Retry { error: self.error, pause }
            }
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::StepFailed { exit_code, .. } => {
                let mut failure = Self::users(ErrorCode::StepFailed, &error);
                failure.error.exit_code = Some(exit_code);
                failure
            }
            BuildError::Refused { .. } => Self::users(ErrorCode::BuildRefused, &error),
            BuildError::Engine(error) => error.into(),
            BuildError::DiskFull { .. } => Self::infrastructures(ErrorCode::DiskFull, &error),
            BuildError::Unavailable { .. } => {
                Self::infrastructures(ErrorCode::RegistryUnavailable, &error)
            }
            BuildError::Context { .. } => Self::infrastructures(ErrorCode::Internal, &error),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::infrastructures(ErrorCode::EngineUnavailable, &error)
    }
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Unauthorized { .. } => Self::users(ErrorCode::RegistryUnauthorized, &error),
            PushError::Registry { .. } => {
                Self::infrastructures(ErrorCode::RegistryUnavailable, &error)
            }
            PushError::Engine(error) => error.into(),
        }
    }
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Refused { .. } => Self::users(ErrorCode::ImageNotFound, &error),
            PullError::Unavailable { .. } => {
                Self::infrastructures(ErrorCode::RegistryUnavailable, &error)
            }
            PullError::Engine(error) => error.into(),
        }
    }
}

impl From<ContainerError> for Failure {
    fn from(error: ContainerError) -> Self {
        match error {
            ContainerError::Refused { .. } => Self::users(ErrorCode::StepFailed, &error),
            ContainerError::Engine(error) => error.into(),
        }
    }
}

/// The failure for a source that could not be fetched.
pub(crate) fn of_source(error: &SourceError) -> Failure {
    if error.is_disk_full() {
        return Failure::infrastructures(ErrorCode::DiskFull, error);
    }
    if error.is_away() {
        return Failure::away(ErrorCode::SourceUnreachable, error);
    }
    if error.is_transient() {
        return Failure::infrastructures(ErrorCode::SourceUnreachable, error);
    }
    Failure::users(code_of(error), error)
}

/// The code for a source that no retry can fetch.
fn code_of(error: &SourceError) -> ErrorCode {
    match error {
        SourceError::Git(
            GitError::CredentialsWanted { .. }
            | GitError::Unauthorized { .. }
            | GitError::KeyWanted { .. }
            | GitError::KeyRefused { .. }
            | GitError::UnusableKey { .. }
            | GitError::OtherHostKey { .. },
        )
        | SourceError::Registry(RegistryError::Unauthorized { .. }) => {
            ErrorCode::SourceUnauthorized
        }
        SourceError::Git(
            GitError::UnknownRef { .. }
            | GitError::Ambiguous { .. }
            | GitError::Empty { .. }
            | GitError::NoFolder { .. }
            | GitError::NotFound { .. }
            | GitError::Moved { .. },
        )
        | SourceError::Registry(RegistryError::NotFound { .. } | RegistryError::NoApi { .. })
        | SourceError::Status { .. } => ErrorCode::SourceNotFound,
        SourceError::Submodule { source, .. } => code_of(source),
        SourceError::Lfs { source, .. } => match source.as_ref() {
            LfsError::Unauthorized { .. } => ErrorCode::SourceUnauthorized,
            LfsError::Missing { .. } | LfsError::NoServer { .. } => ErrorCode::SourceNotFound,
            LfsError::Refused(_)
            | LfsError::OverSsh { .. }
            | LfsError::Client(_)
            | LfsError::Unreachable { .. }
            | LfsError::Status { .. }
            | LfsError::Malformed { .. }
            | LfsError::File { .. }
            | LfsError::OtherContent { .. }
            | LfsError::BrokeOff { .. }
            | LfsError::TimedOut => ErrorCode::SourceRefused,
        },
        SourceError::Exchanged { .. } => ErrorCode::Unsigned,
        SourceError::Git(_)
        | SourceError::Unpack(_)
        | SourceError::Registry(_)
        | SourceError::NoArtifact { .. }
        | SourceError::OtherLayer { .. }
        | SourceError::Outbound(_)
        | SourceError::Download { .. }
        | SourceError::TimedOut
        | SourceError::Folder { .. } => ErrorCode::SourceRefused,
    }
}

/// The failure for an uploaded archive that could not be opened.
pub(crate) fn of_upload(upload: &UploadId, error: &BlobError) -> Failure {
    match error {
        BlobError::Absent { .. } => Failure::in_words(
            ErrorCode::SourceNotFound,
            format!(
                "upload {upload} is no longer kept: upload the folder again with `gantry build`"
            ),
        ),
        BlobError::Unavailable { .. } => Failure::away(ErrorCode::SourceUnreachable, error),
        BlobError::TooLarge { .. }
        | BlobError::Source { .. }
        | BlobError::Full { .. }
        | BlobError::Refused { .. } => {
            Failure::infrastructures(ErrorCode::SourceUnreachable, error)
        }
    }
}

/// The failure for a file of the source that could not be read.
pub(crate) fn of_context(error: &ContextError) -> Failure {
    match error {
        ContextError::Missing { .. } | ContextError::Dangling { .. } => {
            Failure::users(ErrorCode::DockerfileNotFound, error)
        }
        ContextError::Outside { .. }
        | ContextError::NoFolder { .. }
        | ContextError::Loop { .. }
        | ContextError::Folder { .. }
        | ContextError::Node { .. }
        | ContextError::TooLarge { .. }
        | ContextError::Encoding { .. }
        | ContextError::Ignore { .. } => Failure::users(ErrorCode::SourceRefused, error),
        ContextError::Unreadable { .. } => Failure::infrastructures(ErrorCode::Internal, error),
    }
}

/// The failure for a task file, or a file of values or aliases, that could not be read.
pub(crate) fn of_text(error: &ContextError) -> Failure {
    if matches!(error, ContextError::Missing { .. } | ContextError::Dangling { .. }) {
        return Failure::users(ErrorCode::TaskFileInvalid, error);
    }
    of_context(error)
}

/// The failure for a registry's error, with code `absent` for a missing image.
pub(crate) fn of_registry(error: &RegistryError, absent: ErrorCode) -> Failure {
    match error {
        RegistryError::Unauthorized { .. } => {
            Failure::users(ErrorCode::RegistryUnauthorized, error)
        }
        RegistryError::NotFound { .. } => Failure::users(absent, error),
        RegistryError::NoApi { .. }
        | RegistryError::Refused { .. }
        | RegistryError::Moved { .. }
        | RegistryError::Outbound(_) => Failure::users(ErrorCode::RegistryRefused, error),
        RegistryError::Unavailable { .. } | RegistryError::Unreachable { .. }
            if error.is_away() =>
        {
            Failure {
                not_before: error.retry_after().unwrap_or_default(),
                ..Failure::away(ErrorCode::RegistryUnavailable, error)
            }
        }
        RegistryError::Unavailable { .. }
        | RegistryError::Unreachable { .. }
        | RegistryError::TooLarge { .. }
        | RegistryError::Nonsense { .. } => Failure {
            not_before: error.retry_after().unwrap_or_default(),
            ..Failure::infrastructures(ErrorCode::RegistryUnavailable, error)
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_build_errors_are_retried() {
        let message = || "m".to_owned();
        let errors = [
            BuildError::StepFailed { step: message(), exit_code: 1 },
            BuildError::Refused { message: message() },
            BuildError::Engine(EngineError::Refused { what: "solve", message: message() }),
            BuildError::DiskFull { message: message() },
            BuildError::Unavailable { message: message() },
            BuildError::Context { source: std::io::Error::other("m") },
        ];
        for error in errors {
            let (told, is_transient) = (error.to_string(), error.is_transient());
            let finish = Failure::from(error).finish(1);
            assert_eq!(matches!(finish, Finish::Retry { .. }), is_transient, "{told}: {finish:?}");
        }
    }
}

//! Why a request is refused, independent of HTTP.

use std::borrow::Cow;
use std::time::Duration;

use gantry_domain::InvalidText;
use gantry_domain::id::{RegistryName, RunId, UploadId};
use gantry_domain::token::Scope;
use gantry_ops::secret::SecretError;
use gantry_seams::blobs::BlobError;
use gantry_seams::logs::LogError;
use gantry_seams::runs::RunOpError;
use gantry_seams::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no valid token: send `Authorization: Bearer gantry_…`, or `gantry login` again")]
    Unauthorized,
    /// The same answer for a wrong signature and an unknown hook, so that ids cannot be guessed.
    #[error("no such hook, or the signature does not match its secret")]
    HookRefused,
    #[error("{0}")]
    Forbidden(String),
    #[error("no such {what}: `{name}`")]
    NotFound { what: &'static str, name: String },
    #[error("{}", .0.summary())]
    Invalid(Mistakes),
    #[error("{message}")]
    Conflict { code: &'static str, message: String },
    #[error(
        "this Idempotency-Key belongs to another request, which started run {run}; `{what}` asks for something else: send \
         it with a key of its own"
    )]
    KeyReused { what: String, run: RunId },
    #[error("the body is larger than {most} bytes")]
    TooLarge { most: u64 },
    #[error("the body was not received within {patience:?}")]
    TooSlow { patience: Duration },
    #[error("the body was cut off")]
    BrokenOff,
    #[error("{0}")]
    UnsupportedMedia(Cow<'static, str>),
    #[error(
        "this token has {most} connections open: close some of them, or use a token for each program"
    )]
    TooManyConnections { most: usize },
    #[error("gantry is overloaded: try again in a moment")]
    Busy,
    #[error("gantry's store does not answer: try again in a moment")]
    Unavailable,
    #[error(
        "gantry's store is full, so nothing new is taken: its operator must raise `store.budget` or free space"
    )]
    Full,
    #[error(
        "the disk on which gantry keeps uploads and logs is full, so no upload is taken: its operator must free space \
         there, or lower `objects.min_free`"
    )]
    ObjectsFull,
    #[error("gantry failed: its own log says why")]
    Internal,
}

impl Refusal {
    /// Also the answer if the caller may not see the registry.
    pub(crate) fn no_registry(name: &RegistryName) -> Self {
        Self::NotFound { what: "registry", name: name.to_string() }
    }

    /// Also the answer if the upload is another's.
    pub(crate) fn no_upload(id: &UploadId) -> Self {
        Self::NotFound { what: "upload", name: id.to_string() }
    }

    pub(crate) fn invalid(target: &str, message: impl Into<String>) -> Self {
        let mut mistakes = Mistakes::default();
        mistakes.add(target, message);
        Self::Invalid(mistakes)
    }

    /// The token's scope is too small.
    pub(crate) fn needs_scope(needed: Scope, has: Scope) -> Self {
        Self::Forbidden(format!("this needs a token of scope `{needed}`; yours has `{has}`"))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => {
                tracing::warn!("a request was refused: {error}");
                Self::Unavailable
            }
            StoreError::Full { .. } => {
                tracing::error!("a request was refused: {error}");
                Self::Full
            }
            StoreError::Undecodable { .. } => {
                tracing::error!("a request failed: {error}");
                Self::Internal
            }
        }
    }
}

impl From<BlobError> for Refusal {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge { most, .. } => Self::TooLarge { most },
            BlobError::Source { .. } => Self::BrokenOff,
            BlobError::Full { .. } => {
                tracing::error!("a request was refused: {error}");
                Self::ObjectsFull
            }
            BlobError::Absent { .. } | BlobError::Unavailable { .. } => {
                tracing::warn!("a request was refused: {error}");
                Self::Unavailable
            }
            BlobError::Refused { .. } => {
                tracing::error!("a request failed: {error}");
                Self::Internal
            }
        }
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Store(error) => error.into(),
            LogError::Blob(error) => error.into(),
        }
    }
}

impl From<SecretError> for Refusal {
    fn from(error: SecretError) -> Self {
        tracing::error!("a request failed: {error}");
        Self::Internal
    }
}

impl From<RunOpError> for Refusal {
    fn from(error: RunOpError) -> Self {
        match error {
            RunOpError::Absent { run } => Self::NotFound { what: "run", name: run.to_string() },
            RunOpError::Store(error) => error.into(),
            RunOpError::LeaseLost { .. }
            | RunOpError::CancelAsked { .. }
            | RunOpError::OtherCommit { .. }
            | RunOpError::Illegal { .. } => {
                Self::Conflict { code: "wrong_state", message: error.to_string() }
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Mistake {
    /// The field of the request.
    pub(crate) target: String,
    /// What is wrong with it, and the remedy.
    pub(crate) message: String,
}

/// The mistakes in a request. All are collected, so that they can be fixed at once.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(crate) fn add(&mut self, target: &str, message: impl Into<String>) {
        self.0.push(Mistake { target: target.to_owned(), message: message.into() });
    }

    /// Parses `text`, or records the mistake.
    pub(crate) fn parse<T>(&mut self, target: &str, text: &str) -> Option<T>
    where
        T: std::str::FromStr<Err = InvalidText>,
    {
        self.check(target, text.parse())
    }

    /// Like [`Self::parse`], for what may be absent: then the value is `Some(None)`.
    pub(crate) fn parse_given<T>(&mut self, target: &str, text: Option<&str>) -> Option<Option<T>>
    where
        T: std::str::FromStr<Err = InvalidText>,
    {
        match text {
            Some(text) => self.parse(target, text).map(Some),
            None => Some(None),
        }
    }

    /// Returns the value, or records the mistake.
    pub(crate) fn check<T, E: std::fmt::Display>(
        &mut self,
        target: &str,
        checked: Result<T, E>,
    ) -> Option<T> {
        checked.map_err(|error| self.add(target, error.to_string())).ok()
    }

    /// Fails if there are mistakes.
    pub(crate) fn none(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::Invalid(self)) }
    }

    /// In the order in which they were added.
    pub(crate) fn all(&self) -> &[Mistake] {
        &self.0
    }

    fn summary(&self) -> String {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|mistake| format!("{}: {}", mistake.target, mistake.message))
            .collect();
        lines.join("\n")
    }
}

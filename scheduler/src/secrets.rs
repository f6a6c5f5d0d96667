//! Reads the values of the secrets that a task names, when its run is admitted.
//!
//! gantry's own are read in the store. A vault is asked beside the admission loop, so that a slow one delays only the
//! runs that need it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::id::{RegistryName, RunId, RunPrefix};
use gantry_domain::recipe::Work;
use gantry_domain::run::{ErrorCode, Purpose, Run};
use gantry_domain::secret::{Secret, SecretId, SecretName, SecretSource};
use gantry_domain::source::GitUrl;
use gantry_domain::vault::SecretAddress;
use gantry_ops::bundle::ReadSecret;
use gantry_ops::secret::{Keyring, SecretString};
use gantry_remote::code_host::{CodeHost, CodeHostError, CodeHostFailure, FetchToken};
use gantry_remote::vault::{RemoteVaults, VaultError, Vaults};
use gantry_seams::secrets;
use gantry_seams::store::{Store, StoreError};
use tokio::time::{Instant, timeout_at};

use crate::beside::{Begun, Beside, Bounds};

const BOUNDS: Bounds = Bounds { a_host: 8, at_once: 64, most: 4096 };

/// How long reading the secrets of one run may take, the wait for its turn included.
const WITHIN: Duration = Duration::from_secs(60);

/// The secrets of runs by their ids.
pub(crate) type ReadSecrets = BTreeMap<SecretId, ReadSecret>;

/// The vaults, and the runs for which this process asks one, or waits to.
pub struct VaultReads {
    vaults: Arc<dyn Vaults>,
    runs: Arc<Beside<RunId>>,
}

impl Default for VaultReads {
    /// No vaults.
    fn default() -> Self {
        Self::new(Arc::new(RemoteVaults::default()))
    }
}

impl VaultReads {
    /// Reads from these vaults.
    #[must_use]
    pub fn new(vaults: Arc<dyn Vaults>) -> Self {
        Self { vaults, runs: Arc::new(Beside::new(BOUNDS)) }
    }

    pub(crate) fn has(&self, run: RunId) -> bool {
        self.runs.has(&run)
    }

    /// Begins to ask for a run; `None` if that has begun already, or for too many.
    pub(crate) fn begin(&self, run: RunId) -> Option<Begun<RunId>> {
        self.runs.begin(&run)
    }

    /// Waits until no vault is asked. Returns `false` if none was.
    pub(crate) async fn settled(&self) -> bool {
        self.runs.settled().await
    }

    async fn read(
        &self,
        registry: &RegistryName,
        address: &SecretAddress,
        deadline: Instant,
    ) -> Result<SecretString, Unread> {
        let vault = address.origin().to_string();
        let busy = || Unread::Away {
            code: ErrorCode::VaultUnavailable,
            error: format!("{vault} does not answer in time for {address}: other runs ask it, too"),
            not_before: Duration::ZERO,
        };
        let turn = timeout_at(deadline, self.runs.turn(&vault)).await;
        let Ok(Some(_turn)) = turn else { return Err(busy()) };
        Ok(self.vaults.read(registry, address, deadline).await?)
    }
}

/// A run cannot get its secrets.
pub(crate) enum Unread {
    /// It never will, as things are.
    Refused {
        code: ErrorCode,
        message: String,
    },
    /// A vault or code host does not answer. It is asked again, but not before this time. The run ends with `code` if it
    /// stays away.
    Away {
        code: ErrorCode,
        error: String,
        not_before: Duration,
    },
    Store(StoreError),
}

impl From<VaultError> for Unread {
    fn from(error: VaultError) -> Self {
        let message = with_causes(&error);
        let code = match &error {
            VaultError::Unavailable { .. } | VaultError::Unreachable { .. } => {
                let not_before = error.retry_after().unwrap_or_default();
                return Self::Away {
                    code: ErrorCode::VaultUnavailable,
                    error: message,
                    not_before,
                };
            }
            VaultError::NotGranted { .. }
            | VaultError::NotConfigured { .. }
            | VaultError::NotFound { .. }
            | VaultError::Denied { .. } => ErrorCode::SecretRefused,
            VaultError::LoginRejected { .. }
            | VaultError::Redirected { .. }
            | VaultError::Refused { .. }
            | VaultError::Nonsense { .. }
            | VaultError::Outbound(_) => ErrorCode::VaultUnavailable,
        };
        Self::Refused { code, message }
    }
}

impl From<CodeHostError> for Unread {
    fn from(CodeHostError { message, kind }: CodeHostError) -> Self {
        match kind {
            CodeHostFailure::Transient { retry_after } => Self::Away {
                code: ErrorCode::SourceUnreachable,
                error: message,
                not_before: retry_after.unwrap_or_default(),
            },
            CodeHostFailure::RefusedToken
            | CodeHostFailure::RefusedApp
            | CodeHostFailure::NoApi
            | CodeHostFailure::Permanent => {
                Self::Refused { code: ErrorCode::SourceUnauthorized, message }
            }
        }
    }
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The secrets that a run declares and gets. A scan gets none, because it executes nothing.
pub(crate) fn declared(run: &Run) -> Option<&BTreeMap<SecretId, SecretSource>> {
    match (&run.purpose, &run.recipe.work) {
        (Purpose::Execute | Purpose::Leg(_), Work::File(file)) if !file.secrets.is_empty() => {
            Some(&file.secrets)
        }
        (Purpose::Execute | Purpose::Leg(_) | Purpose::Scan, Work::File(_) | Work::Build(_)) => {
            None
        }
    }
}

/// Whether one of the secrets is in a vault.
pub(crate) fn needs_vault(declared: &BTreeMap<SecretId, SecretSource>) -> bool {
    declared.values().any(|source| matches!(source, SecretSource::Vault(_)))
}

/// The repository that a run fetches as the operator's App.
pub(crate) fn fetched_as_app<'a>(code_host: &dyn CodeHost, run: &'a Run) -> Option<&'a GitUrl> {
    let git = run.recipe.source.git()?;
    let is_so = run.git_token.is_none() && code_host.fetches_as_app(&run.registry, &git.url);
    is_so.then_some(&git.url)
}

/// The App's token to fetch a run's source with, if the run fetches it as the App.
pub(crate) async fn fetch_token(
    code_host: &dyn CodeHost,
    vaults: &VaultReads,
    run: &Run,
) -> Result<Option<FetchToken>, Unread> {
    let Some(url) = fetched_as_app(code_host, run) else { return Ok(None) };
    // Hosts limit how many requests they handle at once.
    let Some(_turn) = vaults.runs.turn(&url.host()).await else { return Ok(None) };
    Ok(code_host.fetch_token(&run.registry, url).await?)
}

/// The values of the secrets that a run declares.
pub(crate) async fn read(
    store: &dyn Store,
    keyring: &Keyring,
    vaults: &VaultReads,
    run: &Run,
) -> Result<ReadSecrets, Unread> {
    let reader = Reader::new(store, keyring, vaults, (&run.registry, run.id.prefix()));
    let mut read = ReadSecrets::new();
    for (id, source) in declared(run).into_iter().flatten() {
        read.insert(id.clone(), reader.read(source, &format!("as `{id}`")).await?);
    }
    Ok(read)
}

/// Reads the secrets that the tasks of one registry name.
pub(crate) struct Reader<'a> {
    store: &'a dyn Store,
    keyring: &'a Keyring,
    vaults: &'a VaultReads,
    registry: &'a RegistryName,
    prefix: RunPrefix,
    deadline: Instant,
}

impl<'a> Reader<'a> {
    /// Reads for so long as one run may wait for its secrets.
    pub(crate) fn new(
        store: &'a dyn Store,
        keyring: &'a Keyring,
        vaults: &'a VaultReads,
        (registry, prefix): (&'a RegistryName, RunPrefix),
    ) -> Self {
        let deadline = Instant::now() + WITHIN;
        Self { store, keyring, vaults, registry, prefix, deadline }
    }

    /// The value of a secret, which a task names `as` something, or `for` something.
    pub(crate) async fn read(
        &self,
        source: &SecretSource,
        named: &str,
    ) -> Result<ReadSecret, Unread> {
        match source {
            SecretSource::Own { name, version } => self.own(name, *version, named).await,
            SecretSource::Vault(address) => {
                let value = self.vaults.read(self.registry, address, self.deadline).await?;
                Ok(ReadSecret { value, version: None })
            }
        }
    }

    async fn own(
        &self,
        name: &SecretName,
        version: Option<NonZeroU32>,
        named: &str,
    ) -> Result<ReadSecret, Unread> {
        let refused = |message: String| Unread::Refused { code: ErrorCode::SecretRefused, message };
        let registry = self.registry;
        let Some(secret) = secrets::find(self.store, self.prefix, name).await? else {
            let message = format!(
                "registry {registry} has no secret `{name}`, which the task names {named}: set it with \
                 `gantry secret set -r {registry} -n {name}`"
            );
            return Err(refused(message));
        };
        let Some(found) = secret.version(version) else {
            let kept = secret.versions.iter().map(|version| version.number.to_string());
            let kept = kept.collect::<Vec<_>>().join(", ");
            let message = format!(
                "the secret `{name}` of registry {registry} no longer has the version that the task names {named}: name one of \
                 {kept}, or none for the newest"
            );
            return Err(refused(message));
        };
        let sealed_for = Secret::seals_for(secret.prefix, &secret.name);
        let value = self.keyring.open(&sealed_for, &found.value).map_err(|error| {
            let message = format!("the secret `{name}`: {error}");
            Unread::Refused { code: ErrorCode::Internal, message }
        })?;
        Ok(ReadSecret { value, version: Some(found.number) })
    }
}

/// An error with its causes: for example which certificate is not trusted.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

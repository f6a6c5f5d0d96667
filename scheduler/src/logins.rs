//! Finds the credentials for registries: those that were given, those of the operator's helpers, and those that are secrets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::id::TaskId;
use gantry_domain::image::RegistryHost;
use gantry_domain::login::{Login, Password, Username};
use gantry_domain::registry::{Registry, RegistryCredentials};
use gantry_domain::run::{ErrorCode, Purpose, Run};
use gantry_domain::sealed::Sealed;
use gantry_domain::secret::SecretSource;
use gantry_domain::task::Task;
use gantry_domain::tracked_image::TrackedImage;
use gantry_ops::secret::{Credentials, ExposeSecret as _, Keyring, SecretString};
use gantry_remote::credential_helper::{CredentialHelpers, HelperError};
use gantry_seams::image_users::{self, Which};
use gantry_seams::store::{SharedStore, StoreError};
use gantry_seams::tasks;

use crate::secrets::{Reader, Unread, VaultReads};

/// How many users of an image are looked at for a login, and how many of their logins are tried.
const MOST_USERS: usize = 16;
const MOST_TRIED: usize = 4;

/// Where credentials for registries come from.
#[derive(Clone)]
pub(crate) struct Logins {
    pub(crate) store: SharedStore,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) vaults: Arc<VaultReads>,
    pub(crate) helpers: Arc<CredentialHelpers>,
}

/// What a run gets in addition to the credentials that were given.
#[derive(Default)]
pub(crate) struct RunLogins {
    pub(crate) registries: BTreeMap<RegistryHost, Credentials>,
    pub(crate) secret_usernames: Vec<SecretString>,
    /// Within this time a worker must take the run, else it gets new ones.
    pub(crate) take_within: Option<Duration>,
}

impl From<HelperError> for Unread {
    fn from(error: HelperError) -> Self {
        match error.is_transient() {
            true => Self::Away {
                code: ErrorCode::RegistryUnavailable,
                error: error.to_string(),
                not_before: Duration::ZERO,
            },
            false => {
                Self::Refused { code: ErrorCode::RegistryUnauthorized, message: error.to_string() }
            }
        }
    }
}

/// Whether somebody must be asked for the credentials of a run: a helper or a vault.
pub(crate) fn are_asked_for(run: &Run, registry: &Registry) -> bool {
    let is_in_vault = |source: &SecretSource| matches!(source, SecretSource::Vault(_));
    gets_logins(run)
        && (uses_helper(run, registry)
            || run.recipe.logins.values().flat_map(Login::sources).any(is_in_vault))
}

/// A scan executes nothing, and a fork's run reads its bases anonymously.
fn gets_logins(run: &Run) -> bool {
    run.purpose != Purpose::Scan && !run.is_of_fork()
}

fn uses_helper(run: &Run, registry: &Registry) -> bool {
    registry.credentials == Some(RegistryCredentials::Helper)
        && !run.recipe.logins.contains_key(&registry.host)
}

impl Logins {
    /// The credentials of a run that are not in its record, with those of the helper good for the whole run, if they can be.
    pub(crate) async fn of_run(&self, run: &Run, registry: &Registry) -> Result<RunLogins, Unread> {
        let mut logins = RunLogins::default();
        if !gets_logins(run) {
            return Ok(logins);
        }
        if uses_helper(run, registry) {
            let timeout = run.recipe.timeout.as_duration();
            let given = self.helpers.get(&registry.host, timeout).await?;
            logins.take_within = Some(given.valid_for - timeout.min(given.valid_for / 2));
            logins.registries.insert(registry.host.clone(), given.credentials);
        }
        for (host, login) in &run.recipe.logins {
            if login.sources().next().is_none() {
                continue;
            }
            let credentials = self.read(registry, host, login).await?;
            if matches!(login.username, Username::Secret(_)) {
                logins.secret_usernames.push(SecretString::from(credentials.username.as_str()));
            }
            logins.registries.insert(host.clone(), credentials);
        }
        Ok(logins)
    }

    /// What a run had for a registry, as far as that can still be read: to ask what it has used and made there.
    pub(crate) async fn of_ended(
        &self,
        run: &Run,
        registry: &Registry,
        host: &RegistryHost,
    ) -> Option<Credentials> {
        let found = match run.recipe.logins.get(host).filter(|_| gets_logins(run)) {
            Some(login) => self.read(registry, host, login).await.map(Some),
            None => self.of_registry(registry, host).await,
        };
        found.unwrap_or_default()
    }

    /// The credentials that show an image to the watch of a registry of gantry, in the order in which they are tried: its own,
    /// then those of tasks that use the image. None if one of them cannot be read and there is no other.
    pub(crate) async fn of_watch(
        &self,
        registry: &Registry,
        image: &TrackedImage,
    ) -> Result<Vec<Credentials>, Unread> {
        let (host, mut found, mut unread) = (image.host(), Vec::new(), None);
        match self.of_registry(registry, host).await {
            Ok(own) => found.extend(own),
            Err(error) => unread = Some(error),
        }
        for task in self.logged_in(registry, image).await? {
            let Some(login) = task.recipe.logins.get(host) else { continue };
            match self.read(registry, host, login).await {
                Ok(credentials) if found.iter().any(|known| is_same(known, &credentials)) => {}
                Ok(credentials) => found.push(credentials),
                Err(error) => unread = Some(error),
            }
            if found.len() == MOST_TRIED {
                break;
            }
        }
        match (found.is_empty(), unread) {
            (true, Some(error)) => Err(error),
            (true, None) | (false, _) => Ok(found),
        }
    }

    /// The tasks of a registry of gantry that use an image and have a login for its host.
    async fn logged_in(
        &self,
        registry: &Registry,
        image: &TrackedImage,
    ) -> Result<Vec<Task>, StoreError> {
        let store = self.store.as_ref();
        let which = Which::LoggedIn;
        let users =
            image_users::in_registry(store, image, which, registry.prefix, MOST_USERS).await?;
        let mut found: Vec<Task> = Vec::new();
        for user in users {
            let id = TaskId { registry: registry.name.clone(), name: user.task };
            if found.iter().any(|task| task.id == id) {
                continue;
            }
            let task = tasks::find(store, &id).await?;
            found.extend(task.filter(|task| task.created == user.created));
        }
        Ok(found)
    }

    /// A registry's own credentials, if it is at this host.
    async fn of_registry(
        &self,
        registry: &Registry,
        host: &RegistryHost,
    ) -> Result<Option<Credentials>, Unread> {
        match registry.credentials.as_ref().filter(|_| registry.host == *host) {
            Some(RegistryCredentials::Given(given)) => {
                let (username, password) =
                    (given.username.clone(), self.open(registry, &given.password)?);
                Ok(Some(Credentials { username, password }))
            }
            Some(RegistryCredentials::Helper) => {
                Ok(Some(self.helpers.get(host, Duration::ZERO).await?.credentials))
            }
            None => Ok(None),
        }
    }

    async fn read(
        &self,
        registry: &Registry,
        host: &RegistryHost,
        login: &Login,
    ) -> Result<Credentials, Unread> {
        let reader = Reader::new(
            self.store.as_ref(),
            &self.keyring,
            &self.vaults,
            (&registry.name, registry.prefix),
        );
        let username = match &login.username {
            Username::Text(username) => username.clone(),
            Username::Secret(source) => read_line(&reader, source, host).await?,
        };
        let password = match &login.password {
            Password::Sealed(sealed) => self.open(registry, sealed)?,
            Password::Secret(source) => SecretString::from(read_line(&reader, source, host).await?),
        };
        Ok(Credentials { username, password })
    }

    fn open(&self, registry: &Registry, sealed: &Sealed) -> Result<SecretString, Unread> {
        let opened = self.keyring.open(&Registry::seals_for(registry.prefix), sealed);
        opened.map_err(|error| Unread::Refused {
            code: ErrorCode::Internal,
            message: error.to_string(),
        })
    }
}

/// A secret without the line break at the end of its file. No user name and no password has one within.
async fn read_line(
    reader: &Reader<'_>,
    source: &SecretSource,
    host: &RegistryHost,
) -> Result<String, Unread> {
    let read = reader.read(source, &format!("for {host}")).await?;
    let text = read.value.expose_secret().trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Unread::Refused {
            code: ErrorCode::SecretRefused,
            message: format!(
                "the secret `{source}` is empty or has a line break within, so it is neither user nor password for {host}"
            ),
        });
    }
    Ok(text.to_owned())
}

fn is_same(one: &Credentials, other: &Credentials) -> bool {
    one.username == other.username && one.password.expose_secret() == other.password.expose_secret()
}

//! Bundles: the secrets of one run.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use gantry_domain::image::RegistryHost;
use gantry_domain::login::Username;
use gantry_domain::recipe::{ArgName, Recipe, ValueName, Work};
use gantry_domain::registry::Registry;
use gantry_domain::run::Run;
use gantry_domain::sealed::Sealed;
use gantry_domain::secret::SecretId;
use gantry_domain::timestamp::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::{Credentials, Keyring, PoolKey, PoolPublicKey, SecretError, Unopened};

/// The most bytes of one run's secrets, so that they can be masked in its log: enough for ten private keys. The
/// patterns of the mask take about a hundred times as much memory.
pub const MOST_SECRET_BYTES: usize = 32 << 10;

/// The shortest value of a query that is masked separately; shorter ones would match ordinary words.
const SHORTEST_QUERY_VALUE: usize = 16;

/// How long before its end a token for git is no longer used: a fetch logs in several times.
const LOGIN: Duration = Duration::from_secs(60);

/// The decrypted secrets of a run.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// The credentials for registries, by host. [`Bundle::gather`] has those that were given: a helper or a secret is asked
    /// when the run becomes ready.
    pub registries: BTreeMap<RegistryHost, Credentials>,
    /// User names that were read from secrets, which are masked as well.
    pub secret_usernames: Vec<SecretString>,
    /// When the run is to get new credentials for registries, if it has not been taken before.
    pub take_by: Option<Timestamp>,
    /// The token for the git repository.
    pub git_token: Option<SecretString>,
    /// When that token ends, if it does.
    pub git_token_until: Option<Timestamp>,
    /// The query of the archive's URL.
    pub source_query: Option<SecretString>,
    /// The secret build arguments.
    pub build_args: BTreeMap<ArgName, SecretString>,
    /// The secret values of a task file.
    pub values: BTreeMap<ValueName, SecretString>,
    /// The declared secrets of a task file. [`Bundle::gather`] leaves them out: they are read when the run becomes ready.
    pub secrets: BTreeMap<SecretId, ReadSecret>,
}

/// A declared secret with its value.
#[derive(Debug, Clone)]
pub struct ReadSecret {
    /// The value.
    pub value: SecretString,
    /// The version, if it is one of gantry's own.
    pub version: Option<NonZeroU32>,
}

/// The JSON form of a bundle, with borrowed text for sealing and owned text after opening.
#[derive(Serialize, Deserialize)]
struct Plain<Text> {
    registries: BTreeMap<RegistryHost, (Text, Text)>,
    secret_usernames: Vec<Text>,
    take_by: Option<Timestamp>,
    git_token: Option<Text>,
    #[serde(default)]
    git_token_until: Option<Timestamp>,
    source_query: Option<Text>,
    build_args: BTreeMap<ArgName, Text>,
    values: BTreeMap<ValueName, Text>,
    secrets: BTreeMap<SecretId, (Text, Option<NonZeroU32>)>,
}

impl Bundle {
    /// Collects the secrets that a run of this recipe needs in this registry.
    ///
    /// # Errors
    /// [`SecretError`] if one of them does not open.
    pub fn gather(
        keyring: &Keyring,
        registry: &Registry,
        recipe: &Recipe,
        git_token: Option<&Sealed>,
    ) -> Result<Self, SecretError> {
        let sealed_for = Registry::seals_for(registry.prefix);
        let open = |sealed: &Sealed| keyring.open(&sealed_for, sealed);
        let mut bundle = Self::of_source(keyring, registry, recipe, git_token)?;
        if let Some(given) = registry.given_credentials() {
            let (username, password) = (given.username.clone(), open(&given.password)?);
            bundle.registries.insert(registry.host.clone(), Credentials { username, password });
        }
        for (host, login) in &recipe.logins {
            if let (Username::Text(username), Some(password)) = (&login.username, login.sealed()) {
                let (username, password) = (username.clone(), open(password)?);
                bundle.registries.insert(host.clone(), Credentials { username, password });
            }
        }
        match &recipe.work {
            Work::Build(build) => {
                for (name, value) in &build.secret_build_args {
                    bundle.build_args.insert(name.clone(), open(value)?);
                }
            }
            Work::File(file) => {
                for (name, value) in &file.secret_values {
                    bundle.values.insert(name.clone(), open(value)?);
                }
            }
        }
        Ok(bundle)
    }

    /// Collects only the secrets that fetching the source needs.
    ///
    /// # Errors
    /// [`SecretError`] if one of them does not open.
    pub fn of_source(
        keyring: &Keyring,
        registry: &Registry,
        recipe: &Recipe,
        git_token: Option<&Sealed>,
    ) -> Result<Self, SecretError> {
        let sealed_for = Registry::seals_for(registry.prefix);
        let open = |sealed: &Sealed| keyring.open(&sealed_for, sealed);
        Ok(Self {
            git_token: git_token.map(open).transpose()?,
            source_query: recipe.source.query().map(open).transpose()?,
            ..Self::default()
        })
    }

    /// The texts that must not appear in the run's log.
    ///
    /// # Errors
    /// [`TooManySecrets`] if there are more than can be masked.
    pub fn masked(&self) -> Result<Vec<SecretString>, TooManySecrets> {
        let passwords = self.registries.values().map(|credentials| &credentials.password);
        let given = self.build_args.values().chain(self.values.values());
        let given = given
            .chain(&self.secret_usernames)
            .chain(self.secrets.values().map(|secret| &secret.value));
        let mut masked: Vec<SecretString> =
            passwords.chain(&self.git_token).chain(given).cloned().collect();
        // Hosts get the part after `user:` only, and may show it alone.
        let token = self.git_token.as_ref().and_then(|token| token.expose_secret().split_once(':'));
        masked.extend(token.map(|(_, token)| SecretString::from(token)));
        if let Some(query) = &self.source_query {
            // A server may show a part of a URL alone.
            let pairs = query.expose_secret().split('&');
            let values = pairs.filter_map(|pair| Some(pair.split_once('=')?.1));
            let values = values.filter(|value| value.len() >= SHORTEST_QUERY_VALUE);
            masked.extend(values.map(SecretString::from));
            masked.push(query.clone());
        }
        let bytes: usize = masked.iter().map(|secret| secret.expose_secret().len()).sum();
        if bytes <= MOST_SECRET_BYTES {
            return Ok(masked);
        }
        let args = self.build_args.iter().map(|(name, value)| (name.as_str(), value));
        let values = self.values.iter().map(|(name, value)| (name.as_str(), value));
        let secrets = self.secrets.iter().map(|(id, secret)| (id.as_str(), &secret.value));
        let sizes = args
            .chain(values)
            .chain(secrets)
            .map(|(name, value)| (name, value.expose_secret().len()));
        let largest = sizes.max_by_key(|(_, bytes)| *bytes);
        let largest = largest.map(|(name, bytes)| (name.to_owned(), bytes));
        Err(TooManySecrets { bytes, largest })
    }

    /// Whether it contains no secrets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { registries, git_token, source_query, build_args, values, secrets, .. } = self;
        registries.is_empty()
            && git_token.is_none()
            && source_query.is_none()
            && build_args.is_empty()
            && values.is_empty()
            && secrets.is_empty()
    }

    /// Whether a run that is taken at `now` needs new tokens: that for the git repository ends before a fetch has logged in,
    /// or those for registries may end before the run.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.git_token_until.is_some_and(|until| until <= now.after(LOGIN))
            || self.take_by.is_some_and(|by| by <= now)
    }

    /// Seals it so that only the pool's workers open it, and only for `run` in its current form.
    ///
    /// # Errors
    /// [`SecretError::NoEntropy`].
    pub fn seal(&self, pool: &PoolPublicKey, run: &Run) -> Result<Sealed, SecretError> {
        let plain = Plain {
            registries: self
                .registries
                .iter()
                .map(|(host, credentials)| {
                    let password = credentials.password.expose_secret();
                    (host.clone(), (credentials.username.as_str(), password))
                })
                .collect(),
            secret_usernames: self
                .secret_usernames
                .iter()
                .map(ExposeSecret::expose_secret)
                .collect(),
            take_by: self.take_by,
            git_token: self.git_token.as_ref().map(ExposeSecret::expose_secret),
            git_token_until: self.git_token_until,
            source_query: self.source_query.as_ref().map(ExposeSecret::expose_secret),
            build_args: self
                .build_args
                .iter()
                .map(|(name, value)| (name.clone(), value.expose_secret()))
                .collect(),
            values: self
                .values
                .iter()
                .map(|(name, value)| (name.clone(), value.expose_secret()))
                .collect(),
            secrets: self
                .secrets
                .iter()
                .map(|(id, secret)| (id.clone(), (secret.value.expose_secret(), secret.version)))
                .collect(),
        };
        let Ok(text) = serde_json::to_vec(&plain).map(Zeroizing::new) else {
            unreachable!("names and texts always make JSON")
        };
        pool.seal(run, &text)
    }

    /// Opens the bundle of a run.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open(key: &PoolKey, run: &Run, sealed: &Sealed) -> Result<Self, Unopened> {
        let text = key.open(run, sealed)?;
        let plain: Plain<String> = serde_json::from_slice(&text)
            .map_err(|_| Unopened::NotThese { pool: key.pool().clone(), run: run.id })?;
        Ok(Self {
            registries: plain
                .registries
                .into_iter()
                .map(|(host, (username, password))| {
                    (host, Credentials { username, password: SecretString::from(password) })
                })
                .collect(),
            secret_usernames: plain.secret_usernames.into_iter().map(SecretString::from).collect(),
            take_by: plain.take_by,
            git_token: plain.git_token.map(SecretString::from),
            git_token_until: plain.git_token_until,
            source_query: plain.source_query.map(SecretString::from),
            build_args: plain
                .build_args
                .into_iter()
                .map(|(name, value)| (name, SecretString::from(value)))
                .collect(),
            values: plain
                .values
                .into_iter()
                .map(|(name, value)| (name, SecretString::from(value)))
                .collect(),
            secrets: plain
                .secrets
                .into_iter()
                .map(|(id, (value, version))| {
                    (id, ReadSecret { value: SecretString::from(value), version })
                })
                .collect(),
        })
    }

    /// Reseals a stored bundle with the first service key; `None` if it is already sealed with it.
    ///
    /// # Errors
    /// [`ResealError`].
    pub fn reseal(
        key: &PoolKey,
        run: &Run,
        sealed: &Sealed,
    ) -> Result<Option<Sealed>, ResealError> {
        if key.sealed_by_the_first(sealed) {
            return Ok(None);
        }
        Ok(Some(Self::open(key, run, sealed)?.seal(&key.public(), run)?))
    }
}

/// There are more secrets than can be masked in a log.
#[derive(Debug, thiserror::Error)]
#[error(
    "the secrets of a run take {bytes} bytes together, and more than {MOST_SECRET_BYTES} cannot be masked in its log{}: make \
     them smaller, or give files to the build another way",
    .largest.as_ref().map(|(name, bytes)| format!(" (the largest is `{name}`, {bytes} bytes)")).unwrap_or_default()
)]
pub struct TooManySecrets {
    bytes: usize,
    largest: Option<(String, usize)>,
}

/// A bundle could not be resealed.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    /// It does not open.
    #[error(transparent)]
    Unopened(#[from] Unopened),
    /// It cannot be sealed.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

#[cfg(test)]
mod tests;

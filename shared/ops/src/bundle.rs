//! The secrets of one ready run, and nothing but what that run needs.

use std::collections::BTreeMap;

use gantry_domain::image::RegistryHost;
use gantry_domain::run::Run;
use gantry_domain::sealed::Sealed;
use gantry_domain::task::ArgName;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::{Credentials, PoolKey, PoolPublicKey, SecretError, Unopened};

/// A run's secrets, opened.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// Credentials by registry.
    pub registries: BTreeMap<RegistryHost, Credentials>,
    /// The token that reads the git repository.
    pub git_token: Option<SecretString>,
    /// The query of the address of the archive that it builds from.
    pub source_query: Option<SecretString>,
    /// Secret build arguments.
    pub build_args: BTreeMap<ArgName, SecretString>,
}

/// The same as JSON, on its way into the seal with borrowed text, and out of it with its own.
#[derive(Serialize, Deserialize)]
struct Plain<Text> {
    registries: BTreeMap<RegistryHost, (Text, Text)>,
    git_token: Option<Text>,
    source_query: Option<Text>,
    build_args: BTreeMap<ArgName, Text>,
}

impl Bundle {
    /// Whether there is nothing secret in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { registries, git_token, source_query, build_args } = self;
        registries.is_empty()
            && git_token.is_none()
            && source_query.is_none()
            && build_args.is_empty()
    }

    /// Seals it so that only a pool's workers open it, and only for `run` as it is.
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
            git_token: self.git_token.as_ref().map(ExposeSecret::expose_secret),
            source_query: self.source_query.as_ref().map(ExposeSecret::expose_secret),
            build_args: self
                .build_args
                .iter()
                .map(|(name, value)| (name.clone(), value.expose_secret()))
                .collect(),
        };
        let Ok(text) = serde_json::to_vec(&plain).map(Zeroizing::new) else {
            unreachable!("names and texts always make JSON")
        };
        pool.seal(run, &text)
    }

    /// Opens the bundle of one run.
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
            git_token: plain.git_token.map(SecretString::from),
            source_query: plain.source_query.map(SecretString::from),
            build_args: plain
                .build_args
                .into_iter()
                .map(|(name, value)| (name, SecretString::from(value)))
                .collect(),
        })
    }

    /// Seals a run's stored bundle anew by the first key of the service; `None` when that sealed it already.
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

/// A bundle was not sealed anew.
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

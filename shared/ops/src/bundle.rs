//! The secrets of one ready run, and nothing but what that run needs.

use std::collections::BTreeMap;

use gantry_domain::id::RunId;
use gantry_domain::image::RegistryHost;
use gantry_domain::sealed::Sealed;
use gantry_domain::task::ArgName;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::secret::{Credentials, Keyring, SecretError};

/// A run's secrets, opened.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// Credentials by registry.
    pub registries: BTreeMap<RegistryHost, Credentials>,
    /// The token that reads the git repository.
    pub git_token: Option<SecretString>,
    /// Secret build arguments.
    pub build_args: BTreeMap<ArgName, SecretString>,
}

/// The same as JSON, on its way into and out of the seal.
#[derive(Serialize, Deserialize)]
struct Plain {
    registries: BTreeMap<RegistryHost, (String, String)>,
    git_token: Option<String>,
    build_args: BTreeMap<ArgName, String>,
}

impl Bundle {
    /// Whether there is nothing secret in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registries.is_empty() && self.git_token.is_none() && self.build_args.is_empty()
    }

    /// Seals it for one run.
    ///
    /// # Errors
    /// [`SecretError::NoEntropy`].
    pub fn seal(&self, keyring: &Keyring, run: RunId) -> Result<Sealed, SecretError> {
        let plain = Plain {
            registries: self
                .registries
                .iter()
                .map(|(host, credentials)| {
                    let password = credentials.password.expose_secret().to_owned();
                    (host.clone(), (credentials.username.clone(), password))
                })
                .collect(),
            git_token: self.git_token.as_ref().map(|token| token.expose_secret().to_owned()),
            build_args: self
                .build_args
                .iter()
                .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
                .collect(),
        };
        // Names and texts always make JSON; were it ever otherwise, an unsealed bundle is no way out.
        let text = serde_json::to_string(&plain)
            .map_err(|_| SecretError::WrongKey { bound_to: sealed_for(run) })?;
        keyring.seal(&sealed_for(run), &SecretString::from(text))
    }

    /// Opens the bundle of one run.
    ///
    /// # Errors
    /// [`SecretError::WrongKey`].
    pub fn open(keyring: &Keyring, run: RunId, sealed: &Sealed) -> Result<Self, SecretError> {
        let text = keyring.open(&sealed_for(run), sealed)?;
        let plain: Plain = serde_json::from_str(text.expose_secret())
            .map_err(|_| SecretError::WrongKey { bound_to: sealed_for(run) })?;
        Ok(Self {
            registries: plain
                .registries
                .into_iter()
                .map(|(host, (username, password))| {
                    (host, Credentials { username, password: SecretString::from(password) })
                })
                .collect(),
            git_token: plain.git_token.map(SecretString::from),
            build_args: plain
                .build_args
                .into_iter()
                .map(|(name, value)| (name, SecretString::from(value)))
                .collect(),
        })
    }
}

fn sealed_for(run: RunId) -> String {
    format!("run/{run}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_opens_only_for_its_run() {
        let path = std::env::temp_dir()
            .join(format!("gantry-bundle-{}", crate::secret::random_hex::<8>().unwrap().as_str()));
        let keyring = Keyring::open_or_create(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let bundle = Bundle {
            git_token: Some(SecretString::from("t0k")),
            build_args: [("NPM".parse().unwrap(), SecretString::from("n"))].into(),
            ..Bundle::default()
        };
        let (one, other) = ("ca1".parse().unwrap(), "ca2".parse().unwrap());
        let sealed = bundle.seal(&keyring, one).unwrap();
        let opened = Bundle::open(&keyring, one, &sealed).unwrap();
        assert_eq!(opened.git_token.unwrap().expose_secret(), "t0k");
        assert_eq!(opened.build_args.len(), 1);
        assert!(Bundle::open(&keyring, other, &sealed).is_err());
    }
}

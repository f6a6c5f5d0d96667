//! The credential helpers that a scheduler runs.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use gantry_ops::settings::Settings;
use gantry_remote::credential_helper::{CredentialHelpers, HelperSettings};

use crate::environment::Environment;

/// The helpers of the settings, with the variables of this process that they name.
pub(super) fn helpers(settings: &Settings, environment: &Environment) -> Result<CredentialHelpers> {
    let mut variables = BTreeMap::new();
    let home = "HOME".to_owned();
    for entry in std::iter::once(&home).chain(&settings.credential.environment) {
        match entry.split_once('=') {
            Some((name, value)) if is_name(name) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            None if is_name(entry) => {
                variables.extend(environment.get(entry).map(|it| (entry.clone(), it.to_owned())));
            }
            // Its value may be a secret.
            Some((name, _)) => bail!("`credential.environment`: `{name}` is no name of a variable"),
            None => bail!("`credential.environment`: `{entry}` is no name of a variable"),
        }
    }
    Ok(CredentialHelpers::new(HelperSettings {
        entries: settings.credential.helpers.clone(),
        environment: variables,
        lifetime: settings.credential.lifetime,
    }))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

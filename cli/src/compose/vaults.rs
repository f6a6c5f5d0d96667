//! The vaults that a scheduler reads secrets from.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use gantry_ops::secret::SecretString;
use gantry_ops::settings::{HashicorpVault, KeyVault, Settings};
use gantry_remote::http::OutboundClient;
use gantry_remote::vault::{HashicorpLogin, KeyVaultLogin, RemoteVaults, VaultConfig, VaultKind};
use gantry_scheduler::VaultReads;

/// Longer files hold no token.
const LONGEST: u64 = 64 << 10;

/// The vaults of the settings. The files with their logins are read now.
pub(super) fn vaults(settings: &Settings, http: &OutboundClient) -> Result<VaultReads> {
    let grants = settings.vaults.grants.clone();
    let mut configs = Vec::new();
    if let Some(login) = key_vault_login(&settings.key_vault)? {
        let paths = grants.iter().map(|grant| &grant.below).filter(|path| path.is_in_key_vault());
        let origins: BTreeSet<String> = paths.map(|path| path.origin().to_string()).collect();
        for origin in origins {
            configs.push(VaultConfig {
                origin: origin.parse()?,
                kind: VaultKind::KeyVault(login.clone()),
            });
        }
    }
    configs.extend(hashicorp_vault(&settings.hashicorp_vault)?);
    Ok(VaultReads::new(Arc::new(RemoteVaults::new(http, configs, grants)?)))
}

fn key_vault_login(settings: &KeyVault) -> Result<Option<KeyVaultLogin>> {
    let Some(file) = &settings.client_secret_file else { return Ok(None) };
    Ok(Some(KeyVaultLogin {
        authority: settings.authority.clone(),
        tenant: settings.tenant.clone(),
        client_id: settings.client_id.clone(),
        client_secret: read("key_vault.client_secret_file", file)?,
        scope: settings.scope.clone(),
    }))
}

fn hashicorp_vault(settings: &HashicorpVault) -> Result<Option<VaultConfig>> {
    let Some(origin) = settings.address.clone() else { return Ok(None) };
    let login = match (&settings.token_file, &settings.role_id, &settings.secret_id_file) {
        (Some(file), ..) => HashicorpLogin::Token(read("hashicorp_vault.token_file", file)?),
        (None, Some(role_id), Some(file)) => HashicorpLogin::AppRole {
            role_id: role_id.clone(),
            secret_id: read("hashicorp_vault.secret_id_file", file)?,
        },
        (None, ..) => bail!("`hashicorp_vault` has no login"),
    };
    let namespace = settings.namespace.clone();
    Ok(Some(VaultConfig { origin, kind: VaultKind::Hashicorp { login, namespace } }))
}

/// A secret in a file, without the line break at its end.
fn read(setting: &str, file: &Path) -> Result<SecretString> {
    let cannot_read = || format!("cannot read {}, which `{setting}` names", file.display());
    let bytes = std::fs::metadata(file).with_context(cannot_read)?.len();
    if bytes > LONGEST {
        bail!("{}, which `{setting}` names, is longer than {LONGEST} bytes", file.display());
    }
    let text = std::fs::read_to_string(file).with_context(cannot_read)?;
    let text = text.trim();
    if text.is_empty() {
        bail!("{}, which `{setting}` names, is empty", file.display());
    }
    Ok(SecretString::from(text))
}

//! The operator's GitHub App.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use gantry_ops::settings::Settings;
use gantry_remote::code_host::{AppConfig, AppKey};

/// Longer files hold no key.
const LONGEST: u64 = 64 << 10;

/// The App of the settings. Its key is read now.
pub(super) fn github_app(settings: &Settings) -> Result<Option<AppConfig>> {
    let app = &settings.github_app;
    let Some((id, file)) = app.id.clone().zip(app.private_key_file.as_deref()) else {
        return Ok(None);
    };
    let key = read_key(file)?;
    Ok(Some(AppConfig { host: app.host.clone(), id, key, grants: app.grants.clone() }))
}

/// Refuses a file that is there and has no key, as a mistake in the settings. Only an ingress or a scheduler needs the file.
pub(super) fn check_key(settings: &Settings) -> Result<(), String> {
    match &settings.github_app.private_key_file {
        Some(file) if file.exists() => {
            read_key(file).map(drop).map_err(|error| error.root_cause().to_string())
        }
        Some(_) | None => Ok(()),
    }
}

fn read_key(file: &Path) -> Result<AppKey> {
    let shown = file.display();
    let cannot_read = || format!("cannot read {shown}, which `github_app.private_key_file` names");
    let bytes = std::fs::metadata(file).with_context(cannot_read)?.len();
    if bytes > LONGEST {
        bail!("{shown}, which `github_app.private_key_file` names, is longer than {LONGEST} bytes");
    }
    let pem = std::fs::read(file).with_context(cannot_read)?;
    AppKey::parse(&pem).with_context(|| {
        format!("{shown}, which `github_app.private_key_file` names, is no key of a GitHub App")
    })
}

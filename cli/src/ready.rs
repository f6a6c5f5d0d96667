//! `gantry ready`: checks whether the process with these settings on this machine is ready. For health checks of
//! container engines, whose images then need no other program.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::args::SettingsOptions;
use crate::client::output::write_out;
use crate::environment::Environment;
use crate::exit::{Exit, UsageError};
use crate::{loopback, serve};

/// More than the process itself needs for its checks.
const PATIENCE: Duration = Duration::from_secs(4);

/// Prints what is ready and what is missing.
pub(crate) async fn ready(options: SettingsOptions, environment: &Environment) -> Result<Exit> {
    let settings = serve::read_settings(&options, &[], environment)?;
    let Some(listen) = settings.telemetry.listen else {
        let advice =
            "`telemetry.listen` is empty, so nobody can be asked: set it, like 127.0.0.1:7310";
        return Err(UsageError(advice.to_owned()).into());
    };
    let url = format!("http://{}/readyz", loopback::from_here(listen));
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
    let answer = client.get(&url).send().await;
    let answer = answer.with_context(|| format!("nobody answers at {url}"))?;
    let exit = if answer.status().is_success() { Exit::Ok } else { Exit::Failed };
    write_out(&format!("{}\n", answer.text().await?.trim_end()))?;
    Ok(exit)
}

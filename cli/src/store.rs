//! `gantry store`: commands on the store itself, with or without a running service.

use std::path::Path;

use anyhow::{Result, bail};
use gantry_ops::secret::ExposeSecret as _;
use gantry_seams::archive::{self, Moved};
use gantry_seams::workers;

use crate::args::{SettingsOptions, StoreCommand};
use crate::backup;
use crate::client::output::{say, write_out};
use crate::compose::{self, Belongings};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::serve;

pub(crate) async fn run(command: StoreCommand, environment: &Environment) -> Result<Exit> {
    match command {
        StoreCommand::AdminToken(options) => {
            let settings = serve::read_settings(&options, &[], environment)?;
            let opened = compose::OpenStore::open(&settings).await?;
            let token = compose::new_admin_token(&opened.store).await?;
            write_out(&format!("{}\n", token.expose_secret()))?;
        }
        StoreCommand::Backup { to, settings } => backup::run(&to, &settings, environment).await?,
        StoreCommand::Export { to, settings } => export(&to, &settings, environment).await?,
        StoreCommand::Import { from, settings } => import(&from, &settings, environment).await?,
    }
    Ok(Exit::Ok)
}

async fn export(to: &Path, options: &SettingsOptions, environment: &Environment) -> Result<()> {
    let settings = serve::read_settings(options, &[], environment)?;
    let from = Belongings::open(&settings, environment).await?;
    // A folder is locked by its only user. A server does not know who writes to it.
    if settings.store.url.is_some() {
        let workforce = workers::workforce(from.store.as_ref()).await?;
        if let Some(worker) =
            workforce.workers.iter().find(|worker| !worker.is_silent(workforce.now))
        {
            bail!(
                "worker {} was here a moment ago: stop every process of the installation first",
                worker.id
            );
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let moved = archive::export(from.store.as_ref(), &from.blobs, to, version).await?;
    let key_file = compose::key_file(&settings);
    say(format_args!(
        "{} are in {}. Secrets in it are sealed: take {} along too",
        words(moved),
        to.display(),
        key_file.display()
    ));
    Ok(())
}

async fn import(from: &Path, options: &SettingsOptions, environment: &Environment) -> Result<()> {
    let settings = serve::read_settings(options, &[], environment)?;
    let into = Belongings::open_or_begin(&settings, environment).await?;
    let moved = archive::import(into.store.as_ref(), &into.blobs, from).await?;
    let key_file = compose::key_file(&settings);
    say(format_args!(
        "{} were read. Secrets open with the key file of the former installation: put it at {}",
        words(moved),
        key_file.display()
    ));
    Ok(())
}

fn words(moved: Moved) -> String {
    let Moved { records, entries, objects } = moved;
    format!("{records} records, {entries} entries of indexes and {objects} objects")
}

//! `gantry store backup`: copies the data folder while the service runs.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use gantry_ops::settings::Settings;
use gantry_sqlite::DataDir;

use crate::args::SettingsOptions;
use crate::client::output::say;
use crate::compose::{self, OBJECTS, SQLITE_FILE};
use crate::environment::Environment;
use crate::serve;

/// The store of an incomplete backup.
const UNFINISHED: &str = "gantry.db.unfinished";

pub(crate) async fn run(
    to: &Path,
    options: &SettingsOptions,
    environment: &Environment,
) -> Result<()> {
    let settings = serve::read_settings(options, &[], environment)?;
    if settings.store.url.is_some() {
        bail!(
            "the store is a server's, which has a way of its own: see \"Backup and restore\" in docs/operations.md"
        );
    }
    compose::check_is_there(&settings)?;
    check_place(&settings.data, to)?;
    let (data, folder) = (settings.data.clone(), to.to_owned());
    let has_objects = settings.objects.url.is_none();
    let copying = tokio::task::spawn_blocking(move || copy(&data, &folder, has_objects));
    let objects = copying.await.context("the copy was given up")??;
    tell(&settings, to, objects);
    Ok(())
}

/// Refuses a folder with other content.
fn check_place(data: &Path, to: &Path) -> Result<()> {
    let (data, whole) = (std::path::absolute(data)?, std::path::absolute(to)?);
    if whole.starts_with(&data) || data.starts_with(&whole) {
        bail!("{} is not apart from the data folder: name another one", to.display());
    }
    let is_empty = std::fs::read_dir(to).map_or(true, |mut entries| entries.next().is_none());
    if is_empty || to.join(SQLITE_FILE).exists() || to.join(UNFINISHED).exists() {
        return Ok(());
    }
    bail!("{} has something else in it: name a new folder, or a former backup", to.display())
}

/// Copies objects both before and after the store. So every object that the store refers to is in the copy: one that is
/// deleted meanwhile was copied before. An earlier backup stays valid until the last step. Returns the number of
/// objects.
fn copy(data: &Path, to: &Path, has_objects: bool) -> Result<usize> {
    let held = DataDir::lock(to)?;
    let to = held.path();
    let (from, copies) = (data.join(OBJECTS), to.join(OBJECTS));
    let mut objects = gantry_objects::copy_folder(&from, &copies)?;
    let unfinished = to.join(UNFINISHED);
    gantry_sqlite::copy(&data.join(SQLITE_FILE), &unfinished)?;
    objects.extend(gantry_objects::copy_folder(&from, &copies)?);
    // These belong to an earlier backup, if somebody opened it.
    for beside in ["-wal", "-shm"] {
        let _absent = std::fs::remove_file(to.join(format!("{SQLITE_FILE}{beside}")));
    }
    std::fs::rename(&unfinished, to.join(SQLITE_FILE))?;
    std::fs::File::open(to)?.sync_all()?;
    if has_objects {
        gantry_objects::keep_only(&copies, &objects)?;
    }
    Ok(objects.len())
}

fn tell(settings: &Settings, to: &Path, objects: usize) {
    let key_file = compose::key_file(settings);
    let (to, key_file) = (to.display(), key_file.display());
    say(format_args!(
        "the store and {objects} objects are in {to}. Secrets in it are sealed: keep {key_file} too, in another place"
    ));
    if let Some(url) = &settings.objects.url {
        say(format_args!("objects are at {url}: they are not in the backup; copy them after it"));
    }
}

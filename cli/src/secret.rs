//! `gantry secret`: manages the keys that seal secrets.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use gantry_domain::id::PoolName;
use gantry_domain::run::Run;
use gantry_domain::sealed::Sealed;
use gantry_domain::signature::Signer;
use gantry_ops::bundle::Bundle;
use gantry_ops::secret::Keyring;
use gantry_seams::installation;
use gantry_seams::reseal::{self, Pass, Reseal};

use crate::args::SettingsOptions;
use crate::client::output::{say, write_out};
use crate::client::secret::Secrets;
use crate::compose;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::serve;

/// After this many passes, another process must be continuously sealing with another key.
const MOST_PASSES: usize = 16;

/// Keep secrets for tasks, and manage the keys that seal them
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    #[command(flatten)]
    Kept(Secrets),
    #[command(flatten)]
    Keys(KeyCommand),
}

/// Create and change the keys that seal secrets
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Create a key for sealing stored secrets
    #[command(after_long_help = "\
Every ingress and scheduler has the same file, named by `secrets.key_file`. Keep a copy where the store's backup is not: \
without it nobody opens the secrets in there. `gantry up` makes its own in the data folder.

Example:
  gantry secret key --to /etc/gantry/secret.key")]
    Key {
        /// The file to write; an existing file is never overwritten
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Derive the key that a pool's workers open the secrets of their runs with
    #[command(after_long_help = "\
It is derived from the service's key, so this works where that is, and makes the same key each time. It opens the \
secrets of this pool's runs and nothing else. A worker finds it by `secrets.pool_key_file`.

Example:
  gantry secret pool-key linux-amd64 --config gantry.toml --to linux-amd64.key")]
    PoolKey {
        /// The pool, like linux-amd64
        #[arg(value_name = "POOL")]
        pool: PoolName,
        /// The file to write, instead of printing the key; may replace a key of the same pool
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        #[command(flatten)]
        settings: SettingsOptions,
    },
    /// Reseal all stored secrets with the first key of the key file
    #[command(after_long_help = "\
To change the service's key without a gap:
  1. `gantry secret key --to new.key`; add its line below the old one in the key file of every ingress and scheduler, and \
start them again
  2. `gantry secret pool-key POOL` for each pool; start its workers with it
  3. move the new line to the top of every key file, and start all ingresses and schedulers again
  4. `gantry secret rekey`
  5. remove the old line, and make the keys of the pools once more
With `gantry up`: stop it, put the new line on top, rekey, remove the old line, start it.

It may be interrupted and repeated. What is running goes on meanwhile; only `gantry up` must be stopped.

Example:
  gantry secret rekey --config gantry.toml")]
    Rekey(SettingsOptions),
}

pub(crate) async fn run(command: KeyCommand, environment: &Environment) -> Result<Exit> {
    match command {
        KeyCommand::Key { to } => {
            let [fingerprint, ..] = &Keyring::create(&to)?.fingerprints()[..] else {
                bail!("{} holds no key", to.display())
            };
            say(format_args!(
                "{} holds key {fingerprint}: keep a copy in a safe place",
                to.display()
            ));
        }
        KeyCommand::PoolKey { pool, to, settings } => {
            let settings = serve::read_settings(&settings, &[], environment)?;
            let key = Keyring::read(&compose::key_file(&settings))?.pool_key(&pool);
            match to {
                Some(path) => {
                    key.write(&path)?;
                    say(format_args!("{} opens the secrets of pool {pool}", path.display()));
                }
                None => write_out(&key.to_text())?,
            }
        }
        KeyCommand::Rekey(settings) => rekey(&settings, environment).await?,
    }
    Ok(Exit::Ok)
}

async fn rekey(options: &SettingsOptions, environment: &Environment) -> Result<()> {
    let settings = serve::read_settings(options, &[], environment)?;
    let file = compose::key_file(&settings);
    let ring = Keyring::read(&file)?;
    let fingerprints = ring.fingerprints();
    let [first, others @ ..] = &fingerprints[..] else { bail!("{} holds no key", file.display()) };
    let opened = compose::OpenStore::open(&settings).await?;
    let store = opened.store.as_ref();
    let Some(found) = installation::find(store).await? else {
        bail!("there is no installation in the store yet: nothing is sealed");
    };
    // A running process that does not know the first key could no longer open secrets. With a data folder, its lock
    // shows that there is none.
    if settings.store.url.is_some() && found.keys.first() != Some(first) {
        bail!(
            "no ingress and no scheduler was started yet that seals with key {first}, the first in {}: \
             `gantry secret rekey --help` has the steps",
            file.display()
        );
    }
    installation::open(store, &found.id, &fingerprints)
        .await
        .with_context(|| compose::refused(&file))?;

    let all = everything(store, &Anew(ring)).await?;
    installation::keep_only_key(store, first).await?;
    write_out(&told(&all))?;
    if others.is_empty() {
        say(format_args!("everything is sealed with key {first}"));
    } else {
        say(format_args!(
            "everything is sealed with key {first}: the other lines may leave {}",
            file.display()
        ));
    }
    Ok(())
}

/// Repeats passes over the store until one changes nothing. Returns the counts of the first pass.
async fn everything(store: &dyn gantry_seams::store::Store, reseal: &dyn Reseal) -> Result<Pass> {
    let first = reseal::pass(store, reseal).await?;
    let mut last = first.clone();
    for _ in 0..MOST_PASSES {
        if !last.unopened.is_empty() {
            let which: String =
                last.unopened.iter().map(|(key, why)| format!("\n  {key}: {why}")).collect();
            bail!(
                "not everything opens with the keys given; the rest is sealed anew, and every key stays in use. Enter \
                 these anew or delete them, and repeat this:{which}"
            );
        }
        if last.changed() == 0 {
            return Ok(first);
        }
        last = reseal::pass(store, reseal).await?;
    }
    bail!(
        "somebody goes on sealing with another key: start every ingress and scheduler with this key file, and repeat this"
    )
}

fn told(pass: &Pass) -> String {
    let mut text = String::new();
    for (name, records, anew) in &pass.kinds {
        let _infallible = writeln!(text, "{name}: {anew} of {records} sealed anew");
    }
    text
}

/// Reseals and signs with the first key of a ring whatever any of its keys opens.
struct Anew(Keyring);

impl Reseal for Anew {
    fn secret(&self, bound_to: &str, sealed: &Sealed) -> Result<Option<Sealed>, String> {
        self.0.reseal(bound_to, sealed).map_err(|error| error.to_string())
    }

    fn bundle(&self, run: &Run, sealed: &Sealed) -> Option<Sealed> {
        Bundle::reseal(&self.0.pool_key(&run.pool()), run, sealed).ok().flatten()
    }

    fn signer(&self) -> &dyn Signer {
        &self.0
    }
}

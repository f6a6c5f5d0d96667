//! `gantry apply`: makes registries, tasks and hooks as files declare them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use gantry_api::HookCreated;
use serde::Serialize;
use serde_json::Value;

use super::Client;
use super::arguments::read_secret_file;
use super::declared::document::shown;
use super::declared::files::{self, Declared};
use super::declared::plan::{Change, FieldChange, Plan, Wanted, plan};
use super::declared::{Kind, Object, SecretPlace, current};
use super::output::say;
use crate::environment::Environment;
use crate::exit::{Exit, UsageError};

/// Make registries, tasks and hooks as files declare them
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The files are YAML documents with the fields of the API, and `kind: registry`, `task` or `hook`. `gantry export` writes them. \
What is as declared stays untouched, so it may run after every push. Secrets are not in the files: `{env: NAME}` or \
`{file: PATH}` says where one is read. A secret that is set is sent again only with --set-secrets, or when the context of \
its task changes.

Examples:
  gantry apply -f tasks/ --dry-run
  gantry apply -f tasks/ --prune
  GHCR_PASSWORD=… gantry apply -f registry.yaml --set-secrets
  gantry export | gantry apply -f - --dry-run")]
pub(crate) struct Apply {
    /// A file, a folder with .yaml files, or `-` for standard input. May be given several times
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// Delete tasks and hooks of the declared registries that are not declared
    #[arg(long)]
    prune: bool,
    /// Send all secrets again
    #[arg(long)]
    set_secrets: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// A change for programs.
#[derive(Serialize)]
struct Shown<'a> {
    action: &'static str,
    kind: Kind,
    registry: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    fields: &'a [FieldChange],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets_set: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets_removed: Vec<String>,
}

impl Apply {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let declared = files::read(&self.files)?;
        let registries: BTreeSet<String> =
            declared.iter().map(|it| it.object.registry.clone()).collect();
        let current = current::read(client, |name| registries.contains(name)).await?;
        let wanted = Wanted { prune: self.prune, set_secrets: self.set_secrets };
        let plan =
            plan(declared, current, wanted).map_err(|mistakes| UsageError(mistakes.join("\n")))?;
        // All of them before the first request, so that a missing one leaves nothing half done.
        let secrets = read_secrets(&plan, &client.environment)?;
        let shown: Vec<_> = plan.changes.iter().map(for_programs).collect();
        client.output.print(&shown, for_people(&plan, self.dry_run))?;
        if self.dry_run {
            return Ok(Exit::Ok);
        }
        let mut failed = 0;
        for (change, secrets) in plan.changes.iter().zip(&secrets) {
            if let Err(error) = perform(client, change, secrets).await {
                say(format!("{}: {error:#}", object(change).title()));
                failed += 1;
            }
        }
        match failed {
            0 => Ok(Exit::Ok),
            _ => {
                say(format!(
                    "{failed} of {} changes failed: correct what the lines above say, and run this again",
                    plan.changes.len()
                ));
                Ok(Exit::Failed)
            }
        }
    }
}

fn object(change: &Change) -> &Object {
    match change {
        Change::Create(declared) => &declared.object,
        Change::Update(update) => &update.declared.object,
        Change::Delete(object) => object,
    }
}

fn for_programs(change: &Change) -> Shown<'_> {
    let Object { kind, registry, name, secrets, .. } = object(change);
    let shown_all = |pointers: &BTreeSet<String>| pointers.iter().map(|it| shown(it)).collect();
    let (action, fields, set, removed) = match change {
        Change::Create(_) => {
            ("create", &[][..], secrets.keys().map(|it| shown(it)).collect(), Vec::new())
        }
        Change::Update(update) => {
            ("update", update.fields.as_slice(), shown_all(&update.send), shown_all(&update.remove))
        }
        Change::Delete(_) => ("delete", &[][..], Vec::new(), Vec::new()),
    };
    Shown {
        action,
        kind: *kind,
        registry,
        name,
        fields,
        secrets_set: set,
        secrets_removed: removed,
    }
}

fn for_people(plan: &Plan, is_dry: bool) -> String {
    let count = |is_one: fn(&Change) -> bool| plan.changes.iter().filter(|it| is_one(it)).count();
    let created = count(|it| matches!(it, Change::Create(_)));
    let updated = count(|it| matches!(it, Change::Update(_)));
    let deleted = count(|it| matches!(it, Change::Delete(_)));
    let lines: String = plan.changes.iter().map(ToString::to_string).collect();
    let dry = if is_dry { " (nothing was done)" } else { "" };
    format!(
        "{lines}{created} to create, {updated} to change, {deleted} to delete, {} as declared{dry}\n",
        plan.unchanged
    )
}

/// The secrets of each change that are sent.
fn read_secrets(plan: &Plan, environment: &Environment) -> Result<Vec<BTreeMap<String, String>>> {
    let (mut all, mut mistakes) = (Vec::new(), Vec::new());
    for change in &plan.changes {
        let (declared, sent): (&Declared, BTreeSet<String>) = match change {
            Change::Create(declared) => {
                (declared, declared.object.secrets.keys().cloned().collect())
            }
            Change::Update(update) => (&update.declared, update.send.clone()),
            Change::Delete(_) => {
                all.push(BTreeMap::new());
                continue;
            }
        };
        let mut secrets = BTreeMap::new();
        for pointer in sent {
            let place = declared.object.secrets.get(&pointer).and_then(Option::as_ref);
            let Some(place) = place else { continue };
            match read_secret(place, &declared.folder, environment) {
                Ok(secret) => {
                    secrets.insert(pointer, secret);
                }
                Err(error) => {
                    mistakes.push(format!("{}: {}: {error:#}", declared.place, shown(&pointer)));
                }
            }
        }
        all.push(secrets);
    }
    match mistakes.is_empty() {
        true => Ok(all),
        false => Err(UsageError(mistakes.join("\n")).into()),
    }
}

fn read_secret(place: &SecretPlace, folder: &Path, environment: &Environment) -> Result<String> {
    match place {
        SecretPlace::Env(name) => match environment.get(name) {
            Some(secret) => Ok(secret.to_owned()),
            None => anyhow::bail!("{name} is not set in the environment: set it to the secret"),
        },
        SecretPlace::File(path) => read_secret_file(&folder.join(path)),
    }
}

async fn perform(
    client: &Client,
    change: &Change,
    secrets: &BTreeMap<String, String>,
) -> Result<()> {
    let Object { kind, registry, name, .. } = object(change);
    let one = match kind {
        Kind::Registry => vec!["registries", name],
        Kind::Task => vec!["registries", registry, "tasks", name],
        Kind::Hook => vec!["hooks"],
    };
    let with_id = |id: &Option<String>| {
        let mut path: Vec<String> = one.iter().map(|&word| word.to_owned()).collect();
        path.extend(id.clone());
        path
    };
    match change {
        Change::Create(declared) => create(client, &declared.object, secrets).await,
        Change::Update(update) => {
            let path = with_id(&update.id);
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let _updated: Value = client.api.patch(&path, &update.body(secrets)).await?;
            Ok(())
        }
        Change::Delete(object) => {
            let path = with_id(&object.id);
            client.api.delete(&path.iter().map(String::as_str).collect::<Vec<_>>()).await
        }
    }
}

async fn create(
    client: &Client,
    object: &Object,
    secrets: &BTreeMap<String, String>,
) -> Result<()> {
    let body = object.create_body(secrets);
    let registry = &object.registry;
    match object.kind {
        Kind::Registry => {
            let _created: Value = client.api.post(&["registries"], &body).await?;
        }
        Kind::Task => {
            let _created: Value =
                client.api.post(&["registries", registry, "tasks"], &body).await?;
        }
        Kind::Hook => {
            let created: HookCreated =
                client.api.post(&["registries", registry, "hooks"], &body).await?;
            say(format!("{}: enter this address at the sender: {}", object.title(), created.url));
            if let Some(secret) = created.secret.filter(|_| secrets.is_empty()) {
                say(format!("  with this secret, which is shown once: {secret}"));
            }
        }
    }
    Ok(())
}

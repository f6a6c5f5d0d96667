//! `gantry export`: writes registries, tasks and hooks as files for `gantry apply`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Client;
use super::declared::document::Document;
use super::declared::{Object, current};
use super::output::{say, write_out};
use crate::exit::{Exit, UsageError};

/// Print registries, tasks and hooks as files for `gantry apply`
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
No secret is printed: where one is set, the name of a variable is suggested. Hooks that gantry has made by itself are left \
out.

Examples:
  gantry export > gantry.yaml
  gantry export -r ghcr --to tasks/
  gantry export | gantry apply -f - --dry-run")]
pub(crate) struct Export {
    /// Only this registry. May be given several times
    #[arg(short, long = "registry", value_name = "NAME")]
    registries: Vec<String>,
    /// A folder to write one file for each registry to, which must not exist yet
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

impl Export {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let is_wanted =
            |name: &str| self.registries.is_empty() || self.registries.iter().any(|it| it == name);
        let objects = current::read(client, is_wanted).await?;
        for registry in &self.registries {
            if !objects.iter().any(|object| object.registry == *registry) {
                return Err(UsageError(format!("there is no registry `{registry}`")).into());
            }
        }
        let Some(folder) = &self.to else {
            write_out(&yaml(objects.iter().map(Object::document).collect())?)?;
            return Ok(Exit::Ok);
        };
        let cannot_write = || format!("cannot write to {}", folder.display());
        std::fs::create_dir_all(folder).with_context(cannot_write)?;
        for registry in objects.chunk_by(|a, b| a.registry == b.registry) {
            let Some(name) = registry.first().map(|object| &object.registry) else { continue };
            let path = folder.join(format!("{name}.yaml"));
            let text = yaml(registry.iter().map(Object::document).collect())?;
            let file = std::fs::File::create_new(&path);
            let written =
                file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
            written.with_context(|| format!("cannot write {}", path.display()))?;
            say(format!("wrote {}", path.display()));
        }
        Ok(Exit::Ok)
    }
}

fn yaml(documents: Vec<Document>) -> Result<String> {
    serde_saphyr::to_string_multiple(&documents).context("cannot write the objects as YAML")
}

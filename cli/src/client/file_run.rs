//! `gantry run`: runs a task file or one command, without a task.

use std::path::Path;

use anyhow::Result;
use gantry_api::{Run, RunCreate, TaskFileCreate};

use super::Client;
use super::arguments::{GitTokenArg, RegistryArg, whole_number};
use super::build::is_address;
use super::credential::CredentialArgs;
use super::file_values::{DeclaredSecrets, SetValues, command_file};
use super::run::WaitArgs;
use super::task_file;
use super::upload::{upload, upload_folder};
use crate::exit::{Exit, UsageError};

/// Run the steps of a task file, or one command, in containers
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The steps share a workspace with the files of the context. Nothing is pushed unless a step does. A folder is packed without \
what its .dockerignore excludes, and uploaded. The exit code is that of the run, as for `gantry build`.

Examples:
  gantry run .                                    acr-task.yaml of this folder
  gantry run -f test.yaml --set tag=1 .
  gantry run -f acr-task.yaml https://github.com/octo/web.git#main
  gantry run --cmd 'busybox echo hello'
  gantry run --cmd 'golang:1.25 go test ./...' .
  cat acr-task.yaml | gantry run -f -")]
pub(crate) struct FileRun {
    /// A folder, `https://host/repository.git#ref:folder`, the address of a `.tar.gz`, or `oci://host/artifact:tag` [default: no files]
    context: Option<String>,
    #[command(flatten)]
    registry: RegistryArg,
    /// Fetch the files of a git repository that Git LFS keeps
    #[arg(long)]
    lfs: bool,
    /// Fetch the submodules of a git repository as well
    #[arg(long)]
    submodules: bool,
    /// The task file, relative to the context; `-` reads standard input [default: acr-task.yaml]
    #[arg(short, long, value_name = "PATH", conflicts_with = "cmd")]
    file: Option<String>,
    /// One command instead of a task file: `IMAGE ARGUMENTS`
    #[arg(long, value_name = "COMMAND")]
    cmd: Option<String>,
    /// A YAML file of values, relative to the context
    #[arg(long, value_name = "PATH")]
    values: Option<String>,
    #[command(flatten)]
    set: SetValues,
    #[command(flatten)]
    secrets: DeclaredSecrets,
    /// The platform to run on, like linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
    /// How long the run may take, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = whole_number)]
    timeout: Option<u32>,
    /// Move the tags even if a run of a newer change has moved them
    #[arg(long)]
    force_tags: bool,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    git_token: GitTokenArg,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Where the text of a run comes from.
enum Text {
    /// It is sent with the request.
    Sent(String),
    /// A file of the context.
    InContext(String),
}

impl FileRun {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.registry).await?;
        let mut order = RunCreate {
            platform: self.platform.clone(),
            timeout: self.timeout,
            credentials: self.credentials.read(&client.environment)?,
            force_tags: self.force_tags,
            lfs: self.lfs,
            submodules: self.submodules,
            ..RunCreate::default()
        };
        let mut file = TaskFileCreate {
            values_file: self.values.clone(),
            values: self.set.plain()?,
            secret_values: self.set.secret(&client.environment)?,
            secrets: self.secrets.read()?,
            ..TaskFileCreate::default()
        };
        match (self.text()?, self.context.as_deref()) {
            (text, Some(context)) if is_address(context) => {
                order.context = Some(context.to_owned());
                order.git_token = self.git_token.read(&client.environment)?;
                order.git_host_keys = self.git_token.host_keys()?;
                match text {
                    Text::Sent(text) => file.text = Some(text),
                    Text::InContext(path) => file.path = Some(path),
                }
            }
            (Text::InContext(path), Some(folder)) => {
                let uploaded = upload(client, &registry, Path::new(folder), &path).await?;
                order.upload = Some(uploaded.id);
                file.path = Some(uploaded.dockerfile);
            }
            (Text::Sent(text), Some(folder)) => {
                order.upload = Some(upload_folder(client, &registry, Path::new(folder)).await?);
                file.text = Some(text);
            }
            (Text::Sent(text), None) => file.text = Some(text),
            (Text::InContext(path), None) => file.text = Some(task_file::read(Path::new(&path))?),
        }
        order.task_file = file;
        let run: Run = client.api.start(&["registries", &registry, "runs"], &order).await?;
        self.wait.see_through(client, run).await
    }

    fn text(&self) -> Result<Text> {
        if let Some(command) = &self.cmd {
            return Ok(Text::Sent(command_file(command, self.timeout)));
        }
        match self.file.as_deref() {
            Some("-") => task_file::read(Path::new("-")).map(Text::Sent),
            Some(path) => Ok(Text::InContext(path.to_owned())),
            None if self.context.is_none() && !Path::new(DEFAULT_FILE).is_file() => {
                Err(UsageError(format!(
                    "there is no {DEFAULT_FILE} here: give a context, a task file with `-f`, or a command with `--cmd`"
                ))
                .into())
            }
            None => Ok(Text::InContext(DEFAULT_FILE.to_owned())),
        }
    }
}

/// The name of task files.
pub(crate) const DEFAULT_FILE: &str = "acr-task.yaml";

//! `gantry task run`.

use std::path::Path;

use anyhow::Result;
use gantry_api::{Run, Task, TaskRunCreate};

use super::OneTask;
use crate::client::Client;
use crate::client::arguments::{BuildArgs, GitTokenArg};
use crate::client::build::is_address;
use crate::client::file_values::{SetValues, is_task_file};
use crate::client::run::WaitArgs;
use crate::client::upload::{upload, upload_folder};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct RunTask {
    #[command(flatten)]
    task: OneTask,
    /// Another context than the task's: a folder here, or an address
    #[arg(short, long, value_name = "CONTEXT")]
    context: Option<String>,
    /// Another Dockerfile or task file, relative to the context
    #[arg(short, long, value_name = "PATH")]
    file: Option<String>,
    #[command(flatten)]
    build_args: BuildArgs,
    #[command(flatten)]
    set: SetValues,
    /// Another stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Move the tags even if a run of a newer change has moved them
    #[arg(long)]
    force_tags: bool,
    #[command(flatten)]
    git_token: GitTokenArg,
    #[command(flatten)]
    wait: WaitArgs,
}

impl RunTask {
    pub(super) async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.task.registry).await?;
        let path = ["registries", &registry, "tasks", &self.task.name];
        let (task_file, dockerfile) = match self.file.clone() {
            Some(file) if is_task_file(&file) => (Some(file), None),
            file => (None, file),
        };
        let mut order = TaskRunCreate {
            task_file,
            values: self.set.plain()?,
            secret_values: self.set.secret(&client.environment)?,
            dockerfile,
            build_args: self.build_args.plain(&client.environment)?,
            secret_build_args: self.build_args.secret(&client.environment)?,
            target: self.target,
            force_tags: self.force_tags,
            ..TaskRunCreate::default()
        };
        match self.context {
            Some(context) if is_address(&context) => {
                order.context = Some(context);
                order.git_token = self.git_token.read(&client.environment)?;
                order.git_host_keys = self.git_token.host_keys()?;
            }
            Some(folder) => {
                let folder = Path::new(&folder);
                let (file, is_task_file) = match self.file {
                    Some(file) => (Some(file), order.task_file.is_some()),
                    None => {
                        let task: Task = client.api.get(&path).await?;
                        let is_task_file = task.task_file.is_some();
                        (
                            task.dockerfile.or(task.task_file.and_then(|file| file.path)),
                            is_task_file,
                        )
                    }
                };
                match file {
                    Some(file) => {
                        let uploaded = upload(client, &registry, folder, &file).await?;
                        order.upload = Some(uploaded.id);
                        let is_named = order.dockerfile.is_some() || order.task_file.is_some();
                        if uploaded.dockerfile != file || is_named {
                            let field = if is_task_file {
                                &mut order.task_file
                            } else {
                                &mut order.dockerfile
                            };
                            *field = Some(uploaded.dockerfile);
                        }
                    }
                    None => order.upload = Some(upload_folder(client, &registry, folder).await?),
                }
            }
            None => {}
        }
        let path = ["registries", &registry, "tasks", &self.task.name, "runs"];
        let run: Run = client.api.start(&path, &order).await?;
        self.wait.see_through(client, run).await
    }
}

//! The command step: a container that shares the workspace with the other steps of the run.

use std::fmt;
use std::sync::Arc;

use gantry_domain::id::StepId;
use gantry_domain::image::ImageReference;
use gantry_domain::platform::Platform;
use gantry_domain::run::ErrorCode;
use gantry_taskfile::task_file::{Cmd, Container, Given, Traced};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::images::Images;
use super::output::{self, Search};
use crate::attempt::Attempt;
use crate::budget::{Budget, Share, Usage};
use crate::engine::containers::{
    AttemptVolume, ContainerError, ContainerLimits, ContainerOrder, ContainerOutput, Containers,
    Exit,
};
use crate::engine::{Engine, LOCAL_HOST};
use crate::failure::Failure;
use crate::limits;
use crate::workspace::{HOME, Workspace};

/// How many pieces of output may wait for the log.
const PIECES: usize = 64;

/// Runs the commands of steps.
pub(crate) struct Commander {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) containers: Arc<dyn Containers>,
    /// What each container may use.
    pub(crate) limits: ContainerLimits,
    /// What all containers of a run may use together.
    pub(crate) run_limits: Usage,
}

/// A command step of an attempt.
#[derive(Clone, Copy)]
pub(crate) struct CmdStep<'a> {
    pub(crate) attempt: &'a Attempt,
    pub(crate) id: &'a StepId,
    pub(crate) cmd: &'a Cmd,
    pub(crate) workspace: &'a Workspace,
    /// The images that earlier steps have built.
    pub(crate) images: &'a Images,
    /// What the containers of the run may use together.
    pub(crate) budget: &'a Arc<Budget>,
    /// Containers that run until the run ends.
    pub(crate) detached: &'a Detached,
}

/// What a command step runs with.
pub(crate) struct Prepared {
    image: ImageReference,
    limits: ContainerLimits,
    share: Arc<Share>,
}

/// The containers that run beside later steps. They end when this is dropped.
#[derive(Default)]
pub(crate) struct Detached {
    tasks: TaskTracker,
    stop: tokio_util::sync::CancellationToken,
}

impl Detached {
    /// Stops the containers, and waits until their output is written. Returns whether there were any.
    pub(crate) async fn end(&self) -> bool {
        let were_any = !self.tasks.is_empty();
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        were_any
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A process of a step ended with an error.
struct Ended<'a> {
    image: &'a Traced,
    exit: Exit,
    /// How much memory it might use.
    memory: u64,
    /// How much the operator allows.
    most: u64,
}

impl fmt::Display for Ended<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with exit code {}", self.image, self.exit.code)?;
        if self.exit.out_of_memory {
            let (own, most) = (self.memory >> 20, self.most >> 20);
            write!(f, ": the kernel killed it, because it used more than the {own} MiB ")?;
            f.write_str(if own < most {
                "of its `--memory`: let it use less, or raise that"
            } else {
                "that a step may use here: let it use less, or let the operator raise `steps.memory`"
            })?;
        }
        Ok(())
    }
}

impl Commander {
    /// Prepares the step: its image is in the engine, the workspace is there, and the containers of the run leave enough
    /// memory. Not a part of its time limit.
    pub(crate) async fn prepare(&self, step: CmdStep<'_>) -> Result<Prepared, Failure> {
        let image = self.image(step).await?;
        step.workspace.make().await?;
        let limits = limits::of(&step.cmd.container, self.limits)?;
        let share = Arc::new(step.budget.take(Usage::of(step.cmd, limits)).await);
        Ok(Prepared { image, limits, share })
    }

    /// Runs the command once.
    pub(crate) async fn run(
        &self,
        step: CmdStep<'_>,
        prepared: &Prepared,
        search: &mut Search,
    ) -> Result<(), Failure> {
        let order = self.order(step, prepared)?;
        step.workspace.touch();
        if step.cmd.container.detach {
            return self.start(step, order, Arc::clone(&prepared.share)).await;
        }
        let (started, _) = oneshot::channel();
        let (pieces, output) = mpsc::channel(PIECES);
        let running = self.containers.run(order, started, pieces);
        let writing = output::write(&step.attempt.log, step.id, output, search);
        let (exit, ()) = tokio::join!(running, writing);
        self.ended(step, prepared, exit?)
    }

    fn ended(&self, step: CmdStep<'_>, prepared: &Prepared, exit: Exit) -> Result<(), Failure> {
        if exit.code == 0 {
            return Ok(());
        }
        let ended = Ended {
            image: &step.cmd.image,
            exit,
            memory: prepared.limits.memory,
            most: self.limits.memory,
        };
        Err(Failure::exit(exit.code, ended.to_string()))
    }

    /// Starts a container that runs until the run ends.
    async fn start(
        &self,
        step: CmdStep<'_>,
        order: ContainerOrder,
        share: Arc<Share>,
    ) -> Result<(), Failure> {
        let (started, has_started) = oneshot::channel();
        let (failed, has_failed) = oneshot::channel();
        let containers = Arc::clone(&self.containers);
        let (log, id) = (step.attempt.log.clone(), step.id.clone());
        let stop = step.detached.stop.clone();
        step.detached.tasks.spawn(async move {
            let _until_it_ends = share;
            let (pieces, output) = mpsc::channel::<ContainerOutput>(PIECES);
            let mut search = Search::of(&[]);
            let running = containers.run(order, started, pieces);
            let work =
                async { tokio::join!(running, output::write(&log, &id, output, &mut search)).0 };
            let ended: Option<Result<Exit, ContainerError>> = tokio::select! {
                ended = work => Some(ended),
                () = stop.cancelled() => None,
            };
            match ended {
                Some(Ok(exit)) => {
                    let line = format!("the detached container ended with exit code {}", exit.code);
                    log.say(Some(&id), line).await;
                }
                Some(Err(error)) => {
                    // Only the start is waited for.
                    let _ended_later = failed.send(error);
                }
                None => {}
            }
        });
        if has_started.await.is_ok() {
            return Ok(());
        }
        match has_failed.await {
            Ok(error) => Err(error.into()),
            Err(_) => Err(Failure::in_words(
                ErrorCode::StepFailed,
                "the detached container ended while it started",
            )),
        }
    }

    /// The image of a step in the engine: what an earlier step has built, or an image that is pulled if the step says so
    /// or the engine lacks it.
    async fn image(&self, step: CmdStep<'_>) -> Result<ImageReference, Failure> {
        let image = image_of(step.cmd)?;
        if let Some(built) = step.images.find_or_wait(&image).await {
            let wanted = platform_of(step.cmd)?;
            let wanted = built.iter().find(|leg| Some(&leg.platform) == wanted.as_ref());
            if let Some(leg) = wanted.or(built.first()) {
                return Ok(leg.local.name().clone());
            }
        }
        let pinned = step.attempt.run.recipe.pin_of(&image);
        let image = match pinned {
            Some(base) => {
                let (host, repository) = (image.host().clone(), image.repository().clone());
                ImageReference::by_digest(host, repository, base.digest.clone())
            }
            None => image,
        };
        if image.host().as_str() == LOCAL_HOST {
            let message = format!("{image} is no image that a step of this run has built");
            return Err(Failure::in_words(ErrorCode::ImageNotFound, message));
        }
        let how = option(step.cmd, "pull").unwrap_or("missing");
        let is_there = self.engine.image_id(&image).await?.is_some();
        if is_there && step.cmd.pull.is_none() && how != "always" {
            return Ok(image);
        }
        if how == "never" {
            let message = format!("the engine has no image {image}, and `--pull never` was given");
            return Err(Failure::in_words(ErrorCode::ImageNotFound, message));
        }
        let platform = platform_of(step.cmd)?;
        step.attempt.log.say(Some(step.id), format!("pulling {image}")).await;
        let credentials = step.attempt.credentials(&image);
        let mut retries = step.cmd.pull.map_or(0, |pull| pull.retries);
        loop {
            let pulled = self.containers.pull(&image, platform.as_ref(), credentials.as_ref());
            match pulled.await {
                Ok(()) => return Ok(image),
                Err(error) if retries == 0 => return Err(error.into()),
                Err(error) => {
                    step.attempt
                        .log
                        .say(Some(step.id), format!("{error}: it is tried again"))
                        .await;
                    retries -= 1;
                    let pause = step.cmd.pull.map(|pull| pull.retry_delay);
                    tokio::time::sleep(pause.unwrap_or_default()).await;
                }
            }
        }
    }

    fn order(&self, step: CmdStep<'_>, prepared: &Prepared) -> Result<ContainerOrder, Failure> {
        let (cmd, workspace) = (step.cmd, step.workspace);
        let container = &cmd.container;
        let exposed = |text: &Traced| text.exposed().to_owned();
        let list = |texts: &[Traced]| texts.iter().map(exposed).collect();
        let mut volumes = workspace.shared();
        for mount in &container.mounts {
            let path = exposed(&mount.path);
            let volume = workspace.volume(&mount.volume).ok_or_else(|| {
                let message = format!("there is no volume `{}` in the task", mount.volume);
                Failure::in_words(ErrorCode::TaskFileInvalid, message)
            })?;
            volumes.push(AttemptVolume { path, ..volume });
        }
        Ok(ContainerOrder {
            owner: workspace.owner().clone(),
            step: step.id.clone(),
            image: prepared.image.clone(),
            arguments: list(&cmd.arguments),
            entry_point: container.entry_point.as_ref().map(exposed),
            env: environment(container),
            user: container.user.as_ref().map(exposed),
            working_directory: container.working_directory.clone(),
            network: workspace.network(container.network.as_ref().map(|name| name.exposed())),
            volumes,
            ports: list(&container.ports),
            expose: list(&container.expose),
            privileged: container.privileged,
            keep: container.keep,
            limits: prepared.limits,
            options: options(container, workspace),
        })
    }
}

/// The image that a command names.
pub(crate) fn image_of(cmd: &Cmd) -> Result<ImageReference, Failure> {
    let image = cmd.image.exposed().parse::<ImageReference>();
    image.map_err(|error| Failure::users(ErrorCode::ImageNameInvalid, &error))
}

/// The platform that a command names.
pub(crate) fn platform_of(cmd: &Cmd) -> Result<Option<Platform>, Failure> {
    let platform = option(cmd, "platform").map(str::parse::<Platform>).transpose();
    platform.map_err(|error| Failure::users(ErrorCode::ImageNameInvalid, &error))
}

fn option<'a>(cmd: &'a Cmd, name: &str) -> Option<&'a str> {
    let given = cmd.container.options.iter().find(|given| given.name == name)?;
    Some(given.value.exposed())
}

/// The variables of a step. `HOME` comes first, so that the step may replace it.
fn environment(container: &Container) -> Vec<String> {
    let home = ("HOME".to_owned(), Traced::written(HOME));
    let is_own = container.env.iter().any(|(name, _)| name == "HOME");
    let variables = (!is_own).then_some(&home).into_iter().chain(&container.env);
    variables.map(|(name, value)| format!("{name}={}", value.exposed())).collect()
}

/// The other options of a step. Volumes of the task have another name in the engine.
fn options(container: &Container, workspace: &Workspace) -> Vec<(&'static str, String)> {
    let is_other = |given: &&Given| given.name != "pull" && !limits::OPTIONS.contains(&given.name);
    let options = container.options.iter().filter(is_other);
    let translated = |Given { name, value }: &Given| {
        let text = value.exposed();
        let text = match *name {
            "volume" => in_engine(text, workspace),
            "mount" => text
                .split(',')
                .map(|part| mount_part(part, workspace))
                .collect::<Vec<_>>()
                .join(","),
            _ => text.to_owned(),
        };
        (*name, text)
    };
    options.map(translated).collect()
}

/// `VOLUME:PATH`, with the engine's name of a volume of the task.
fn in_engine(text: &str, workspace: &Workspace) -> String {
    let own = text.split_once(':').and_then(|(name, rest)| Some((workspace.volume(name)?, rest)));
    own.map_or_else(|| text.to_owned(), |(volume, rest)| format!("{}:{rest}", volume.name))
}

/// One part of `--mount`, in which `source` may be a volume of the task.
fn mount_part(part: &str, workspace: &Workspace) -> String {
    let source = part.split_once('=').filter(|(name, _)| matches!(*name, "source" | "src"));
    let own = source.and_then(|(name, volume)| Some((name, workspace.volume(volume)?)));
    own.map_or_else(|| part.to_owned(), |(name, volume)| format!("{name}={}", volume.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_memory_is_told_the_limit_that_applied() {
        let told = |memory| {
            let exit = Exit { code: 137, out_of_memory: true };
            Ended { image: &Traced::written("x"), exit, memory, most: 1 << 30 }.to_string()
        };
        let expected =
            "x ended with exit code 137: the kernel killed it, because it used more than the";
        assert_eq!(
            told(1 << 30),
            format!(
                "{expected} 1024 MiB that a step may use here: let it use less, or let the operator raise `steps.memory`"
            )
        );
        assert_eq!(
            told(64 << 20),
            format!("{expected} 64 MiB of its `--memory`: let it use less, or raise that")
        );
    }
}

//! `gantry build`: builds one image from a local folder or a git repository.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures_util::stream;
use gantry_api::{BuildCreate, Run, Upload};
use indicatif::{ProgressBar, ProgressStyle};

use super::Client;
use super::arguments::{BuildArgs, GitTokenArg, RegistryArg, whole_number};
use super::output::say;
use super::pack::{LocalError, Pack};
use super::run::WaitArgs;
use super::table::size;
use crate::exit::{Exit, UsageError};

/// Build an image from a folder or a git repository, and push it
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A folder is packed without what its .dockerignore excludes, and uploaded. A name without host gets the registry's; \
{{.Run.ID}}, {{.Run.Registry}}, {{.Run.Commit}} and the like are filled in. The exit code is that of the run: \
0 succeeded, 1 failed, 2 wrong arguments, 3 cancelled, 4 timeout, 5 infrastructure; 130 after Ctrl-C, which stops \
following and leaves the run alone.

Examples:
  gantry build -t 'web:{{.Run.ID}}' .
  gantry build -t web:v1 -f deploy/Dockerfile --build-arg VERSION=1 .
  gantry build -t web:v1 https://github.com/octo/web.git#main:src
  NPM_TOKEN=… gantry build -t web:v1 --secret-build-arg NPM_TOKEN .
  gantry build --no-push --target test .
  run=$(gantry build --no-wait -t web:v1 .)")]
pub(crate) struct Build {
    /// A folder, `https://host/repository.git#ref:folder`, or the address of a `.tar.gz`
    context: String,
    #[command(flatten)]
    registry: RegistryArg,
    /// The image's name, like `web:v1`. May be given several times
    #[arg(short = 't', long = "image", value_name = "NAME")]
    images: Vec<String>,
    /// The Dockerfile, relative to the context. For a folder it may lie elsewhere: then it is sent along
    #[arg(short, long, default_value = "Dockerfile", value_name = "PATH")]
    file: String,
    #[command(flatten)]
    build_args: BuildArgs,
    /// The stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// The platform to build for, like linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
    /// How long the run may take, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = whole_number)]
    timeout: Option<u32>,
    /// Build without pushing
    #[arg(long)]
    no_push: bool,
    /// Build without the cache
    #[arg(long)]
    no_cache: bool,
    /// Move the tags even if a run of a newer change has moved them
    #[arg(long)]
    force_tags: bool,
    #[command(flatten)]
    git_token: GitTokenArg,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Build {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.registry).await?;
        let mut order = BuildCreate {
            dockerfile: Some(self.file.clone()),
            build_args: self.build_args.plain(&client.environment)?,
            secret_build_args: self.build_args.secret(&client.environment)?,
            target: self.target,
            platform: self.platform,
            timeout: self.timeout,
            push: !self.no_push && !self.images.is_empty(),
            no_cache: self.no_cache,
            force_tags: self.force_tags,
            images: self.images,
            ..BuildCreate::default()
        };
        if is_address(&self.context) {
            order.git_token = self.git_token.read(&client.environment)?;
            order.context = Some(self.context);
        } else {
            let uploaded = upload(client, &registry, Path::new(&self.context), &self.file).await?;
            order.upload = Some(uploaded.id);
            order.dockerfile = Some(uploaded.dockerfile);
        }
        if order.images.is_empty() && !self.no_push {
            say("no name was given with `-t`, so the image is built and not pushed");
        }
        let run: Run = client.api.start(&["registries", &registry, "builds"], &order).await?;
        self.wait.see_through(client, run).await
    }
}

/// Whether a context is not a local folder. Git over ssh is included, so that it is refused with an explanation.
pub(crate) fn is_address(context: &str) -> bool {
    context.contains("://") || context.starts_with("git@")
}

/// An uploaded folder.
pub(crate) struct Uploaded {
    pub(crate) id: String,
    /// The path of the Dockerfile in it.
    pub(crate) dockerfile: String,
}

/// Packs a folder and uploads it as the source of a run in this registry.
pub(crate) async fn upload(
    client: &Client,
    registry: &str,
    folder: &Path,
    dockerfile: &str,
) -> Result<Uploaded> {
    check_folder(folder)?;
    let pack = Pack::of(folder, dockerfile)?;
    let dockerfile = pack.dockerfile.clone();
    Ok(Uploaded { id: send(client, registry, pack).await?, dockerfile })
}

/// Uploads a folder, whatever is in it. Returns the id.
pub(crate) async fn upload_folder(
    client: &Client,
    registry: &str,
    folder: &Path,
) -> Result<String> {
    check_folder(folder)?;
    send(client, registry, Pack::folder(folder)?).await
}

fn check_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let folder = folder.display();
    Err(UsageError(format!(
        "{folder} is no folder here: give a folder, or the address of a git repository or a .tar.gz"
    ))
    .into())
}

async fn send(client: &Client, registry: &str, pack: Pack) -> Result<String> {
    for path in &pack.skipped {
        say(format!("warning: {path} is left out: it is a socket or a device"));
    }
    let (files, bytes) = (pack.files(), pack.bytes);
    let plural = if files == 1 { "" } else { "s" };
    say(format!("uploading {} in {files} file{plural}", size(bytes)));
    let (packed, failed) = (Arc::new(AtomicU64::new(0)), LocalError::default());
    let bar = UploadBar::show(bytes, Arc::clone(&packed));
    let mut pieces = pack.stream(packed, Arc::clone(&failed));
    let body =
        reqwest::Body::wrap_stream(stream::poll_fn(move |context| pieces.poll_recv(context)));
    let uploaded: Result<Upload> =
        client.api.upload(&["registries", registry, "uploads"], body).await;
    bar.finish();
    if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    Ok(uploaded?.id)
}

/// The progress of an upload, on a terminal.
struct UploadBar {
    bar: ProgressBar,
    ticks: Option<tokio::task::JoinHandle<()>>,
}

impl UploadBar {
    fn show(bytes: u64, packed: Arc<AtomicU64>) -> Self {
        if !io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), ticks: None };
        }
        let bar = ProgressBar::new(bytes);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        {
            bar.set_style(style);
        }
        let ticking = bar.clone();
        let ticks = tokio::spawn(async move {
            loop {
                ticking.set_position(packed.load(Ordering::Relaxed));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self { bar, ticks: Some(ticks) }
    }

    fn finish(self) {
        if let Some(ticks) = self.ticks {
            ticks.abort();
        }
        self.bar.finish_and_clear();
    }
}

//! `gantry build`: builds one image from a local folder or a git repository.

use std::path::Path;

use anyhow::Result;
use gantry_api::{BuildCreate, Run};
use gantry_domain::source::Source;

use super::Client;
use super::arguments::{BuildArgs, GitTokenArg, RegistryArg, whole_number};
use super::credential::CredentialArgs;
use super::output::say;
use super::run::WaitArgs;
use super::upload::upload;
use crate::exit::Exit;

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
  GHCR_TOKEN=… gantry build -t ghcr.io/octo/web:v1 --credential ghcr.io=octo:GHCR_TOKEN .
  gantry build --no-push --target test .
  run=$(gantry build --no-wait -t web:v1 .)")]
pub(crate) struct Build {
    /// A folder, `https://host/repository.git#ref:folder`, the address of a `.tar.gz`, or `oci://host/artifact:tag`
    context: String,
    #[command(flatten)]
    registry: RegistryArg,
    /// Fetch the files of a git repository that Git LFS keeps
    #[arg(long)]
    lfs: bool,
    /// Fetch the submodules of a git repository as well
    #[arg(long)]
    submodules: bool,
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
    /// The platform to build for, like linux/arm64; several, separated by commas, make an index
    #[arg(long, value_name = "OS/ARCHITECTURE[,…]")]
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
    credentials: CredentialArgs,
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
            credentials: self.credentials.read(&client.environment)?,
            target: self.target,
            platform: self.platform,
            timeout: self.timeout,
            push: !self.no_push && !self.images.is_empty(),
            no_cache: self.no_cache,
            lfs: self.lfs,
            submodules: self.submodules,
            force_tags: self.force_tags,
            images: self.images,
            ..BuildCreate::default()
        };
        if is_address(&self.context) {
            order.git_token = self.git_token.read(&client.environment)?;
            order.git_host_keys = self.git_token.host_keys()?;
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

/// Whether a context is not a local folder.
pub(crate) fn is_address(context: &str) -> bool {
    context.contains("://") || context.parse::<Source>().is_ok_and(|source| source.is_ssh())
}

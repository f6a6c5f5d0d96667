//! `gantry pack build`: builds an image with Cloud Native Buildpacks, without a Dockerfile.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{Run, RunCreate, TaskFileCreate};
use gantry_domain::image::ImageReference;
use gantry_domain::template::Template;

use super::Client;
use super::arguments::{GitTokenArg, RegistryArg, read_pairs, whole_number};
use super::build::is_address;
use super::run::WaitArgs;
use super::upload::upload_folder;
use crate::exit::{Exit, UsageError};

/// The program, unless another image is given.
const PACK: &str = "docker.io/buildpacksio/pack:latest";

/// The engine's socket, on its machine and in the container.
const SOCKET: &str = "/var/run/docker.sock";

/// How long a run may take if nothing else is said, in seconds.
const TIMEOUT: u32 = 3600;

/// Build images with Cloud Native Buildpacks
#[derive(Debug, Subcommand)]
pub(crate) enum Packs {
    Build(PackBuild),
}

/// Build an image with buildpacks, and push it
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The run is a task file of two steps: a container of `pack` builds the image with the engine's socket, and then it is pushed. \
So the operator has to allow the registry the socket, in the worker's setting `steps.engine_socket`. A name without host \
gets the registry's; {{.Run.ID}} and the like are filled in: give each run a tag of its own, because runs on one \
engine share the names of images. The exit code is that of the run, as for `gantry build`.

Examples:
  gantry pack build -t 'web:{{.Run.ID}}' --builder paketobuildpacks/builder-jammy-base .
  gantry pack build -t 'web:{{.Run.ID}}' --builder heroku/builder:24 --env BP_JVM_VERSION=21 \\
    https://github.com/octo/web.git#main")]
pub(crate) struct PackBuild {
    /// A folder, `https://host/repository.git#ref:folder`, the address of a `.tar.gz`, or `oci://host/artifact:tag`
    context: String,
    #[command(flatten)]
    registry: RegistryArg,
    /// The image's name, like `web:{{.Run.ID}}`
    #[arg(short = 't', long, value_name = "NAME", value_parser = image_name)]
    image: String,
    /// The image with the buildpacks
    #[arg(short = 'b', long, value_name = "IMAGE")]
    builder: ImageReference,
    /// A variable for the buildpacks; without `=VALUE` the environment's. May be given several times
    #[arg(short = 'e', long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Pull the builder and the other images even if the engine has them
    #[arg(long)]
    pull: bool,
    /// The image of `pack` itself
    #[arg(long, value_name = "IMAGE", default_value = PACK)]
    pack_image: ImageReference,
    /// The platform to run on, like linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
    /// How long the run may take, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = whole_number)]
    timeout: Option<u32>,
    #[command(flatten)]
    git_token: GitTokenArg,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Packs {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::Build(build) => build.run(client).await,
        }
    }
}

impl PackBuild {
    async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.registry).await?;
        let mut order = RunCreate {
            task_file: self.file(read_pairs("--env", &self.env, &client.environment)?)?,
            platform: self.platform,
            timeout: self.timeout,
            ..RunCreate::default()
        };
        if is_address(&self.context) {
            order.git_token = self.git_token.read(&client.environment)?;
            order.git_host_keys = self.git_token.host_keys()?;
            order.context = Some(self.context);
        } else {
            let folder = Path::new(&self.context);
            order.upload = Some(upload_folder(client, &registry, folder).await?);
        }
        let run: Run = client.api.start(&["registries", &registry, "runs"], &order).await?;
        self.wait.see_through(client, run).await
    }

    /// The task file. Names of images and variables have no character that means anything in a command, and the values of
    /// variables are not in it.
    fn file(&self, env: BTreeMap<String, String>) -> Result<TaskFileCreate> {
        let Self { image, builder, pack_image, .. } = self;
        let pull = if self.pull { "always" } else { "if-not-present" };
        let mut command = format!(
            "-v {SOCKET}:{SOCKET} {pack_image} build {image} --builder={builder} --pull-policy={pull}"
        );
        let mut variables = vec!["REGISTRY_NAME={{.Run.Registry}}".to_owned()];
        let mut values = BTreeMap::new();
        for (number, (name, value)) in env.into_iter().enumerate() {
            check_variable(&name)?;
            let key = format!("env{number}");
            variables.push(format!("{name}={{{{.Values.{key}}}}}"));
            values.insert(key, value);
        }
        for variable in &variables {
            let name = variable.split('=').next().unwrap_or_default();
            // Without a value, `pack` reads it from its own environment.
            command.push_str(" --env=");
            command.push_str(name);
        }
        command.push_str(" --path=.");
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        let steps = serde_json::json!([
            { "id": "pack", "cmd": command, "env": variables, "timeout": timeout },
            { "id": "push", "push": [image], "timeout": timeout },
        ]);
        // JSON is YAML.
        let text = format!(
            "version: v1.1.0
steps: {steps}
"
        );
        Ok(TaskFileCreate { text: Some(text), values, ..TaskFileCreate::default() })
    }
}

fn check_variable(name: &str) -> Result<(), UsageError> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    if !name.is_empty() && name.chars().all(is_name) {
        return Ok(());
    }
    Err(UsageError(format!(
        "--env: `{name}` is no name of a variable: use letters, digits and `_`"
    )))
}

/// A name of an image with run variables, with the registry's host unless it has one. It is a single word of a command.
fn image_name(text: &str) -> Result<String, UsageError> {
    let refused = |why: String| UsageError(format!("`{text}` is no image to build: {why}"));
    text.parse::<Template>().map_err(|error| refused(error.to_string()))?;
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-/:{}".contains(char);
    if !text.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '{')
        || !text.chars().all(is_plain)
    {
        let rule =
            "write it like `web:{{.Run.ID}}`, with letters, digits and `._-/:`, and no spaces";
        return Err(refused(rule.to_owned()));
    }
    let host = text.split_once('/').map(|(host, _)| host);
    let has_host = host.is_some_and(|host| {
        host == "{{.Run.Registry}}"
            || host == "localhost"
            || (host.contains(['.', ':']) && !host.contains('{'))
    });
    Ok(if has_host { text.to_owned() } else { format!("{{{{.Run.Registry}}}}/{text}") })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use gantry_taskfile::task_file::{Ask, Cmd, Inputs, StepWork, Task, compile};
    use gantry_taskfile::template::{Data, Trust};

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(subcommand)]
        packs: Packs,
    }

    fn parsed(arguments: &[&str]) -> Result<PackBuild, clap::Error> {
        let all = [&["gantry", "build", "."], arguments].concat();
        let Packs::Build(build) = Arguments::try_parse_from(all)?.packs;
        Ok(build)
    }

    /// The task that a server compiles of it.
    fn task(arguments: &[&str], env: &[(&str, &str)]) -> Task {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let file = parsed(arguments).unwrap().file(env.collect()).unwrap();
        let mut inputs = Inputs::default();
        inputs.run.id = "ca1".to_owned();
        inputs.run.registry = "registry.test:5000".to_owned();
        for (name, value) in file.values {
            inputs.values.set(&name, Data::Text(value.into()), Trust::Saved);
        }
        compile(&file.text.unwrap(), &inputs).unwrap().task
    }

    fn cmd(task: &Task) -> &Cmd {
        let StepWork::Cmd(cmd) = &task.steps[0].work else { panic!("no command") };
        cmd
    }

    fn words(task: &Task) -> Vec<&str> {
        let cmd = cmd(task);
        std::iter::once(&cmd.image).chain(&cmd.arguments).map(|word| word.exposed()).collect()
    }

    #[test]
    fn pack_builds_with_the_engine_s_socket_and_then_the_image_is_pushed() {
        let task = task(&["-t", "web:{{.Run.ID}}", "-b", "a/builder:1", "--pull"], &[]);
        let image = "registry.test:5000/web:ca1";
        let expected = [
            PACK,
            "build",
            image,
            "--builder=docker.io/a/builder:1",
            "--pull-policy=always",
            "--env=REGISTRY_NAME",
            "--path=.",
        ];
        assert_eq!(words(&task), expected);
        assert_eq!(task.asks(&task.steps[0].work), [Ask::EngineSocket].into());
        let StepWork::Push(pushed) = &task.steps[1].work else { panic!("no push") };
        assert_eq!(pushed.iter().map(ToString::to_string).collect::<Vec<_>>(), [image]);
        assert_eq!(task.steps[1].after, [0]);
    }

    #[test]
    fn no_value_adds_a_word_or_an_option() {
        let plain = task(&["-t", "web:1", "-b", "b:1"], &[("A", "x")]);
        for value in [
            "two words",
            "'single' \"double\"",
            "$HOME $(id) `id` $ID",
            "{{.Run.ID}} {{ \"{{\" }} }}",
            "--publish\n--network host",
            "# no comment: [x], {y}",
            "\\",
            "",
        ] {
            let task = task(&["-t", "web:1", "-b", "b:1"], &[("A", value)]);
            assert_eq!(words(&task), words(&plain), "{value}");
            let env = &cmd(&task).container.env;
            let found = env.iter().find(|(name, _)| name == "A");
            assert_eq!(found.map(|(_, text)| text.exposed()), Some(value));
            assert_eq!(env.len(), cmd(&plain).container.env.len(), "{value}");
        }
        for name in ["a b", "--publish", "A'", "$A", "{{.Run.ID}}", ""] {
            let build = parsed(&["-t", "web:1", "-b", "b:1"]).unwrap();
            let error = build.file([(name.to_owned(), "x".to_owned())].into()).unwrap_err();
            assert!(error.is::<UsageError>(), "{name}: {error}");
        }
    }

    #[test]
    fn what_is_no_name_of_an_image_is_refused() {
        for text in [
            "web 1",
            "web:1 --publish",
            "--publish",
            "web'1",
            "web\"",
            "$ID",
            "{{.Values.x}}",
            "web:{{",
            "we\nb",
            "",
        ] {
            let image = format!("--image={text}");
            assert!(parsed(&[&image, "-b", "b:1"]).is_err(), "{text}");
            let builder = format!("--builder={text}");
            assert!(parsed(&["-t", "web:1", &builder]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_without_host_gets_the_registry_s() {
        for (text, expected) in [
            ("web", "{{.Run.Registry}}/web"),
            ("team/web:{{.Run.ID}}", "{{.Run.Registry}}/team/web:{{.Run.ID}}"),
            ("{{.Run.ID}}/web", "{{.Run.Registry}}/{{.Run.ID}}/web"),
            ("{{.Run.Registry}}/web", "{{.Run.Registry}}/web"),
            ("ghcr.io/octo/web:1", "ghcr.io/octo/web:1"),
            ("localhost/web", "localhost/web"),
        ] {
            assert_eq!(image_name(text).unwrap(), expected);
        }
    }
}

//! Makes the step graph of a run: the first act of its attempt, after the source was fetched.
//!
//! In: the run's recipe, its source and its secrets. Out: a graph, or everything that is wrong with the task file.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_domain::image::{ImageReference, Tag};
use gantry_domain::recipe::{FileWork, ImageBuild, PullRequestBuild, TaskFile, Work};
use gantry_domain::run::{ErrorCode, Purpose, Run};
use gantry_domain::secret::SecretSource;
use gantry_domain::source::CommitId;
use gantry_domain::template;
use gantry_ops::aside;
use gantry_ops::secret::ExposeSecret as _;
use gantry_remote::http::{Method, OutboundClient, OutboundError, read_body};
use gantry_taskfile::task_file::{
    self, Compiled, Inputs, LONGEST, Mistake, Needs, RunVariables, SecretReference, Severity, Task,
};
use gantry_taskfile::template::{Data, Trust};
use tokio::time::timeout;

use crate::attempt::Attempt;
use crate::engine::containers::Owner;
use crate::failure::{self, Failure};
use crate::graph::Graph;
use crate::source::Checkout;
use crate::step::build::{Fetched, read_aside};
use crate::step::refuse_staging;
use crate::workspace::Workspace;

/// How long the server of an alias file may take. The original waits 2 s.
const ALIASES_WITHIN: Duration = Duration::from_secs(10);

/// What the text of an error shows of a task file's mistakes.
const MOST_SHOWN: usize = 10;

pub(crate) struct Compiler {
    /// For alias files at an address.
    pub(crate) http: OutboundClient,
    /// What the operator's image aliases stand for.
    pub(crate) image_aliases: BTreeMap<String, String>,
}

/// A task file that is compiled for one attempt.
struct File<'a> {
    attempt: &'a Attempt,
    owner: &'a Owner,
    source: Option<&'a Fetched>,
    work: &'a FileWork,
}

impl Compiler {
    /// The graph of an attempt's run.
    pub(crate) async fn graph(
        &self,
        attempt: &Attempt,
        owner: &Owner,
        source: Option<&Fetched>,
    ) -> Result<Graph, Failure> {
        let files = source.map(|source| source.files.as_ref());
        let mut graph = match &attempt.run.recipe.work {
            Work::Build(build) => of_build(attempt, build, files)?,
            Work::File(work) => {
                let task = self.task(&File { attempt, owner, source, work }).await?;
                Graph::of_file(task, &attempt.run.recipe.platforms)?
            }
        };
        graph.pushed().try_for_each(refuse_staging)?;
        if let Some(of) = &attempt.run.recipe.pull_request {
            let built = files.and_then(Checkout::commit).or(read_before(attempt));
            limit_pushes(&mut graph, attempt, of, built).await;
        }
        Ok(graph)
    }

    async fn task(&self, file: &File<'_>) -> Result<Task, Failure> {
        let text = file.text().await?;
        let mut inputs = self.inputs(file).await?;
        let secrets = self.read_needs(file, &text, &mut inputs).await?;
        match &file.attempt.run.purpose {
            Purpose::Execute | Purpose::Leg(_) => check_secrets(file, &secrets)?,
            // A scan has none: each is empty.
            Purpose::Scan => secrets.iter().for_each(|secret| inputs.secrets.set(&secret.id, "")),
        }
        file.say_secrets().await;
        let compiled = compile_aside(text, inputs).await?;
        let log = &file.attempt.log;
        match compiled {
            Ok(Compiled { task, warnings, .. }) => {
                for warning in warnings {
                    log.say(None, format!("{}:{warning}", file.name())).await;
                }
                Ok(task)
            }
            Err(mistakes) => {
                for mistake in &mistakes {
                    log.say(None, format!("{}:{mistake}", file.name())).await;
                }
                Err(invalid(&file.name(), &mistakes))
            }
        }
    }

    async fn inputs(&self, file: &File<'_>) -> Result<Inputs, Failure> {
        let mut inputs = Inputs {
            run: file.run_variables(),
            image_aliases: self.image_aliases.clone(),
            ..Inputs::default()
        };
        if let Some(path) = &file.work.values_file {
            let text = file.read(path.as_str()).await?;
            let read = aside::read(move || {
                // A file of the source is code, like the task file beside it.
                let added = inputs.values.add_file(&text, Trust::Saved);
                added.map(|()| inputs)
            });
            let read = read
                .await
                .map_err(|error| Failure::infrastructures(ErrorCode::Internal, &error))?;
            inputs = read.map_err(|mistakes| invalid(path.as_str(), &mistakes))?;
        }
        for (name, value) in &file.work.values {
            let trust = if value.is_given { Trust::Given } else { Trust::Saved };
            inputs.values.set(name.as_str(), Data::Text(value.text.as_str().into()), trust);
        }
        for name in file.work.secret_values.keys() {
            // A scan gets no secrets, and executes nothing that would need them.
            let value = file.attempt.bundle.values.get(name);
            let text = Data::Text(value.map_or("", |value| value.expose_secret()).into());
            inputs.values.set(name.as_str(), text, Trust::Secret);
        }
        for (id, secret) in &file.attempt.bundle.secrets {
            inputs.secrets.set(id.as_str(), secret.value.expose_secret());
        }
        Ok(inputs)
    }

    /// Reads the alias files that the task file names, and returns the secrets that it names then.
    async fn read_needs(
        &self,
        file: &File<'_>,
        text: &str,
        inputs: &mut Inputs,
    ) -> Result<Vec<SecretReference>, Failure> {
        let needs = needs(text, inputs).await?;
        if needs.alias_files.is_empty() {
            return Ok(needs.secrets);
        }
        for name in needs.alias_files {
            let content = self.alias_file(file, &name).await?;
            inputs.alias_files.insert(name, content);
        }
        Ok(self::needs(text, inputs).await?.secrets)
    }

    /// An alias file, beside the task file or at an address. An address gets no credential.
    async fn alias_file(&self, file: &File<'_>, name: &str) -> Result<String, Failure> {
        if !name.contains("://") {
            return file.read(name.strip_prefix("./").unwrap_or(name)).await;
        }
        let content = self.download(name).await?;
        let hash = sha256(&content);
        file.attempt.log.say(None, format!("aliases of {name}: sha256:{hash}")).await;
        Ok(content)
    }

    async fn download(&self, address: &str) -> Result<String, Failure> {
        let failed = |why: String| {
            let message = format!("the alias file {address} could not be read: {why}");
            Failure::in_words(ErrorCode::TaskFileInvalid, message)
        };
        let parsed = address.parse();
        let url = parsed.map_err(|_| failed("it is no address".to_owned()))?;
        let fetched = async {
            let request = self.http.request(Method::GET, url)?;
            let answer = self.http.send(request).await?;
            let status = answer.status();
            Ok::<_, OutboundError>((status, read_body(answer, LONGEST as u64).await?))
        };
        let fetched = timeout(ALIASES_WITHIN, fetched).await;
        let fetched = fetched.map_err(|_| failed("its server took too long".to_owned()))?;
        let (status, body) = fetched.map_err(|error| failed(error.to_string()))?;
        if !status.is_success() {
            return Err(failed(format!("its server answered {status}")));
        }
        String::from_utf8(body.to_vec()).map_err(|_| failed("it is not text in UTF-8".to_owned()))
    }
}

impl File<'_> {
    /// The file's name in messages.
    fn name(&self) -> String {
        match &self.work.file {
            TaskFile::Text(_) => "task file".to_owned(),
            TaskFile::Path(path) => path.to_string(),
        }
    }

    async fn text(&self) -> Result<String, Failure> {
        match &self.work.file {
            TaskFile::Text(text) => Ok(text.clone()),
            TaskFile::Path(path) => self.read(path.as_str()).await,
        }
    }

    /// Tells which secrets the run has. Their values are masked.
    async fn say_secrets(&self) {
        for (id, source) in &self.work.secrets {
            let read = self.attempt.bundle.secrets.get(id);
            let line = match (source, read.and_then(|secret| secret.version)) {
                (SecretSource::Own { name, .. }, Some(version)) => {
                    format!("secret {id}: version {version} of {name}")
                }
                (source, _) => format!("secret {id}: {source}"),
            };
            self.attempt.log.say(None, line).await;
        }
    }

    /// A text file of the source.
    async fn read(&self, path: &str) -> Result<String, Failure> {
        let Some(source) = self.source else {
            let message =
                format!("`{path}` cannot be read, because the run has no files: give it a context");
            return Err(Failure::in_words(ErrorCode::TaskFileInvalid, message));
        };
        let wanted = path.to_owned();
        let read = read_aside(&source.definition, move |source| source.text(&wanted)).await?;
        read.map_err(|error| failure::of_text(&error))
    }

    fn run_variables(&self) -> RunVariables {
        let run = &self.attempt.run;
        let mut variables = RunVariables {
            shared_volume: Workspace::shared_volume(self.owner),
            triggered_by: run.cause.trigger().to_owned(),
            repository: repository(run),
            ..RunVariables::default()
        };
        let source = self.source.map(|source| source.files.as_ref());
        for (name, value) in known_variables(self.attempt, source).named() {
            let is_known = variables.set(name, &value);
            debug_assert!(is_known, "task files know .Run.{name}");
        }
        variables
    }
}

/// What must be read before the file compiles. Nothing if the file is wrong, which is told when it is compiled.
async fn needs(text: &str, inputs: &Inputs) -> Result<Needs, Failure> {
    let (text, known) = (text.to_owned(), inputs.clone());
    let needs = aside::read(move || task_file::needs(&text, &known)).await;
    let needs = needs.map_err(|error| Failure::infrastructures(ErrorCode::Internal, &error))?;
    Ok(needs.unwrap_or_default())
}

/// Fails if the file names a secret that the run does not have. It would be empty.
fn check_secrets(file: &File<'_>, named: &[SecretReference]) -> Result<(), Failure> {
    let problems = task_file::undeclared(named, &file.work.secrets);
    if problems.is_empty() {
        return Ok(());
    }
    let lines = problems.iter().map(|problem| format!("{}: {problem}", file.name()));
    let lines = lines.collect::<Vec<_>>().join("\n");
    Err(Failure::in_words(ErrorCode::TaskFileInvalid, lines))
}

async fn compile_aside(
    text: String,
    inputs: Inputs,
) -> Result<Result<Compiled, Vec<Mistake>>, Failure> {
    let compiled = aside::read(move || task_file::compile(&text, &inputs)).await;
    compiled.map_err(|error| Failure::infrastructures(ErrorCode::Internal, &error))
}

fn invalid(file: &str, mistakes: &[Mistake]) -> Failure {
    let errors = mistakes.iter().filter(|mistake| mistake.severity == Severity::Error);
    let errors: Vec<String> = errors.map(|error| format!("{file}:{error}")).collect();
    let more = errors.len().saturating_sub(MOST_SHOWN);
    let mut shown = errors.into_iter().take(MOST_SHOWN).collect::<Vec<_>>().join("\n");
    if more > 0 {
        shown.push_str(&format!("\nand {more} more: see the log"));
    }
    Failure::in_words(ErrorCode::TaskFileInvalid, shown)
}

/// Leaves out of the push steps what a run of a pull request may not push, and says so.
async fn limit_pushes(
    graph: &mut Graph,
    attempt: &Attempt,
    of: &PullRequestBuild,
    built: Option<&CommitId>,
) {
    let commits: Vec<&CommitId> = built.into_iter().chain([&of.head]).collect();
    let id = attempt.run.purpose.leg_of().map_or(attempt.run.id, |of| of.run);
    let may_push = |image: &ImageReference| {
        let tag = image.tag().map_or("latest", Tag::as_str);
        of.may_push_tag(tag, id, &commits)
    };
    for (step, image) in graph.limit_pushes(may_push) {
        let why = match of.may_push {
            true => "its tag names neither the run nor the pull request nor the commit",
            false => "runs of pull requests push nothing",
        };
        attempt.log.say(Some(&step), format!("{image} is not pushed: {why}")).await;
    }
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(text.as_bytes()))
}

/// The graph of a Docker build.
fn of_build(
    attempt: &Attempt,
    asked: &ImageBuild,
    source: Option<&Checkout>,
) -> Result<Graph, Failure> {
    let variables = known_variables(attempt, source);
    let images = images(attempt, asked, &variables)?;
    let arguments = asked.build_args.iter();
    let build_args =
        arguments.map(|(name, value)| (name.to_string(), value.render(&variables))).collect();
    let secrets = attempt.bundle.build_args.iter();
    let secrets = secrets.map(|(name, value)| (name.to_string(), value.clone())).collect();
    let id = |name: &str| {
        name.parse().map_err(|error| Failure::infrastructures(ErrorCode::Internal, &error))
    };
    let ids = (id("build")?, id("push")?);
    Graph::of_build(asked, ids, &attempt.run.recipe.platforms, images, build_args, secrets)
}

/// The image names, with the run's variables replaced.
fn images(
    attempt: &Attempt,
    asked: &ImageBuild,
    variables: &template::RunVariables<'_>,
) -> Result<Vec<ImageReference>, Failure> {
    let mut images = Vec::with_capacity(asked.images.len());
    for template in &asked.images {
        let name = template.render(variables);
        let image = ImageReference::parse_in(&name, &attempt.registry.host).map_err(|error| {
            let message = format!("the image `{template}` is `{name}` in this run: {error}");
            Failure::in_words(ErrorCode::ImageNameInvalid, message)
        })?;
        refuse_staging(&image)?;
        if !images.contains(&image) {
            images.push(image);
        }
    }
    Ok(images)
}

/// The commit that an earlier attempt has read. Only one that puts legs together has no source, but a commit.
fn read_before(attempt: &Attempt) -> Option<&CommitId> {
    attempt.run.legs.as_ref()?;
    attempt.run.read.as_ref().map(|read| &read.commit)
}

fn known_variables<'a>(
    attempt: &'a Attempt,
    source: Option<&'a Checkout>,
) -> template::RunVariables<'a> {
    let (run, of) = (&attempt.run, attempt.run.purpose.leg_of());
    let read_branch = || {
        let read = run.legs.as_ref().and(run.read.as_ref());
        source.and_then(Checkout::branch).or(read?.branch.as_ref())
    };
    template::RunVariables {
        id: of.map_or(run.id, |of| of.run),
        registry: &attempt.registry.host,
        date: of.map_or(run.created, |of| of.created),
        platform: of.map_or(run.recipe.platforms.first(), |of| &of.platform),
        commit: source.and_then(Checkout::commit).or(read_before(attempt)),
        // The checkout of a commit has no branch.
        branch: match of {
            Some(of) => of.branch.as_ref(),
            None => run.cause.branch().or_else(read_branch),
        },
        task: run.task.as_ref().map(|task| &task.name),
        timer: run.cause.timer(),
    }
}

/// The repository of a run's source, for example `octo/hello`.
fn repository(run: &Run) -> String {
    let key = run.recipe.source.git().map(|git| git.url.key().to_string()).unwrap_or_default();
    key.split_once('/').map_or_else(String::new, |(_, path)| path.to_owned())
}

//! Translates a build step of a task file into the build that it is.
//!
//! Pure. What `docker build` would do and gantry does not is refused by name.

use std::collections::BTreeMap;

use gantry_domain::id::StepId;
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::StageName;
use gantry_domain::run::ErrorCode;
use gantry_domain::source::Source;
use gantry_ops::secret::SecretString;
use gantry_taskfile::task_file::{Build, Container, Given, Traced};

use super::{BuildContext, BuildSecret, BuildWork, WholeBuild};
use crate::failure::Failure;

/// Where the source is in each container.
pub(crate) const WORKSPACE: &str = "/workspace";

/// The build of a step for a run on `platforms`, which is not split into its legs yet.
pub(super) fn translate(
    build: Build,
    step: &StepId,
    platforms: &Platforms,
) -> Result<BuildWork, Failure> {
    let Build {
        tags,
        dockerfile,
        context,
        build_args,
        target,
        options,
        cache,
        container,
        attempts,
    } = build;
    let directory = container.working_directory.as_deref().unwrap_or(WORKSPACE);
    let context = read_context(directory, context.exposed())?;
    let dockerfile = dockerfile.as_ref().map_or("Dockerfile", Traced::exposed);
    let mut work = BuildWork {
        images: tags,
        dockerfile: relative_dockerfile(dockerfile, &context)?,
        context,
        build_args: BTreeMap::new(),
        secret_build_args: BTreeMap::new(),
        secrets: BTreeMap::new(),
        target: target.map(|target| stage(target.exposed())).transpose()?,
        no_cache: false,
        platform: platforms.first().clone(),
        whole: WholeBuild { step: step.clone(), platforms: platforms.clone() },
        labels: BTreeMap::new(),
        frontend: BTreeMap::new(),
        cache,
        attempts,
    };
    for (name, value) in build_args {
        // Without a value, `docker build` takes it from its environment.
        let Some(value) = value.as_ref().or_else(|| variable(&container, &name)) else { continue };
        if value.has_secret() {
            work.secret_build_args.insert(name, SecretString::from(value.exposed()));
        } else {
            work.build_args.insert(name, value.exposed().to_owned());
        }
    }
    for Given { name, value } in &options {
        apply(name, value, &container, &mut work)?;
    }
    Ok(work)
}

fn variable<'a>(container: &'a Container, name: &str) -> Option<&'a Traced> {
    container.env.iter().find(|(own, _)| own == name).map(|(_, value)| value)
}

fn apply(
    name: &str,
    value: &Traced,
    container: &Container,
    work: &mut BuildWork,
) -> Result<(), Failure> {
    let text = value.exposed();
    let mut frontend = |attribute: &str| {
        let joined = work.frontend.entry(attribute.to_owned()).or_default();
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(text);
    };
    match name {
        "add-host" => {
            let (host, address) = text.split_once(['=', ':']).unwrap_or((text, ""));
            let joined = work.frontend.entry("add-hosts".to_owned()).or_default();
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(&format!("{host}={address}"));
        }
        "shm-size" => frontend("shm-size"),
        "ulimit" => frontend("ulimit"),
        "network" if matches!(text, "default" | "bridge") => {}
        "network" if text == "none" => frontend("force-network-mode"),
        "network" => {
            return Err(refused(format!(
                "`docker build --network {value}` is not supported: a build has the engine's own network, or `none`"
            )));
        }
        "label" => {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            work.labels.insert(name.to_owned(), value.to_owned());
        }
        "no-cache" => work.no_cache = matches!(text, "true" | "1"),
        "platform" => {
            let platforms = text.parse::<Platforms>();
            work.whole.platforms =
                platforms.map_err(|error| Failure::users(ErrorCode::BuildRefused, &error))?;
            work.platform = work.whole.platforms.first().clone();
        }
        "secret" => {
            let (id, secret) = secret(text, container)?;
            work.secrets.insert(id, secret);
        }
        // Bases are always resolved at their registry.
        "pull" => {}
        // The engine's own cache is used.
        "cache-from" | "cache-to" => {}
        _ => return Err(refused(format!("`docker build --{name}` is not supported in a step"))),
    }
    Ok(())
}

/// `id=ID,env=NAME` is a variable of the step, `id=ID,src=FILE` a file, relative to the working directory.
fn secret(text: &str, container: &Container) -> Result<(String, BuildSecret), Failure> {
    let field = |wanted: &[&str]| {
        let mut fields = text.split(',').filter_map(|field| field.split_once('='));
        fields.find(|(name, _)| wanted.contains(name)).map(|(_, value)| value)
    };
    let Some(id) = field(&["id"]) else {
        return Err(refused("a secret of a build has an id: write `--secret id=ID,env=NAME`"));
    };
    if let Some(file) = field(&["src", "source"]) {
        let directory = container.working_directory.as_deref().unwrap_or(WORKSPACE);
        let path = in_workspace(directory, file).ok_or_else(|| {
            refused(format!(
                "the secret `{id}` of the build is the file `{file}`, which is outside of the workspace: name a file in it, or \
                 write `--secret id={id},env=NAME`, and give the variable NAME in the step's `env`"
            ))
        })?;
        return Ok((id.to_owned(), BuildSecret::File(path)));
    }
    let name = field(&["env"]).unwrap_or(id);
    let Some(value) = variable(container, name) else {
        return Err(refused(format!(
            "the secret `{id}` of the build is the variable `{name}`, which the step does not have: add it to its `env`"
        )));
    };
    Ok((id.to_owned(), BuildSecret::Value(SecretString::from(value.exposed()))))
}

fn stage(text: &str) -> Result<StageName, Failure> {
    text.parse::<StageName>().map_err(|error| Failure::users(ErrorCode::BuildRefused, &error))
}

/// A folder of the workspace, or an address.
fn read_context(directory: &str, text: &str) -> Result<BuildContext, Failure> {
    if text.contains("://") || text.starts_with("git@") {
        let source = text.parse::<Source>();
        let source = source.map_err(|error| Failure::users(ErrorCode::SourceRefused, &error))?;
        return Ok(BuildContext::Remote(source));
    }
    if text == "-" {
        return Err(refused("a build step has no standard input: name a folder as its context"));
    }
    in_workspace(directory, text).map(BuildContext::Workspace).ok_or_else(|| {
        refused(format!(
            "the context `{text}` is outside of the workspace: name a folder of the source, like `.`"
        ))
    })
}

/// A path relative to the workspace; `None` if it is not in it.
fn in_workspace(directory: &str, path: &str) -> Option<String> {
    let joined =
        if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
    let mut names: Vec<&str> = Vec::new();
    for name in joined.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    let (first, rest) = names.split_first()?;
    (*first == &WORKSPACE[1..]).then(|| rest.join("/"))
}

/// The Dockerfile, relative to the context: the original's documentation says so, and `docker build` takes it relative
/// to the working directory. A path that begins with the context's own is meant in the second way.
fn relative_dockerfile(text: &str, context: &BuildContext) -> Result<String, Failure> {
    let path = text.strip_prefix("./").unwrap_or(text);
    if path == "-" {
        return Err(refused("a build step has no standard input: name the Dockerfile"));
    }
    let BuildContext::Workspace(folder) = context else { return Ok(path.to_owned()) };
    if let Some(rest) = path.strip_prefix('/') {
        let inside = in_workspace("/", &format!("/{rest}"));
        let inside = inside.as_deref().and_then(|path| match folder.as_str() {
            "" => Some(path),
            folder => path.strip_prefix(folder)?.strip_prefix('/'),
        });
        return inside.map(str::to_owned).ok_or_else(|| {
            refused(format!("the Dockerfile `{text}` is outside of the build's context"))
        });
    }
    let inside = path.strip_prefix(folder.as_str()).and_then(|rest| rest.strip_prefix('/'));
    Ok(inside.filter(|_| !folder.is_empty()).unwrap_or(path).to_owned())
}

fn refused(message: impl Into<String>) -> Failure {
    Failure::in_words(ErrorCode::BuildRefused, message)
}

#[cfg(test)]
mod tests {
    use gantry_ops::secret::ExposeSecret as _;
    use gantry_taskfile::task_file::{Inputs, StepWork, compile};
    use gantry_taskfile::template::{Data, Trust};

    use super::*;

    fn build(step: &str) -> Result<BuildWork, String> {
        let mut inputs = Inputs::default();
        inputs.values.set("token", Data::Text("s3cret".into()), Trust::Secret);
        let task = compile(&format!("steps:\n- {step}\n"), &inputs).unwrap().task;
        let only = task.steps.into_iter().next().unwrap();
        let StepWork::Build(build) = only.work else { panic!("{step} is no build") };
        translate(*build, &only.id, &Platforms::default())
            .map_err(|failure| failure.error().to_string())
    }

    #[test]
    fn contexts_and_dockerfiles_are_found_in_the_workspace() {
        for (step, context, dockerfile) in [
            ("build: .", "", "Dockerfile"),
            ("build: -f docker/web.dockerfile .", "", "docker/web.dockerfile"),
            ("build: -f Dockerfile.web src/web", "src/web", "Dockerfile.web"),
            ("build: -f src/Dockerfile src", "src", "Dockerfile"),
            ("build: -f /workspace/src/Dockerfile ./src/", "src", "Dockerfile"),
            ("{build: ../b, workingDirectory: a}", "b", "Dockerfile"),
            ("build: /workspace/a", "a", "Dockerfile"),
        ] {
            let work = build(step).unwrap();
            assert_eq!(work.context, BuildContext::Workspace(context.to_owned()), "{step}");
            assert_eq!(work.dockerfile, dockerfile, "{step}");
        }
        for step in ["build: ..", "build: /etc", "build: a/../../x", "build: '-'"] {
            assert!(build(step).is_err(), "{step}");
        }
        let remote = build("build: https://github.com/octo/web.git#main").unwrap().context;
        assert!(matches!(remote, BuildContext::Remote(Source::Git(_))), "{remote:?}");
    }

    #[test]
    fn a_secret_is_no_plain_argument() {
        let work = build(
            "{build: '--build-arg A=1 --build-arg T=x{{.Values.token}} --build-arg B --build-arg C --secret id=npm,env=N .', env: [B=2, 'N={{.Values.token}}']}",
        );
        let work = work.unwrap();
        let plain: Vec<_> = work.build_args.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(plain, ["A=1", "B=2"]);
        assert_eq!(work.secret_build_args["T"].expose_secret(), "xs3cret");
        let BuildSecret::Value(value) = &work.secrets["npm"] else { panic!("it is a variable") };
        assert_eq!(value.expose_secret(), "s3cret");
    }

    #[test]
    fn a_secret_may_be_a_file_of_the_workspace() {
        for (step, expected) in [
            ("build: '--secret id=npm,src=.npmrc .'", ".npmrc"),
            ("build: '--secret type=file,id=npm,source=/workspace/a/../b/npmrc .'", "b/npmrc"),
            ("{build: '--secret id=npm,src=../npmrc .', workingDirectory: a/b}", "a/npmrc"),
        ] {
            let work = build(step).unwrap();
            let BuildSecret::File(path) = &work.secrets["npm"] else { panic!("{step}: no file") };
            assert_eq!(path, expected, "{step}");
        }
        for file in ["/etc/shadow", "../npmrc", "/workspace/../root/.npmrc", "/acb/home/.npmrc"] {
            let error = build(&format!("build: '--secret id=npm,src={file} .'")).unwrap_err();
            assert!(error.contains("`npm`") && error.contains(file), "{error}");
        }
    }

    #[test]
    fn options_have_their_meaning_or_are_refused() {
        let work = build(
            "build: --no-cache --label a=b --platform linux/arm64 --network none --add-host db:10.0.0.1 --add-host x=10.0.0.2 .",
        );
        let work = work.unwrap();
        assert!(work.no_cache && work.platform.to_string() == "linux/arm64");
        assert_eq!(work.labels["a"], "b");
        assert_eq!(work.frontend["force-network-mode"], "none");
        assert_eq!(work.frontend["add-hosts"], "db=10.0.0.1,x=10.0.0.2");
        for step in ["build: --secret src=a .", "build: --secret id=a ."] {
            assert!(build(step).is_err(), "{step}");
        }
    }
}

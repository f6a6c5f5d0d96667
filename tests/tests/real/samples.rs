//! The published samples of the original, on a real engine, with the outcome that their authors meant.
//!
//! Each sample that needs no Azure has a file in `samples/` that says what is expected of it, written by hand. Images that
//! cannot be had here have stand-ins of the same name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptions, RemoveContainerOptions,
    UploadToContainerOptionsBuilder,
};
use gantry_domain::image::ImageReference;
use gantry_domain::run::RunStatus;
use gantry_domain::step::{StepEnd, StepState};
use gantry_tests::real::{self, Engine};
use serde::Deserialize;

use crate::task_files::{Files, Ran};

gantry_tests::on_each_engine! { slow on the default engine: samples_end_as_their_authors_meant }

/// What is expected of a sample.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// What its author meant, in a sentence.
    #[expect(dead_code, reason = "for people")]
    means: String,
    status: String,
    /// Texts in the log, in any order.
    #[serde(default)]
    says: Vec<String>,
    /// Whether its steps reach each other, which they do only on the default engine.
    #[serde(default)]
    needs_network: bool,
    /// The steps in the order of the file.
    steps: Vec<String>,
    /// The repositories and tags that are pushed.
    #[serde(default)]
    pushes: Vec<String>,
    #[serde(default)]
    values: BTreeMap<String, String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/samples")
}

fn sample(name: &str) -> String {
    let samples = "../shared/taskfile/tests/conformance/samples";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(samples).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The expectations by the name of their sample.
fn expectations() -> Vec<(String, Expected)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().replace("__", "/");
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        all.push((name, expected));
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// A program that stands in for an image that cannot be had here.
const STAND_INS: [(&str, &str); 7] = [
    // As in the original's image, options are those of the shell.
    ("docker.io/stand-in/bash:1", "case $1 in -*) exec sh \"$@\";; *) exec \"$@\";; esac"),
    ("docker.io/library/bash:latest", "case $1 in -*) exec sh \"$@\";; *) exec \"$@\";; esac"),
    ("docker.io/library/bash:3.0", "case $1 in -*) exec sh \"$@\";; *) exec \"$@\";; esac"),
    (
        "docker.io/stand-in/curl:1",
        "for i in $(seq 100); do wget -qO- $2 && exit 0; sleep 0.1; done; exit 6",
    ),
    ("mcr.microsoft.com/hello-world:latest", "echo Hello from the container"),
    (
        "mcr.microsoft.com/oss/nginx/nginx:1.15.5-alpine",
        "mkdir /www; echo Welcome to nginx > /www/index.html; exec httpd -f -p 80 -h /www",
    ),
    ("cmd.azurecr.io/helm:v2.11.0-rc.2", "echo helm \"$@\""),
];

/// Makes the stand-ins in the engine, under the names that the samples use.
async fn stand_in(files: &Files, on: Engine) {
    let base: ImageReference = real::base_image().parse().unwrap();
    files.worker("w").containers.pull(&base, None, None).await.unwrap();
    let host = on.docker_host();
    let path = host.trim_start_matches("unix://");
    let docker = Docker::connect_with_unix(path, 60, bollard::API_DEFAULT_VERSION).unwrap();
    for (name, script) in STAND_INS {
        let body = ContainerCreateBody {
            image: Some(base.to_string()),
            cmd: Some(vec!["/program".to_owned()]),
            ..ContainerCreateBody::default()
        };
        let options = None::<CreateContainerOptions>;
        let container = docker.create_container(options, body).await.unwrap().id;
        let upload = UploadToContainerOptionsBuilder::default().path("/").build();
        let files = bollard::body_full(program(script).into());
        docker.upload_to_container(&container, Some(upload), files).await.unwrap();
        let (repository, tag) = name.rsplit_once(':').unwrap();
        let commit = CommitContainerOptionsBuilder::default()
            .container(&container)
            .repo(repository)
            .tag(tag)
            .changes("ENTRYPOINT [\"/program\"]\nCMD []");
        docker.commit_container(commit.build(), ContainerConfig::default()).await.unwrap();
        docker.remove_container(&container, None::<RemoveContainerOptions>).await.unwrap();
    }
}

/// A tar with the program.
fn program(script: &str) -> Vec<u8> {
    let text = format!("#!/bin/sh\n{script}\n");
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(text.len() as u64);
    archive.append_data(&mut header, "program", text.as_bytes()).unwrap();
    archive.into_inner().unwrap()
}

async fn run(files: &Files, name: &str, expected: &Expected) -> Ran {
    let hello = format!("FROM {}\nCMD [\"echo\", \"Hello from Docker\"]\n", real::base_image());
    let chart = "name: helloworld\n";
    let source = files.source(&[
        ("Dockerfile", &hello),
        ("hello-world.dockerfile", &hello),
        ("release/helm/Chart.yaml", chart),
        ("task.yaml", &sample(name)),
    ]);
    let values = expected
        .values
        .iter()
        .map(|(name, value)| (name.as_str(), value.replace("REGISTRY", &real::registry())));
    let values: Vec<(&str, String)> = values.collect();
    let id = files.ask_with(source, "task.yaml", &values).await;
    let mut worker = files.worker("w");
    worker.settings.image_aliases = [("bash", "stand-in/bash:1"), ("curl", "stand-in/curl:1")]
        .map(|(alias, image)| (alias.to_owned(), image.to_owned()))
        .into();
    assert!(worker.turn(&files.gantry.stop).await.unwrap());
    files.ended(id, 1).await
}

async fn samples_end_as_their_authors_meant(on: Engine) {
    let files = Files::start(on).await;
    stand_in(&files, on).await;
    let expectations = expectations();
    assert!(expectations.len() >= 21, "{}", expectations.len());
    let has_network = matches!(on, Engine::Default);
    for (name, expected) in expectations {
        if expected.needs_network && !has_network {
            continue;
        }
        let ran = run(&files, &name, &expected).await;
        let told = format!("{name}: {:?}\n{}", ran.run.state, ran.log);
        let status: RunStatus = expected.status.parse().unwrap();
        assert_eq!(ran.status(), status, "{told}");
        for text in &expected.says {
            assert!(ran.log.contains(text), "no `{text}` in {told}");
        }
        let steps = ran.steps.iter().map(|step| {
            let how = match &step.state {
                StepState::Waiting => "waiting",
                StepState::Running { .. } => "running",
                StepState::Ended { end: StepEnd::Succeeded { .. }, .. } => "succeeded",
                StepState::Ended { .. } => "failed or stopped",
            };
            format!("{} {how}", step.id)
        });
        assert_eq!(steps.collect::<Vec<_>>(), expected.steps, "{told}");
        let product = ran.run.state.done().and_then(|done| done.outcome.product());
        let outputs = product.map_or(&[][..], |product| product.outputs.as_slice());
        let pushed = outputs.iter().map(|output| output.image.to_string());
        let id = ran.run.id.to_string();
        let wanted = expected
            .pushes
            .iter()
            .map(|push| push.replace("$ID", &id).replace("REGISTRY", &real::registry()));
        assert_eq!(pushed.collect::<Vec<_>>(), wanted.collect::<Vec<_>>(), "{told}");
        assert_eq!(files.left().await, [] as [String; 0], "{told}");
    }
}

//! Compares the images that gantry finds in a Dockerfile with recorded answers of the original's dependency scan.
//!
//! `GANTRY_CONFORMANCE_SCAN` names another file of cases.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "data that cannot be read has failed the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use gantry_domain::image::ImageReference;
use gantry_domain::platform::Platform;
use gantry_taskfile::dockerfile::{BuildInputs, Dockerfile, Role};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    name: String,
    dockerfile: String,
    extra_flags: Vec<String>,
    exit: i32,
    output: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Dependencies {
    runtime_dependency: Option<Image>,
    buildtime_dependency: Option<Vec<Image>>,
}

#[derive(Deserialize)]
struct Image {
    reference: String,
}

/// The runtime base, and the other images.
type Found = (Option<ImageReference>, BTreeSet<ImageReference>);

/// The runtime base and the other images, or a part of the error.
type Answer = Result<(&'static str, &'static [&'static str]), &'static str>;

/// Cases with another answer, and the reason.
const DIFFERENCES: &[(&str, Answer, &str)] = &[
    ("arg-shell-default", Ok(("alpine", &[])), "`${X:-y}` is expanded, as engines do"),
    ("arg-in-arg", Ok(("alpine:3.19", &[])), "arguments may use earlier ones, as in engines"),
    (
        "arg-given-without-value",
        Ok(("alpine", &[])),
        "an argument without a value is taken from the environment",
    ),
    ("platform-only", Ok(("alpine:3.19", &[])), "`FROM --platform` is read as engines do"),
    (
        "arg-after-from",
        Err("`debian:` is neither"),
        "an argument of a stage has no effect on later stages, as in engines",
    ),
    ("quoted-image", Err("not a valid stage name"), "engines refuse quotes around a stage's name"),
    ("target-unknown", Err("zzz"), "engines refuse a target that does not exist"),
    ("final-scratch", Ok(("", &["golang:1.22"])), "`scratch` is no image"),
];

#[test]
fn the_images_of_a_dockerfile_are_found_as_the_original_finds_them() {
    let cases: Cases = serde_json::from_str(&text()).unwrap();
    let mut wrong = String::new();
    for case in &cases.cases {
        let found = found(case);
        let expected = match DIFFERENCES.iter().find(|(name, ..)| *name == case.name) {
            Some((_, Ok((runtime, others)), _)) => Ok((
                (!runtime.is_empty()).then(|| runtime.parse().unwrap()),
                others.iter().map(|other| other.parse().unwrap()).collect(),
            )),
            Some((_, Err(error), _)) => Err((*error).to_owned()),
            None if case.exit == 0 => Ok(recorded(case)),
            None => Err(String::new()),
        };
        let agrees = match (&found, &expected) {
            (Ok(found), Ok(expected)) => found == expected,
            (Err(error), Err(part)) => error.contains(part),
            _ => false,
        };
        if !agrees {
            writeln!(wrong, "{}\n  ours:   {found:?}\n  theirs: {expected:?}", case.name).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_difference_is_documented() {
    let page = include_str!("../../../docs/task-files.md");
    for (case, ..) in DIFFERENCES {
        assert!(page.contains(&format!("`{case}`")), "docs/task-files.md does not name {case}");
    }
}

#[allow(clippy::disallowed_methods, reason = "a test has no settings but these")]
fn text() -> String {
    let named = std::env::var("GANTRY_CONFORMANCE_SCAN");
    named.map_or_else(
        |_| include_str!("conformance/scan-cases.json").to_owned(),
        |path| std::fs::read_to_string(path).unwrap(),
    )
}

fn found(case: &Case) -> Result<Found, String> {
    let mut build_args = BTreeMap::new();
    let mut target = None;
    for flag in case.extra_flags.chunks(2) {
        match flag[0].as_str() {
            "--build-arg" => {
                if let Some((name, value)) = flag[1].split_once('=') {
                    build_args.insert(name.to_owned(), value.to_owned());
                }
            }
            "--target" => target = Some(flag[1].as_str()),
            other => panic!("unknown flag {other}"),
        }
    }
    let platform = Platform::default();
    let inputs = BuildInputs {
        build_args: &build_args,
        target,
        platform: &platform,
        build_platform: &platform,
    };
    let dockerfile =
        Dockerfile::parse(&case.dockerfile, inputs).map_err(|error| error.to_string())?;
    let runtime = dockerfile.runtime_base().cloned();
    let others = dockerfile.images().iter().filter(|used| used.role == Role::BuildTime);
    let others =
        others.map(|used| used.image.clone()).filter(|image| Some(image) != runtime.as_ref());
    let others = others.collect();
    Ok((runtime, others))
}

fn recorded(case: &Case) -> Found {
    let line = case.output.iter().find(|line| line.starts_with("[{")).unwrap();
    let dependencies: Vec<Dependencies> = serde_json::from_str(line).unwrap();
    let parse = |image: &Image| image.reference.parse().unwrap();
    let runtime = dependencies[0].runtime_dependency.as_ref().map(parse);
    (runtime, dependencies[0].buildtime_dependency.iter().flatten().map(parse).collect())
}

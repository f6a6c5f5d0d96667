//! What the steps of a task file may use, and how they wait for each other's images.

use std::collections::BTreeMap;

use gantry_domain::decide::planner;
use gantry_domain::platform::Platform;
use gantry_domain::recipe::{FileWork, Recipe, RunTimeout, TaskFile, Work};
use gantry_domain::run::{ErrorCode, RunError};
use gantry_domain::source::Source;
use gantry_seams::requests::AcceptedRequest;
use gantry_tests::pipeline::TestPipeline;

/// Requests a run of this task file, which is `ca1` if it is the first.
async fn ask(gantry: &TestPipeline, source: Source, text: &str) {
    let work = FileWork {
        file: TaskFile::Text(text.to_owned()),
        values_file: None,
        values: BTreeMap::new(),
        secret_values: BTreeMap::new(),
        has_registry_login: false,
    };
    let recipe = Recipe {
        source,
        platform: Platform::default(),
        timeout: RunTimeout::default(),
        work: Work::File(work),
    };
    let draft = |event| {
        let (registry, by) = ("reg".parse().unwrap(), TestPipeline::somebody());
        planner::for_quick_run(registry, recipe, None, event, by)
    };
    let asked = gantry.request(draft, None).await;
    assert!(matches!(asked, AcceptedRequest::Started(_)), "it is new");
    gantry.schedule().await;
}

async fn error_of(gantry: &TestPipeline, run: &str) -> RunError {
    let run = gantry.run(run).await;
    let done = run.state.done().unwrap_or_else(|| panic!("{run:?} has not ended"));
    done.outcome.error().unwrap_or_else(|| panic!("{run:?} has not failed")).clone()
}

#[tokio::test]
async fn a_command_cannot_use_the_image_of_another_run() {
    let gantry = super::start().await;
    let image = "gantry.local/web:ca7-1-build";
    let text = format!("steps:\n- cmd: first\n- {{id: thief, cmd: '{image} cat /secret'}}\n");
    ask(&gantry, Source::Nothing, &text).await;
    gantry.settle().await;
    let error = error_of(&gantry, "ca1").await;
    assert_eq!(error.code, ErrorCode::ImageNotFound, "{error}");
    let expected = format!("step `thief`: {image} is no image that a step of this run has built");
    assert_eq!(error.to_string(), expected);
}

//! What the steps of a task file may use, and how they wait for each other's images.

use std::collections::{BTreeMap, BTreeSet};

use gantry_domain::decide::planner;
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::{FileValue, FileWork, Recipe, RunTimeout, TaskFile, Work};
use gantry_domain::run::{ErrorCode, RunError, RunStatus};
use gantry_domain::source::Source;
use gantry_domain::step::StepState;
use gantry_seams::requests::AcceptedRequest;
use gantry_seams::steps;
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};
use gantry_worker::engine::scripted::{Action, Gate};

/// Requests a run of this task file, which is `ca1` if it is the first.
async fn ask(gantry: &TestPipeline, source: Source, text: &str) {
    let work = FileWork {
        file: TaskFile::Text(text.to_owned()),
        values_file: None,
        values: BTreeMap::new(),
        secret_values: BTreeMap::new(),
        secrets: BTreeMap::new(),
        has_registry_login: false,
    };
    let recipe = Recipe {
        source,
        platforms: Platforms::default(),
        timeout: RunTimeout::default(),
        logins: BTreeMap::new(),
        follows: gantry_domain::tracked_image::TagPolicies::default(),
        bases: Vec::new(),
        pull_request: None,
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

#[tokio::test]
async fn a_registry_keeps_layers_for_runs_of_the_task_as_it_is_and_without_secrets() {
    let gantry = super::start().await;
    gantry.git.repository("web").unwrap().commit("main", DOCKERFILE).unwrap();
    let source: Source = format!("{}#main", gantry.git.url("web")).parse().unwrap();
    let build = "{id: build, build: '-t {{.Run.Registry}}/web:1 .', cache: enabled}";
    let secret = "{id: build, build: '--secret id=S,env=S -t {{.Run.Registry}}/web:1 .', cache: enabled, env: [S=1]}";
    let file = |step: &str, value: Option<&str>| FileWork {
        file: TaskFile::Text(format!("steps:\n- {step}\n")),
        values_file: None,
        values: value.into_iter().map(|name| (name.parse().unwrap(), given())).collect(),
        secret_values: BTreeMap::new(),
        secrets: BTreeMap::new(),
        has_registry_login: false,
    };
    let task = gantry.task_with("release", "unused:1", |task| {
        task.source_trigger = None;
        task.recipe.source = source.clone();
        task.recipe.work = Work::File(file(build, None));
    });
    let task = task.await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let recipe = Recipe { work: Work::File(file(build, Some("a"))), ..task.recipe.clone() };
    let overridden =
        |event| planner::for_task_request(&task, recipe, event, TestPipeline::somebody());
    gantry.request(overridden, None).await;
    gantry.settle().await;
    ask(&gantry, source.clone(), &format!("steps:\n- {build}\n")).await;
    gantry.settle().await;
    ask(&gantry, source, &format!("steps:\n- {secret}\n")).await;
    gantry.settle().await;
    let kept = gantry.engine.asked().into_iter().map(|asked| asked.order.cache);
    let kept: Vec<_> = kept.map(|cache| cache.map(|cache| cache.to_string())).collect();
    let kept: Vec<_> = kept.iter().map(Option::as_deref).collect();
    let of_task = Some("registry.test/web:cache_release_build");
    assert_eq!(kept, [of_task, None, Some("registry.test/web:cache_quickrun_build"), None]);
    let told = "`cache` has no effect: a run with overrides keeps its layers in the engine alone";
    assert!(gantry.log("ca2", 1).await.contains(told));
}

fn given() -> FileValue {
    FileValue { text: "1".to_owned(), is_given: true }
}

#[tokio::test]
async fn a_step_waits_for_the_image_of_a_build_that_is_tried_again() {
    let gantry = super::start().await;
    gantry.git.repository("web").unwrap().commit("main", DOCKERFILE).unwrap();
    let source = format!("{}#main", gantry.git.url("web")).parse().unwrap();
    let (building, lint) = (Gate::closed(), Gate::closed());
    let (web, linter) = (TestPipeline::repository("web"), TestPipeline::repository("lint"));
    gantry.engine.script(&web, [Action::Wait(building.clone()), Action::Exit(1)]);
    gantry.engine.script(&linter, [Action::Wait(lint.clone())]);
    let text = "\
steps:
- {id: build, build: '-t {{.Run.Registry}}/web:1 .', retries: 1, retryDelay: 1}
- {id: lint, build: '-t {{.Run.Registry}}/lint:1 .', when: ['-']}
- {id: push, push: ['{{.Run.Registry}}/web:1'], when: [lint]}
";
    ask(&gantry, source, text).await;
    let ending = async {
        building.reached().await;
        lint.open();
        while state_of(&gantry, "push").await == StepState::Waiting {
            tokio::task::yield_now().await;
        }
        building.open();
        std::future::pending().await
    };
    tokio::select! {
        () = gantry.settle() => {}
        () = ending => {}
    }
    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Succeeded, "{}", gantry.log("ca1", 1).await);
    let asked = gantry.engine.asked();
    let of_web = asked.iter().filter(|asked| *asked.order.image.repository() == web);
    let names: BTreeSet<String> = of_web.map(|asked| asked.order.image.to_string()).collect();
    assert_eq!(names.len(), 2, "what removes the first image cannot remove the second: {names:?}");
}

#[tokio::test]
async fn steps_that_do_not_fit_into_the_memory_of_a_run_take_turns() {
    let gantry = super::start().await;
    let mut worker = gantry.worker("worker-1");
    worker.settings.run_limits.memory = worker.settings.step_limits.memory;
    let gates = ["first", "second"].map(|name| {
        let gate = Gate::closed();
        let repository = TestPipeline::repository(&format!("library/{name}"));
        gantry.engine.script(&repository, [Action::Wait(gate.clone())]);
        gate
    });
    ask(
        &gantry,
        Source::Nothing,
        "steps:\n- {cmd: first, when: ['-']}\n- {cmd: second, when: ['-']}\n",
    )
    .await;
    let [first, second] = gates;
    let taking_turns = async {
        first.reached().await;
        assert_eq!(gantry.engine.running(), 1, "the second waits");
        first.open();
        second.reached().await;
        assert_eq!(gantry.engine.running(), 1);
        second.open();
        std::future::pending().await
    };
    tokio::select! {
        () = gantry.settle_with(&worker) => {}
        () = taking_turns => {}
    }
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
}

async fn state_of(gantry: &TestPipeline, id: &str) -> StepState {
    let steps = steps::find(gantry.store.as_ref(), "ca1".parse().unwrap(), 1).await.unwrap();
    let step = steps.iter().find(|step| step.id.as_str() == id);
    step.map_or(StepState::Waiting, |step| step.state.clone())
}

//! Scans read which images a task needs, when it is saved and when its source moves without starting a run.

use std::time::Duration;

use gantry_domain::decide::planner;
use gantry_domain::recipe::{FileWork, TaskFile, Work};
use gantry_domain::registry::Registry;
use gantry_domain::run::{ErrorCode, Purpose, RunStatus};
use gantry_domain::scan::{NeededImages, Scanned, TaskImages};
use gantry_domain::source::Source;
use gantry_domain::task::{Status, Task};
use gantry_ops::secret::SecretString;
use gantry_seams::runs::{self, RunFilter, RunOpError, TakenRun};
use gantry_seams::{registries, tasks};
use gantry_tests::pipeline::{DOCKERFILE, LEASE, TestPipeline, image_build};

/// A Dockerfile on another base.
const ON_ALPINE: &[(&str, &str)] = &[("Dockerfile", "FROM registry.test/alpine:3\n")];

/// The images, one per line: role, image, step, Dockerfile.
fn shown(images: &TaskImages) -> String {
    let Some(read) = &images.read else { return "not scanned".to_owned() };
    let needed = read.needed.images().iter().map(|needed| {
        let role = serde_json::to_value(needed.role).unwrap();
        let dockerfile = needed.dockerfile.as_deref().unwrap_or("-");
        format!("{} {} {} {dockerfile}", role.as_str().unwrap(), needed.image, needed.step)
    });
    let unread = read.needed.unread().iter().map(|step| format!("{}: {}", step.step, step.why));
    needed.chain(unread).collect::<Vec<_>>().join("\n")
}

const BUSYBOX: &str = "runtime registry.test/busybox:1 build Dockerfile";
const ALPINE: &str = "runtime registry.test/alpine:3 build Dockerfile";

fn reader(images: &TaskImages) -> String {
    images.read.as_ref().unwrap().reading.run.to_string()
}

async fn exists(gantry: &TestPipeline, run: &str) -> bool {
    runs::find(gantry.store.as_ref(), run.parse().unwrap()).await.unwrap().is_some()
}

async fn take(gantry: &TestPipeline) -> TakenRun {
    let (pool, worker) = ("linux-amd64".parse().unwrap(), "w".parse().unwrap());
    let nonce = "1".repeat(32).parse().unwrap();
    let taken = runs::take(gantry.store.as_ref(), &pool, &worker, &nonce, LEASE).await.unwrap();
    taken.expect("a ready run")
}

/// A saved task `hello` whose trigger is disabled, with the commits of its branch so far.
async fn untriggered(gantry: &TestPipeline) -> (Task, String) {
    let first = gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry
        .task_with("hello", "hello:{{.Run.ID}}", |task| {
            task.source_trigger.as_mut().unwrap().commit.status = Status::Disabled;
        })
        .await;
    (task, first)
}

#[tokio::test]
async fn a_saved_task_is_scanned_and_nothing_is_built() {
    let gantry = super::start().await;
    let commit = gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    assert_eq!(gantry.images(&task).await, TaskImages::default());
    // An engine is not needed.
    gantry.engine.go_away();
    gantry.settle().await;

    let images = gantry.images(&task).await;
    assert_eq!(shown(&images), BUSYBOX);
    assert_eq!(images.read.unwrap().commit.unwrap().as_str(), commit);
    let scan = gantry.run("ca-1").await;
    assert_eq!((&scan.purpose, scan.status()), (&Purpose::Scan, RunStatus::Succeeded));
    assert_eq!(scan.recipe.timeout.as_duration(), Duration::from_secs(600));
    assert!(gantry.engine.asked().is_empty() && !exists(&gantry, "ca1").await);
}

#[tokio::test]
async fn each_revision_of_a_task_is_scanned_once() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    hello.commit("other", ON_ALPINE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    let source: Source = format!("{}#other", gantry.git.url("hello")).parse().unwrap();
    let change = |task: &mut Task| task.recipe.source = source.clone();
    tasks::update(gantry.store.as_ref(), &task.id, change).await.unwrap().unwrap();
    let (_, event) = tasks::update(gantry.store.as_ref(), &task.id, change).await.unwrap().unwrap();
    assert_eq!(event, None, "nothing has changed");
    gantry.settle().await;
    // Both events found the second revision.
    let images = gantry.images(&task).await;
    assert_eq!((shown(&images).as_str(), images.read.unwrap().reading.revision), (ALPINE, 2));
    assert!(!exists(&gantry, "ca-2").await);
}

#[tokio::test]
async fn a_push_that_starts_no_run_is_scanned_once() {
    let gantry = super::start().await;
    let (task, first) = untriggered(&gantry).await;
    gantry.settle().await;
    let second = gantry.git.repository("hello").unwrap().commit("main", ON_ALPINE).unwrap();
    for delivery in ["d1", "d2"] {
        let (event, _) = gantry.deliver(delivery, "hello", Some(&first), Some(&second)).await;
        gantry.settle().await;
        let decision = gantry.decision(&event).await;
        assert!(decision.contains("its source trigger is disabled"), "{decision}");
    }
    let images = gantry.images(&task).await;
    assert_eq!((shown(&images).as_str(), reader(&images).as_str()), (ALPINE, "ca-2"));
    assert!(!exists(&gantry, "ca-3").await && !exists(&gantry, "ca1").await);
}

#[tokio::test]
async fn a_run_of_a_task_tells_its_images_and_no_scan_is_started() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    let second = hello.commit("main", ON_ALPINE).unwrap();
    gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    gantry.settle().await;
    let images = gantry.images(&task).await;
    assert_eq!((shown(&images).as_str(), reader(&images).as_str()), (ALPINE, "ca1"));
    assert!(!exists(&gantry, "ca-2").await);
}

#[tokio::test]
async fn a_run_with_overrides_does_not_change_what_is_known() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    hello.commit("other", ON_ALPINE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    let before = gantry.images(&task).await;
    let mut recipe = task.recipe.clone();
    recipe.source = format!("{}#other", gantry.git.url("hello")).parse().unwrap();
    let draft = |event| planner::for_task_request(&task, recipe, event, TestPipeline::somebody());
    gantry.request(draft, None).await;
    gantry.settle().await;
    assert!(gantry.run("ca1").await.attempts.len() == 1);
    assert_eq!(gantry.images(&task).await, before);
}

#[tokio::test]
async fn a_task_file_tells_the_images_of_each_step_with_their_roles() {
    let gantry = super::start().await;
    let file = "\
version: v1.1.0
secrets: [{id: key, keyvault: 'https://vault.test/secrets/key'}]
steps:
- {id: web, build: '-t registry.test/web:1 .'}
- {id: tool, build: '-t tool:1 -f tool.dockerfile --build-arg V=2 tools'}
- {id: test, cmd: 'registry.test/web:1 npm test', env: ['KEY={{.Secrets.key}}']}
- {id: lint, cmd: bash -c lint}
- {id: made, build: '-f made/Dockerfile .'}
- push: ['registry.test/web:1']
";
    let files = [
        ("acr-task.yaml", file),
        ("Dockerfile", "FROM golang:1 AS b\nFROM registry.test/busybox:1\nCOPY --from=b / /\n"),
        ("tools/tool.dockerfile", "ARG V=1\nFROM alpine:$V\n"),
    ];
    gantry.git.repository("hello").unwrap().commit("main", &files).unwrap();
    let task = gantry
        .task_with("hello", "hello:1", |task| {
            task.recipe.work = Work::File(FileWork {
                file: TaskFile::Path("acr-task.yaml".parse().unwrap()),
                values_file: None,
                values: [].into(),
                secret_values: [].into(),
                secrets: [].into(),
                has_registry_login: false,
            });
        })
        .await;
    gantry.settle().await;
    let images = gantry.images(&task).await;
    assert_eq!(images.failed, None);
    let expected = "\
buildtime docker.io/library/golang:1 web Dockerfile
runtime registry.test/busybox:1 web Dockerfile
runtime docker.io/library/alpine:2 tool tool.dockerfile
step docker.io/library/bash:latest lint -
made: there is no `made/Dockerfile` in the source: check `--file`, and the folder behind `:` of the context";
    assert_eq!(shown(&images), expected);
}

#[tokio::test]
async fn a_scan_is_in_no_list_and_takes_no_place() {
    let gantry = super::start().await;
    let store = gantry.store.as_ref();
    let registry = "reg".parse().unwrap();
    let one = std::num::NonZeroU32::MIN;
    let narrow = |registry: &mut Registry| registry.run_limit = one;
    registries::update(store, &registry, TestPipeline::prefix(), narrow).await.unwrap();
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task_with("hello", "hello:1", |task| task.run_limit = Some(one)).await;
    gantry.schedule().await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    let (scan, run) = (gantry.run("ca-1").await, gantry.run("ca1").await);
    assert!(scan.state.holds_a_place() && run.state.holds_a_place(), "both are ready");

    let listed = |filter: RunFilter| async move {
        let listed = runs::list(store, &filter, None, 10).await.unwrap();
        listed.iter().map(|run| run.id.to_string()).collect::<Vec<_>>()
    };
    let prefix = TestPipeline::prefix();
    for filter in [
        RunFilter::default(),
        RunFilter { registry: Some(prefix), ..RunFilter::default() },
        RunFilter { task: Some((prefix, task.id.name.clone())), ..RunFilter::default() },
        RunFilter { status: Some(RunStatus::Queued), ..RunFilter::default() },
    ] {
        assert_eq!(listed(filter.clone()).await, ["ca1"], "{filter:?}");
    }
    assert_eq!(runs::all_ready(store, 10).await.unwrap().len(), 1);
    assert_eq!(take(&gantry).await.run.id.to_string(), "ca1", "it ranks behind real runs");
    assert_eq!(take(&gantry).await.run.id.to_string(), "ca-1");
    assert_eq!(runs::count_leased(store, 10).await.unwrap(), 1);
    gantry.leaves_work();
}

#[tokio::test]
async fn an_older_scan_never_replaces_a_newer_one() {
    let gantry = super::start().await;
    let (task, first) = untriggered(&gantry).await;
    gantry.settle().await;
    let hello = gantry.git.repository("hello").unwrap();
    let second = hello.commit("main", &[("file", "2")]).unwrap();
    gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    gantry.schedule().await;
    let older = take(&gantry).await;
    let third = hello.commit("main", ON_ALPINE).unwrap();
    gantry.deliver("d2", "hello", Some(&second), Some(&third)).await;
    gantry.settle().await;
    assert_eq!(reader(&gantry.images(&task).await), "ca-3");

    let (store, images) = (gantry.store.as_ref(), NeededImages::default());
    let found = Scanned::Read { commit: Some(second.parse().unwrap()), images };
    runs::scanned(store, older.run.id, &older.holder, &found).await.unwrap();
    let images = gantry.images(&task).await;
    assert_eq!((shown(&images).as_str(), reader(&images).as_str()), (ALPINE, "ca-3"));
}

#[tokio::test]
async fn a_scan_whose_worker_is_lost_gets_another_attempt() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    let lost = take(&gantry).await;
    gantry.clock.advance(LEASE * 2);
    runs::lapse(gantry.store.as_ref(), lost.run.id).await.unwrap().unwrap();
    gantry.settle().await;
    assert_eq!(shown(&gantry.images(&task).await), BUSYBOX);
    assert_eq!(gantry.run("ca-1").await.attempts.len(), 2);

    let (store, images) = (gantry.store.as_ref(), NeededImages::default());
    let found = Scanned::Read { commit: None, images };
    let late = runs::scanned(store, lost.run.id, &lost.holder, &found).await;
    assert!(matches!(late, Err(RunOpError::LeaseLost { .. })), "{late:?}");
}

#[tokio::test]
async fn a_scan_whose_workers_are_all_lost_tells_its_task() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    for _ in 0..3 {
        gantry.schedule().await;
        let lost = take(&gantry).await;
        gantry.clock.advance(LEASE * 2);
        runs::lapse(gantry.store.as_ref(), lost.run.id).await.unwrap().unwrap();
    }
    let failed = gantry.images(&task).await.failed.unwrap();
    assert_eq!(failed.error.code, ErrorCode::WorkerLost);
}

#[tokio::test]
async fn a_failed_scan_is_told_until_the_source_can_be_read_and_the_run_is_not_kept() {
    let gantry = super::start().await;
    let (task, first) = untriggered(&gantry).await;
    gantry.settle().await;
    let hello = gantry.git.repository("hello").unwrap();
    let second = hello.commit("main", &[("Dockerfile", "FROM\n")]).unwrap();
    gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    gantry.settle().await;
    gantry.scheduler().keeper().forget_old().await.unwrap();
    assert!(!exists(&gantry, "ca-1").await && !exists(&gantry, "ca-2").await);
    let images = gantry.images(&task).await;
    assert_eq!(shown(&images), BUSYBOX, "what was known is kept");
    let error = images.failed.unwrap().error;
    assert_eq!((error.code, error.step.unwrap().as_str()), (ErrorCode::BuildRefused, "build"));

    let third = hello.commit("main", ON_ALPINE).unwrap();
    gantry.deliver("d2", "hello", Some(&second), Some(&third)).await;
    gantry.settle().await;
    let images = gantry.images(&task).await;
    assert_eq!((shown(&images).as_str(), images.failed), (ALPINE, None));
}

#[tokio::test]
async fn a_run_whose_task_file_does_not_compile_tells_its_task() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", &[("acr-task.yaml", "steps: [{cmd: bash}]\n")]).unwrap();
    let task = gantry
        .task_with("hello", "hello:1", |task| {
            task.recipe.work = Work::File(FileWork {
                file: TaskFile::Path("acr-task.yaml".parse().unwrap()),
                values_file: None,
                values: [].into(),
                secret_values: [].into(),
                secrets: [].into(),
                has_registry_login: false,
            });
        })
        .await;
    gantry.settle().await;
    let second = hello.commit("main", &[("acr-task.yaml", "steps: [{cmd: }]\n")]).unwrap();
    gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    gantry.settle().await;
    let images = gantry.images(&task).await;
    assert_eq!(shown(&images), "step docker.io/library/bash:latest acb_step_0 -");
    let failed = images.failed.unwrap();
    assert_eq!(failed.reading.run.to_string(), "ca1");
    assert_eq!(failed.error.code, ErrorCode::TaskFileInvalid);
}

#[tokio::test]
async fn a_scan_gets_no_secret_but_those_that_read_the_source() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let secret = SecretString::from("s3cr3t-of-some-length");
    let sealed = gantry.keyring.seal(&TestPipeline::seals_for(), &secret).unwrap();
    gantry
        .task_with("hello", "hello:{{.Run.ID}}", |task| {
            image_build(&mut task.recipe).secret_build_args =
                [("TOKEN".parse().unwrap(), sealed)].into();
        })
        .await;
    gantry.schedule().await;
    let taken = take(&gantry).await;
    assert!(taken.run.is_hidden());
    assert_eq!(taken.bundle, Ok(None));
    gantry.leaves_work();
}

#[tokio::test]
async fn a_scan_that_outlives_its_task_tells_nothing() {
    let gantry = super::start().await;
    let store = gantry.store.as_ref();
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let former = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    let taken = take(&gantry).await;
    tasks::delete(store, &former.id).await.unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    let found = Scanned::Read { commit: None, images: NeededImages::default() };
    runs::scanned(store, taken.run.id, &taken.holder, &found).await.unwrap();
    for task in [&former, &task] {
        assert_eq!(gantry.images(task).await, TaskImages::default());
    }
}

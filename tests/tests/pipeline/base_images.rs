//! A changed base image rebuilds what uses it: once, in order, on exactly what the image is then.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::base_trigger::BaseImageKind;
use gantry_domain::cause::Cause;
use gantry_domain::decide::planner;
use gantry_domain::event::{Event, EventKind, ImagePushed};
use gantry_domain::id::WaveId;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::image_watch::{SeenAs, Watched};
use gantry_domain::run::{RunState, WaitReason};
use gantry_domain::source::Source;
use gantry_domain::task::{Status, Task};
use gantry_domain::wave::WaveState;
use gantry_remote::image_registry::{Allowance, LookError};
use gantry_seams::store::{Batch, CommitError, From, Key, Kind};
use gantry_seams::{events, image_watches, tasks, waves};
use gantry_tests::doubles::store::{CommitHook, HookedStore};
use gantry_tests::pipeline::{BASE, REGISTRY, TestPipeline};
use gantry_worker::engine::scripted::{Action, Gate};

/// Commits a Dockerfile on this base, and creates a task that pushes `name:latest`, without a source trigger.
async fn task(gantry: &TestPipeline, name: &str, bases: &[&str]) -> Task {
    let repository = gantry.git.repository(name).unwrap();
    repository.commit("main", &[("Dockerfile", &dockerfile(bases))]).unwrap();
    gantry.task_with(name, &format!("{name}:latest"), |task| task.source_trigger = None).await
}

/// Like [`task`]; the images that stages copy from count as well.
async fn task_of_all(gantry: &TestPipeline, name: &str, bases: &[&str]) -> Task {
    let repository = gantry.git.repository(name).unwrap();
    repository.commit("main", &[("Dockerfile", &dockerfile(bases))]).unwrap();
    let all = |task: &mut Task| {
        task.source_trigger = None;
        task.base_image_trigger.as_mut().unwrap().kind = BaseImageKind::All;
    };
    gantry.task_with(name, &format!("{name}:latest"), all).await
}

/// A Dockerfile whose last stage is on the first base, and that copies from the others.
fn dockerfile(bases: &[&str]) -> String {
    let (last, others) = bases.split_first().unwrap();
    let stages = others.iter().enumerate().map(|(n, base)| format!("FROM {base} AS s{n}\n"));
    let copies = (0..others.len()).map(|n| format!("COPY --from=s{n} /a /a{n}\n"));
    format!("{}FROM {last}\n{}RUN true\n", stages.collect::<String>(), copies.collect::<String>())
}

fn own(name: &str) -> String {
    format!("{REGISTRY}/{name}:latest")
}

fn digest(letter: char) -> Digest {
    format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
}

/// Builds each task once, in this order, as somebody who asks for it.
async fn build(gantry: &TestPipeline, tasks: &[&Task]) {
    for task in tasks {
        gantry.ask(task, None).await;
        gantry.settle().await;
    }
    look(gantry).await;
}

/// Asks the registries for all tags, and does all that follows.
async fn look(gantry: &TestPipeline) {
    gantry.clock.advance(Duration::from_secs(3600));
    while gantry.scheduler().watch_images().await.unwrap() {}
    gantry.settle().await;
}

/// The tasks of a wave, with how they ended.
async fn wave_of(gantry: &TestPipeline, id: &str) -> Vec<String> {
    let id: WaveId = id.parse().unwrap();
    let (tasks, _) = waves::tasks(gantry.store.as_ref(), id, From::Start, 1000).await.unwrap();
    let mut lines: Vec<String> = tasks
        .iter()
        .map(|of| {
            let end = of.end.as_ref().map_or_else(|| "open".to_owned(), ToString::to_string);
            format!("{}: {end}", of.task.task.name)
        })
        .collect();
    lines.sort();
    lines
}

async fn runs_after(gantry: &TestPipeline, before: usize) -> Vec<String> {
    gantry.transcript().await.lines().skip(before).map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn a_task_is_rebuilt_once_on_exactly_what_its_base_is_now() {
    let gantry = super::start().await;
    let web = task(&gantry, "web", &[BASE]).await;
    gantry.settle().await;
    build(&gantry, &[&web]).await;
    assert_eq!(runs_after(&gantry, 1).await, [""; 0]);

    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;
    look(&gantry).await;
    let expected = format!("ca2 Succeeded {BASE} changed (wave ca-w1) -> registry.test/web:latest");
    assert_eq!(runs_after(&gantry, 1).await, [expected]);
    let run = gantry.run("ca2").await;
    let product = run.state.done().unwrap().outcome.product().unwrap();
    assert_eq!(product.bases[0].digest, digest('c'));
    assert_eq!(run.cause.trigger(), "Image Update");
    assert_eq!(wave_of(&gantry, "ca-w1").await, ["web: built by run ca2"]);
}

#[tokio::test]
async fn a_chain_is_rebuilt_from_its_base_upwards_and_each_on_the_image_before() {
    let gantry = super::start().await;
    let base = task(&gantry, "base", &[BASE]).await;
    let node = task(&gantry, "node", &[&own("base")]).await;
    let web = task(&gantry, "web", &[&own("node")]).await;
    gantry.settle().await;
    build(&gantry, &[&base, &node, &web]).await;
    let before = gantry.transcript().await.lines().count();

    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;
    assert_eq!(
        wave_of(&gantry, "ca-w1").await,
        ["base: built by run ca4", "node: built by run ca5", "web: built by run ca6"],
        "{}",
        gantry.transcript().await
    );
    for (run, parent) in [("ca5", "base"), ("ca6", "node")] {
        let run = gantry.run(run).await;
        let product = run.state.done().unwrap().outcome.product().unwrap();
        assert_eq!(Some(&product.bases[0].digest), gantry.registries.tag(&own(parent)).as_ref());
    }
    look(&gantry).await;
    assert_eq!(runs_after(&gantry, before).await.len(), 3, "nothing follows");
}

#[tokio::test]
async fn a_diamond_is_rebuilt_once_after_both_of_its_sides() {
    let gantry = super::start().await;
    let base = task(&gantry, "base", &[BASE]).await;
    let left = task(&gantry, "left", &[&own("base")]).await;
    let right = task(&gantry, "right", &[&own("base")]).await;
    let top = gantry.git.repository("top").unwrap();
    top.commit(
        "main",
        &[("Dockerfile", &dockerfile(&[&own("left"), &own("right"), &own("base")]))],
    )
    .unwrap();
    let top = gantry
        .task_with("top", "top:latest", |task| {
            task.source_trigger = None;
            let trigger = task.base_image_trigger.as_mut().unwrap();
            trigger.kind = BaseImageKind::All;
        })
        .await;
    gantry.settle().await;
    build(&gantry, &[&base, &left, &right, &top]).await;
    let before = gantry.transcript().await.lines().count();

    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;
    look(&gantry).await;
    let runs = runs_after(&gantry, before).await;
    assert_eq!(runs.len(), 4, "{runs:#?}");
    assert!(runs[0].contains("/base:latest") && runs[3].contains("/top:latest"), "{runs:#?}");
    let run = gantry.run("ca8").await;
    let product = run.state.done().unwrap().outcome.product().unwrap();
    for base in &product.bases {
        let now = gantry.registries.tag(&base.image.to_string());
        assert_eq!(Some(&base.digest), now.as_ref(), "{}", base.image);
    }
}

/// Has the registry hook report a push of a tag, twice.
async fn hint(gantry: &TestPipeline, image: &str, digest: &Digest) {
    for _ in 0..2 {
        gantry.clock.advance(Duration::from_secs(1));
        let pushed = ImagePushed {
            hook: None,
            image: image.parse().unwrap(),
            digest: Some(digest.clone()),
            media_type: None,
            is_proven: true,
        };
        let event = Event {
            id: format!("hint/{}", gantry.clock.now().as_millis()).parse().unwrap(),
            registry: "reg".parse().unwrap(),
            prefix: TestPipeline::prefix(),
            received: gantry.clock.now(),
            trace: None,
            kind: EventKind::ImagePushed(pushed),
        };
        assert!(events::notice(gantry.store.as_ref(), &event).await.unwrap());
    }
    gantry.settle().await;
    while gantry.scheduler().watch_images().await.unwrap() {}
    gantry.settle().await;
}

/// A task `web` on [`BASE`] that was built once.
async fn built() -> (TestPipeline, Task) {
    let gantry = super::start().await;
    let web = task(&gantry, "web", &[BASE]).await;
    gantry.settle().await;
    build(&gantry, &[&web]).await;
    (gantry, web)
}

#[tokio::test]
async fn a_report_has_the_registry_asked_at_once_and_is_never_believed() {
    let (gantry, _) = built().await;
    hint(&gantry, BASE, &digest('c')).await;
    assert_eq!(runs_after(&gantry, 1).await, [""; 0], "the registry says otherwise");
    gantry.registries.have(BASE, &digest('c'));
    hint(&gantry, BASE, &digest('c')).await;
    assert_eq!(runs_after(&gantry, 1).await.len(), 1);
    hint(&gantry, BASE, &digest('c')).await;
    hint(&gantry, "registry.test/other:1", &digest('c')).await;
    assert_eq!(runs_after(&gantry, 1).await.len(), 1, "once");
}

#[tokio::test]
async fn the_same_content_with_another_digest_is_nothing() {
    let (gantry, _) = built().await;
    gantry.registries.alike(&digest('c'), &digest('b'));
    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;
    assert_eq!(runs_after(&gantry, 1).await, [""; 0]);
    gantry.registries.have(BASE, &digest('d'));
    look(&gantry).await;
    assert_eq!(runs_after(&gantry, 1).await.len(), 1);
}

/// As docker-library/official-images#18385 shows it: one release moves the tag's index several times, while its platforms
/// change at most once each.
#[tokio::test]
async fn five_indexes_of_one_release_with_one_return_are_one_rebuild() {
    let gantry = super::start().await;
    let index = |amd64: &str, arm64: &str| {
        gantry.registries.have_index(BASE, &[("linux/amd64", amd64), ("linux/arm64", arm64)])
    };
    let first = index("a1", "b1");
    let web = task(&gantry, "web", &[BASE]).await;
    gantry.settle().await;
    build(&gantry, &[&web]).await;

    let see = async |pause: u64| {
        gantry.clock.advance(Duration::from_secs(pause));
        while gantry.scheduler().watch_images().await.unwrap() {}
        gantry.settle().await;
    };
    let moved = index("a1", "b2");
    see(3600).await;
    gantry.registries.move_to(BASE, &first);
    hint(&gantry, BASE, &first).await;
    gantry.registries.move_to(BASE, &moved);
    hint(&gantry, BASE, &moved).await;
    let last = index("a2", "b2");
    hint(&gantry, BASE, &last).await;
    let last = index("a2", "b3");
    hint(&gantry, BASE, &last).await;
    see(30).await;
    assert_eq!(runs_after(&gantry, 1).await, [""; 0], "it has not rested for a minute");
    see(31).await;
    assert_eq!(runs_after(&gantry, 1).await.len(), 1);
    see(3600).await;
    see(3600).await;
    assert_eq!(runs_after(&gantry, 1).await.len(), 1, "once");
    let run = gantry.run("ca2").await;
    let product = run.state.done().unwrap().outcome.product().unwrap();
    let expected = gantry.registries.version(&last, "linux/amd64");
    assert_eq!(product.bases[0].digest, expected.digest);
}

#[tokio::test]
async fn a_change_back_before_the_tag_rests_is_nothing_and_the_image_says_so() {
    let gantry = super::start().await;
    let first = gantry.registries.have_index(BASE, &[("linux/amd64", "a1")]);
    let web = task(&gantry, "web", &[BASE]).await;
    gantry.settle().await;
    build(&gantry, &[&web]).await;
    let second = gantry.registries.have_index(BASE, &[("linux/amd64", "a2")]);
    hint(&gantry, BASE, &second).await;
    gantry.registries.move_to(BASE, &first);
    hint(&gantry, BASE, &first).await;
    look(&gantry).await;
    assert_eq!(runs_after(&gantry, 1).await, [""; 0]);
    let watched = Watched { image: BASE.parse().unwrap(), by: None };
    let watch = image_watches::find(gantry.store.as_ref(), &watched).await.unwrap().unwrap();
    let seen: Vec<_> = watch.value.seen.iter().map(|seen| seen.what.clone()).collect();
    assert_eq!(seen, [SeenAs::First, SeenAs::Changed, SeenAs::Returned]);
}

#[tokio::test]
async fn a_push_while_a_node_waits_takes_its_place_and_is_built_on_the_new_images() {
    let gantry = super::start().await;
    let base = task(&gantry, "base", &[BASE]).await;
    let web = gantry.git.repository("web").unwrap();
    let first = web.commit("main", &[("Dockerfile", &dockerfile(&[&own("base")]))]).unwrap();
    let pushed = gantry.task("web", "web:latest").await;
    gantry.settle().await;
    build(&gantry, &[&base, &pushed]).await;
    let before = gantry.transcript().await.lines().count();

    gantry.registries.have(BASE, &digest('c'));
    gantry.clock.advance(Duration::from_secs(3600));
    while gantry.scheduler().watch_images().await.unwrap() {}
    gantry.schedule().await;
    let commit = web.commit("main", &[("file", "new")]).unwrap();
    gantry.deliver("d1", "web", Some(&first), Some(&commit)).await;
    gantry.schedule().await;
    let waits = gantry.run("ca4").await;
    let RunState::Waiting { reason: WaitReason::Bases { wave }, .. } = waits.state else {
        panic!("{:?}", waits.state)
    };
    assert_eq!(wave.to_string(), "ca-w1");
    gantry.settle().await;
    look(&gantry).await;
    let runs = runs_after(&gantry, before).await;
    assert_eq!(runs.len(), 2, "{runs:#?}");
    let run = gantry.run("ca4").await;
    let product = run.state.done().unwrap().outcome.product().unwrap();
    assert_eq!(Some(&product.bases[0].digest), gantry.registries.tag(&own("base")).as_ref());
    assert_eq!(product.commit.as_ref().unwrap().as_str(), commit);
    let ended = wave_of(&gantry, "ca-w1").await;
    assert_eq!(ended, ["base: built by run ca3", "web: up to date: run ca4 used the new images"]);
}

#[tokio::test]
async fn a_base_that_changes_during_a_build_on_it_leads_to_one_more_build() {
    let (gantry, web) = built().await;
    gantry.ask(&web, None).await;
    gantry.schedule().await;
    // The run is ready, and has not resolved its base yet.
    gantry.registries.have(BASE, &digest('c'));
    gantry.clock.advance(Duration::from_secs(3600));
    while gantry.scheduler().watch_images().await.unwrap() {}
    gantry.schedule().await;
    assert_eq!(wave_of(&gantry, "ca-w1").await, ["web: open"], "it waits for the run");
    gantry.settle().await;
    assert_eq!(runs_after(&gantry, 1).await.len(), 1, "the run used the new base");
    assert_eq!(wave_of(&gantry, "ca-w1").await, ["web: up to date: run ca2 used the new images"]);
}

#[tokio::test]
async fn what_fails_leaves_its_followers_on_what_they_have_and_says_why() {
    let gantry = super::start().await;
    let base = task(&gantry, "base", &[BASE]).await;
    let web = task(&gantry, "web", &[&own("base")]).await;
    gantry.settle().await;
    build(&gantry, &[&base, &web]).await;
    gantry.engine.script(&TestPipeline::repository("base"), [Action::Exit(1)]);
    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;
    assert_eq!(
        wave_of(&gantry, "ca-w1").await,
        [
            "base: run ca3 failed",
            "web: not built: reg/base, whose image it uses, was not rebuilt: run ca3 failed"
        ]
    );
    // A person repairs it: that is a change like any other.
    gantry.ask(&base, None).await;
    gantry.settle().await;
    let runs = runs_after(&gantry, 3).await;
    assert_eq!(runs.len(), 2, "{runs:#?}");
    assert_eq!(wave_of(&gantry, "ca-w2").await, ["web: built by run ca5"]);
}

#[tokio::test]
async fn a_task_that_is_disabled_or_deleted_meanwhile_is_not_built() {
    let gantry = super::start().await;
    let base = task(&gantry, "base", &[BASE]).await;
    let web = task(&gantry, "web", &[&own("base")]).await;
    let api = task(&gantry, "api", &[&own("base")]).await;
    gantry.settle().await;
    build(&gantry, &[&base, &web, &api]).await;
    gantry.registries.have(BASE, &digest('c'));
    gantry.clock.advance(Duration::from_secs(3600));
    while gantry.scheduler().watch_images().await.unwrap() {}
    gantry.schedule().await;
    let store = gantry.store.as_ref();
    tasks::update(store, &web.id, |task| task.status = Status::Disabled).await.unwrap();
    tasks::delete(store, &api.id).await.unwrap();
    gantry.settle().await;
    assert_eq!(
        wave_of(&gantry, "ca-w1").await,
        [
            "api: not built: the task was deleted",
            "base: built by run ca4",
            "web: not built: the task is disabled: `gantry task update --status Enabled`"
        ]
    );
}

#[tokio::test]
async fn two_images_of_a_task_that_change_within_the_window_are_one_build() {
    let gantry = super::start().await;
    const OTHER: &str = "registry.test/other:1";
    for base in [BASE, OTHER] {
        gantry.registries.have_index(base, &[("linux/amd64", "old")]);
    }
    let web = gantry.git.repository("web").unwrap();
    web.commit("main", &[("Dockerfile", &dockerfile(&[BASE, OTHER]))]).unwrap();
    let web = gantry
        .task_with("web", "web:latest", |task| {
            task.source_trigger = None;
            task.base_image_trigger.as_mut().unwrap().kind = BaseImageKind::All;
        })
        .await;
    gantry.settle().await;
    build(&gantry, &[&web]).await;
    let first = gantry.registries.have_index(BASE, &[("linux/amd64", "new")]);
    hint(&gantry, BASE, &first).await;
    gantry.clock.advance(Duration::from_secs(40));
    let second = gantry.registries.have_index(OTHER, &[("linux/amd64", "new")]);
    hint(&gantry, OTHER, &second).await;
    for _ in 0..8 {
        gantry.clock.advance(Duration::from_secs(15));
        while gantry.scheduler().watch_images().await.unwrap() {}
        gantry.settle().await;
    }
    let runs = runs_after(&gantry, 1).await;
    assert_eq!(runs.len(), 1, "{runs:#?}");
    let run = gantry.run("ca2").await;
    let Cause::BaseImages { moved, .. } = &run.cause else { panic!("{:?}", run.cause) };
    assert_eq!(moved.len(), 2);
}

#[tokio::test]
async fn a_failed_canary_freezes_its_wave_until_somebody_resumes_it() {
    let gantry = super::start().await;
    let mut all = Vec::new();
    for name in ["a1", "a2", "a3"] {
        all.push(task(&gantry, name, &[BASE]).await);
    }
    gantry.settle().await;
    build(&gantry, &all.iter().collect::<Vec<_>>()).await;
    let before = gantry.transcript().await.lines().count();
    for name in ["a1", "a2", "a3"] {
        gantry.engine.script(&TestPipeline::repository(name), [Action::Exit(1)]);
    }
    gantry.registries.have(BASE, &digest('c'));
    gantry.clock.advance(Duration::from_secs(3600));
    let careful = || {
        let mut scheduler = gantry.scheduler();
        scheduler.settings.base_images.canary = 1;
        scheduler
    };
    while careful().watch_images().await.unwrap() {}
    gantry.settle_by(&careful()).await;
    assert_eq!(runs_after(&gantry, before).await.len(), 1);
    let store = gantry.store.as_ref();
    let id: WaveId = "ca-w1".parse().unwrap();
    let frozen = waves::find(store, id).await.unwrap().unwrap().value;
    assert!(matches!(frozen.state, WaveState::Frozen { .. }), "{frozen:?}");
    waves::resume(store, id).await.unwrap();
    gantry.settle_by(&careful()).await;
    assert_eq!(runs_after(&gantry, before).await.len(), 3);
    let over = waves::find(store, id).await.unwrap().unwrap().value;
    assert!(matches!(over.state, WaveState::Done { .. }), "{over:?}");
}

#[tokio::test]
async fn a_dropped_wave_builds_nothing_more() {
    let gantry = super::start().await;
    let base = task(&gantry, "base", &[BASE]).await;
    let web = task(&gantry, "web", &[&own("base")]).await;
    gantry.settle().await;
    build(&gantry, &[&base, &web]).await;
    gantry.registries.have(BASE, &digest('c'));
    gantry.clock.advance(Duration::from_secs(3600));
    while gantry.scheduler().watch_images().await.unwrap() {}
    gantry.schedule().await;
    waves::drop_wave(gantry.store.as_ref(), "ca-w1".parse().unwrap()).await.unwrap();
    gantry.schedule().await;
    let ended = wave_of(&gantry, "ca-w1").await;
    assert!(ended.contains(&"base: open".to_owned()), "its run has begun: {ended:?}");
    gantry.settle().await;
    // What the run pushed is a change of its own.
    let ended = wave_of(&gantry, "ca-w1").await;
    assert!(ended.contains(&"base: built by run ca3".to_owned()), "{ended:?}");
    assert!(ended.contains(&"web: not built: its wave was dropped".to_owned()), "{ended:?}");
}

#[tokio::test]
async fn tasks_that_are_built_on_each_other_end_after_one_build_each() {
    let gantry = super::start().await;
    let images = |name: &str| own(name);
    gantry.registries.have(&images("left"), &digest('1'));
    gantry.registries.have(&images("right"), &digest('2'));
    let mut tasks = Vec::new();
    for (name, other) in [("left", "right"), ("right", "left")] {
        tasks.push(task_of_all(&gantry, name, &[BASE, &images(other)]).await);
    }
    gantry.settle().await;
    gantry.ask(&tasks[0], None).await;
    gantry.settle().await;
    look(&gantry).await;
    let before = gantry.transcript().await.lines().count();
    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;
    assert_eq!(
        built_after(&gantry, before).await,
        [own("left"), own("right")],
        "left is not built again, though right has moved"
    );
    assert_all_over(&gantry).await;
}

/// The images that runs have made after the first ones.
async fn built_after(gantry: &TestPipeline, before: usize) -> Vec<String> {
    let runs = runs_after(gantry, before).await;
    let made = runs.iter().filter_map(|run| Some(run.split_once(" -> ")?.1.to_owned()));
    made.collect()
}

async fn assert_all_over(gantry: &TestPipeline) {
    let store = gantry.store.as_ref();
    let waves = waves::list(store, TestPipeline::prefix(), None, 100).await.unwrap();
    assert!(waves.iter().all(|wave| wave.state.is_over()), "{waves:?}");
}

#[tokio::test]
async fn tasks_that_are_built_on_each_other_begin_when_what_is_before_them_has_ended() {
    let gantry = super::start().await;
    gantry.registries.have(&own("left"), &digest('1'));
    gantry.registries.have(&own("right"), &digest('2'));
    let before = task(&gantry, "before", &[BASE]).await;
    let left = task_of_all(&gantry, "left", &[&own("right")]).await;
    let right = task_of_all(&gantry, "right", &[&own("left"), &own("before")]).await;
    gantry.settle().await;
    build(&gantry, &[&before, &left, &right]).await;
    let runs = gantry.transcript().await.lines().count();
    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;
    let built = built_after(&gantry, runs).await;
    assert_eq!(built, [own("before"), own("left"), own("right")]);
    assert_all_over(&gantry).await;
}

#[tokio::test]
async fn what_a_registry_cannot_tell_rebuilds_nothing_and_is_told_on_the_image() {
    let (gantry, _) = built().await;
    let image = Box::new(BASE.parse::<ImageReference>().unwrap());
    let watched = Watched { image: BASE.parse().unwrap(), by: None };
    let looks = |error: LookError| (error.to_string(), error);
    let errors = [
        looks(LookError::Limited { image: image.clone(), after: Some(Duration::from_secs(60)) }),
        looks(LookError::Unauthorized { image: image.clone(), message: "no".to_owned() }),
        looks(LookError::Unreachable { image: image.clone(), cause: "certificate".to_owned() }),
        looks(LookError::Unreadable { image: image.clone(), problem: "schema 1".to_owned() }),
        looks(LookError::Moved { image: image.clone(), to: "other.test/busybox".to_owned() }),
    ];
    for (message, error) in errors {
        gantry.registries.fail_looks(REGISTRY, Some(error));
        gantry.clock.advance(Duration::from_secs(7200));
        while gantry.scheduler().watch_images().await.unwrap() {}
        let watch = image_watches::find(gantry.store.as_ref(), &watched).await.unwrap().unwrap();
        assert_eq!(watch.value.problem.unwrap().message, message);
    }
    gantry.registries.fail_looks(REGISTRY, None);
    gantry.registries.remove(BASE);
    look(&gantry).await;
    let watch = image_watches::find(gantry.store.as_ref(), &watched).await.unwrap().unwrap();
    let problem = watch.value.problem.unwrap().message;
    assert!(problem.contains("there is no registry.test/busybox:1"), "{problem}");
    assert_eq!(runs_after(&gantry, 1).await, [""; 0]);
    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;
    assert_eq!(runs_after(&gantry, 1).await.len(), 1, "it goes on");
}

#[tokio::test]
async fn however_many_tasks_use_an_image_it_is_asked_for_once_an_interval() {
    let gantry = super::start().await;
    for number in 0..12 {
        task(&gantry, &format!("t{number}"), &[BASE]).await;
    }
    gantry.settle().await;
    while gantry.scheduler().watch_images().await.unwrap() {}
    let before = gantry.registries.looks(BASE);
    for _ in 0..10 {
        gantry.clock.advance(Duration::from_secs(316));
        let (one, other) = (gantry.scheduler(), gantry.scheduler());
        let (one, other) = tokio::join!(one.watch_images(), other.watch_images());
        assert!(one.unwrap() | other.unwrap());
    }
    assert_eq!(gantry.registries.looks(BASE) - before, 10);
}

#[tokio::test]
async fn a_registry_with_an_interval_of_its_own_is_asked_as_often_as_that_says() {
    let (gantry, _) = built().await;
    while gantry.scheduler().watch_images().await.unwrap() {}
    let before = gantry.registries.looks(BASE);
    let mut scheduler = gantry.scheduler();
    let half_an_hour = (REGISTRY.parse().unwrap(), Duration::from_secs(1800));
    scheduler.settings.base_images.intervals = [half_an_hour].into();
    for _ in 0..14 {
        gantry.clock.advance(Duration::from_secs(316));
        while scheduler.watch_images().await.unwrap() {}
    }
    assert_eq!(
        gantry.registries.looks(BASE) - before,
        1 + 2,
        "once as before, then every half hour"
    );
}

#[tokio::test]
async fn a_registry_that_tells_its_limit_is_not_asked_beyond_it() {
    let (gantry, _) = built().await;
    let resets_in = Duration::from_secs(3000);
    gantry.registries.allow(Some(Allowance { remaining: 1, resets_in }));
    gantry.clock.advance(Duration::from_secs(400));
    while gantry.scheduler().watch_images().await.unwrap() {}
    let before = gantry.registries.looks(BASE);
    for _ in 0..6 {
        gantry.clock.advance(Duration::from_secs(400));
        while gantry.scheduler().watch_images().await.unwrap() {}
    }
    assert_eq!(gantry.registries.looks(BASE), before);
    gantry.clock.advance(Duration::from_secs(1000));
    while gantry.scheduler().watch_images().await.unwrap() {}
    assert_eq!(gantry.registries.looks(BASE), before + 1);
}

#[tokio::test]
async fn what_a_person_pushes_without_a_task_is_a_change_at_once() {
    let gantry = super::start().await;
    let base = task(&gantry, "base", &[BASE]).await;
    let web = task(&gantry, "web", &[&own("base")]).await;
    gantry.settle().await;
    build(&gantry, &[&base, &web]).await;
    let mut recipe = base.recipe.clone();
    gantry_tests::pipeline::image_build(&mut recipe).no_cache = true;
    let draft = |event| {
        let by = TestPipeline::somebody();
        planner::for_task_request(&base, recipe, event, by)
    };
    gantry.request(draft, None).await;
    gantry.settle().await;
    let runs = runs_after(&gantry, 2).await;
    assert_eq!(runs.len(), 2, "{runs:#?}");
    assert_eq!(wave_of(&gantry, "ca-w1").await, ["web: built by run ca4"]);
}

#[tokio::test]
async fn an_image_that_a_run_pushes_during_a_build_on_the_former_one_leads_to_one_more_build() {
    let gantry = super::start().await;
    let base = task(&gantry, "base", &[BASE]).await;
    let web = gantry.git.repository("web").unwrap();
    let first = web.commit("main", &[("Dockerfile", &dockerfile(&[&own("base")]))]).unwrap();
    let pushed = gantry.task("web", "web:latest").await;
    gantry.settle().await;
    build(&gantry, &[&base, &pushed]).await;
    gantry.clock.advance(Duration::from_secs(1));

    let commit = web.commit("main", &[("file", "new")]).unwrap();
    gantry.deliver("d1", "web", Some(&first), Some(&commit)).await;
    gantry.schedule().await;
    let gate = Gate::closed();
    gantry.engine.script(&TestPipeline::repository("web"), [Action::Wait(gate.clone())]);
    let (one, other) = (gantry.worker("worker-1"), gantry.worker("worker-2"));
    let meanwhile = async {
        gate.reached().await;
        gantry.ask(&base, None).await;
        gantry.settle_with(&other).await;
        gate.open();
    };
    let (built, ()) = tokio::join!(one.turn(&gantry.stop), meanwhile);
    assert!(built.unwrap());
    gantry.settle().await;
    let runs = runs_after(&gantry, 2).await;
    assert_eq!(runs.len(), 3, "{runs:#?}");
    let last = gantry.run("ca5").await;
    let product = last.state.done().unwrap().outcome.product().unwrap();
    assert_eq!(Some(&product.bases[0].digest), gantry.registries.tag(&own("base")).as_ref());
}

#[tokio::test]
async fn a_task_that_was_built_on_what_nobody_had_seen_yet_is_not_built_on_what_was_before() {
    let (gantry, web) = built().await;
    gantry.ask(&web, None).await;
    gantry.schedule().await;
    gantry.registries.have(BASE, &digest('c'));
    gantry.clock.advance(Duration::from_secs(3600));
    while gantry.scheduler().watch_images().await.unwrap() {}
    // The run is ready, and resolves its base when it begins.
    gantry.registries.have(BASE, &digest('d'));
    gantry.settle().await;
    look(&gantry).await;
    let runs = runs_after(&gantry, 1).await;
    assert_eq!(runs.len(), 1, "the run used the newest base: {runs:#?}");
    assert_eq!(wave_of(&gantry, "ca-w1").await, ["web: up to date: run ca2 used the new images"]);
}

#[tokio::test]
async fn a_run_that_has_ended_is_waited_for_until_it_is_known_what_it_used() {
    let (gantry, web) = built().await;
    // What a run has pushed is only asked for if a task uses it.
    task(&gantry, "site", &[&own("web")]).await;
    gantry.settle().await;
    gantry.ask(&web, None).await;
    gantry.schedule().await;
    gantry.registries.have(BASE, &digest('c'));
    gantry.clock.advance(Duration::from_secs(3600));
    while gantry.scheduler().watch_images().await.unwrap() {}
    let image = Box::new(BASE.parse().unwrap());
    let away = LookError::Unreachable { image, cause: "it is away".to_owned() };
    gantry.registries.fail_looks(REGISTRY, Some(away));
    gantry.settle().await;
    let of_web = async || {
        let runs = runs_after(&gantry, 1).await;
        runs.into_iter().filter(|run| run.ends_with(&own("web"))).count()
    };
    assert_eq!(of_web().await, 1, "{}", gantry.transcript().await);
    gantry.registries.fail_looks(REGISTRY, None);
    look(&gantry).await;
    assert_eq!(of_web().await, 1, "{}", gantry.transcript().await);
    let ended = wave_of(&gantry, "ca-w1").await;
    assert!(
        ended.contains(&"web: up to date: run ca2 used the new images".to_owned()),
        "{ended:?}"
    );
}

/// The events of which decisions were written, in order.
#[derive(Default)]
struct Decisions(Mutex<Vec<String>>);

#[async_trait]
impl CommitHook for Decisions {
    async fn before(&self, batch: &Batch) -> Result<(), CommitError> {
        let of = |(key, _): &(Key, _)| (key.kind == Kind::Decision).then(|| key.id.clone());
        self.0.lock().unwrap().extend(batch.put.iter().filter_map(of));
        Ok(())
    }
}

#[tokio::test]
async fn other_events_are_decided_between_the_many_tasks_that_a_change_reaches() {
    let mut gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", &[("Dockerfile", &dockerfile(&[BASE]))]).unwrap();
    let source: Source = format!("{}#main", gantry.git.url("hello")).parse().unwrap();
    for number in 0..waves::TASKS_A_COMMIT + 1 {
        gantry
            .task_with(&format!("task-{number}"), "hello:{{.Run.ID}}", |task| {
                (task.recipe.source, task.source_trigger) = (source.clone(), None);
            })
            .await;
    }
    gantry.settle().await;
    look(&gantry).await;

    let decisions = Arc::new(Decisions::default());
    gantry.store = HookedStore::shared(Arc::clone(&gantry.store), Arc::clone(&decisions));
    gantry.registries.have(BASE, &digest('c'));
    gantry.clock.advance(Duration::from_secs(3600));
    while gantry.scheduler().watch_images().await.unwrap() {}
    gantry.clock.advance(Duration::from_secs(1));
    let second = hello.commit("main", &[("file", "2")]).unwrap();
    let (push, _) = gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    gantry.schedule().await;
    let decided = decisions.0.lock().unwrap().clone();
    let push = decided.iter().position(|event| *event == push.to_string()).unwrap();
    let of_change = |event: &&String| event.starts_with("image:");
    let (before, after) = decided.split_at(push);
    assert_eq!(before.iter().filter(of_change).count(), 1, "{decided:?}");
    assert_eq!(after.iter().filter(of_change).count(), 1, "{decided:?}");
    gantry.leaves_work();
}

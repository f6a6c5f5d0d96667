//! Silent git hosts do not delay anything else.

use std::time::{Duration, Instant};

use gantry_domain::recipe::RunTimeout;
use gantry_domain::run::{ErrorCode, RunStatus};
use gantry_domain::task::Task;
use gantry_domain::trigger::SourceTrigger;
use gantry_seams::{decisions, runs};
use gantry_tests::broken_host::{BrokenHost, Fault};
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};
use tokio_util::sync::CancellationToken;

/// A task on a repository of the silent host, started by pushes or requests.
async fn mute(
    gantry: &TestPipeline,
    name: &str,
    host: &BrokenHost,
    trigger: Option<SourceTrigger>,
    timeout: u32,
) -> Task {
    gantry
        .task_with(name, &format!("{name}:{{{{.Run.ID}}}}"), |task| {
            task.recipe.source = format!("{}#main", host.url(name)).parse().unwrap();
            task.source_trigger = trigger;
            task.recipe.timeout = RunTimeout::from_seconds(timeout).unwrap();
        })
        .await
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(Instant::now() < deadline, "it does not {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_holds_up_no_push_but_its_own() {
    let gantry = super::start().await;
    let host = BrokenHost::start(Fault::Silent).await.unwrap();
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    let hello_task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    let stop = CancellationToken::new();
    // More than the limit of concurrent requests to one host.
    let mut silent = Vec::new();
    for number in 1..7 {
        let name = format!("mute{number}");
        mute(&gantry, &name, &host, hello_task.source_trigger.clone(), 3600).await;
        let after = number.to_string().repeat(40);
        let (event, _) = gantry.deliver_of(&name, &host.url(&name), None, Some(&after)).await;
        silent.push(event);
    }
    let scheduling = tokio::spawn(gantry.scheduler().run(stop.clone()));
    until("ask the silent host", || async { host.connections() >= 4 }).await;

    let second = hello.commit("main", &[("file", "changed")]).unwrap();
    // The fact before this push is known. That before the next one is not, so its host is asked, and answers.
    gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    until("start a run", || async { !gantry.transcript().await.is_empty() }).await;
    let third = hello.commit("main", &[("file", "again")]).unwrap();
    gantry.deliver("d2", "hello", Some(&"9".repeat(40)), Some(&third)).await;
    until("start another", || async { gantry.transcript().await.lines().count() == 2 }).await;
    // Four questions about pushes, and two looks at what no webhook reported.
    assert!(host.connections() <= 6, "{}", host.connections());
    for event in &silent {
        assert!(decisions::is_undecided(gantry.store.as_ref(), event).await.unwrap());
    }
    stop.cancel();
    scheduling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_holds_one_slot_until_the_run_s_time_is_over_or_somebody_cancels() {
    let gantry = super::start().await;
    let host = BrokenHost::start(Fault::Silent).await.unwrap();
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let hello = gantry.task("hello", "hello:{{.Run.ID}}").await;
    let endless = mute(&gantry, "endless", &host, None, 3600).await;
    let short = mute(&gantry, "short", &host, None, 1).await;
    let stop = CancellationToken::new();
    let worker = gantry.worker("worker-1");
    for task in [&endless, &short, &hello] {
        gantry.ask(task, None).await;
    }
    gantry.schedule().await;
    assert_eq!(runs::all_ready(gantry.store.as_ref(), 10).await.unwrap().len(), 3);
    let working = tokio::spawn(worker.run(stop.clone()));
    until("end the one that has a second", || async {
        gantry.run("ca2").await.status() == RunStatus::Timeout
    })
    .await;
    let error = gantry.run("ca2").await.state.done().unwrap().outcome.error().unwrap().clone();
    assert_eq!(error.code, ErrorCode::TimedOut);
    assert!(error.to_string().contains("longer than its 1 s"), "{error}");
    until("build beside it", || async { gantry.run("ca3").await.status() == RunStatus::Succeeded })
        .await;
    assert!(!gantry.run("ca1").await.status().is_terminal());

    let somebody = TestPipeline::canceler();
    runs::cancel(gantry.store.as_ref(), "ca1".parse().unwrap(), &somebody).await.unwrap();
    until("end the other", || async { gantry.run("ca1").await.status() == RunStatus::Canceled })
        .await;
    stop.cancel();
    working.await.unwrap();
    until("leave no git", || async { host.programs() == 0 }).await;
}

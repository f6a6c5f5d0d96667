//! The effects of a push.

use std::time::Duration;

use gantry_domain::run::{Run, RunState};
use gantry_seams::store::{Batch, Key, Kind};
use gantry_seams::{decisions, runs};
use gantry_tests::github::Push;
use gantry_tests::pipeline::{BASE, DOCKERFILE, Delivered, TestPipeline};

/// The time after which a host shows the commits that it has sent hooks for.
const LAG: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_push_to_a_watched_branch_builds_that_commit_and_moves_its_tags() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    assert_eq!(gantry.transcript().await, "", "a new task alone starts nothing");

    let second = hello.commit("main", &[("file", "changed")]).unwrap();
    let (event, _) = gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    gantry.settle().await;

    let short = &second[..7];
    assert_eq!(
        gantry.transcript().await,
        format!("ca1 Succeeded push to main at {short} -> registry.test/hello:ca1")
    );
    assert_eq!(gantry.decision(&event).await, "reg/hello: run ca1");
    let run = gantry.run("ca1").await;
    let done = run.state.done().unwrap();
    let product = done.outcome.product().unwrap();
    assert_eq!(product.commit.as_ref().unwrap().as_str(), second);
    assert_eq!(
        gantry.registries.tag("registry.test/hello:ca1"),
        Some(product.outputs[0].digest.clone())
    );

    let asked = &gantry.engine.asked()[0].order;
    assert!(
        asked.dockerfile.starts_with(&format!("FROM {BASE}@sha256:bbb")),
        "{}",
        asked.dockerfile
    );
    assert_eq!(asked.labels["org.opencontainers.image.revision"], second);
    let lineage = gantry_seams::lineages::find(gantry.store.as_ref(), &product.outputs[0].digest)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(lineage.bases[0].image.to_string(), BASE);
    assert_eq!(lineage.run.to_string(), "ca1");
}

#[tokio::test]
async fn a_push_to_a_deleted_registry_is_decided_with_the_reason() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    let second = hello.commit("main", &[("file", "changed")]).unwrap();
    let (event, _) = gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    // The operations refuse to delete a registry with tasks, so its record is removed directly.
    let mut batch = Batch::default();
    batch.delete.push(Key::new(Kind::Registry, "reg"));
    gantry.store.commit(batch).await.unwrap();
    gantry.schedule().await;
    assert_eq!(gantry.decision(&event).await, "registry reg was deleted");
}

#[tokio::test]
async fn the_same_delivery_a_hundred_times_at_once_is_one_event_and_one_run() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    let second = hello.commit("main", &[("file", "changed")]).unwrap();

    let (door, url) = (gantry.door(), gantry.git.url("hello"));
    let push = Push {
        url: &url,
        branch: "main",
        before: Some(&first),
        after: Some(&second),
        default_branch: None,
    };
    let deliveries = (0..100).map(|_| door.receive("d1", push));
    let accepted = futures_util::future::join_all(deliveries).await;
    let new = accepted.iter().filter(|(_, accepted)| *accepted == Delivered::New).count();
    assert_eq!(new, 1);
    // Several concurrent schedulers change nothing.
    let schedulers: Vec<_> = (0..4).map(|_| gantry.scheduler()).collect();
    futures_util::future::join_all(schedulers.iter().map(|one| one.tick())).await;
    gantry.settle().await;
    assert_eq!(gantry.transcript().await.lines().count(), 1);
}

#[tokio::test]
async fn two_pushes_in_order_are_two_runs_and_the_newer_keeps_the_tag() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:latest").await;
    gantry.settle().await;
    let second = hello.commit("main", &[("file", "2")]).unwrap();
    let third = hello.commit("main", &[("file", "3")]).unwrap();
    gantry.deliver("d2", "hello", Some(&first), Some(&second)).await;
    gantry.deliver("d3", "hello", Some(&second), Some(&third)).await;
    gantry.schedule().await;

    // The newer run ends before the older one is built.
    let ready = runs::all_ready(gantry.store.as_ref(), 10).await.unwrap();
    assert_eq!(ready.len(), 2);
    let gate = gantry_worker::engine::scripted::Gate::closed();
    gantry.engine.script(
        &TestPipeline::repository("hello"),
        [gantry_worker::engine::scripted::Action::Wait(gate.clone())],
    );
    let (one, other) = (gantry.worker("worker-1"), gantry.worker("worker-2"));
    let older = one.turn(&gantry.stop);
    let newer = async {
        gate.reached().await;
        other.turn(&gantry.stop).await.unwrap();
        gate.open();
    };
    let (older, ()) = tokio::join!(older, newer);
    assert!(older.unwrap());

    let (ca1, ca2) = (gantry.run("ca1").await, gantry.run("ca2").await);
    let newest = ca2.state.done().unwrap().outcome.product().unwrap();
    assert_eq!(
        gantry.registries.tag("registry.test/hello:latest"),
        Some(newest.outputs[0].digest.clone())
    );
    let older = ca1.state.done().unwrap().outcome.product().unwrap();
    assert_eq!(older.outputs, []);
    assert_eq!(older.superseded[0].by.to_string(), "ca2");
}

#[tokio::test]
async fn a_late_older_push_starts_nothing_and_its_decision_says_why() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    let second = hello.commit("main", &[("file", "2")]).unwrap();
    let third = hello.commit("main", &[("file", "3")]).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;

    let (late, _) = gantry.deliver("d2", "hello", Some(&first), Some(&second)).await;
    gantry.settle().await;
    let is_undecided = decisions::is_undecided(gantry.store.as_ref(), &late).await.unwrap();
    assert!(is_undecided, "the host may be behind");
    gantry.clock.advance(LAG);
    gantry.settle().await;
    assert_eq!(gantry.transcript().await, "");
    assert_eq!(
        gantry.decision(&late).await,
        format!(
            "reg/hello: {} is not the head any more: that is {}, which is built instead",
            &second[..7],
            &third[..7]
        )
    );
}

#[tokio::test]
async fn a_first_push_behind_the_head_builds_the_head_once() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    // Both pushes are reported before the scheduler's first pass.
    let second = hello.commit("main", &[("file", "2")]).unwrap();
    let third = hello.commit("main", &[("file", "3")]).unwrap();
    gantry.deliver("d2", "hello", Some(&first), Some(&second)).await;
    gantry.deliver("d3", "hello", Some(&second), Some(&third)).await;
    gantry.settle().await;
    let short = &third[..7];
    assert_eq!(
        gantry.transcript().await,
        format!("ca1 Succeeded push to main at {short} -> registry.test/hello:ca1")
    );
}

#[tokio::test]
async fn an_event_that_starts_nothing_names_the_rule() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    let (event, _) = gantry.deliver("d1", "hello", None, Some(&first)).await;
    gantry.settle().await;
    let key =
        gantry.git.url("hello").trim_start_matches("http://").trim_end_matches(".git").to_owned();
    assert_eq!(
        gantry.decision(&event).await,
        format!("no task of this registry has a source trigger on {key}: see `gantry task list`")
    );

    gantry
        .task_with("hello", "hello", |task| task.status = gantry_domain::task::Status::Disabled)
        .await;
    let (event, _) = gantry.deliver("d2", "hello", None, Some(&first)).await;
    gantry.settle().await;
    assert_eq!(
        gantry.decision(&event).await,
        "reg/hello: the task is disabled: `gantry task update --status Enabled`"
    );
    assert_eq!(gantry.transcript().await, "");
}

#[tokio::test]
async fn a_push_whose_host_is_away_is_decided_when_it_is_back() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.git.behave(gantry_tests::git_server::Behaviour::Status(503));
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    let (event, _) = gantry.deliver("d1", "hello", None, Some(&first)).await;
    gantry.schedule().await;
    assert!(decisions::is_undecided(gantry.store.as_ref(), &event).await.unwrap());

    gantry.git.behave(gantry_tests::git_server::Behaviour::Serve);
    gantry.clock.advance(std::time::Duration::from_secs(60));
    gantry.settle().await;
    assert_eq!(gantry.decision(&event).await, "reg/hello: run ca1");
}

#[tokio::test]
async fn a_host_that_shows_a_push_later_than_it_says_so_is_asked_again() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    // Two pushes that the host does not show yet, and the hook of the first one is lost.
    let second = hello.commit("other", &[("file", "2")]).unwrap();
    let third = hello.commit("other", &[("file", "3")]).unwrap();
    let (event, _) = gantry.deliver("d3", "hello", Some(&second), Some(&third)).await;
    for shown in [None, Some(&second)] {
        if let Some(shown) = shown {
            hello.git(&["push", "-q", "origin", &format!("{shown}:refs/heads/main")]).unwrap();
        }
        gantry.clock.advance(Duration::from_secs(40));
        gantry.settle().await;
        assert!(decisions::is_undecided(gantry.store.as_ref(), &event).await.unwrap());
        assert_eq!(gantry.transcript().await, "");
    }
    hello.git(&["push", "-q", "origin", &format!("{third}:refs/heads/main")]).unwrap();
    gantry.clock.advance(Duration::from_secs(40));
    gantry.settle().await;
    assert_eq!(gantry.decision(&event).await, "reg/hello: run ca1");
    let short = &third[..7];
    assert_eq!(
        gantry.transcript().await,
        format!("ca1 Succeeded push to main at {short} -> registry.test/hello:ca1")
    );
    assert_ne!(first, third);
}

#[tokio::test]
async fn a_push_behind_the_head_is_decided_by_the_hosts_final_state() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    let gone = hello.commit("main", &[("file", "2")]).unwrap();
    let head = hello.commit("main", &[("file", "3")]).unwrap();
    // The hooks of the branch's current head, and of the state before the push, are lost.
    let before = "9".repeat(40);
    let (event, _) = gantry.deliver("d2", "hello", Some(&before), Some(&gone)).await;
    gantry.settle().await;
    assert_eq!(gantry.transcript().await, "");
    gantry.clock.advance(LAG);
    gantry.settle().await;
    assert_eq!(gantry.decision(&event).await, "reg/hello: run ca1");
    let short = &head[..7];
    assert_eq!(
        gantry.transcript().await,
        format!("ca1 Succeeded push to main at {short} -> registry.test/hello:ca1")
    );
}

#[tokio::test]
async fn a_push_is_asked_about_at_the_task_s_address_and_never_at_its_own() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.git.require("gantry", "git-token");
    gantry
        .task_with("hello", "hello:{{.Run.ID}}", |task| {
            let token = "git-token".into();
            let sealed = gantry.keyring.seal(&TestPipeline::seals_for(), &token).unwrap();
            task.git_token = Some(sealed);
        })
        .await;
    gantry.settle().await;
    // Equal to the repository by its key: another path, which may be somebody else's, and another scheme.
    let stored = gantry.git.url("hello");
    let mut before = first;
    for (number, url) in
        [stored.replace("/hello", "/HELLO"), stored.replace("http:", "https:")].iter().enumerate()
    {
        let after = hello.commit("main", &[("file", &number.to_string())]).unwrap();
        let unknown = "9".repeat(40);
        let id = format!("d{number}");
        let (event, _) = gantry.deliver_of(&id, url, Some(&unknown), Some(&after)).await;
        gantry.settle().await;
        assert_eq!(gantry.decision(&event).await, format!("reg/hello: run ca{}", number + 1));
        // The message for the operator if it is another server.
        let recorded = decisions::find(gantry.store.as_ref(), &event).await.unwrap().unwrap();
        let told = recorded.decision.candidates[0].other_address.as_ref().map(ToString::to_string);
        let words = format!(
            "the push names {url}, and the task {stored}: only the task's address is asked, and only it gets the task's token"
        );
        assert_eq!(told, url.starts_with("https:").then_some(words));
        assert_ne!(before, after);
        before = after;
    }
    let elsewhere = gantry.git.requests().into_iter().find(|line| !line.contains("/hello.git/"));
    assert_eq!(elsewhere, None);
    assert_eq!(gantry.transcript().await.matches("Succeeded").count(), 2);
}

#[tokio::test]
async fn one_push_starts_every_task_that_watches_it_though_they_do_not_fit_one_commit() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    let source: gantry_domain::source::Source =
        format!("{}#main", gantry.git.url("hello")).parse().unwrap();
    for n in 0..70 {
        let source = source.clone();
        gantry
            .task_with(&format!("task-{n}"), "hello:{{.Run.ID}}", |task| {
                task.recipe.source = source
            })
            .await;
    }
    gantry.schedule().await;
    let second = hello.commit("main", &[("file", "2")]).unwrap();
    let (event, _) = gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    gantry.schedule().await;
    assert_eq!(
        gantry.decision(&event).await.lines().filter(|line| line.contains(": run ")).count(),
        70
    );
    assert_eq!(gantry.transcript().await.lines().count(), 70);
    let waits = gantry.transcript().await.lines().filter(|line| line.contains("Queued")).count();
    assert_eq!(waits, 70);
    // There are eight places; the run that is next says so, and the others wait for their turn.
    let mut waiting = runs::waiting(gantry.store.as_ref(), None, 200).await.unwrap();
    waiting.retain(|run| !run.is_hidden());
    assert_eq!(waiting.len(), 62);
    let reason = |run: &Run| {
        let RunState::Waiting { reason, .. } = &run.state else { panic!("{:?}", run.state) };
        reason.to_string()
    };
    let mut reasons: Vec<String> = waiting.iter().map(reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons, ["its turn", "one of the registry's 8 places for runs"]);
}

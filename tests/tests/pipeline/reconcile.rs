//! Changes that no webhook reported are found, once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::event::PushedRef;
use gantry_domain::pattern::Patterns;
use gantry_domain::task::Task;
use gantry_domain::trigger::PollInterval;
use gantry_remote::code_host::{CodeHost, CodeHostError, CodeHosts, Head, Heads, RepositoryAccess};
use gantry_scheduler::Scheduler;
use gantry_seams::runs::{self, RunFilter};
use gantry_tests::git_server::Behaviour;
use gantry_tests::github;
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};
use tokio::sync::Notify;

/// Looks at what is due, and lets everything be decided and built.
async fn look(gantry: &TestPipeline) {
    gantry.scheduler().reconcile().await.unwrap();
    gantry.settle().await;
}

async fn started(gantry: &TestPipeline) -> usize {
    runs::list(gantry.store.as_ref(), &RunFilter::default(), None, 99).await.unwrap().len()
}

fn patterns(texts: &[&str]) -> Patterns {
    let parsed: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
    parsed.try_into().unwrap()
}

fn poll(task: &mut Task) {
    let every_minute = PollInterval::try_from(60).unwrap();
    task.source_trigger.as_mut().unwrap().poll = Some(every_minute);
}

#[tokio::test]
async fn a_push_whose_webhook_is_lost_is_built_once_even_if_the_webhook_comes_later() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    look(&gantry).await;
    assert_eq!(started(&gantry).await, 0);

    hello.commit("main", &[("file", "lost")]).unwrap();
    let last = hello.commit("main", &[("file", "lost, too")]).unwrap();
    look(&gantry).await;
    assert_eq!(started(&gantry).await, 0, "it is not due yet");
    gantry.clock.advance(Duration::from_secs(1800));
    look(&gantry).await;
    let run = gantry.run("ca1").await;
    assert_eq!(run.cause.commit().unwrap().as_str(), last);
    assert!(run.cause.event().as_str().starts_with("found/"), "{}", run.cause.event());

    gantry.clock.advance(Duration::from_secs(1800));
    look(&gantry).await;
    gantry.deliver("d1", "hello", Some(&first), Some(&last)).await;
    gantry.settle().await;
    assert_eq!(started(&gantry).await, 1);
}

#[tokio::test]
async fn a_task_that_polls_needs_no_webhook() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    gantry.task_with("hello", "hello:{{.Run.ID}}", poll).await;
    look(&gantry).await;
    for number in 1..=3 {
        let head = hello.commit("main", &[("file", &number.to_string())]).unwrap();
        gantry.clock.advance(Duration::from_secs(60));
        look(&gantry).await;
        let run = gantry.run(&format!("ca{number}")).await;
        assert_eq!(run.cause.commit().unwrap().as_str(), head);
    }
    // A reset is a change, too.
    hello.git(&["push", "-q", "-f", "origin", "HEAD~1:refs/heads/main"]).unwrap();
    gantry.clock.advance(Duration::from_secs(60));
    look(&gantry).await;
    assert_eq!(started(&gantry).await, 4);
}

#[tokio::test]
async fn branches_that_are_there_at_the_first_look_are_no_news_and_later_ones_are() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    for branch in ["release/1", "release/2"] {
        hello.commit(branch, &[("file", branch)]).unwrap();
    }
    gantry
        .task_with("hello", "hello:{{.Run.ID}}", |task| {
            poll(task);
            let trigger = task.source_trigger.as_mut().unwrap();
            trigger.commit.branches = patterns(&["release/*"]);
            trigger.commit.tags = patterns(&["v*"]);
        })
        .await;
    look(&gantry).await;
    assert_eq!(started(&gantry).await, 0);
    hello.commit("release/3", &[("file", "3")]).unwrap();
    hello.git(&["tag", "v1", "HEAD"]).unwrap();
    hello.git(&["push", "-q", "origin", "v1"]).unwrap();
    gantry.clock.advance(Duration::from_secs(60));
    look(&gantry).await;
    let mut causes: Vec<String> = runs::list(gantry.store.as_ref(), &RunFilter::default(), None, 9)
        .await
        .unwrap()
        .iter()
        .map(|run| run.cause.branch().unwrap().to_string())
        .collect();
    causes.sort();
    assert_eq!(causes, ["release/3", "v1"]);
}

#[tokio::test]
async fn a_deleted_branch_starts_nothing_and_its_return_does() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    let head = hello.commit("dev", DOCKERFILE).unwrap();
    gantry
        .task_with("hello", "hello:{{.Run.ID}}", |task| {
            poll(task);
            task.source_trigger.as_mut().unwrap().branch = Some("dev".parse().unwrap());
        })
        .await;
    look(&gantry).await;
    hello.git(&["push", "-q", "origin", ":dev"]).unwrap();
    gantry.clock.advance(Duration::from_secs(60));
    look(&gantry).await;
    assert_eq!(started(&gantry).await, 0);
    hello.git(&["push", "-q", "origin", &format!("{head}:refs/heads/dev")]).unwrap();
    gantry.clock.advance(Duration::from_secs(60));
    look(&gantry).await;
    assert_eq!(started(&gantry).await, 1);
}

#[tokio::test]
async fn a_host_that_is_away_is_looked_at_again_soon() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    look(&gantry).await;
    hello.commit("main", &[("file", "2")]).unwrap();
    gantry.clock.advance(Duration::from_secs(1800));
    gantry.git.behave(Behaviour::Status(503));
    look(&gantry).await;
    gantry.git.behave(Behaviour::Serve);
    gantry.clock.advance(Duration::from_secs(300));
    look(&gantry).await;
    assert_eq!(started(&gantry).await, 1);
}

#[tokio::test]
async fn a_deleted_task_is_not_looked_at() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    look(&gantry).await;
    gantry_seams::tasks::delete(gantry.store.as_ref(), &task.id).await.unwrap();
    gantry.clock.advance(Duration::from_secs(1800));
    assert!(!gantry.scheduler().reconcile().await.unwrap());
}

#[tokio::test]
async fn the_tasks_of_one_repository_are_looked_at_together() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    for (name, is_polled) in [("one", true), ("two", false), ("three", false)] {
        let image = format!("{name}:{{{{.Run.ID}}}}");
        let change = |task: &mut Task| {
            task.recipe.source = format!("{}#main", gantry.git.url("hello")).parse().unwrap();
            if is_polled {
                poll(task);
            }
        };
        gantry.task_with(name, &image, change).await;
    }
    look(&gantry).await;
    hello.commit("main", &[("file", "2")]).unwrap();
    gantry.clock.advance(Duration::from_secs(60));
    let before = gantry.git.requests().len();
    gantry.scheduler().reconcile().await.unwrap();
    let asked = gantry.git.requests();
    let refs = asked[before..].iter().filter(|request| request.contains("info/refs")).count();
    assert_eq!(refs, 1, "{:?}", &asked[before..]);
    gantry.settle().await;
    assert_eq!(started(&gantry).await, 3);
}

#[tokio::test]
async fn what_a_task_finds_when_it_comes_is_no_news_to_it_later_either() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    hello.commit("release/1", DOCKERFILE).unwrap();
    let of_releases = |task: &mut Task| {
        poll(task);
        task.source_trigger.as_mut().unwrap().commit.branches = patterns(&["release/*"]);
    };
    let former = gantry.task_with("hello", "hello:{{.Run.ID}}", of_releases).await;
    look(&gantry).await;
    gantry_seams::tasks::delete(gantry.store.as_ref(), &former.id).await.unwrap();
    // Nobody watches meanwhile.
    hello.commit("release/1", &[("file", "2")]).unwrap();
    gantry.task_with("hello", "hello:{{.Run.ID}}", of_releases).await;
    for _ in 0..3 {
        look(&gantry).await;
        gantry.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(started(&gantry).await, 0);
    hello.commit("release/1", &[("file", "3")]).unwrap();
    look(&gantry).await;
    assert_eq!(started(&gantry).await, 1);
}

#[tokio::test]
async fn a_scheduler_that_starts_looks_for_what_was_lost_meanwhile() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    look(&gantry).await;
    hello.commit("main", &[("file", "2")]).unwrap();
    look(&gantry).await;
    assert_eq!(started(&gantry).await, 0, "it is not due yet");
    gantry.scheduler().look_again().await.unwrap();
    look(&gantry).await;
    assert_eq!(started(&gantry).await, 1);
}

/// A code host whose list of heads arrives late.
struct LateHost {
    host: CodeHosts,
    listed: Notify,
    arrives: Notify,
}

#[async_trait]
impl CodeHost for LateHost {
    async fn head(
        &self,
        at: RepositoryAccess<'_>,
        reference: Option<&PushedRef>,
    ) -> Result<Head, CodeHostError> {
        self.host.head(at, reference).await
    }

    async fn heads(&self, at: RepositoryAccess<'_>) -> Result<Heads, CodeHostError> {
        let heads = self.host.heads(at).await;
        self.listed.notify_one();
        self.arrives.notified().await;
        heads
    }
}

#[tokio::test]
async fn a_list_of_heads_that_is_older_than_a_push_changes_nothing() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    let (host, listed, arrives) = (gantry.code_hosts.clone(), Notify::new(), Notify::new());
    let late = Arc::new(LateHost { host, listed, arrives });
    let scheduler = Scheduler { code_host: Arc::clone(&late) as _, ..gantry.scheduler() };
    let pushing = async {
        late.listed.notified().await;
        let last = hello.commit("main", &[("file", "pushed meanwhile")]).unwrap();
        gantry.clock.advance(Duration::from_secs(1));
        gantry.deliver("d1", "hello", Some(&first), Some(&last)).await;
        gantry.settle().await;
        late.arrives.notify_one();
    };
    let (looked, ()) = tokio::join!(scheduler.reconcile(), pushing);
    looked.unwrap();
    assert_eq!(started(&gantry).await, 1);
    for _ in 0..2 {
        gantry.clock.advance(Duration::from_secs(1800));
        look(&gantry).await;
    }
    assert_eq!(started(&gantry).await, 1, "the push is the newest that there is");
}

#[tokio::test]
async fn a_list_of_heads_that_is_older_than_a_moved_tag_changes_nothing() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    let tag = || hello.git(&["push", "-qf", "origin", "HEAD:refs/tags/v1"]).unwrap();
    tag();
    let tags = |task: &mut Task| {
        task.source_trigger.as_mut().unwrap().commit.tags = patterns(&["v*"]);
    };
    gantry.task_with("hello", "hello:{{.Run.ID}}", tags).await;
    look(&gantry).await;
    let (host, listed, arrives) = (gantry.code_hosts.clone(), Notify::new(), Notify::new());
    let late = Arc::new(LateHost { host, listed, arrives });
    let scheduler = Scheduler { code_host: Arc::clone(&late) as _, ..gantry.scheduler() };
    gantry.clock.advance(Duration::from_secs(1800));
    let pushing = async {
        late.listed.notified().await;
        let last = hello.commit("main", &[("file", "tagged meanwhile")]).unwrap();
        tag();
        gantry.clock.advance(Duration::from_secs(1));
        let url = gantry.git.url("hello");
        let (before, after) = (Some(first.as_str()), Some(last.as_str()));
        let push = github::Push { url: &url, branch: "v1", before, after, default_branch: None };
        let body = push.body().replace("refs/heads/v1", "refs/tags/v1");
        gantry.deliver_kind("d1", "push", body).await;
        gantry.settle().await;
        late.arrives.notify_one();
    };
    let (looked, ()) = tokio::join!(scheduler.reconcile(), pushing);
    looked.unwrap();
    let after = started(&gantry).await;
    for _ in 0..2 {
        gantry.clock.advance(Duration::from_secs(1800));
        look(&gantry).await;
    }
    assert_eq!((after, started(&gantry).await), (1, 2), "the tag once, and main by the next look");
}

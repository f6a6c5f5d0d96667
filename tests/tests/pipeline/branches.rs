//! Pushes to very many branches: each is accepted and decided, and leaves no fact.
//!
//! `GANTRY_TEST_BRANCHES=100000` sends that many and prints the cost.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use gantry_domain::fact::FactKey;
use gantry_domain::source::{CommitId, GitUrl};
use gantry_seams::facts;
use gantry_tests::github::Push;
use gantry_tests::pipeline::{DOCKERFILE, Delivered, Door, HOOK, TestPipeline};

/// The number of branches in an ordinary run.
const FEW: usize = 600;

/// A sender of signed pushes, and the ingress that receives them.
struct Sender {
    door: Door,
    repository: String,
}

impl Sender {
    fn to(gantry: &TestPipeline, repository: &str) -> Self {
        Self { door: gantry.door(), repository: gantry.git.url(repository) }
    }

    /// Sends a push of a new branch.
    async fn push(&self, branch: &str, commit: &str, default_branch: &str) {
        let push = Push {
            url: &self.repository,
            branch,
            before: None,
            after: Some(commit),
            default_branch: Some(default_branch),
        };
        let (_, delivered) = self.door.receive(&format!("push-{branch}"), push).await;
        assert_eq!(delivered, Delivered::New);
    }

    /// Sends pushes of these new branches, some concurrently.
    async fn push_all(&self, branches: impl Iterator<Item = usize>) {
        stream::iter(branches)
            .for_each_concurrent(16, async |number| {
                self.push(&format!("branch-{number}"), &format!("{number:040x}"), "main").await;
            })
            .await;
    }
}

/// Decides all events. The ingress's clock advances while the store's does not.
async fn decide(gantry: &TestPipeline) {
    gantry.clock.advance(Duration::from_secs(600));
    gantry.schedule().await;
}

async fn has_fact(gantry: &TestPipeline, sender: &Sender, branch: &str) -> bool {
    let repository: GitUrl = sender.repository.parse().unwrap();
    let branch = branch.parse().unwrap();
    let key = FactKey::branch(&"reg".parse().unwrap(), &repository.key(), &branch);
    facts::find::<CommitId>(gantry.store.as_ref(), &key).await.unwrap().is_some()
}

/// The resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn any_number_of_branches_is_taken_and_decided_and_leaves_no_fact() {
    #[allow(clippy::disallowed_methods, reason = "how many is asked of whoever runs it")]
    let asked = std::env::var("GANTRY_TEST_BRANCHES");
    let count = asked.as_ref().map_or(FEW, |count| count.parse().unwrap());
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let head = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    let sender = Sender::to(&gantry, "hello");
    sender.push_all(count..count + 50).await;
    decide(&gantry).await;

    let (store_before, memory_before) = (gantry.store.room().await.unwrap().used, resident());
    let tenth = count / 10;
    let mut costs: Vec<Duration> = Vec::new();
    for part in 0..10 {
        let began = Instant::now();
        sender.push_all(part * tenth..(part + 1) * tenth).await;
        decide(&gantry).await;
        costs.push(began.elapsed() / u32::try_from(tenth).unwrap());
    }
    let stored = gantry.store.room().await.unwrap().used.saturating_sub(store_before);
    let grown = resident().saturating_sub(memory_before);
    if asked.is_ok() {
        let per_hook = stored / u64::try_from(count).unwrap();
        println!(
            "{count} branches: {costs:?} a hook, {per_hook} bytes stored a hook, {grown} bytes more resident"
        );
    }
    assert!(grown < 128 << 20, "{grown} bytes more are resident");

    for number in [0, count / 2, count - 1] {
        assert!(!has_fact(&gantry, &sender, &format!("branch-{number}")).await);
        let event = format!("{HOOK}/push-branch-{number}/0").parse().unwrap();
        let decided = gantry.decision(&event).await;
        assert!(decided.ends_with("the source trigger watches main"), "{decided}");
    }
    sender.push("main", &head, "main").await;
    decide(&gantry).await;
    assert!(has_fact(&gantry, &sender, "main").await, "what a task watches is known");
}

#[tokio::test]
async fn a_missing_default_branch_leaves_no_fact() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let head = hello.commit("main", DOCKERFILE).unwrap();
    let source = gantry.git.url("hello");
    gantry
        .task_with("hello", "hello:{{.Run.ID}}", |task| {
            task.recipe.source = source.parse().unwrap()
        })
        .await;
    let sender = Sender::to(&gantry, "hello");
    for branch in ["invented-1", "invented-2"] {
        sender.push(branch, &"1".repeat(40), branch).await;
    }
    decide(&gantry).await;
    for branch in ["invented-1", "invented-2"] {
        let event = format!("{HOOK}/push-{branch}/0").parse().unwrap();
        let decided = gantry.decision(&event).await;
        assert_eq!(decided, format!("reg/hello: branch {branch} was deleted"));
        assert!(!has_fact(&gantry, &sender, branch).await, "{branch}");
    }
    sender.push("main", &head, "main").await;
    decide(&gantry).await;
    let decided = gantry.decision(&"hook/push-main/0".parse().unwrap()).await;
    assert_eq!(decided, "reg/hello: run ca1");
}

//! The rules of a source trigger about branches, tags, changed files and marks.

use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::run::RunStatus;
use gantry_domain::task::{Status, Task};
use gantry_domain::trigger::{SourceTrigger, Supersede};
use gantry_remote::code_host::CodeHostFailure;
use gantry_tests::git_server::TestRepository;
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};
use serde_json::json;

async fn start(change: impl FnOnce(&mut SourceTrigger)) -> (TestPipeline, TestRepository, String) {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    let change = |task: &mut Task| change(task.source_trigger.as_mut().unwrap());
    gantry.task_with("hello", "hello:{{.Run.ID}}", change).await;
    gantry.providers.open();
    gantry.settle().await;
    (gantry, hello, first)
}

fn patterns(texts: &[&str]) -> gantry_domain::pattern::Patterns {
    let parsed: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
    parsed.try_into().unwrap()
}

/// A push with the files of its commits.
fn body(url: &str, reference: &str, before: &str, after: &str, files: &[&str]) -> String {
    json!({
        "ref": reference, "before": before, "after": after, "forced": false,
        "commits": [{"id": after, "added": files, "modified": [], "removed": []}],
        "head_commit": {"id": after, "message": "a change"},
        "repository": {"clone_url": url, "default_branch": "main"},
    })
    .to_string()
}

const ZEROS: &str = "0000000000000000000000000000000000000000";

/// Delivers a push and returns the decision.
async fn tell(gantry: &TestPipeline, id: &str, body: String) -> String {
    let (event, _) = gantry.deliver_kind(id, "push", body).await;
    gantry.settle().await;
    gantry.decision(&event).await
}

#[tokio::test]
async fn every_chosen_branch_starts_runs_of_its_own() {
    let (gantry, hello, _) = start(|trigger| {
        trigger.commit.branches = patterns(&["main", "release/*", "!release/old"]);
    })
    .await;
    let url = gantry.git.url("hello");
    for (id, branch, says) in [
        ("d1", "release/1", "reg/hello: run ca1"),
        ("d2", "release/2", "reg/hello: run ca2"),
        ("d3", "release/old", "watches main, release/*, !release/old"),
        ("d4", "topic", "watches main, release/*, !release/old"),
    ] {
        let after = hello.commit(branch, &[("file", branch)]).unwrap();
        let reference = format!("refs/heads/{branch}");
        let said = tell(&gantry, id, body(&url, &reference, ZEROS, &after, &[])).await;
        assert!(said.contains(says), "{said}");
    }
    assert_eq!(gantry.run("ca1").await.branch().unwrap().as_str(), "release/1");
}

#[tokio::test]
async fn a_tag_builds_the_commit_that_it_points_to_and_its_removal_starts_nothing() {
    let (gantry, hello, first) = start(|trigger| {
        trigger.commit.status = Status::Enabled;
        trigger.commit.tags = patterns(&["v*"]);
    })
    .await;
    let url = gantry.git.url("hello");
    hello.git(&["tag", "-a", "-m", "one", "v1", &first]).unwrap();
    hello.git(&["push", "-q", "origin", "v1"]).unwrap();
    let annotated = hello.git(&["rev-parse", "v1"]).unwrap().trim().to_owned();
    assert_ne!(annotated, first);
    let mut pushed: serde_json::Value =
        serde_json::from_str(&body(&url, "refs/tags/v1", ZEROS, &annotated, &[])).unwrap();
    pushed["head_commit"]["id"] = first.as_str().into();
    assert_eq!(tell(&gantry, "d1", pushed.to_string()).await, "reg/hello: run ca1");
    let run = gantry.run("ca1").await;
    let product = run.state.done().unwrap().outcome.product().unwrap();
    assert_eq!(product.commit.as_ref().unwrap().as_str(), first);
    assert_eq!(run.cause.to_string(), format!("tag v1 at {}", &first[..7]));

    hello.git(&["push", "-q", "origin", ":v1"]).unwrap();
    let said = tell(&gantry, "d2", body(&url, "refs/tags/v1", &annotated, ZEROS, &[])).await;
    assert_eq!(said, "reg/hello: tag v1 was deleted");
    let said = tell(&gantry, "d3", body(&url, "refs/tags/nightly", ZEROS, &first, &[])).await;
    assert_eq!(said, "reg/hello: tag nightly moved; the source trigger watches v*");
}

#[tokio::test]
async fn only_changes_of_the_named_files_start_runs() {
    let (gantry, hello, first) = start(|trigger| {
        trigger.paths.included = patterns(&["web/**"]);
        trigger.paths.ignored = patterns(&["**/*.md"]);
    })
    .await;
    let url = gantry.git.url("hello");
    let mut before = first;
    for (id, files, says) in [
        ("d1", &["api/a.rs"][..], "none of the changed files (1) is one of the paths"),
        ("d2", &["web/README.md", "api/b.rs"], "none of the changed files (2)"),
        ("d3", &["web/a.rs", "api/c.rs"], "reg/hello: run ca1"),
    ] {
        let contents: Vec<(&str, &str)> = files.iter().map(|file| (*file, id)).collect();
        let after = hello.commit("main", &contents).unwrap();
        let said = tell(&gantry, id, body(&url, "refs/heads/main", &before, &after, files)).await;
        assert!(said.contains(says), "{said}");
        before = after;
    }
    assert_eq!(gantry.providers.asked(), 0, "the payloads were whole");
}

#[tokio::test]
async fn without_a_whole_list_the_provider_is_asked_and_if_it_cannot_tell_the_change_is_built() {
    let (gantry, hello, first) =
        start(|trigger| trigger.paths.included = patterns(&["web/**"])).await;
    let url = gantry.git.url("hello");
    let forced = |before: &str, after: &str| {
        let mut body: serde_json::Value =
            serde_json::from_str(&body(&url, "refs/heads/main", before, after, &["web/x"]))
                .unwrap();
        body["forced"] = true.into();
        body.to_string()
    };
    let second = hello.commit("main", &[("api/a", "1")]).unwrap();
    let files = ChangedFiles::All { paths: vec!["api/a".to_owned()] };
    gantry.providers.put_files(&first.parse().unwrap(), &second.parse().unwrap(), files);
    let said = tell(&gantry, "d1", forced(&first, &second)).await;
    assert!(said.contains("none of the changed files (1)"), "{said}");

    let third = hello.commit("main", &[("api/a", "2")]).unwrap();
    let cut = ChangedFiles::Unknown { why: "the list is cut at 300".to_owned() };
    gantry.providers.put_files(&second.parse().unwrap(), &third.parse().unwrap(), cut);
    let said = tell(&gantry, "d2", forced(&second, &third)).await;
    assert!(said.starts_with("reg/hello: run ca1"), "{said}");
    assert!(said.contains("the list is cut at 300"), "{said}");

    let fourth = hello.commit("main", &[("api/a", "3")]).unwrap();
    gantry.providers.fail(CodeHostFailure::RefusedToken, "the token may not compare");
    let said = tell(&gantry, "d3", forced(&third, &fourth)).await;
    assert!(said.contains("run ca2") && said.contains("the token may not compare"), "{said}");
}

#[tokio::test]
async fn a_mark_in_the_message_is_honoured_if_the_trigger_says_so() {
    for honors in [true, false] {
        let (gantry, hello, first) = start(|trigger| trigger.honors_skip_marks = honors).await;
        let after = hello.commit("main", &[("file", "2")]).unwrap();
        let pushed = body(&gantry.git.url("hello"), "refs/heads/main", &first, &after, &[]);
        let pushed = pushed.replace("a change", "docs [skip ci]");
        let said = tell(&gantry, "d1", pushed).await;
        let expected = if honors { "message asks to skip" } else { "run ca1" };
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn a_newer_push_replaces_what_the_trigger_says() {
    for (supersede, first_is) in [
        (Supersede::None, RunStatus::Queued),
        (Supersede::Queued, RunStatus::Canceled),
        (Supersede::Running, RunStatus::Canceled),
    ] {
        let (gantry, hello, first) = start(|trigger| trigger.supersede = supersede).await;
        let second = hello.commit("main", &[("file", "2")]).unwrap();
        let third = hello.commit("main", &[("file", "3")]).unwrap();
        gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
        gantry.schedule().await;
        gantry.deliver("d2", "hello", Some(&second), Some(&third)).await;
        gantry.schedule().await;
        assert_eq!(gantry.run("ca1").await.status(), first_is, "{supersede:?}");
        assert_eq!(gantry.run("ca2").await.status(), RunStatus::Queued);
    }
}

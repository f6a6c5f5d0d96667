//! Which changes of pull requests start runs, and what these build.

use std::collections::BTreeMap;

use gantry_domain::pull_request::PullRequest as Known;
use gantry_domain::recipe::{FileWork, TaskFile, Work};
use gantry_domain::run::{RunStatus, WaitReason};
use gantry_domain::sealed::Sealed;
use gantry_domain::task::{Status, Task};
use gantry_domain::trigger::{Forks, PullRequestBuilds, Supersede};
use gantry_ops::secret::SecretString;
use gantry_remote::code_host::CodeHostFailure;
use gantry_seams::runs;
use gantry_tests::git_server::TestRepository;
use gantry_tests::github::{self, FORK, PullRequest, REPOSITORY};
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};

/// A repository with a branch `main` and a task that builds its pull requests.
struct Hello {
    gantry: TestPipeline,
    repository: TestRepository,
    url: String,
}

impl Hello {
    async fn start(change: impl FnOnce(&mut Task)) -> Self {
        let gantry = super::start().await;
        let repository = gantry.git.repository("hello").unwrap();
        repository.commit("main", DOCKERFILE).unwrap();
        gantry
            .task_with("hello", "hello:{{.Run.ID}}", |task| {
                rules(task).status = Status::Enabled;
                change(task);
            })
            .await;
        gantry.providers.open();
        gantry.settle().await;
        let url = gantry.git.url("hello");
        Self { gantry, repository, url }
    }

    /// Commits to the branch `topic`, which `refs/pull/7/head` follows.
    fn push_head(&self, content: &str) -> String {
        let head = self.repository.commit("topic", &[("file", content)]).unwrap();
        self.repository.git(&["push", "-q", "-f", "origin", "HEAD:refs/pull/7/head"]).unwrap();
        head
    }

    /// Merges `head` into `main` as `refs/pull/7/merge`.
    fn merge(&self, head: &str) -> String {
        let git = |arguments: &[&str]| self.repository.git(arguments).unwrap();
        git(&["fetch", "-q", "origin", "main"]);
        git(&["checkout", "-q", "--detach", "FETCH_HEAD"]);
        git(&["merge", "-q", "--no-ff", "-m", "trial", head]);
        git(&["push", "-q", "-f", "origin", "HEAD:refs/pull/7/merge"]);
        git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// What the provider's API shows.
    fn show(&self, head: &str, is_open: bool) {
        let body = PullRequest::opened(&self.url, head);
        let json: serde_json::Value = serde_json::from_str(&body.body()).unwrap();
        self.gantry.providers.put_pull_request(Known {
            number: 7,
            is_open,
            head: gantry_domain::pull_request::PullRequestHead {
                commit: head.parse().unwrap(),
                branch: Some("topic".parse().unwrap()),
                repository: Some(REPOSITORY.to_string().parse().unwrap()),
            },
            base: gantry_domain::pull_request::PullRequestBase {
                branch: json["pull_request"]["base"]["ref"].as_str().unwrap().parse().unwrap(),
                repository: REPOSITORY.to_string().parse().unwrap(),
            },
            merge: None,
            is_draft: false,
            labels: Vec::new(),
            author: None,
            association: gantry_domain::pull_request::Association::Member,
        });
    }

    /// Delivers a change and returns the decision.
    async fn tell(&self, id: &str, change: &PullRequest<'_>) -> String {
        let (event, _) = self.gantry.deliver_pull_request(id, change).await;
        self.gantry.settle().await;
        self.gantry.decision(&event).await
    }

    async fn comment(&self, id: &str, text: &str, association: &str) -> String {
        let body = github::comment(&self.url, text, association);
        let (event, _) = self.gantry.deliver_kind(id, "issue_comment", body).await;
        self.gantry.settle().await;
        self.gantry.decision(&event).await
    }
}

fn rules(task: &mut Task) -> &mut gantry_domain::trigger::PullRequestRules {
    &mut task.source_trigger.as_mut().unwrap().pull_request
}

#[tokio::test]
async fn an_opened_pull_request_builds_the_merge_of_its_head_and_pushes_nothing() {
    let hello = Hello::start(|_| {}).await;
    let head = hello.push_head("one");
    let merge = hello.merge(&head);
    let said = hello.tell("d1", &PullRequest::opened(&hello.url, &head)).await;
    assert_eq!(said, "reg/hello: run ca1");
    let run = hello.gantry.run("ca1").await;
    let product = run.state.done().unwrap().outcome.product().unwrap();
    assert_eq!(product.commit.as_ref().unwrap().as_str(), merge);
    assert_eq!(product.outputs, []);
    assert_eq!(hello.gantry.registries.tag("registry.test/hello:ca1"), None);
    let short = &head[..7];
    assert_eq!(hello.gantry.transcript().await, format!("ca1 Succeeded pull request 7 at {short}"));
    assert_eq!(hello.gantry.providers.asked(), 0, "an opened one tells everything itself");
}

#[tokio::test]
async fn a_merge_of_another_head_is_not_built() {
    let hello = Hello::start(|_| {}).await;
    let old = hello.push_head("one");
    hello.merge(&old);
    let head = hello.push_head("two");
    hello.tell("d1", &PullRequest::opened(&hello.url, &head)).await;
    let run = hello.gantry.run("ca1").await;
    let product = run.state.done().unwrap().outcome.product().unwrap();
    assert_eq!(product.commit.as_ref().unwrap().as_str(), head);
    let log = hello.gantry.log("ca1", 1).await;
    assert!(log.contains("because the host has no merge of it into main"), "{log}");
}

#[tokio::test]
async fn a_pull_request_builds_its_head_if_its_trigger_says_so() {
    let hello = Hello::start(|task| rules(task).builds = PullRequestBuilds::Head).await;
    let head = hello.push_head("one");
    hello.merge(&head);
    hello.tell("d1", &PullRequest::opened(&hello.url, &head)).await;
    let run = hello.gantry.run("ca1").await;
    let product = run.state.done().unwrap().outcome.product().unwrap();
    assert_eq!(product.commit.as_ref().unwrap().as_str(), head);
}

#[tokio::test]
async fn a_pull_request_that_may_push_moves_only_tags_of_its_own() {
    let hello = Hello::start(|task| {
        rules(task).push = true;
        let build = gantry_tests::pipeline::image_build(&mut task.recipe);
        build.images.push("hello:latest".parse().unwrap());
    })
    .await;
    let head = hello.push_head("one");
    hello.tell("d1", &PullRequest::opened(&hello.url, &head)).await;
    assert!(hello.gantry.registries.tag("registry.test/hello:ca1").is_some());
    assert_eq!(hello.gantry.registries.tag("registry.test/hello:latest"), None);
}

#[tokio::test]
async fn each_head_is_built_once_in_whatever_order_its_changes_arrive() {
    let hello = Hello::start(|_| {}).await;
    let (first, second) = (hello.push_head("one"), hello.push_head("two"));
    hello.show(&second, true);
    let opened = PullRequest::opened(&hello.url, &first);
    let synchronized = PullRequest {
        action: "synchronize",
        before: Some(&first),
        ..PullRequest::opened(&hello.url, &second)
    };
    // The second change comes first.
    assert_eq!(hello.tell("d1", &synchronized).await, "reg/hello: run ca1");
    assert!(hello.tell("d2", &opened).await.contains("run ca1 was started for this change"));
    assert!(hello.tell("d3", &synchronized).await.contains("run ca1 was started"));
    let labeled = PullRequest { action: "labeled", ..PullRequest::opened(&hello.url, &second) };
    let said = hello.tell("d4", &labeled).await;
    assert!(said.contains("was labeled, which does not start this task"), "{said}");

    // Closed before the change that came before it.
    hello.show(&second, false);
    let third = hello.push_head("three");
    let closed = PullRequest { action: "closed", ..PullRequest::opened(&hello.url, &third) };
    assert_eq!(hello.tell("d5", &closed).await, "reg/hello: pull request 7 is closed");
    let late = PullRequest {
        action: "synchronize",
        before: Some(&second),
        ..PullRequest::opened(&hello.url, &third)
    };
    // Nobody knows how late it is until the host has had time to show it.
    hello.gantry.deliver_pull_request("d6", &late).await;
    hello.gantry.clock.advance(std::time::Duration::from_secs(200));
    hello.gantry.settle().await;
    assert_eq!(
        runs::list(hello.gantry.store.as_ref(), &runs::RunFilter::default(), None, 9)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_head_that_returns_is_another_change() {
    let hello = Hello::start(|_| {}).await;
    let (first, second) = (hello.push_head("one"), hello.push_head("two"));
    let change = |before, head| PullRequest {
        action: "synchronize",
        before: Some(before),
        ..PullRequest::opened(&hello.url, head)
    };
    hello.tell("d1", &PullRequest::opened(&hello.url, &first)).await;
    hello.tell("d2", &change(&first, &second)).await;
    hello
        .repository
        .git(&["push", "-q", "-f", "origin", &format!("{first}:refs/pull/7/head")])
        .unwrap();
    hello.show(&first, true);
    assert_eq!(hello.tell("d3", &change(&second, &first)).await, "reg/hello: run ca3");
}

#[tokio::test]
async fn the_first_rule_that_says_no_is_told() {
    let hello = Hello::start(|task| {
        rules(task).labels = vec!["build*".parse().unwrap()].try_into().unwrap();
        rules(task).authors = gantry_domain::pull_request::Association::Contributor;
    })
    .await;
    let head = hello.push_head("one");
    let good = PullRequest { labels: &["build-it"], ..PullRequest::opened(&hello.url, &head) };
    for (number, (id, change, says)) in (7..).zip([
        (
            "d1",
            PullRequest { base: "other", ..good },
            "is for other; the source trigger watches main",
        ),
        ("d2", PullRequest { is_draft: true, ..good }, "the pull request is a draft"),
        ("d3", PullRequest { labels: &["x"], ..good }, "has no label like build*"),
        ("d4", PullRequest { association: "NONE", ..good }, "is a stranger of the repository"),
        ("d5", PullRequest { association: "FIRST_TIMER", ..good }, "is a stranger"),
        ("d6", good, "run ca1"),
    ]) {
        let said = hello.tell(id, &PullRequest { number, ..change }).await;
        assert!(said.contains(says), "{said}");
    }
}

#[tokio::test]
async fn pull_requests_start_nothing_unless_the_trigger_says_so() {
    let hello = Hello::start(|task| rules(task).status = Status::Disabled).await;
    let head = hello.push_head("one");
    let said = hello.tell("d1", &PullRequest::opened(&hello.url, &head)).await;
    assert!(said.contains("starts nothing on pull requests"), "{said}");
}

#[tokio::test]
async fn closing_ends_queued_runs_and_a_newer_head_ends_what_the_trigger_says() {
    for (supersede, first_is) in
        [(Supersede::None, RunStatus::Queued), (Supersede::Queued, RunStatus::Canceled)]
    {
        let hello = Hello::start(|task| {
            task.source_trigger.as_mut().unwrap().supersede = supersede;
        })
        .await;
        let (first, second) = (hello.push_head("one"), hello.push_head("two"));
        hello.gantry.deliver_pull_request("d1", &PullRequest::opened(&hello.url, &first)).await;
        hello.gantry.schedule().await;
        let newer = PullRequest {
            action: "synchronize",
            before: Some(&first),
            ..PullRequest::opened(&hello.url, &second)
        };
        hello.gantry.deliver_pull_request("d2", &newer).await;
        hello.gantry.schedule().await;
        assert_eq!(hello.gantry.run("ca1").await.status(), first_is, "{supersede:?}");
        assert_eq!(hello.gantry.run("ca2").await.status(), RunStatus::Queued);
        let closed = PullRequest { action: "closed", ..PullRequest::opened(&hello.url, &second) };
        hello.gantry.deliver_pull_request("d3", &closed).await;
        hello.gantry.schedule().await;
        for run in ["ca1", "ca2"] {
            assert_eq!(hello.gantry.run(run).await.status(), RunStatus::Canceled, "{supersede:?}");
        }
    }
}

#[tokio::test]
async fn closing_ends_what_was_queued_even_if_the_rules_would_say_no_now() {
    let hello = Hello::start(|_| {}).await;
    let head = hello.push_head("one");
    let opened = PullRequest::opened(&hello.url, &head);
    hello.gantry.deliver_pull_request("d1", &opened).await;
    hello.gantry.schedule().await;
    assert_eq!(hello.gantry.run("ca1").await.status(), RunStatus::Queued);
    let closed = PullRequest { action: "closed", is_draft: true, ..opened };
    hello.gantry.deliver_pull_request("d2", &closed).await;
    hello.gantry.schedule().await;
    assert_eq!(hello.gantry.run("ca1").await.status(), RunStatus::Canceled);
}

#[tokio::test]
async fn a_fork_waits_for_an_approval_of_exactly_its_commit() {
    let hello = Hello::start(|task| rules(task).comments = true).await;
    let head = hello.push_head("one");
    let fork =
        PullRequest { head_repository: Some(FORK), ..PullRequest::opened(&hello.url, &head) };
    assert_eq!(hello.tell("d1", &fork).await, "reg/hello: run ca1");
    let run = hello.gantry.run("ca1").await;
    assert!(run.state.is_held() && run.is_of_fork());

    let other = "2".repeat(40);
    for (id, text, who, says) in [
        ("c1", format!("/gantry approve {head}"), "NONE", "at least a collaborator may command"),
        ("c2", format!("/gantry approve {head}"), "CONTRIBUTOR", "at least a collaborator"),
        ("c3", format!("/gantry approve {other}"), "OWNER", "there was no run to be approved"),
    ] {
        let said = hello.comment(id, &text, who).await;
        assert!(said.contains(says), "{said}");
        assert!(hello.gantry.run("ca1").await.state.is_held());
    }
    let (store, id) = (hello.gantry.store.as_ref(), "ca1".parse().unwrap());
    assert!(runs::approve(store, id, &other.parse().unwrap(), "token t").await.is_err());

    let said = hello.comment("c4", &format!("/gantry approve {head}"), "COLLABORATOR").await;
    assert_eq!(said, "reg/hello: approved: ca1");
    let run = hello.gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.approved.unwrap().by, "mona");
}

#[tokio::test]
async fn a_head_without_its_repository_counts_as_a_fork() {
    let hello = Hello::start(|task| rules(task).forks = Forks::Never).await;
    let head = hello.push_head("one");
    let gone = PullRequest { head_repository: None, ..PullRequest::opened(&hello.url, &head) };
    let said = hello.tell("d1", &gone).await;
    assert!(said.contains("is from a fork"), "{said}");
}

#[tokio::test]
async fn a_newer_head_of_a_fork_is_held_again_and_the_older_run_ends() {
    let hello = Hello::start(|_| {}).await;
    let (first, second) = (hello.push_head("one"), hello.push_head("two"));
    let fork =
        PullRequest { head_repository: Some(FORK), ..PullRequest::opened(&hello.url, &first) };
    hello.tell("d1", &fork).await;
    let newer = PullRequest { action: "synchronize", before: Some(&first), head: &second, ..fork };
    hello.tell("d2", &newer).await;
    assert_eq!(hello.gantry.run("ca1").await.status(), RunStatus::Canceled);
    let run = hello.gantry.run("ca2").await;
    assert!(matches!(
        run.state,
        gantry_domain::run::RunState::Waiting { reason: WaitReason::Approval, .. }
    ));
}

#[tokio::test]
async fn comments_build_again_and_cancel() {
    let hello = Hello::start(|task| rules(task).comments = true).await;
    let head = hello.push_head("one");
    hello.tell("d1", &PullRequest::opened(&hello.url, &head)).await;
    hello.show(&head, true);
    assert_eq!(hello.comment("c1", "/gantry build", "MEMBER").await, "reg/hello: run ca2");
    assert!(hello.comment("c2", "/gantry build", "NONE").await.contains("may command"));

    let body = github::comment(&hello.url, "/gantry build", "OWNER");
    hello.gantry.deliver_kind("c3", "issue_comment", body).await;
    hello.gantry.schedule().await;
    assert_eq!(hello.gantry.run("ca3").await.status(), RunStatus::Queued);
    assert_eq!(hello.comment("c4", "/gantry cancel", "OWNER").await, "reg/hello: cancelled: ca3");
    assert_eq!(hello.gantry.run("ca3").await.status(), RunStatus::Canceled);

    hello.show(&head, false);
    let said = hello.comment("c5", "/gantry build", "OWNER").await;
    assert_eq!(said, "reg/hello: pull request 7 is closed");
}

#[tokio::test]
async fn comments_are_ignored_unless_the_trigger_obeys_them() {
    let hello = Hello::start(|_| {}).await;
    let said = hello.comment("c1", "/gantry cancel", "OWNER").await;
    assert!(said.contains("obeys no comments"), "{said}");
}

#[tokio::test]
async fn a_provider_that_is_away_is_asked_again() {
    let hello = Hello::start(|_| {}).await;
    let (first, second) = (hello.push_head("one"), hello.push_head("two"));
    let change = PullRequest {
        action: "synchronize",
        before: Some(&first),
        ..PullRequest::opened(&hello.url, &second)
    };
    hello.show(&second, true);
    hello.gantry.providers.fail(CodeHostFailure::Transient { retry_after: None }, "it is busy");
    let (event, _) = hello.gantry.deliver_pull_request("d1", &change).await;
    hello.gantry.settle().await;
    hello.gantry.clock.advance(std::time::Duration::from_secs(5));
    hello.gantry.settle().await;
    assert_eq!(hello.gantry.decision(&event).await, "reg/hello: run ca1");
}

/// A pull request of a fork that runs without an approval, with a task file that uses everything it can.
async fn fork_with_secrets() -> Hello {
    Hello::start(|task| {
        rules(task).forks = Forks::Run;
        rules(task).push = true;
        let build = gantry_tests::pipeline::image_build(&mut task.recipe);
        // It does not even open.
        let sealed = Sealed::from_text("nobody's".to_owned());
        build.secret_build_args.insert("TOKEN".parse().unwrap(), sealed);
        build.images.push("hello:latest".parse().unwrap());
    })
    .await
}

#[tokio::test]
async fn a_fork_gets_no_secret_no_push_and_no_registry_login() {
    let hello = fork_with_secrets().await;
    let head = hello.push_head("one");
    let fork =
        PullRequest { head_repository: Some(FORK), ..PullRequest::opened(&hello.url, &head) };
    assert_eq!(hello.tell("d1", &fork).await, "reg/hello: run ca1");
    let run = hello.gantry.run("ca1").await;
    // A secret that does not open would have ended the run: it has none.
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}", run.state);
    assert_eq!(run.recipe.sealed().count(), 0);
    for tag in ["ca1", "latest"] {
        assert_eq!(hello.gantry.registries.tag(&format!("registry.test/hello:{tag}")), None);
    }
    let asked = hello.gantry.engine.asked();
    assert!(asked[0].order.registries.is_empty(), "a fork's bases are pulled anonymously");
    assert!(asked[0].order.secret_build_args.is_empty());
    assert!(asked[0].order.cache.is_none());
}

#[tokio::test]
async fn a_fork_shares_no_isolation_with_the_repository_s_own_runs() {
    let hello = Hello::start(|task| rules(task).forks = Forks::Run).await;
    let head = hello.push_head("one");
    let own = PullRequest::opened(&hello.url, &head);
    hello.tell("d1", &own).await;
    let fork = PullRequest { number: 8, head_repository: Some(FORK), ..own };
    hello
        .repository
        .git(&["push", "-q", "-f", "origin", &format!("{head}:refs/pull/8/head")])
        .unwrap();
    hello.tell("d2", &fork).await;
    let asked = hello.gantry.engine.asked();
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].order.isolation, asked[1].order.isolation);
}

#[tokio::test]
async fn a_fork_cannot_choose_what_its_run_executes() {
    for (head_repository, builds) in [(Some(REPOSITORY), "theirs"), (Some(FORK), "ours")] {
        let hello = Hello::start(|task| {
            rules(task).forks = Forks::Run;
            task.recipe.work = Work::File(FileWork {
                file: TaskFile::Path("acr-task.yaml".parse().unwrap()),
                values_file: None,
                values: BTreeMap::new(),
                secret_values: BTreeMap::new(),
                secrets: BTreeMap::new(),
                has_registry_login: false,
            });
        })
        .await;
        let file = |target: &str| format!("steps:\n- build: --build-arg CHOSEN={target} -t x .\n");
        hello.repository.commit("main", &[("acr-task.yaml", &file("ours"))]).unwrap();
        let files = [("acr-task.yaml", file("theirs")), ("file", "of the fork".to_owned())];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        let head = hello.repository.commit("topic", &[DOCKERFILE, &files].concat()).unwrap();
        let git = ["push", "-q", "-f", "origin", "HEAD:refs/pull/7/head"];
        hello.repository.git(&git).unwrap();
        let change = PullRequest { head_repository, ..PullRequest::opened(&hello.url, &head) };
        hello.tell("d1", &change).await;
        let run = hello.gantry.run("ca1").await;
        assert_eq!(run.status(), RunStatus::Succeeded, "{:?}", run.state);
        let asked = hello.gantry.engine.asked();
        assert_eq!(asked[0].order.build_args["CHOSEN"], builds);
    }
}

#[tokio::test]
async fn the_provider_is_asked_with_the_task_s_token_for_its_api() {
    let gantry = super::start().await;
    let seal = |text: &str| {
        gantry.keyring.seal(&TestPipeline::seals_for(), &SecretString::from(text)).unwrap()
    };
    let repository = gantry.git.repository("hello").unwrap();
    let head = repository.commit("main", DOCKERFILE).unwrap();
    gantry
        .task_with("hello", "hello:{{.Run.ID}}", |task| {
            rules(task).status = Status::Enabled;
            (task.git_token, task.api_token) = (Some(seal("for-git")), Some(seal("for-the-api")));
        })
        .await;
    gantry.providers.open();
    gantry.schedule().await;
    let url = gantry.git.url("hello");
    let changed = PullRequest { action: "reopened", ..PullRequest::opened(&url, &head) };
    gantry.deliver_pull_request("d1", &changed).await;
    gantry.schedule().await;
    assert_eq!(gantry.providers.tokens(), [Some("for-the-api".to_owned())]);
}

//! Pull requests of Bitbucket, whose webhooks shorten commits: the API of a stand-in tells the rest.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::hook::{Hook, HookSecret, Sender};
use gantry_domain::id::{EventId, HookId};
use gantry_domain::registry::Registry;
use gantry_domain::task::{Status, Task};
use gantry_domain::trigger::{Forks, Supersede};
use gantry_ops::secret::SecretString;
use gantry_scheduler::Scheduler;
use gantry_seams::hooks;
use gantry_tests::github::signature;
use gantry_tests::hosts::bitbucket::{BitbucketServer, TOKEN};
use gantry_tests::hosts::code_hosts;
use gantry_tests::pipeline::TestPipeline;
use serde_json::{Value, json};

const SECRET: &str = "the secret of this webhook";
const REPOSITORY: &str = "{d93ba5d4-0000-0000-0000-000000000001}";
const FORK: &str = "{d93ba5d4-0000-0000-0000-000000000002}";

const A: &str = "a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4";
const B: &str = "b2c3d4e5b2c3d4e5b2c3d4e5b2c3d4e5b2c3d4e5";

/// A task for a repository of Bitbucket, and pull request 7 of that repository.
struct Web {
    gantry: TestPipeline,
    bitbucket: BitbucketServer,
    hook: HookId,
    /// What the API shows, and what webhooks report.
    pull: Value,
}

impl Web {
    async fn start(change: impl FnOnce(&mut Task)) -> Self {
        let gantry = super::start().await;
        let bitbucket = BitbucketServer::start().await.unwrap();
        let bound_to = Registry::seals_for(TestPipeline::prefix());
        let token = gantry.keyring.seal(&bound_to, &SecretString::from(TOKEN)).unwrap();
        let source = format!("{}#main", bitbucket.url());
        gantry
            .task_with("web", "web:{{.Run.ID}}", |task| {
                task.recipe.source = source.parse().unwrap();
                task.git_token = Some(token);
                let trigger = task.source_trigger.as_mut().unwrap();
                trigger.pull_request.status = Status::Enabled;
                trigger.supersede = Supersede::Queued;
                change(task);
            })
            .await;
        let hook = create_hook(&gantry).await;
        let pull = json!({
            "id": 7, "state": "OPEN", "draft": false, "author": {"display_name": "Mona Lisa"},
            "source": {"branch": {"name": "fix"}, "repository": {"uuid": REPOSITORY}},
            "destination": {
                "branch": {"name": "main"},
                "commit": {"hash": &A[..12]},
                "repository": {"uuid": REPOSITORY},
            },
        });
        Self { gantry, bitbucket, hook, pull }
    }

    /// Sets what the pull request is, in the API and in later webhooks.
    fn set(&mut self, head: &str, change: impl FnOnce(&mut Value)) {
        self.pull["source"]["commit"] = json!({"hash": &head[..12]});
        change(&mut self.pull);
        self.bitbucket.state().pulls.insert(7, (self.pull.clone(), head.to_owned()));
    }

    fn scheduler(&self) -> Scheduler {
        let providers = Arc::new(code_hosts(&[self.bitbucket.entry()]));
        Scheduler { providers, ..self.gantry.scheduler() }
    }

    async fn schedule(&self) {
        let scheduler = self.scheduler();
        while scheduler.tick().await.unwrap() {}
    }

    /// Delivers the pull request as it is set.
    async fn deliver(&self, id: &str, kind: &str) -> EventId {
        let body = json!({
            "repository": {"uuid": REPOSITORY, "links": {"html": {"href": self.bitbucket.url()}}},
            "pullrequest": self.pull,
        })
        .to_string();
        let door = self.gantry.door();
        let request = door
            .post(&format!("bitbucket/{}", self.hook))
            .header("content-type", "application/json")
            .header("x-event-key", kind)
            .header("x-request-uuid", id)
            .header("x-hub-signature", signature(SECRET, body.as_bytes()));
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        EventId::of_delivery(&self.hook, &id.parse().unwrap(), 0)
    }

    /// Delivers the pull request as it is set, and returns the decision.
    async fn tell(&self, id: &str, kind: &str) -> String {
        let event = self.deliver(id, kind).await;
        self.schedule().await;
        self.gantry.decision(&event).await
    }
}

async fn create_hook(gantry: &TestPipeline) -> HookId {
    let id: HookId = "bitbucket".parse().unwrap();
    let sealed = gantry.keyring.seal(&hooks::seal_for(&id), &SecretString::from(SECRET)).unwrap();
    let created = gantry.clock.now();
    let hook = Hook {
        id: id.clone(),
        registry: "reg".parse().unwrap(),
        prefix: TestPipeline::prefix(),
        sender: Sender::Bitbucket,
        repositories: Vec::new(),
        secrets: vec![HookSecret { sealed, created }],
        is_provisioned: false,
        created,
    };
    hooks::create(gantry.store.as_ref(), &hook).await.unwrap();
    id
}

const CREATED: &str = "pullrequest:created";
const UPDATED: &str = "pullrequest:updated";
const FULFILLED: &str = "pullrequest:fulfilled";

#[tokio::test]
async fn each_head_of_a_pull_request_starts_one_run_and_its_end_ends_the_queued_one() {
    let mut web = Web::start(|_| {}).await;
    web.set(A, |_| {});
    assert_eq!(web.tell("d1", CREATED).await, "reg/web: run ca1");
    let cause = web.gantry.run("ca1").await;
    assert_eq!(cause.cause.to_string(), format!("pull request 7 at {}", &A[..7]));

    // A vote, a title or a reviewer.
    web.set(A, |pull| pull["title"] = "Fix the parser".into());
    let said = web.tell("d2", UPDATED).await;
    assert_eq!(said, "reg/web: run ca1 was started for this change");

    web.set(B, |_| {});
    assert_eq!(web.tell("d3", UPDATED).await, "reg/web: run ca2");
    let transcript = web.gantry.transcript().await;
    assert!(transcript.starts_with("ca1 Canceled"), "{transcript}");

    web.set(B, |pull| pull["state"] = "MERGED".into());
    assert_eq!(web.tell("d4", FULFILLED).await, "reg/web: pull request 7 is closed");
    let transcript = web.gantry.transcript().await;
    assert!(transcript.lines().all(|line| line.contains("Canceled")), "{transcript}");
}

#[tokio::test]
async fn a_head_that_the_api_does_not_show_yet_is_asked_for_again() {
    let mut web = Web::start(|_| {}).await;
    web.set(A, |_| {});
    web.tell("d1", CREATED).await;
    // The webhook comes before the API shows the push.
    let shown = web.bitbucket.state().pulls.get(&7).cloned().unwrap();
    web.set(B, |_| {});
    let pushed = web.bitbucket.state().pulls.insert(7, shown).unwrap();
    let event = web.deliver("d2", UPDATED).await;
    web.schedule().await;
    assert_eq!(web.gantry.transcript().await.lines().count(), 1);

    web.bitbucket.state().pulls.insert(7, pushed);
    web.gantry.clock.advance(Duration::from_secs(30));
    web.schedule().await;
    assert_eq!(web.gantry.decision(&event).await, "reg/web: run ca2");
}

#[tokio::test]
async fn a_fork_and_a_draft_are_what_the_api_says() {
    let mut web = Web::start(|task| {
        let trigger = task.source_trigger.as_mut().unwrap();
        trigger.pull_request.forks = Forks::Never;
    })
    .await;
    web.set(A, |pull| pull["source"]["repository"] = json!({"uuid": FORK}));
    let said = web.tell("d1", CREATED).await;
    assert!(said.contains("fork"), "{said}");

    web.set(B, |pull| {
        pull["source"]["repository"] = json!({"uuid": REPOSITORY});
        pull["draft"] = true.into();
    });
    let said = web.tell("d2", UPDATED).await;
    assert!(said.contains("draft"), "{said}");
    assert_eq!(web.gantry.transcript().await, "");

    web.set(B, |pull| pull["draft"] = false.into());
    assert_eq!(web.tell("d3", UPDATED).await, "reg/web: run ca1");
}

#[tokio::test]
async fn without_the_api_nothing_is_built_and_the_decision_names_the_remedy() {
    let mut web = Web::start(|_| {}).await;
    web.set(A, |_| {});
    let event = web.deliver("d1", CREATED).await;
    let providers = Arc::new(code_hosts(&[]));
    let scheduler = Scheduler { providers, ..web.gantry.scheduler() };
    while scheduler.tick().await.unwrap() {}
    let said = web.gantry.decision(&event).await;
    assert!(said.contains("ask the operator to add"), "{said}");
    assert!(said.contains("`code_hosts.apis`"), "{said}");

    let mut web = Web::start(|task| task.git_token = None).await;
    web.set(A, |_| {});
    let event = web.deliver("d1", CREATED).await;
    // Somebody may set the token: for about an hour the API is asked again.
    for _ in 0..15 {
        web.schedule().await;
        web.gantry.clock.advance(Duration::from_secs(600));
    }
    let said = web.gantry.decision(&event).await;
    assert!(said.contains("without a token (401"), "{said}");
    assert!(
        said.contains("give the task a git access token with the scope `pullrequest`"),
        "{said}"
    );
    assert_eq!(web.gantry.transcript().await, "");
}

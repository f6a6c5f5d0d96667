//! Tasks without a token, whose registry may use the operator's GitHub App.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::run::{ErrorCode, RunState, RunStatus, WaitReason};
use gantry_domain::source::Source;
use gantry_domain::task::Task;
use gantry_ops::bundle::Bundle;
use gantry_ops::secret::ExposeSecret as _;
use gantry_scheduler::Scheduler;
use gantry_seams::place::Place;
use gantry_seams::provisioning::{self, State};
use gantry_seams::{runs, tasks};
use gantry_tests::git_server::TestRepository;
use gantry_tests::hosts::code_hosts;
use gantry_tests::hosts::github::GitHubServer;
use gantry_tests::hosts::github_app::{self, KEY, token};
use gantry_tests::hosts::server::json as answer;
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};
use gantry_worker::engine::scripted::{Action, Gate};
use serde_json::{Value, json};

/// An installation with an App, and the private repository `octo/web` with a task.
struct Rig {
    gantry: TestPipeline,
    github: GitHubServer,
    _repository: TestRepository,
    commit: String,
}

impl Rig {
    async fn start() -> Self {
        let rig = Self::with(&["reg=octo/*"]).await;
        rig.close();
        rig
    }

    async fn with(grants: &[&str]) -> Self {
        let mut gantry = super::start().await;
        let github = GitHubServer::start().await.unwrap();
        let host = gantry.git.address().to_string();
        let entry = format!("{host}=github@http://{}/api/v3", github.server().host());
        let app = github_app::config(&host, KEY, grants);
        gantry.code_hosts = code_hosts(&[entry]).with_app(app);
        let repository = gantry.git.repository("octo/web").unwrap();
        let commit = repository.commit("main", DOCKERFILE).unwrap();
        Self { gantry, github, _repository: repository, commit }
    }

    /// Only the App's first token to fetch with may read the repository from now on.
    fn close(&self) {
        self.gantry.git.require("x-access-token", &token("contents-read", 1));
    }

    fn scheduler(&self) -> Scheduler {
        let providers = Arc::new(self.gantry.code_hosts.clone());
        Scheduler { providers, ..self.gantry.scheduler() }
    }

    async fn schedule(&self) {
        while self.scheduler().tick().await.unwrap() {}
    }

    async fn task(&self) -> Task {
        let source: Source = format!("{}#main", self.gantry.git.url("octo/web")).parse().unwrap();
        let task = self.gantry.task_with("web", "web:{{.Run.ID}}", |task| {
            task.recipe.source = source;
        });
        let task = task.await;
        self.schedule().await;
        task
    }

    async fn push(&self, id: &str) {
        self.gantry.deliver(id, "octo/web", None, Some(&self.commit)).await;
        self.schedule().await;
    }

    async fn turn(&self) {
        self.gantry.worker("worker-1").turn(&self.gantry.stop).await.unwrap();
        self.schedule().await;
    }

    async fn webhook(&self) -> State {
        let url: gantry_domain::source::GitUrl = self.gantry.git.url("octo/web").parse().unwrap();
        let place = Place { registry: TestPipeline::prefix(), repository: url.key() };
        let found = provisioning::find(self.gantry.store.as_ref(), &place).await.unwrap();
        found.unwrap().state
    }

    /// The status and conclusion that each update of a check run set.
    fn shown(&self) -> Vec<(u64, String)> {
        let state = self.github.state();
        let shown = |(id, body): &(u64, Value)| {
            let conclusion = body["conclusion"].as_str();
            (*id, conclusion.or(body["status"].as_str()).unwrap_or_default().to_owned())
        };
        state.checks_set.iter().map(shown).collect()
    }
}

fn of_first(states: &[&str]) -> Vec<(u64, String)> {
    states.iter().map(|state| (1, (*state).to_owned())).collect()
}

#[tokio::test]
async fn a_task_without_a_token_gets_its_webhook_its_source_and_its_check_run_from_the_app() {
    let rig = Rig::start().await;
    let task = rig.task().await;
    assert!(matches!(rig.webhook().await, State::InPlace { .. }), "{:?}", rig.webhook().await);
    assert_eq!(rig.github.state().hooks.all.len(), 1);

    // The run that the saved task scans is hidden.
    rig.turn().await;
    rig.push("d1").await;
    assert_eq!(rig.shown(), of_first(&["queued"]));
    let gate = Gate::closed();
    rig.gantry.engine.script(&TestPipeline::repository("web"), [Action::Wait(gate.clone())]);
    let worker = rig.gantry.worker("worker-1");
    let watch = async {
        gate.reached().await;
        rig.schedule().await;
        assert_eq!(rig.shown(), of_first(&["queued", "in_progress"]));
        gate.open();
    };
    let (_, turned) = tokio::join!(watch, worker.turn(&rig.gantry.stop));
    turned.unwrap();
    rig.schedule().await;
    assert_eq!(rig.gantry.run("ca1").await.status(), RunStatus::Succeeded);
    assert_eq!(rig.shown(), of_first(&["queued", "in_progress", "success"]));
    let last = rig.github.state().checks_set.last().unwrap().1.clone();
    assert_eq!(last["external_id"], "ca1");
    assert_eq!(last["details_url"], "http://gantry.test/runs/ca1");
    assert!(last["output"]["title"].as_str().unwrap().starts_with("Pushed web@"), "{last}");
    assert!(rig.github.state().statuses.is_empty());
    assert!(!rig.gantry.log("ca1", 1).await.contains("ghs_"));

    tasks::delete(rig.gantry.store.as_ref(), &task.id).await.unwrap();
    rig.schedule().await;
    assert!(rig.github.state().hooks.all.is_empty());
}

#[tokio::test]
async fn the_worker_s_token_may_read_the_repository_and_nothing_else() {
    let rig = Rig::start().await;
    rig.task().await;
    rig.turn().await;
    rig.push("d1").await;
    let store = rig.gantry.store.as_ref();
    let (pool, worker) = ("linux-amd64".parse().unwrap(), "w".parse().unwrap());
    let nonce = "9".repeat(32).parse().unwrap();
    let taken = runs::take(store, &pool, &worker, &nonce, Duration::from_secs(30)).await.unwrap();
    let taken = taken.unwrap();
    let sealed = taken.bundle.unwrap().unwrap();
    let key = rig.gantry.keyring.pool_key(&pool);
    let bundle = Bundle::open(&key, &taken.run, &sealed).unwrap();
    let expected = format!("x-access-token:{}", token("contents-read", 1));
    assert_eq!(bundle.git_token.unwrap().expose_secret(), expected);
    let ends = bundle.git_token_until.unwrap().since(rig.gantry.clock.now());
    assert!(ends > Duration::from_secs(3500) && ends <= Duration::from_secs(3600), "{ends:?}");
}

#[tokio::test]
async fn a_registry_without_a_grant_gets_nothing_of_the_app() {
    let rig = Rig::with(&["other=octo/*", "reg=octo/api"]).await;
    rig.close();
    let task = rig.task().await;
    let State::ByHand { why } = rig.webhook().await else { panic!("it has no token") };
    assert!(why.contains("`github_app.grants`"), "{why}");
    rig.gantry.ask(&task, None).await;
    rig.schedule().await;
    for _ in 0..2 {
        rig.turn().await;
    }
    let run = rig.gantry.run("ca1").await;
    let error = run.state.done().unwrap().outcome.error().unwrap();
    assert_eq!(error.code, ErrorCode::SourceUnauthorized, "{error}");
    assert!(rig.github.state().app.minted.is_empty());
    assert!(rig.github.state().check_runs.is_empty());
}

#[tokio::test]
async fn a_token_that_ends_while_its_run_is_ready_is_replaced_and_costs_no_attempt() {
    let rig = Rig::with(&["reg=octo/*"]).await;
    // So short that each admission asks for another.
    rig.github.state().app.valid_for = 240;
    rig.task().await;
    rig.push("d1").await;
    assert!(matches!(rig.gantry.run("ca1").await.state, RunState::Ready { .. }));
    rig.gantry.clock.advance(Duration::from_secs(200));
    // The scan of the task, and the run.
    let worker = rig.gantry.worker("worker-1");
    for _ in 0..2 {
        worker.turn(&rig.gantry.stop).await.unwrap();
    }
    let handed_back = rig.gantry.run("ca1").await;
    let RunState::Waiting { reason, .. } = &handed_back.state else { panic!("{handed_back:?}") };
    assert_eq!(*reason, WaitReason::HandedBack);

    rig.github.state().app.valid_for = 3600;
    let minted = rig.github.state().app.minted.clone();
    let next = minted.iter().filter(|permissions| *permissions == "contents-read").count() + 1;
    rig.gantry.git.require("x-access-token", &token("contents-read", next));
    rig.schedule().await;
    for _ in 0..2 {
        rig.turn().await;
    }
    let run = rig.gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Succeeded, "{run:?}");
    assert_eq!(run.attempts.len(), 2);
    assert!(run.attempts.iter().all(|attempt| !attempt.end.counts()), "{run:?}");
}

#[tokio::test]
async fn an_app_that_may_not_read_a_repository_ends_its_run_with_the_remedy() {
    let rig = Rig::start().await;
    rig.github.state().app.is_installed = false;
    let task = rig.task().await;
    let State::Problem { message, .. } = rig.webhook().await else { panic!("it is not installed") };
    assert!(
        message.ends_with("install it at https://github.com/apps/octoapp/installations/new"),
        "{message}"
    );
    rig.gantry.ask(&task, None).await;
    rig.schedule().await;
    let run = rig.gantry.run("ca1").await;
    let error = run.state.done().unwrap().outcome.error().unwrap();
    assert_eq!(error.code, ErrorCode::SourceUnauthorized);
    assert!(error.message.contains("the GitHub App is not installed on octo/web"), "{error}");
}

#[tokio::test]
async fn a_run_waits_for_github_and_says_so() {
    let rig = Rig::start().await;
    rig.github.server().fail(|_| Some(answer(503, &json!({"message": "down"}))));
    let task = rig.task().await;
    rig.gantry.ask(&task, None).await;
    rig.schedule().await;
    let run = rig.gantry.run("ca1").await;
    let RunState::Waiting { reason: WaitReason::VaultAway { error, .. }, .. } = &run.state else {
        panic!("{run:?}")
    };
    assert!(error.contains("could not read the repository"), "{error}");
    rig.github.server().recover();
    rig.gantry.clock.advance(Duration::from_secs(60));
    rig.schedule().await;
    assert!(matches!(rig.gantry.run("ca1").await.state, RunState::Ready { .. }));
}

#[tokio::test]
async fn a_rerun_shows_its_states_in_the_check_run_of_the_first_run() {
    let rig = Rig::start().await;
    rig.task().await;
    rig.turn().await;
    rig.push("d1").await;
    rig.turn().await;
    let first = rig.gantry.run("ca1").await;
    assert_eq!(first.status(), RunStatus::Succeeded);
    let by = TestPipeline::somebody();
    let draft = |event| gantry_domain::decide::planner::for_rerun(&first, event, by);
    rig.gantry.request(draft, None).await;
    rig.schedule().await;
    let shown = rig.shown();
    assert_eq!(shown.last().unwrap(), &(1, "queued".to_owned()), "{shown:?}");
    rig.turn().await;
    assert_eq!(rig.shown().last().unwrap(), &(1, "success".to_owned()));
    let checks = rig.github.state().check_runs.clone();
    assert_eq!((checks.len(), &checks[0]["external_id"]), (1, &json!("ca2")));
}

//! What a code host shows of runs at their commits.

use std::time::Duration;

use bytes::Bytes;
use gantry_domain::decide::planner;
use gantry_domain::registry::Registry;
use gantry_domain::run::{ErrorCode, Outcome, Run, RunError, RunStatus};
use gantry_domain::source::Source;
use gantry_domain::step::Steps;
use gantry_domain::task::Task;
use gantry_ops::secret::SecretString;
use gantry_remote::code_host::CodeHostFailure;
use gantry_seams::requests::AcceptedRequest;
use gantry_seams::runs::{self, Finish};
use gantry_seams::store::{Batch, Key, Kind};
use gantry_seams::tasks;
use gantry_tests::pipeline::{DOCKERFILE, LEASE, REGISTRY, TestPipeline, create_registry};
use gantry_worker::engine::scripted::{Action, Gate};

const AN_HOUR: Duration = Duration::from_secs(3600);

/// An installation whose code host has an API and the repository `hello`, with its first commit.
async fn start() -> (TestPipeline, String) {
    let gantry = super::start().await;
    gantry.providers.open();
    let commit = gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    (gantry, commit)
}

/// A task that builds the repository `hello` at each push.
async fn task(gantry: &TestPipeline, name: &str, change: impl FnOnce(&mut Task)) -> Task {
    let source: Source = format!("{}#main", gantry.git.url("hello")).parse().unwrap();
    let image = format!("{name}:{{{{.Run.ID}}}}");
    gantry
        .task_with(name, &image, |task| {
            task.recipe.source = source;
            change(task);
        })
        .await
}

/// Lets the commit be pushed, without building it.
async fn push(gantry: &TestPipeline, commit: &str) {
    gantry.settle().await;
    gantry.deliver("d1", "hello", None, Some(commit)).await;
    gantry.schedule().await;
}

async fn rerun(gantry: &TestPipeline, run: &str) -> Run {
    let run = gantry.run(run).await;
    let draft = |event| planner::for_rerun(&run, event, TestPipeline::somebody());
    let AcceptedRequest::Started(run) = gantry.request(draft, None).await else {
        panic!("it is new")
    };
    *run
}

/// The state that each status shows at the end.
fn shown(gantry: &TestPipeline) -> Vec<String> {
    let told = gantry.providers.told();
    let mut last: std::collections::BTreeMap<String, String> = [].into();
    for line in told {
        let (context, state) = line.split_once(' ').unwrap();
        last.insert(context.to_owned(), state.to_owned());
    }
    last.into_iter().map(|(context, state)| format!("{context} {state}")).collect()
}

async fn problem(gantry: &TestPipeline, run: &str) -> Option<String> {
    gantry.run(run).await.reported.unwrap().problem
}

fn sealed(gantry: &TestPipeline, token: &str) -> gantry_domain::sealed::Sealed {
    let bound_to = Registry::seals_for(TestPipeline::prefix());
    gantry.keyring.seal(&bound_to, &SecretString::from(token)).unwrap()
}

/// Waits for something that the test has caused.
async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it happens");
}

#[tokio::test]
async fn a_push_is_shown_as_pending_running_and_succeeded_with_the_address_of_its_run() {
    let (gantry, commit) = start().await;
    task(&gantry, "web", |_| {}).await;
    push(&gantry, &commit).await;
    assert_eq!(gantry.providers.told(), ["gantry/web Pending: Waits for a worker"]);

    let gate = Gate::closed();
    gantry.engine.script(&TestPipeline::repository("web"), [Action::Wait(gate.clone())]);
    let worker = gantry.worker("worker-1");
    let watch = async {
        gate.reached().await;
        gantry.schedule().await;
        assert_eq!(gantry.providers.told().last().unwrap(), "gantry/web Running: Building");
        gate.open();
    };
    let (_, turned) = tokio::join!(watch, worker.turn(&gantry.stop));
    turned.unwrap();
    gantry.settle().await;

    let run = gantry.run("ca1").await;
    let digest = run.state.done().unwrap().outcome.product().unwrap().outputs[0].digest.clone();
    let short = &digest.as_str()[.."sha256:".len() + 12];
    let succeeded = format!("gantry/web Succeeded: Pushed web@{short}");
    let told = gantry.providers.told();
    let waited = "gantry/web Pending: Waits for a worker".to_owned();
    assert_eq!(told, [waited, "gantry/web Running: Building".to_owned(), succeeded]);
    for report in gantry.providers.reports() {
        assert_eq!(report.link, "http://gantry.test/runs/ca1");
        assert_eq!(report.target.commit.as_str(), commit);
    }
    gantry.settle().await;
    assert_eq!(gantry.providers.told().len(), 3, "each state is sent once");
}

#[tokio::test]
async fn a_run_that_a_person_starts_is_shown_once_its_commit_is_known() {
    let (gantry, commit) = start().await;
    let task = task(&gantry, "web", |_| {}).await;
    gantry.settle().await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    assert!(gantry.providers.told().is_empty(), "{:?}", gantry.providers.told());
    gantry.settle().await;
    let last = gantry.providers.reports().pop().unwrap();
    assert_eq!(last.target.commit.as_str(), commit);
    assert!(shown(&gantry)[0].starts_with("gantry/web Succeeded"), "{:?}", shown(&gantry));
}

/// Takes the best ready run, for a worker that does not renew its lease.
async fn take(gantry: &TestPipeline, number: u32) -> Option<runs::TakenRun> {
    let (pool, worker) = ("linux-amd64".parse().unwrap(), "lost".parse().unwrap());
    let nonce = format!("{number:032x}").parse().unwrap();
    runs::take(gantry.store.as_ref(), &pool, &worker, &nonce, LEASE).await.unwrap()
}

#[tokio::test]
async fn whatever_ends_a_run_the_code_host_shows_the_end() {
    let (gantry, commit) = start().await;
    for name in ["canceled", "deleted", "errored", "failed", "given-up", "lost", "timed-out"] {
        task(&gantry, name, |_| {}).await;
    }
    push(&gantry, &commit).await;
    assert_eq!(shown(&gantry).len(), 7);
    let (store, by) = (gantry.store.as_ref(), TestPipeline::canceler());
    let error = |message: &str, exit_code| RunError {
        code: ErrorCode::StepFailed,
        step: Some("build".parse().unwrap()),
        exit_code,
        message: message.to_owned(),
    };
    let mut ids = std::collections::BTreeMap::new();
    for number in 1..=7 {
        let taken = take(&gantry, number).await.unwrap();
        let (id, task) = (taken.run.id, taken.run.task_id().unwrap());
        ids.insert(task.name.to_string(), id);
        let outcome = match task.name.as_str() {
            "failed" => Outcome::Failed { error: error("it said\nmuch", Some(2)) },
            "errored" => Outcome::Error { error: error("disk full", None) },
            "timed-out" => Outcome::Timeout { error: error("over 60 s", None) },
            "canceled" => {
                runs::cancel(store, id, &by).await.unwrap();
                Outcome::Canceled { by: by.clone() }
            }
            "deleted" => {
                tasks::delete(store, &task).await.unwrap();
                Outcome::Failed { error: error("", Some(1)) }
            }
            _ => continue,
        };
        let (end, steps) = (Finish::Outcome(outcome), Steps::default());
        runs::finish(store, id, &taken.holder, end, &steps).await.unwrap();
    }
    for attempt in 1..=3 {
        gantry.clock.advance(LEASE * 2);
        for name in ["lost", "given-up"] {
            runs::lapse(store, ids[name]).await.unwrap();
        }
        if attempt == 1 {
            let no_worker = RunError { step: None, ..error("no worker", None) };
            let end = Outcome::Error { error: no_worker };
            runs::give_up(store, ids["given-up"], end).await.unwrap();
        }
        gantry.schedule().await;
        take(&gantry, 10 + attempt).await;
    }
    assert_eq!(
        shown(&gantry),
        [
            "gantry/canceled Canceled: Canceled",
            "gantry/deleted Failed: Step build failed with exit code 1",
            "gantry/errored Errored: gantry could not run it: step `build`: disk full",
            "gantry/failed Failed: Step build failed with exit code 2",
            "gantry/given-up Errored: gantry could not run it: no worker",
            "gantry/lost Errored: gantry could not run it: worker lost: lost stopped renewing its lease in attempt 3, the \
             last one; see that worker's log",
            "gantry/timed-out TimedOut: Took too long: step `build`: over 60 s",
        ]
    );
}

#[tokio::test]
async fn a_rerun_that_succeeds_replaces_a_failure() {
    let (gantry, commit) = start().await;
    task(&gantry, "web", |_| {}).await;
    push(&gantry, &commit).await;
    gantry.engine.script(&TestPipeline::repository("web"), [Action::Exit(1)]);
    gantry.settle().await;
    assert_eq!(shown(&gantry), ["gantry/web Failed: Step build failed with exit code 1"]);
    rerun(&gantry, "ca1").await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca2").await.status(), RunStatus::Succeeded);
    assert!(
        shown(&gantry)[0].starts_with("gantry/web Succeeded: Pushed web@"),
        "{:?}",
        shown(&gantry)
    );
    assert_eq!(gantry.providers.reports().pop().unwrap().link, "http://gantry.test/runs/ca2");
}

#[tokio::test]
async fn an_older_run_that_ends_later_replaces_nothing() {
    let (gantry, commit) = start().await;
    task(&gantry, "web", |_| {}).await;
    push(&gantry, &commit).await;
    let newer = rerun(&gantry, "ca1").await;
    let (store, by) = (gantry.store.as_ref(), TestPipeline::canceler());
    gantry.schedule().await;
    runs::cancel(store, newer.id, &by).await.unwrap();
    gantry.schedule().await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
    assert_eq!(shown(&gantry), ["gantry/web Canceled: Canceled"]);
    assert_eq!(gantry.providers.reports().pop().unwrap().link, "http://gantry.test/runs/ca2");
}

#[tokio::test]
async fn a_newer_run_wins_also_if_the_code_host_was_told_nothing_before() {
    let (gantry, commit) = start().await;
    gantry.providers.set_away(true);
    task(&gantry, "web", |_| {}).await;
    push(&gantry, &commit).await;
    let newer = rerun(&gantry, "ca1").await;
    runs::cancel(gantry.store.as_ref(), newer.id, &TestPipeline::canceler()).await.unwrap();
    gantry.settle().await;
    gantry.providers.set_away(false);
    gantry.clock.advance(AN_HOUR);
    gantry.schedule().await;
    assert_eq!(gantry.providers.told(), ["gantry/web Canceled: Canceled"]);
}

#[tokio::test]
async fn a_code_host_that_was_away_is_told_the_newest_state_only() {
    let (gantry, commit) = start().await;
    gantry.providers.set_away(true);
    task(&gantry, "web", |_| {}).await;
    push(&gantry, &commit).await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded, "no run waits for a report");
    for _ in 0..5 {
        gantry.clock.advance(Duration::from_secs(900));
        gantry.schedule().await;
    }
    assert!(gantry.providers.told().is_empty());
    gantry.providers.set_away(false);
    gantry.clock.advance(Duration::from_secs(900));
    gantry.schedule().await;
    let told = gantry.providers.told();
    assert!(told.len() == 1 && told[0].starts_with("gantry/web Succeeded"), "{told:?}");
    assert_eq!(problem(&gantry, "ca1").await, None);
}

#[tokio::test]
async fn a_code_host_that_stays_away_for_a_day_is_given_up_and_the_run_says_so() {
    let (gantry, commit) = start().await;
    gantry.providers.set_away(true);
    task(&gantry, "web", |_| {}).await;
    push(&gantry, &commit).await;
    gantry.settle().await;
    for _ in 0..24 {
        assert_eq!(problem(&gantry, "ca1").await, None);
        gantry.clock.advance(AN_HOUR);
        gantry.schedule().await;
    }
    assert_eq!(problem(&gantry, "ca1").await.unwrap(), "the provider does not answer");
    let asked = gantry.providers.tokens().len();
    gantry.clock.advance(AN_HOUR);
    gantry.schedule().await;
    assert_eq!(gantry.providers.tokens().len(), asked, "nobody is asked any more");
}

#[tokio::test]
async fn the_pause_that_a_code_host_asks_for_is_kept_for_all_reports_of_the_registry() {
    let (gantry, commit) = start().await;
    for name in ["api", "web"] {
        task(&gantry, name, |_| {}).await;
    }
    let pause = Duration::from_secs(600);
    let kind = CodeHostFailure::Transient { retry_after: Some(pause) };
    gantry.providers.fail(kind, "429: too many requests");
    let scheduler = gantry.scheduler();
    gantry.settle().await;
    gantry.deliver("d1", "hello", None, Some(&commit)).await;
    while scheduler.tick().await.unwrap() {}
    assert_eq!(gantry.providers.tokens().len(), 1, "the others wait as well");
    gantry.clock.advance(pause - Duration::from_secs(1));
    while scheduler.tick().await.unwrap() {}
    assert_eq!(gantry.providers.tokens().len(), 1);
    gantry.clock.advance(Duration::from_secs(1));
    while scheduler.tick().await.unwrap() {}
    assert_eq!(shown(&gantry).len(), 2);
}

#[tokio::test]
async fn two_schedulers_never_send_two_requests_for_a_commit_at_once() {
    let (gantry, commit) = start().await;
    for name in ["api", "docs", "web"] {
        task(&gantry, name, |_| {}).await;
    }
    gantry.providers.set_silent(true);
    gantry.settle().await;
    gantry.deliver("d1", "hello", None, Some(&commit)).await;
    let first = gantry.scheduler();
    let first = tokio::spawn(async move { while first.tick().await.unwrap() {} });
    until(|| gantry.providers.now() == 1).await;
    // It finds all three reports due, and sends none while the first scheduler does.
    gantry.scheduler().tick().await.unwrap();
    assert_eq!(gantry.providers.now(), 1);
    gantry.providers.set_silent(false);
    first.await.unwrap();
    gantry.schedule().await;
    assert_eq!(shown(&gantry).len(), 3);
    assert_eq!(gantry.providers.most_at_once(), 1);
}

#[tokio::test]
async fn a_task_may_report_nothing() {
    let (gantry, commit) = start().await;
    task(&gantry, "silent", |task| task.reports = false).await;
    push(&gantry, &commit).await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
    assert!(gantry.providers.tokens().is_empty());
    assert_eq!(gantry.run("ca1").await.reported, None);
}

#[tokio::test]
async fn a_code_host_without_an_api_is_no_problem_of_a_run() {
    let gantry = super::start().await;
    let commit = gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    task(&gantry, "web", |_| {}).await;
    push(&gantry, &commit).await;
    gantry.settle().await;
    assert_eq!(problem(&gantry, "ca1").await, None);
}

#[tokio::test]
async fn a_refused_token_is_a_problem_with_a_remedy_until_another_is_accepted() {
    let (gantry, commit) = start().await;
    let task = task(&gantry, "web", |task| {
        task.git_token = Some(sealed(&gantry, "octo:git-hunter2"));
        task.api_token = Some(sealed(&gantry, "octo:api-hunter2"));
    })
    .await;
    gantry
        .providers
        .fail(CodeHostFailure::RefusedToken, "401 for octo:api-hunter2 at the provider");
    push(&gantry, &commit).await;
    let told = problem(&gantry, "ca1").await.unwrap();
    assert_eq!(
        told,
        "401 for octo:*** at the provider; give the task a token that may set the status of commits, with `gantry task \
         update -r reg -n web --api-token -`, or turn the reports off with `--report-status false`"
    );

    let better = sealed(&gantry, "better");
    tasks::update(gantry.store.as_ref(), &task.id, |task| task.api_token = Some(better.clone()))
        .await
        .unwrap();
    gantry.settle().await;
    assert_eq!(problem(&gantry, "ca1").await, None);
    let tokens = gantry.providers.tokens();
    assert_eq!(tokens.first().unwrap().as_deref(), Some("octo:api-hunter2"));
    assert_eq!(tokens.last().unwrap().as_deref(), Some("better"));
    assert!(shown(&gantry)[0].starts_with("gantry/web Succeeded"), "{:?}", shown(&gantry));
}

#[tokio::test]
async fn a_task_that_moved_to_another_repository_lends_its_token_to_no_report_of_the_former_one() {
    let (gantry, commit) = start().await;
    let task = task(&gantry, "web", |task| task.api_token = Some(sealed(&gantry, "first"))).await;
    gantry.settle().await;
    gantry.deliver("d1", "hello", None, Some(&commit)).await;
    let moved: Source = format!("{}#main", gantry.git.url("other")).parse().unwrap();
    let second = sealed(&gantry, "second");
    gantry.providers.set_away(true);
    gantry.schedule().await;
    tasks::update(gantry.store.as_ref(), &task.id, |task| {
        task.recipe.source = moved.clone();
        task.api_token = Some(second.clone());
    })
    .await
    .unwrap();
    gantry.providers.set_away(false);
    gantry.clock.advance(AN_HOUR);
    gantry.schedule().await;
    let tokens = gantry.providers.tokens();
    assert!(tokens.len() > 1 && tokens.last().unwrap().is_none(), "{tokens:?}");
    assert!(!tokens.contains(&Some("second".to_owned())), "{tokens:?}");
}

#[tokio::test]
async fn a_run_that_a_worker_forged_is_not_reported() {
    let (gantry, _) = start().await;
    let task = task(&gantry, "web", |task| task.api_token = Some(sealed(&gantry, "secret"))).await;
    gantry.settle().await;
    let AcceptedRequest::Started(run) = gantry.ask(&task, None).await else { panic!("it is new") };
    let key = Key::new(Kind::Run, run.id);
    let record =
        gantry.store.load(std::slice::from_ref(&key)).await.unwrap().pop().flatten().unwrap();
    let mut forged: serde_json::Value = serde_json::from_slice(&record.bytes).unwrap();
    forged["recipe"]["source"]["url"] = "https://evil.test/x".into();
    forged["recipe"]["source"]["reference"] = "a".repeat(40).into();
    let mut batch = Batch::default();
    batch.put(key, Bytes::from(forged.to_string()));
    batch.index(gantry_seams::store::Index::new("runs/unreported"), 0, run.id);
    gantry.store.commit(batch).await.unwrap();
    gantry.schedule().await;
    assert!(gantry.providers.tokens().is_empty());
}

#[tokio::test]
async fn tasks_of_two_registries_in_one_repository_have_statuses_of_their_own() {
    let (gantry, commit) = start().await;
    task(&gantry, "web", |_| {}).await;
    push(&gantry, &commit).await;
    assert_eq!(shown(&gantry), ["gantry/web Pending: Waits for a worker"]);

    create_registry(gantry.store.as_ref(), "other", REGISTRY, 8).await;
    let other = task(&gantry, "web", |task| task.id.registry = "other".parse().unwrap()).await;
    gantry.settle().await;
    assert!(
        shown(&gantry)[0].starts_with("gantry/web Succeeded"),
        "a run keeps the name of its status: {:?}",
        shown(&gantry)
    );
    gantry.ask(&other, None).await;
    gantry.settle().await;
    assert!(shown(&gantry)[0].starts_with("gantry/other/web Succeeded"), "{:?}", shown(&gantry));
    rerun(&gantry, "ca1").await;
    gantry.settle().await;
    assert!(shown(&gantry)[1].starts_with("gantry/reg/web Succeeded"), "{:?}", shown(&gantry));
}

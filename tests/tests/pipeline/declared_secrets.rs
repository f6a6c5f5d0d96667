//! The secrets that a task file declares: where they are read, when, and what happens if they cannot be.

use std::num::NonZeroU32;
use std::time::Duration;

use gantry_domain::log::OutputStream;
use gantry_domain::recipe::{FileWork, TaskFile, Work};
use gantry_domain::run::{ErrorCode, Run, RunState, RunStatus, WaitReason};
use gantry_domain::source::Source;
use gantry_domain::task::Task;
use gantry_seams::tasks;
use gantry_tests::pipeline::TestPipeline;
use gantry_worker::engine::containers::ContainerOrder;
use gantry_worker::engine::scripted::Action;

const VAULT: &str = "https://vault.test/v1/secret/data/web#token";

/// Two steps, of which only the first has the secret.
const FILE: &str = "\
version: v1.1.0
steps:
- id: publish
  cmd: node publish
  env: ['TOKEN={{.Secrets.token}}']
- id: tell
  cmd: curl https://chat.test
";

/// A task that runs [`FILE`] and declares these secrets.
async fn task(gantry: &TestPipeline, declared: &[(&str, &str)]) -> Task {
    task_of(gantry, "release", FILE, declared).await
}

async fn task_of(gantry: &TestPipeline, name: &str, text: &str, declared: &[(&str, &str)]) -> Task {
    let declared = declared.iter();
    let declared = declared.map(|(id, source)| (id.parse().unwrap(), source.parse().unwrap()));
    let work = Work::File(FileWork {
        file: TaskFile::Text(text.to_owned()),
        values_file: None,
        values: [].into(),
        secret_values: [].into(),
        secrets: declared.collect(),
        has_registry_login: false,
    });
    let change = |task: &mut Task| {
        task.source_trigger = None;
        task.recipe.source = Source::Nothing;
        task.recipe.work = work;
    };
    gantry.task_with(name, "unused:1", change).await
}

/// The environment of each step's container.
fn environments(gantry: &TestPipeline) -> Vec<(String, Vec<String>)> {
    let of = |order: ContainerOrder| (order.step.to_string(), order.env);
    gantry.engine.containers().into_iter().map(of).collect()
}

fn waits_for(run: &Run) -> &WaitReason {
    let RunState::Waiting { reason, .. } = &run.state else { panic!("{:?}", run.state) };
    reason
}

fn error(run: &Run) -> (ErrorCode, &str) {
    let outcome = &run.state.done().unwrap_or_else(|| panic!("{:?}", run.state)).outcome;
    let error = outcome.error().unwrap_or_else(|| panic!("{outcome:?}"));
    (error.code, &error.message)
}

#[tokio::test]
async fn a_run_gets_the_newest_version_when_it_becomes_ready_and_only_its_step_sees_it() {
    let gantry = super::start().await;
    let task = task(&gantry, &[("token", "npm-token")]).await;
    gantry.set_secret("npm-token", "the-first-value").await;
    gantry.ask(&task, None).await;
    gantry.set_secret("npm-token", "the-second-value").await;
    let said = Action::Output(OutputStream::Stdout, "sent the-second-value\n".into());
    gantry.engine.script(&"library/node".parse().unwrap(), [said]);
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
    let environments = environments(&gantry);
    let [(publish, env), (tell, others)] = environments.as_slice() else {
        panic!("{environments:?}")
    };
    assert_eq!((publish.as_str(), tell.as_str()), ("publish", "tell"));
    assert!(env.contains(&"TOKEN=the-second-value".to_owned()), "{env:?}");
    assert!(!others.iter().any(|variable| variable.contains("value")), "{others:?}");
    let log = gantry.log("ca1", 1).await;
    assert!(log.contains("secret token: version 2 of npm-token"), "{log}");
    assert!(log.contains("sent ***") && !log.contains("second-value"), "{log}");
}

#[tokio::test]
async fn a_task_may_name_a_version() {
    let gantry = super::start().await;
    let task = task(&gantry, &[("token", "npm-token@1")]).await;
    gantry.set_secret("npm-token", "the-first-value").await;
    gantry.set_secret("npm-token", "the-second-value").await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
    assert!(environments(&gantry)[0].1.contains(&"TOKEN=the-first-value".to_owned()));

    for number in 3..=11 {
        gantry.set_secret("npm-token", &format!("value-{number}")).await;
    }
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let run = gantry.run("ca2").await;
    let told = "the secret `npm-token` of registry reg no longer has the version that the task names as `token`: name one of \
                11, 10, 9, 8, 7, 6, 5, 4, 3, 2, or none for the newest";
    assert_eq!(error(&run), (ErrorCode::SecretRefused, told));
}

#[tokio::test]
async fn a_secret_that_is_not_there_ends_the_run_with_the_command_that_sets_it() {
    let gantry = super::start().await;
    let task = task(&gantry, &[("token", "npm-token")]).await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    let told = "registry reg has no secret `npm-token`, which the task names as `token`: set it with \
                `gantry secret set -r reg -n npm-token`";
    assert_eq!(error(&run), (ErrorCode::SecretRefused, told));
    assert!(gantry.engine.containers().is_empty(), "nothing ran");
}

#[tokio::test]
async fn a_file_names_only_what_its_task_declares_at_the_same_address() {
    let gantry = super::start().await;
    gantry.vaults.put(VAULT, "from-the-vault");
    let file = format!("{FILE}secrets:\n- id: token\n  keyvault: {VAULT}\n");
    let declared = task_of(&gantry, "declared", &file, &[("token", VAULT)]).await;
    gantry.ask(&declared, None).await;
    let undeclared = task_of(&gantry, "undeclared", &file, &[]).await;
    gantry.ask(&undeclared, None).await;
    let elsewhere = "https://vault.test/v1/secret/data/web#other";
    gantry.vaults.put(elsewhere, "another-value");
    let other = task_of(&gantry, "other", &file, &[("token", elsewhere)]).await;
    gantry.ask(&other, None).await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
    let environments = environments(&gantry);
    assert!(environments[0].1.contains(&"TOKEN=from-the-vault".to_owned()));
    assert_eq!(environments.len(), 2, "the others ran no step");
    let told = format!(
        "task file: the secret `token` is not declared: add it to the task with `--secret token={VAULT}`. A run with a context of \
         its own has none of its task's secrets"
    );
    assert_eq!(error(&gantry.run("ca2").await), (ErrorCode::TaskFileInvalid, told.as_str()));
    let told = format!(
        "task file: the secret `token` is {VAULT} in the file, and declared as {elsewhere}: change either, for example with \
         `--secret token={VAULT}`"
    );
    assert_eq!(error(&gantry.run("ca3").await), (ErrorCode::TaskFileInvalid, told.as_str()));
}

#[tokio::test]
async fn a_silent_vault_holds_up_no_run_but_its_own() {
    let gantry = super::start().await;
    gantry.vaults.put(VAULT, "from-the-vault");
    gantry.vaults.set_silent(true);
    let slow = task_of(&gantry, "slow", FILE, &[("token", VAULT)]).await;
    gantry.ask(&slow, None).await;
    let plain = task_of(&gantry, "plain", FILE, &[]).await;
    gantry.ask(&plain, None).await;
    let scheduler = gantry.scheduler();
    let ticking = async { scheduler.tick().await.unwrap() };
    let others = async {
        while !matches!(gantry.run("ca2").await.state, RunState::Ready { .. })
            || *waits_for(&gantry.run("ca1").await) != WaitReason::Secrets
        {
            tokio::task::yield_now().await;
        }
        gantry.vaults.set_silent(false);
    };
    tokio::join!(ticking, others);
    assert!(matches!(gantry.run("ca1").await.state, RunState::Ready { .. }));
    assert_eq!(gantry.vaults.asked(), [VAULT]);
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
}

#[tokio::test]
async fn a_vault_that_is_away_is_asked_again_and_the_run_says_so() {
    let gantry = super::start().await;
    gantry.vaults.put(VAULT, "from-the-vault");
    gantry.vaults.set_away(true);
    let task = task(&gantry, &[("token", VAULT)]).await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    let run = gantry.run("ca1").await;
    let WaitReason::VaultAway { error, .. } = waits_for(&run) else { panic!("{run:?}") };
    assert!(error.contains("https://vault.test did not answer"), "{error}");
    gantry.schedule().await;
    assert_eq!(gantry.vaults.asked().len(), 1, "it pauses");

    gantry.vaults.set_away(false);
    gantry.clock.advance(Duration::from_secs(5));
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
}

#[tokio::test]
async fn a_vault_that_stays_away_for_an_hour_ends_the_run() {
    let gantry = super::start().await;
    gantry.vaults.set_away(true);
    let task = task(&gantry, &[("token", VAULT)]).await;
    gantry.ask(&task, None).await;
    for _ in 0..30 {
        gantry.schedule().await;
        gantry.clock.advance(Duration::from_secs(300));
    }
    let run = gantry.run("ca1").await;
    let (code, message) = error(&run);
    assert_eq!((run.status(), code), (RunStatus::Error, ErrorCode::VaultUnavailable));
    assert!(message.contains("(for 60 minutes)"), "{message}");
    assert!(gantry.vaults.asked().len() < 20, "the pauses grow: {:?}", gantry.vaults.asked().len());
}

#[tokio::test]
async fn what_a_vault_does_not_have_ends_the_run_at_once() {
    let gantry = super::start().await;
    let task = task(&gantry, &[("token", VAULT)]).await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    let run = gantry.run("ca1").await;
    let told = format!("{VAULT} does not exist: put it there");
    assert_eq!(error(&run), (ErrorCode::SecretRefused, told.as_str()));
}

#[tokio::test]
async fn no_vault_is_asked_for_a_run_that_waits_for_a_place() {
    let gantry = super::start().await;
    gantry.vaults.put(VAULT, "from-the-vault");
    let task = task(&gantry, &[("token", VAULT)]).await;
    let limit = |task: &mut Task| task.run_limit = NonZeroU32::new(1);
    tasks::update(gantry.store.as_ref(), &task.id, limit).await.unwrap();
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    assert_eq!(waits_for(&gantry.run("ca2").await), &WaitReason::TaskLimit { limit: 1 });
    assert_eq!(gantry.vaults.asked().len(), 1);
}

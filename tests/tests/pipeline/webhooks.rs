//! The webhooks that gantry keeps at code hosts.

use std::time::Duration;

use gantry_domain::hook::{Hook, HookSecret};
use gantry_domain::id::{LeaseNonce, TaskId};
use gantry_domain::registry::Registry;
use gantry_domain::source::Source;
use gantry_domain::task::Task;
use gantry_domain::trigger::PollInterval;
use gantry_ops::secret::{ExposeSecret as _, SecretString};
use gantry_remote::code_host::{CodeHostFailure, SentDelivery};
use gantry_seams::place::Place;
use gantry_seams::provisioning::{self, Provisioned, State};
use gantry_seams::{hooks, tasks};
use gantry_tests::doubles::providers::ScriptedHook;
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};

const TOKEN: &str = "ghp_CanaryOfTheTask0123456789";
const A_DAY: Duration = Duration::from_secs(24 * 3600);

async fn start() -> TestPipeline {
    let gantry = super::start().await;
    gantry.providers.open();
    gantry
}

/// A task that builds the repository `hello` at each push.
async fn task(gantry: &TestPipeline, name: &str, change: impl FnOnce(&mut Task)) -> TaskId {
    gantry.git.repository("hello").unwrap();
    let source: Source = format!("{}#main", gantry.git.url("hello")).parse().unwrap();
    let token = sealed(gantry, TOKEN);
    let image = format!("{name}:{{{{.Run.ID}}}}");
    let task = gantry.task_with(name, &image, |task| {
        task.recipe.source = source;
        task.git_token = Some(token);
        change(task);
    });
    task.await.id
}

fn sealed(gantry: &TestPipeline, token: &str) -> gantry_domain::sealed::Sealed {
    let bound_to = Registry::seals_for(TestPipeline::prefix());
    gantry.keyring.seal(&bound_to, &SecretString::from(token)).unwrap()
}

async fn set_token(gantry: &TestPipeline, task: &TaskId, token: &str) {
    let token = sealed(gantry, token);
    let store = gantry.store.as_ref();
    tasks::update(store, task, |task| task.api_token = Some(token.clone())).await.unwrap();
}

fn place(gantry: &TestPipeline) -> Place {
    let url: gantry_domain::source::GitUrl = gantry.git.url("hello").parse().unwrap();
    Place { registry: TestPipeline::prefix(), repository: url.key() }
}

async fn recorded(gantry: &TestPipeline) -> Option<Provisioned> {
    provisioning::find(gantry.store.as_ref(), &place(gantry)).await.unwrap()
}

async fn state(gantry: &TestPipeline) -> State {
    recorded(gantry).await.unwrap().state
}

async fn problem(gantry: &TestPipeline) -> String {
    let state = state(gantry).await;
    let State::Problem { message, .. } = state else { panic!("{state:?}") };
    message
}

/// The hooks of gantry that it made itself.
async fn made(gantry: &TestPipeline) -> Vec<Hook> {
    let all = hooks::list(gantry.store.as_ref(), None, None, 100).await.unwrap();
    all.into_iter().filter(|hook| hook.is_provisioned).collect()
}

/// The only webhook of the provider, and its address.
fn webhook(gantry: &TestPipeline) -> (String, ScriptedHook) {
    let hooks = gantry.providers.hooks();
    assert_eq!(hooks.len(), 1, "{hooks:?}");
    hooks.into_iter().next().unwrap()
}

fn secret_of(gantry: &TestPipeline, hook: &Hook) -> String {
    let opened = gantry.keyring.open(&hooks::seal_for(&hook.id), &hook.secrets[0].sealed);
    opened.unwrap().expose_secret().to_owned()
}

#[tokio::test]
async fn a_task_with_a_token_gets_a_webhook_with_a_secret_of_its_own() {
    let gantry = start().await;
    task(&gantry, "web", |_| {}).await;
    assert!(provisioning::is_asked(gantry.store.as_ref(), &place(&gantry)).await.unwrap());
    gantry.schedule().await;
    assert!(!provisioning::is_asked(gantry.store.as_ref(), &place(&gantry)).await.unwrap());

    let (address, webhook) = webhook(&gantry);
    let hooks = made(&gantry).await;
    let [hook] = hooks.as_slice() else { panic!("{hooks:?}") };
    assert_eq!(address, format!("http://gantry.test/hooks/github/{}", hook.id));
    assert_eq!(webhook.secret, secret_of(&gantry, hook));
    assert_eq!(hook.repositories, [place(&gantry).repository]);
    assert_eq!(gantry.providers.hook_requests(), [TOKEN]);
    let in_place = State::InPlace { ids: vec![webhook.id], checked: gantry.clock.now() };
    assert_eq!(state(&gantry).await, in_place);
}

#[tokio::test]
async fn the_webhook_of_a_repository_is_removed_with_the_last_task_that_needs_it() {
    let gantry = start().await;
    let (web, api) = (task(&gantry, "web", |_| {}).await, task(&gantry, "api", |_| {}).await);
    gantry.schedule().await;
    webhook(&gantry);
    let store = gantry.store.as_ref();
    tasks::delete(store, &web).await.unwrap();
    gantry.schedule().await;
    webhook(&gantry);
    tasks::delete(store, &api).await.unwrap();
    gantry.schedule().await;
    assert!(gantry.providers.hooks().is_empty());
    assert!(made(&gantry).await.is_empty() && recorded(&gantry).await.is_none());
}

#[tokio::test]
async fn a_webhook_that_cannot_be_removed_is_tried_for_a_day() {
    let gantry = start().await;
    let web = task(&gantry, "web", |_| {}).await;
    gantry.schedule().await;
    tasks::delete(gantry.store.as_ref(), &web).await.unwrap();
    gantry.providers.set_away(true);
    gantry.schedule().await;
    let State::Removing { problem, .. } = state(&gantry).await else { panic!("it is not removed") };
    assert_eq!(problem.unwrap(), "the provider does not answer");
    gantry.clock.advance(A_DAY);
    gantry.schedule().await;
    assert!(made(&gantry).await.is_empty() && recorded(&gantry).await.is_none());
}

#[tokio::test]
async fn a_task_that_looks_for_changes_itself_gets_no_webhook() {
    let gantry = start().await;
    task(&gantry, "web", |task| {
        let trigger = task.source_trigger.as_mut().unwrap();
        trigger.poll = Some(PollInterval::try_from(60).unwrap());
    })
    .await;
    gantry.schedule().await;
    assert!(gantry.providers.hook_requests().is_empty() && recorded(&gantry).await.is_none());
}

#[tokio::test]
async fn without_a_token_the_task_says_that_it_needs_one_and_with_one_it_gets_its_webhook() {
    let gantry = start().await;
    let web = task(&gantry, "web", |task| task.git_token = None).await;
    gantry.schedule().await;
    let State::ByHand { why } = state(&gantry).await else { panic!("there is no token") };
    assert!(why.contains("--git-access-token") && why.contains("gantry hook create"), "{why}");
    assert!(gantry.providers.hook_requests().is_empty());
    set_token(&gantry, &web, TOKEN).await;
    gantry.schedule().await;
    webhook(&gantry);
}

#[tokio::test]
async fn a_refused_token_is_a_problem_with_its_remedy_until_a_task_has_another() {
    let gantry = start().await;
    let web = task(&gantry, "web", |_| {}).await;
    let told = format!("{TOKEN} needs the scope `admin:repo_hook`");
    gantry.providers.fail_hook(CodeHostFailure::RefusedToken, &told);
    gantry.schedule().await;
    assert_eq!(problem(&gantry).await, "*** needs the scope `admin:repo_hook`");
    gantry.schedule().await;
    assert_eq!(gantry.providers.hook_requests().len(), 1, "it is not asked again and again");
    set_token(&gantry, &web, "another").await;
    gantry.schedule().await;
    webhook(&gantry);
    assert_eq!(gantry.providers.hook_requests(), [TOKEN, "another"]);
}

#[tokio::test]
async fn the_token_of_another_task_is_tried_after_a_refused_one() {
    let gantry = start().await;
    task(&gantry, "api", |_| {}).await;
    let web = task(&gantry, "web", |_| {}).await;
    set_token(&gantry, &web, "another").await;
    gantry.providers.fail_hook(CodeHostFailure::RefusedToken, "no");
    gantry.schedule().await;
    assert_eq!(gantry.providers.hook_requests(), [TOKEN, "another"]);
    webhook(&gantry);
    assert_eq!(made(&gantry).await.len(), 1);
}

#[tokio::test]
async fn a_provider_that_is_away_is_asked_again_after_the_pause_that_it_asks_for() {
    let gantry = start().await;
    task(&gantry, "web", |_| {}).await;
    let retry_after = Some(Duration::from_secs(600));
    gantry.providers.fail_hook(CodeHostFailure::Transient { retry_after }, "too many requests");
    gantry.schedule().await;
    assert_eq!(problem(&gantry).await, "too many requests");
    gantry.clock.advance(Duration::from_secs(599));
    gantry.schedule().await;
    assert!(gantry.providers.hooks().is_empty());
    gantry.clock.advance(Duration::from_secs(1));
    gantry.schedule().await;
    webhook(&gantry);
}

#[tokio::test]
async fn a_lost_answer_leaves_no_second_webhook() {
    let gantry = start().await;
    task(&gantry, "web", |_| {}).await;
    let lost = CodeHostFailure::Transient { retry_after: None };
    gantry.providers.fail_hook(lost, "the connection was lost");
    gantry.schedule().await;
    let address = recorded(&gantry).await.unwrap().webhook.unwrap().address.to_string();
    gantry.providers.change_hooks(|hooks| {
        let made = ScriptedHook {
            id: "made".to_owned(),
            secret: String::new(),
            faults: Vec::new(),
            sent: Vec::new(),
            redelivered: Vec::new(),
        };
        hooks.insert(address, made);
    });
    gantry.clock.advance(Duration::from_secs(60));
    gantry.schedule().await;
    let (_, webhook) = webhook(&gantry);
    assert_eq!(webhook.id, "made");
    assert_eq!(webhook.secret, secret_of(&gantry, &made(&gantry).await[0]));
    assert_eq!(made(&gantry).await.len(), 1);
}

#[tokio::test]
async fn a_webhook_that_its_owner_removed_or_disabled_is_back_within_a_day() {
    let gantry = start().await;
    task(&gantry, "web", |_| {}).await;
    gantry.schedule().await;
    let (address, _) = webhook(&gantry);
    gantry.providers.change_hooks(|hooks| {
        hooks.get_mut(&address).unwrap().faults.push("is not active".to_owned());
    });
    gantry.clock.advance(A_DAY);
    gantry.schedule().await;
    assert!(webhook(&gantry).1.faults.is_empty());
    gantry.providers.change_hooks(std::collections::BTreeMap::clear);
    gantry.clock.advance(A_DAY);
    gantry.schedule().await;
    assert_eq!(webhook(&gantry).0, address);
}

#[tokio::test]
async fn a_deleted_hook_is_replaced_and_its_webhook_removed() {
    let gantry = start().await;
    task(&gantry, "web", |_| {}).await;
    gantry.schedule().await;
    let (former, _) = webhook(&gantry);
    let hook = made(&gantry).await.pop().unwrap();
    hooks::delete(gantry.store.as_ref(), &hook).await.unwrap();
    gantry.schedule().await;
    let (address, _) = webhook(&gantry);
    assert_ne!(address, former);
    assert!(address.ends_with(made(&gantry).await[0].id.as_str()), "{address}");
    assert_eq!(recorded(&gantry).await.unwrap().former, None);
}

#[tokio::test]
async fn a_new_secret_of_the_hook_reaches_the_provider() {
    let gantry = start().await;
    task(&gantry, "web", |_| {}).await;
    gantry.schedule().await;
    let hook = made(&gantry).await.pop().unwrap();
    let sealed = gantry.keyring.seal(&hooks::seal_for(&hook.id), &"n".repeat(32).into()).unwrap();
    let created = gantry.clock.now();
    let new = HookSecret { sealed, created };
    let update = hooks::update(gantry.store.as_ref(), &hook.id, |hook| {
        hook.secrets.insert(0, new.clone());
    });
    update.await.unwrap();
    gantry.schedule().await;
    assert_eq!(webhook(&gantry).1.secret, "n".repeat(32));
}

#[tokio::test]
async fn what_the_code_host_could_not_deliver_is_sent_again_but_not_for_ever() {
    let gantry = start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    task(&gantry, "web", |_| {}).await;
    gantry.settle().await;
    let (address, _) = webhook(&gantry);
    let sent = |id: &str, delivery: &str, is_accepted| SentDelivery {
        id: id.to_owned(),
        delivery: Some(delivery.to_owned()),
        at: "2026-11-30T12:00:00Z".to_owned(),
        event: "push".to_owned(),
        outcome: String::new(),
        is_accepted,
    };
    gantry.providers.change_hooks(|hooks| {
        hooks.get_mut(&address).unwrap().sent = vec![
            sent("5", "lost", false),
            sent("4", "hopeless", false),
            sent("3", "hopeless", false),
            sent("2", "hopeless", false),
            sent("1", "there", true),
        ];
    });
    gantry.scheduler().look_again().await.unwrap();
    gantry.scheduler().reconcile().await.unwrap();
    assert_eq!(webhook(&gantry).1.redelivered, ["5"]);
}

#[tokio::test]
async fn one_scheduler_has_a_place_at_a_time_and_what_is_asked_meanwhile_is_due_again() {
    let gantry = start().await;
    let web = task(&gantry, "web", |_| {}).await;
    let (store, place) = (gantry.store.as_ref(), place(&gantry));
    let nonce = |digit: &str| digit.repeat(32).parse::<LeaseNonce>().unwrap();
    let a_minute = Duration::from_secs(60);
    let due = || async { provisioning::due(store, store.now().await.unwrap(), 10).await.unwrap() };
    let lost = provisioning::claim(store, &place, &nonce("1"), a_minute).await.unwrap().unwrap();
    assert!(due().await.is_empty());
    assert!(provisioning::claim(store, &place, &nonce("2"), a_minute).await.unwrap().is_none());
    set_token(&gantry, &web, "another").await;
    assert!(due().await.is_empty(), "somebody has it");

    gantry.clock.advance(a_minute);
    assert_eq!(due().await, std::slice::from_ref(&place));
    let second = provisioning::claim(store, &place, &nonce("3"), a_minute).await.unwrap().unwrap();
    set_token(&gantry, &web, "a third").await;
    let by_hand = State::ByHand { why: "no".to_owned() };
    provisioning::record(store, &lost, by_hand.clone(), None).await.unwrap();
    assert_eq!(state(&gantry).await, State::Pending, "whoever lost a claim records nothing");
    provisioning::forget(store, &lost).await.unwrap();
    assert!(recorded(&gantry).await.is_some());

    provisioning::record(store, &second, by_hand, None).await.unwrap();
    assert_eq!(due().await, std::slice::from_ref(&place), "a task was changed meanwhile");
}

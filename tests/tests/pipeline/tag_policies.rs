//! A task that follows the newest tag of a repository is built on it, whatever starts it, and rebuilt when that changes.

use std::time::Duration;

use gantry_domain::base_trigger::BaseImageKind;
use gantry_domain::event::{Event, EventKind, ImagePushed};
use gantry_domain::id::RunPrefix;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::image_watch::{ImageWatch, Watched};
use gantry_domain::lineage::BaseImage;
use gantry_domain::task::Task;
use gantry_domain::timer::Timers;
use gantry_domain::tracked_image::TagPolicies;
use gantry_domain::wave::WaveState;
use gantry_remote::image_registry::LookError;
use gantry_seams::store::From;
use gantry_seams::{events, image_watches, tasks, waves};
use gantry_tests::pipeline::{BASE, REGISTRY, TestPipeline};

/// A repository of a registry for which no registry of gantry has credentials.
const NODE: &str = "hub.test/node";
const POLICY: &str = "hub.test/node:20.*";

fn node(tag: &str) -> String {
    format!("{NODE}:{tag}")
}

fn digest(letter: char) -> Digest {
    format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
}

fn policies(texts: &[&str]) -> TagPolicies {
    let parsed: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
    parsed.try_into().unwrap()
}

/// A task on an image that follows tags, and is not started by pushes.
async fn task(gantry: &TestPipeline, name: &str, dockerfile: &str, follows: &[&str]) -> Task {
    let repository = gantry.git.repository(name).unwrap();
    repository.commit("main", &[("Dockerfile", dockerfile)]).unwrap();
    let image = format!("{name}:latest");
    let task = gantry
        .task_with(name, &image, |task| {
            task.source_trigger = None;
            task.base_image_trigger.as_mut().unwrap().kind = BaseImageKind::All;
            task.recipe.follows = policies(follows);
        })
        .await;
    gantry.settle().await;
    task
}

fn from(tag: &str) -> String {
    format!("FROM {}\nRUN true\n", node(tag))
}

/// Asks the registries for all that is watched, and does all that follows.
async fn look(gantry: &TestPipeline) {
    gantry.clock.advance(Duration::from_secs(3700));
    while gantry.scheduler().watch_images().await.unwrap() {}
    gantry.settle().await;
}

async fn watch(gantry: &TestPipeline, image: &str) -> ImageWatch {
    let watched = Watched { image: image.parse().unwrap(), by: None };
    image_watches::find(gantry.store.as_ref(), &watched).await.unwrap().unwrap().value
}

async fn chosen(gantry: &TestPipeline) -> Option<String> {
    watch(gantry, POLICY).await.chosen.map(|chosen| chosen.tag.to_string())
}

async fn runs(gantry: &TestPipeline) -> usize {
    gantry.transcript().await.lines().count()
}

async fn bases(gantry: &TestPipeline, run: &str) -> Vec<BaseImage> {
    let run = gantry.run(run).await;
    run.state.done().unwrap().outcome.product().unwrap().bases.clone()
}

/// The digest of a run's only base, and the tag that a policy chose for it.
async fn base(gantry: &TestPipeline, run: &str) -> (Digest, Option<String>) {
    let bases = bases(gantry, run).await;
    let [base] = &bases[..] else { panic!("{bases:?}") };
    (base.digest.clone(), base.follows.as_ref().map(|followed| followed.tag.to_string()))
}

/// A task `web` on `node:20` that follows `20.*` and was built on 20.11.1.
async fn following() -> (TestPipeline, Task) {
    let gantry = super::start().await;
    gantry.registries.have(&node("20"), &digest('0'));
    gantry.registries.have(&node("20.11.1"), &digest('a'));
    let web = task(&gantry, "web", &from("20"), &[POLICY]).await;
    look(&gantry).await;
    gantry.ask(&web, None).await;
    gantry.settle().await;
    assert_eq!(base(&gantry, "ca1").await, (digest('a'), Some("20.11.1".to_owned())));
    look(&gantry).await;
    assert_eq!(runs(&gantry).await, 1);
    (gantry, web)
}

#[tokio::test]
async fn a_newer_tag_is_one_rebuild_that_uses_it() {
    let (gantry, _) = following().await;
    gantry.registries.have(&node("20.12.0"), &digest('b'));
    look(&gantry).await;
    look(&gantry).await;
    let transcript = gantry.transcript().await;
    let expected =
        format!("ca2 Succeeded {POLICY} changed (wave ca-w1) -> registry.test/web:latest");
    assert_eq!(transcript.lines().skip(1).collect::<Vec<_>>(), [expected]);
    assert_eq!(base(&gantry, "ca2").await, (digest('b'), Some("20.12.0".to_owned())));
    assert_eq!(bases(&gantry, "ca2").await[0].image, node("20").parse().unwrap(), "as written");
    assert_eq!(chosen(&gantry).await.as_deref(), Some("20.12.0"));
    let wave = waves::find(gantry.store.as_ref(), "ca-w1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(wave.value.cause.image, POLICY.parse().unwrap());
    assert!(matches!(wave.value.state, WaveState::Done { .. }), "{:?}", wave.value.state);
    let log = gantry.log("ca2", 1).await;
    assert!(log.contains(&format!("by the policy {POLICY} → 20.12.0")), "{log}");
}

#[tokio::test]
async fn the_chosen_tag_pushed_again_is_a_change_like_any_other() {
    let (gantry, _) = following().await;
    gantry.registries.have(&node("20.11.1"), &digest('b'));
    look(&gantry).await;
    assert_eq!(runs(&gantry).await, 2);
    assert_eq!(base(&gantry, "ca2").await, (digest('b'), Some("20.11.1".to_owned())));
    gantry.registries.alike(&digest('c'), &digest('b'));
    gantry.registries.have(&node("20.11.1"), &digest('c'));
    look(&gantry).await;
    assert_eq!(runs(&gantry).await, 2, "the content is the same");
}

#[tokio::test]
async fn the_parts_of_a_newer_tag_are_waited_for() {
    let (gantry, _) = following().await;
    let first = gantry.registries.have_index(&node("20.12.0"), &[("linux/amd64", "one")]);
    hint(&gantry, &node("20.12.0"), &first).await;
    let second = gantry.registries.have_index(&node("20.12.0"), &[("linux/amd64", "two")]);
    gantry.clock.advance(Duration::from_secs(30));
    hint(&gantry, &node("20.12.0"), &second).await;
    assert_eq!(runs(&gantry).await, 1, "it has not rested for a minute");
    assert_eq!(chosen(&gantry).await.as_deref(), Some("20.11.1"));
    look(&gantry).await;
    assert_eq!(runs(&gantry).await, 2);
    let expected = gantry.registries.version(&second, "linux/amd64").digest;
    assert_eq!(base(&gantry, "ca2").await, (expected, Some("20.12.0".to_owned())));
}

#[tokio::test]
async fn a_tag_that_is_older_or_no_version_of_the_pattern_is_nothing() {
    let (gantry, _) = following().await;
    for tag in ["20.10.9", "20.9", "20", "20.12.0-rc.1", "20.12.0-slim", "21.0.0", "latest"] {
        gantry.registries.have(&node(tag), &digest('b'));
        look(&gantry).await;
    }
    assert_eq!(runs(&gantry).await, 1);
    assert_eq!(chosen(&gantry).await.as_deref(), Some("20.11.1"));
}

#[tokio::test]
async fn a_deleted_newest_tag_falls_back_to_the_one_before_and_that_is_a_change() {
    let (gantry, _) = following().await;
    gantry.registries.have(&node("20.12.0"), &digest('b'));
    look(&gantry).await;
    gantry.registries.remove(&node("20.12.0"));
    look(&gantry).await;
    look(&gantry).await;
    assert_eq!(runs(&gantry).await, 3);
    assert_eq!(base(&gantry, "ca3").await, (digest('a'), Some("20.11.1".to_owned())));
}

#[tokio::test]
async fn without_a_tag_that_matches_the_written_one_is_used_until_one_matches_again() {
    let (gantry, web) = following().await;
    gantry.registries.remove(&node("20.11.1"));
    look(&gantry).await;
    assert_eq!(runs(&gantry).await, 1, "nothing is rebuilt for it");
    let problem = watch(&gantry, POLICY).await.problem.unwrap().message;
    assert_eq!(problem, format!("no tag matches {POLICY}: what a source names is used"));
    assert_eq!(chosen(&gantry).await, None);
    gantry.ask(&web, None).await;
    gantry.settle().await;
    assert_eq!(base(&gantry, "ca2").await, (digest('0'), None));
    gantry.registries.have(&node("20.13.0"), &digest('d'));
    look(&gantry).await;
    assert_eq!(runs(&gantry).await, 3);
    assert_eq!(base(&gantry, "ca3").await, (digest('d'), Some("20.13.0".to_owned())));
}

#[tokio::test]
async fn a_push_uses_the_followed_tag_whichever_covered_tag_the_source_names() {
    let gantry = super::start().await;
    gantry.registries.have(&node("20"), &digest('0'));
    gantry.registries.have(&node("20.3"), &digest('3'));
    gantry.registries.have(&node("22"), &digest('2'));
    gantry.registries.have(&node("20.11.1"), &digest('a'));
    let repository = gantry.git.repository("web").unwrap();
    let mut head = repository.commit("main", &[("Dockerfile", &from("20"))]).unwrap();
    gantry.task_with("web", "web:latest", |task| task.recipe.follows = policies(&[POLICY])).await;
    gantry.settle().await;
    look(&gantry).await;
    for (run, tag, expected) in [
        ("ca1", "20", (digest('a'), Some("20.11.1".to_owned()))),
        ("ca2", "20.3", (digest('a'), Some("20.11.1".to_owned()))),
        ("ca3", "22", (digest('2'), None)),
    ] {
        let next = repository.commit("main", &[("Dockerfile", &from(tag)), ("file", run)]).unwrap();
        gantry.deliver(&format!("d-{run}"), "web", Some(&head), Some(&next)).await;
        gantry.settle().await;
        assert_eq!(base(&gantry, run).await, expected, "{tag}");
        head = next;
    }
}

#[tokio::test]
async fn a_timer_uses_the_followed_tag() {
    let (gantry, web) = following().await;
    let timers: Timers = serde_json::from_value(serde_json::json!([
        {"name": "nightly", "schedule": "0 * * * *"}
    ]))
    .unwrap();
    tasks::update(gantry.store.as_ref(), &web.id, |task| task.timers = timers.clone())
        .await
        .unwrap();
    gantry.clock.advance(Duration::from_secs(3600));
    gantry.scheduler().fire_timers().await.unwrap();
    gantry.settle().await;
    let run = gantry.run("ca2").await;
    assert_eq!(run.cause.trigger(), "Timer", "{:?}", run.cause);
    assert_eq!(base(&gantry, "ca2").await, (digest('a'), Some("20.11.1".to_owned())));
}

#[tokio::test]
async fn each_image_follows_the_policy_of_its_variant() {
    let gantry = super::start().await;
    for (tag, letter) in [("20", '0'), ("20-slim", '1'), ("20.2", 'a'), ("20.2-slim", 'b')] {
        gantry.registries.have(&node(tag), &digest(letter));
    }
    let both = format!(
        "FROM {} AS built\nFROM {}\nCOPY --from=built /a /a\n",
        node("20"),
        node("20-slim")
    );
    let slim = "hub.test/node:20.*-slim";
    let web = task(&gantry, "web", &both, &[POLICY, slim]).await;
    look(&gantry).await;
    gantry.ask(&web, None).await;
    gantry.settle().await;
    look(&gantry).await;
    let used = async |run: &str| {
        let mut used: Vec<(String, Digest)> = bases(&gantry, run)
            .await
            .into_iter()
            .map(|base| (base.follows.unwrap().tag.to_string(), base.digest))
            .collect();
        used.sort();
        used
    };
    let [one, other] =
        [("20.2", 'a'), ("20.2-slim", 'b')].map(|(tag, it)| (tag.to_owned(), digest(it)));
    assert_eq!(used("ca1").await, [one.clone(), other]);
    gantry.registries.have(&node("20.3-slim"), &digest('c'));
    look(&gantry).await;
    assert_eq!(runs(&gantry).await, 2);
    assert_eq!(used("ca2").await, [one, ("20.3-slim".to_owned(), digest('c'))]);
}

#[tokio::test]
async fn a_policy_whose_tags_cannot_be_listed_says_so_and_the_written_tag_is_built() {
    let gantry = super::start().await;
    gantry.registries.have(&node("20"), &digest('0'));
    let web = task(&gantry, "web", &from("20"), &[POLICY]).await;
    let image = Box::new(node("latest").parse::<ImageReference>().unwrap());
    let after = Some(Duration::from_secs(60));
    for error in [
        LookError::Limited { image: image.clone(), after },
        LookError::Unauthorized { image: image.clone(), message: "no".to_owned() },
    ] {
        gantry.registries.fail_looks("hub.test", Some(error.clone()));
        look(&gantry).await;
        let problem = watch(&gantry, POLICY).await.problem.unwrap().message;
        assert_eq!(problem, format!("the tags of {NODE} cannot be listed: {error}"));
    }
    gantry.ask(&web, None).await;
    gantry.settle().await;
    assert_eq!(base(&gantry, "ca1").await, (digest('0'), None));
    // It goes on, and what was chosen is used while the registry is away later.
    gantry.registries.fail_looks("hub.test", None);
    gantry.registries.have(&node("20.11.1"), &digest('a'));
    look(&gantry).await;
    gantry.registries.fail_looks("hub.test", Some(LookError::Limited { image, after }));
    look(&gantry).await;
    gantry.ask(&web, None).await;
    gantry.settle().await;
    assert_eq!(base(&gantry, "ca2").await, (digest('a'), Some("20.11.1".to_owned())));
}

#[tokio::test]
async fn a_repository_that_is_not_there_has_no_tag_that_matches() {
    let gantry = super::start().await;
    task(&gantry, "web", &from("20"), &[POLICY]).await;
    look(&gantry).await;
    let problem = watch(&gantry, POLICY).await.problem.unwrap().message;
    assert!(problem.contains("no tag matches"), "{problem}");
}

#[tokio::test]
async fn the_tags_of_a_registry_are_asked_for_only_with_credentials_of_ones_own() {
    let gantry = super::start().await;
    super::forged::other_registry(&gantry).await;
    for (registry, name) in [("reg", "web"), ("other", "api")] {
        let repository = gantry.git.repository(name).unwrap();
        repository
            .commit("main", &[("Dockerfile", "FROM other.test/private:1\nRUN true\n")])
            .unwrap();
        gantry
            .task_with(name, &format!("{name}:latest"), |task| {
                task.id = format!("{registry}/{name}").parse().unwrap();
                task.source_trigger = None;
                task.recipe.follows = policies(&["other.test/private:1.*"]);
            })
            .await;
    }
    gantry.settle().await;
    look(&gantry).await;
    let mut users = gantry.registries.listings("other.test/private");
    users.sort();
    users.dedup();
    assert_eq!(users, [None, Some("mona".to_owned())]);
    let list = image_watches::list(gantry.store.as_ref(), None, 9).await.unwrap();
    let by: Vec<Option<RunPrefix>> = list.iter().map(|watch| watch.watched.by).collect();
    assert_eq!(by.len(), 2, "{by:?}");
    assert!(!by.contains(&Some(TestPipeline::prefix())), "{by:?}");
}

#[tokio::test]
async fn what_a_task_pushes_reaches_those_that_follow_it_in_the_same_wave() {
    let gantry = super::start().await;
    let repository = gantry.git.repository("base").unwrap();
    let on_base = format!("FROM {BASE}\nRUN true\n");
    repository.commit("main", &[("Dockerfile", &on_base)]).unwrap();
    let base_task = gantry.task_with("base", "base:1.0", |task| task.source_trigger = None).await;
    gantry.settle().await;
    gantry.ask(&base_task, None).await;
    gantry.settle().await;
    // The registry's list of tags has what was pushed.
    let pushed = format!("{REGISTRY}/base:1.0");
    let first = gantry.registries.tag(&pushed).unwrap();
    let policy = format!("{REGISTRY}/base:^1");
    let web =
        task(&gantry, "web", &format!("FROM {REGISTRY}/base:1\nRUN true\n"), &[&policy]).await;
    look(&gantry).await;
    gantry.ask(&web, None).await;
    gantry.settle().await;
    look(&gantry).await;
    assert_eq!(base(&gantry, "ca2").await, (first, Some("1.0".to_owned())));

    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;
    look(&gantry).await;
    let id = "ca-w1".parse().unwrap();
    let (tasks, _) = waves::tasks(gantry.store.as_ref(), id, From::Start, 10).await.unwrap();
    let ends =
        tasks.iter().map(|of| format!("{}: {}", of.task.task.name, of.end.as_ref().unwrap()));
    let mut ends: Vec<String> = ends.collect();
    ends.sort();
    assert_eq!(ends, ["base: built by run ca3", "web: built by run ca4"]);
    let now = gantry.registries.tag(&pushed).unwrap();
    assert_eq!(base(&gantry, "ca4").await, (now, Some("1.0".to_owned())));
    assert_eq!(runs(&gantry).await, 4);
}

/// Has a registry hook report a push of a tag, and the registry asked.
async fn hint(gantry: &TestPipeline, image: &str, digest: &Digest) {
    gantry.clock.advance(Duration::from_secs(2));
    let pushed = ImagePushed {
        hook: None,
        image: image.parse().unwrap(),
        digest: Some(digest.clone()),
        media_type: None,
        is_proven: true,
    };
    let event = Event {
        id: format!("hint/{}", gantry.clock.now().as_millis()).parse().unwrap(),
        registry: "reg".parse().unwrap(),
        prefix: TestPipeline::prefix(),
        received: gantry.clock.now(),
        trace: None,
        kind: EventKind::ImagePushed(pushed),
    };
    assert!(events::notice(gantry.store.as_ref(), &event).await.unwrap());
    gantry.settle().await;
    while gantry.scheduler().watch_images().await.unwrap() {}
    gantry.settle().await;
}

//! The tasks that need an image are known as soon as the images of a task are, and whether it counts for them.

use std::collections::{BTreeMap, BTreeSet};

use gantry_domain::base_trigger::{BaseImageKind, BaseImageTrigger};
use gantry_domain::id::{RunPrefix, TaskId};
use gantry_domain::platform::Platform;
use gantry_domain::scan::{ImageRole, MOST_IMAGES, NeededImage, NeededImages, Scanned};
use gantry_domain::task::{Status, Task};
use gantry_domain::tracked_image::TrackedImage;
use gantry_seams::image_users::{self, User, Which};
use gantry_seams::runs::{self, TakenRun};
use gantry_seams::store::{Batch, From, Key, Kind};
use gantry_seams::{task_images, tasks};
use gantry_tests::pipeline::{DOCKERFILE, LEASE, TestPipeline, create_registry};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

const BUSYBOX: &str = "registry.test/busybox:1";
const ALPINE: &str = "registry.test/alpine:3";
const ON_ALPINE: &[(&str, &str)] = &[("Dockerfile", "FROM registry.test/alpine:3\n")];
const ON_BOTH: &[(&str, &str)] = &[(
    "Dockerfile",
    "FROM registry.test/alpine:3 AS a\nFROM registry.test/busybox:1\nCOPY --from=a / /a\n",
)];

fn image(name: &str) -> TrackedImage {
    name.parse().unwrap()
}

/// All tasks that need an image, read page by page.
async fn of(gantry: &TestPipeline, name: &str, which: Which) -> Vec<User> {
    let (image, mut all, mut from) = (image(name), Vec::new(), From::Start);
    loop {
        let page = image_users::of_image(gantry.store.as_ref(), &image, which, from, 3);
        let (users, next) = page.await.unwrap();
        all.extend(users);
        match next {
            Some(next) => from = next,
            None => return all,
        }
    }
}

/// Role and task of all that need an image, and of those for which it counts.
async fn edges(gantry: &TestPipeline, name: &str) -> (Vec<String>, Vec<String>) {
    let shown = |users: Vec<User>| {
        users.iter().map(|user| format!("{} {}", user.role, user.task)).collect::<Vec<_>>()
    };
    (shown(of(gantry, name, Which::All).await), shown(of(gantry, name, Which::Counted).await))
}

fn both(text: &str) -> (Vec<String>, Vec<String>) {
    (vec![text.to_owned()], vec![text.to_owned()])
}

fn only_mentioned(text: &str) -> (Vec<String>, Vec<String>) {
    (vec![text.to_owned()], vec![])
}

async fn to_watch(gantry: &TestPipeline) -> Vec<String> {
    let images = image_users::to_watch(gantry.store.as_ref(), 10).await.unwrap();
    images.iter().map(ToString::to_string).collect()
}

async fn update(gantry: &TestPipeline, task: &Task, change: impl Fn(&mut Task) + Send + Sync) {
    tasks::update(gantry.store.as_ref(), &task.id, change).await.unwrap().unwrap();
}

fn trigger(task: &mut Task) -> &mut BaseImageTrigger {
    task.base_image_trigger.as_mut().unwrap()
}

/// A task `hello` that was scanned, with its first commit.
async fn scanned(gantry: &TestPipeline) -> (Task, String) {
    let first = gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    (task, first)
}

#[tokio::test]
async fn a_task_uses_its_base_as_soon_as_it_is_scanned() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    assert_eq!(edges(&gantry, BUSYBOX).await, (vec![], vec![]));
    gantry.settle().await;
    let user = User {
        registry: TestPipeline::prefix(),
        platform: Platform::default(),
        role: ImageRole::Runtime,
        task: task.id.name.clone(),
        created: task.created,
    };
    assert_eq!(of(&gantry, BUSYBOX, Which::Counted).await, std::slice::from_ref(&user));
    assert_eq!(of(&gantry, BUSYBOX, Which::All).await, [user]);
    assert_eq!(to_watch(&gantry).await, [BUSYBOX]);
}

#[tokio::test]
async fn a_push_that_changes_the_base_moves_its_task_to_the_new_one() {
    let gantry = super::start().await;
    let (_, first) = scanned(&gantry).await;
    let second = gantry.git.repository("hello").unwrap().commit("main", ON_ALPINE).unwrap();
    gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    gantry.settle().await;
    assert_eq!(edges(&gantry, BUSYBOX).await, (vec![], vec![]));
    assert_eq!(edges(&gantry, ALPINE).await, both("runtime hello"));
}

#[tokio::test]
async fn a_trigger_that_says_no_leaves_only_the_mention() {
    let gantry = super::start().await;
    let (task, _) = scanned(&gantry).await;
    let disable: fn(&mut Task) = |task| trigger(task).status = Status::Disabled;
    let name_others: fn(&mut Task) =
        |task| trigger(task).images = vec!["alpine:*".parse().unwrap()].try_into().unwrap();
    let remove: fn(&mut Task) = |task| task.base_image_trigger = None;
    let disable_task: fn(&mut Task) = |task| task.status = Status::Disabled;
    for change in [disable, name_others, remove, disable_task] {
        update(&gantry, &task, change).await;
        assert_eq!(edges(&gantry, BUSYBOX).await, only_mentioned("runtime hello"));
        update(&gantry, &task, |it| {
            (it.status, it.base_image_trigger) = (task.status, task.base_image_trigger.clone());
        })
        .await;
        assert_eq!(edges(&gantry, BUSYBOX).await, both("runtime hello"));
    }
    gantry.settle().await;
}

#[tokio::test]
async fn an_image_that_a_build_only_reads_counts_for_a_trigger_of_type_all() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", ON_BOTH).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    assert_eq!(edges(&gantry, ALPINE).await, only_mentioned("buildtime hello"));
    assert_eq!(edges(&gantry, BUSYBOX).await, both("runtime hello"));
    update(&gantry, &task, |task| trigger(task).kind = BaseImageKind::All).await;
    assert_eq!(edges(&gantry, ALPINE).await, both("buildtime hello"));
    gantry.settle().await;
}

#[tokio::test]
async fn a_deleted_task_needs_nothing_and_one_of_its_name_is_another() {
    let gantry = super::start().await;
    let (former, _) = scanned(&gantry).await;
    tasks::delete(gantry.store.as_ref(), &former.id).await.unwrap();
    assert_eq!(edges(&gantry, BUSYBOX).await, (vec![], vec![]));
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    assert_eq!(edges(&gantry, BUSYBOX).await, (vec![], vec![]), "it was not scanned");
    gantry.settle().await;
    let users = of(&gantry, BUSYBOX, Which::Counted).await;
    assert_eq!(users.iter().map(|user| user.created).collect::<Vec<_>>(), [task.created]);
    assert_ne!(task.created, former.created);
}

#[tokio::test]
async fn an_image_is_to_be_watched_again_whenever_it_gets_a_user() {
    let gantry = super::start().await;
    let (task, _) = scanned(&gantry).await;
    let mut batch = Batch::default();
    image_users::watched(&mut batch, &image(BUSYBOX));
    gantry.store.commit(batch).await.unwrap();
    assert!(to_watch(&gantry).await.is_empty());
    update(&gantry, &task, |task| trigger(task).status = Status::Disabled).await;
    gantry.settle().await;
    assert!(to_watch(&gantry).await.is_empty(), "nobody uses it");
    update(&gantry, &task, |task| trigger(task).status = Status::Enabled).await;
    assert_eq!(to_watch(&gantry).await, [BUSYBOX]);
    gantry.settle().await;
}

#[tokio::test]
async fn what_is_read_replaces_a_record_that_does_not_decode_and_counts_as_for_a_new_task() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    let id = format!("{}/hello@{}", task.prefix, task.created.as_millis());
    let mut batch = Batch::default();
    batch.put(Key::new(Kind::TaskImages, id), "no record");
    gantry.store.commit(batch).await.unwrap();
    gantry.settle().await;
    assert!(gantry.images(&task).await.read.is_some());
    assert_eq!(edges(&gantry, BUSYBOX).await, both("runtime hello"));
}

/// An image for a step of its own.
fn needed(name: &str, role: ImageRole, step: usize, platform: &str) -> NeededImage {
    NeededImage {
        image: name.parse().unwrap(),
        role,
        step: format!("s{step}").parse().unwrap(),
        dockerfile: None,
        platform: platform.parse().unwrap(),
    }
}

fn read(images: impl IntoIterator<Item = NeededImage>) -> Scanned {
    let mut needed = NeededImages::default();
    images.into_iter().for_each(|image| needed.add(image));
    Scanned::Read { commit: None, images: needed }
}

async fn take(gantry: &TestPipeline) -> Option<TakenRun> {
    let (pool, worker) = ("linux-amd64".parse().unwrap(), "w".parse().unwrap());
    let nonce = "1".repeat(32).parse().unwrap();
    runs::take(gantry.store.as_ref(), &pool, &worker, &nonce, LEASE).await.unwrap()
}

async fn tell(gantry: &TestPipeline, scan: &TakenRun, found: &Scanned) {
    runs::scanned(gantry.store.as_ref(), scan.run.id, &scan.holder, found).await.unwrap();
}

/// The scan of a new task whose trigger counts all images.
async fn scan_of(gantry: &TestPipeline, task: &str) -> TakenRun {
    let id: TaskId = task.parse().unwrap();
    let name = id.name.to_string();
    let change = |task: &mut Task| {
        (task.id, task.source_trigger) = (id, None);
        trigger(task).kind = BaseImageKind::All;
    };
    gantry.task_with(&name, "web:{{.Run.ID}}", change).await;
    gantry.schedule().await;
    take(gantry).await.expect("a scan")
}

#[tokio::test]
async fn several_uses_of_one_image_by_a_task_are_one_for_each_platform() {
    let gantry = super::start().await;
    let scan = scan_of(&gantry, "reg/hello").await;
    let pinned = format!("{BUSYBOX}@sha256:{}", "a".repeat(64));
    let found = read([
        needed(BUSYBOX, ImageRole::Step, 1, "linux"),
        needed(BUSYBOX, ImageRole::Buildtime, 2, "linux"),
        needed(&pinned, ImageRole::Runtime, 3, "linux"),
        needed(BUSYBOX, ImageRole::Step, 4, "linux/arm64"),
    ]);
    tell(&gantry, &scan, &found).await;
    let (all, counted) = edges(&gantry, BUSYBOX).await;
    assert_eq!(all, ["runtime hello", "step hello"], "pinned by one step");
    assert_eq!(counted, ["buildtime hello", "step hello"]);
    gantry.leaves_work();
}

#[tokio::test]
async fn the_users_of_an_image_are_found_by_registry_and_platform() {
    let gantry = super::start().await;
    let store = gantry.store.as_ref();
    let other = create_registry(store, "other", "other.test", 8).await.prefix;
    let own = TestPipeline::prefix();
    for (task, platforms) in [
        ("reg/aa", &["linux/amd64", "linux/arm64/v8"][..]),
        ("reg/bb", &["linux/amd64", "linux/arm64"]),
        ("other/cc", &["linux/amd64"]),
    ] {
        let scan = scan_of(&gantry, task).await;
        let uses = platforms.iter().enumerate();
        let uses = uses.map(|(step, platform)| needed(BUSYBOX, ImageRole::Runtime, step, platform));
        tell(&gantry, &scan, &read(uses)).await;
    }
    let group =
        |registry: RunPrefix, platform: &str| (registry, platform.parse::<Platform>().unwrap());
    let groups = [
        group(own, "linux/amd64"),
        group(own, "linux/arm64"),
        group(own, "linux/arm64/v8"),
        group(other, "linux/amd64"),
    ];
    let busybox = image(BUSYBOX);
    assert_eq!(image_users::groups(store, &busybox, 10).await.unwrap(), groups);
    assert_eq!(image_users::groups(store, &busybox, 2).await.unwrap(), groups[..2]);

    let mut found = Vec::new();
    for (registry, platform) in &groups {
        let mut after = None;
        loop {
            let which = Which::Counted;
            let after_it = after.as_ref();
            let page =
                image_users::of_image_in(store, &busybox, which, *registry, platform, after_it, 1);
            let users = page.await.unwrap();
            let Some(user) = users.last() else { break };
            found.push(format!("{} {}", user.task, user.platform));
            after = Some(user.task.clone());
        }
    }
    let expected = [
        "aa linux/amd64",
        "bb linux/amd64",
        "bb linux/arm64",
        "aa linux/arm64/v8",
        "cc linux/amd64",
    ];
    assert_eq!(found, expected);
    gantry.leaves_work();
}

#[tokio::test]
async fn as_many_images_as_a_task_may_have_are_replaced_in_one_commit() {
    let gantry = super::start().await;
    let scan = scan_of(&gantry, "reg/hello").await;
    for kind in ["old", "new"] {
        let images = (0..MOST_IMAGES).map(|number| {
            needed(&format!("registry.test/{kind}:{number}"), ImageRole::Runtime, number, "linux")
        });
        tell(&gantry, &scan, &read(images)).await;
    }
    let last = MOST_IMAGES - 1;
    assert_eq!(edges(&gantry, &format!("registry.test/old:{last}")).await, (vec![], vec![]));
    assert_eq!(edges(&gantry, &format!("registry.test/new:{last}")).await, both("runtime hello"));
    gantry.leaves_work();
}

const SOME: [&str; 4] = ["alpine:3", "busybox:1", "docker.io/library/busybox:1", BUSYBOX];

fn random_trigger(random: &mut StdRng) -> Option<BaseImageTrigger> {
    let patterns: &[&str] = [&[][..], &["busybox:*"], &["!alpine:*"]].choose(random).unwrap();
    let patterns: Vec<_> = patterns.iter().map(|text| text.parse().unwrap()).collect();
    random.random_bool(0.9).then(|| BaseImageTrigger {
        status: random_status(random),
        kind: *[BaseImageKind::Runtime, BaseImageKind::All].choose(random).unwrap(),
        images: patterns.try_into().unwrap(),
        ..BaseImageTrigger::default()
    })
}

fn random_status(random: &mut StdRng) -> Status {
    if random.random_bool(0.8) { Status::Enabled } else { Status::Disabled }
}

fn random_images(random: &mut StdRng) -> Scanned {
    let roles = [ImageRole::Runtime, ImageRole::Buildtime, ImageRole::Step];
    let images = (0..random.random_range(0..5)).map(|step| {
        let name = (*SOME.choose(random).unwrap()).to_owned();
        let digest = format!("@sha256:{}", "a".repeat(64));
        let name = if random.random_bool(0.2) { name + &digest } else { name };
        let platform = ["linux/amd64", "linux/arm64"].choose(random).unwrap();
        needed(&name, *roles.choose(random).unwrap(), step, platform)
    });
    read(images.collect::<Vec<_>>())
}

/// What the indexes should hold of an image, computed from the tasks and their images alone.
async fn recomputed(gantry: &TestPipeline, name: &str, which: Which) -> BTreeSet<User> {
    let store = gantry.store.as_ref();
    let mut roles = BTreeMap::new();
    for task in tasks::list(store, None, None, 100).await.unwrap() {
        let read = task_images::find(store, &task).await.unwrap().read;
        for needed in read.iter().flat_map(|read| read.needed.images()) {
            let trigger = task.base_image_trigger.as_ref();
            let counts = task.status == Status::Enabled
                && trigger.is_some_and(|trigger| trigger.counts(needed).is_ok());
            let is_it = TrackedImage::tag_of(&needed.image) == Some(image(name));
            if is_it && (which == Which::All || counts) {
                let of = (task.id.name.clone(), task.created, needed.platform.clone());
                roles.entry(of).or_insert_with(Vec::new).push(needed.role);
            }
        }
    }
    let user = |((task, created, platform), roles): (_, Vec<ImageRole>)| User {
        registry: TestPipeline::prefix(),
        platform,
        role: *roles.iter().min().unwrap(),
        task,
        created,
    };
    roles.into_iter().map(user).collect()
}

#[tokio::test]
async fn after_any_saves_scans_and_deletions_the_indexes_are_what_the_records_say() {
    for seed in 0..4 {
        let gantry = super::start().await;
        let store = gantry.store.as_ref();
        let mut random = StdRng::seed_from_u64(seed);
        let mut scans: Vec<TakenRun> = Vec::new();
        let mut seen = 0;
        for _ in 0..60 {
            let name = *["aa", "bb", "cc"].choose(&mut random).unwrap();
            let id = format!("reg/{name}").parse().unwrap();
            let known = tasks::find(store, &id).await.unwrap();
            let (status, trigger) = (random_status(&mut random), random_trigger(&mut random));
            match (known, random.random_range(0..10)) {
                (None, _) => {
                    let change = |task: &mut Task| {
                        task.source_trigger = None;
                        (task.status, task.base_image_trigger) = (status, trigger);
                    };
                    gantry.task_with(name, "web:{{.Run.ID}}", change).await;
                }
                (Some(_), 0) => {
                    tasks::delete(store, &id).await.unwrap();
                }
                (Some(task), 1..4) => {
                    let change = |task: &mut Task| {
                        (task.status, task.base_image_trigger) = (status, trigger.clone());
                    };
                    // At the same time, a scan is told.
                    let (scan, found) = (scans.choose(&mut random), random_images(&mut random));
                    let told = async {
                        if let Some(scan) = scan {
                            tell(&gantry, scan, &found).await;
                        }
                    };
                    tokio::join!(update(&gantry, &task, change), told);
                }
                (Some(_), _) => {}
            }
            gantry.schedule().await;
            scans.extend(take(&gantry).await);
            // Of any revision, also of deleted tasks.
            if let Some(scan) = scans.choose(&mut random) {
                tell(&gantry, scan, &random_images(&mut random)).await;
            }
            for name in SOME {
                for which in [Which::All, Which::Counted] {
                    let found = of(&gantry, name, which).await;
                    let expected = recomputed(&gantry, name, which).await;
                    assert_eq!(
                        found.iter().cloned().collect::<BTreeSet<_>>(),
                        expected,
                        "seed {seed}"
                    );
                    assert_eq!(found.len(), expected.len(), "seed {seed}");
                    seen += found.len();
                }
            }
        }
        assert!(seen > 100, "seed {seed}: {seen}");
        gantry.leaves_work();
    }
}

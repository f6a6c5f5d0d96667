//! A registry that limits requests is asked for all images in turn, and not beyond what it allows.

use std::time::Duration;

use gantry_domain::base_trigger::BaseImageKind;
use gantry_domain::image::Digest;
use gantry_domain::platform::Platform;
use gantry_domain::scan::{ImageRole, MOST_IMAGES, NeededImage, NeededImages, Scanned};
use gantry_seams::runs::{self, TakenRun};
use gantry_tests::pipeline::{LEASE, TestPipeline};

const INTERVAL: Duration = Duration::from_secs(316);
const HOUR: Duration = Duration::from_secs(3600);

/// How many looks at one registry are in progress at once.
const IN_PROGRESS: u64 = 8;

/// Has this many images of one registry watched, which were all asked for once: each task needs 200 of them.
async fn watched(count: usize) -> (TestPipeline, Vec<String>) {
    let gantry = super::start().await;
    let digest: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
    let images: Vec<String> = (0..count).map(|n| format!("hub.test/image-{n}:1")).collect();
    images.iter().for_each(|image| gantry.registries.have(image, &digest));
    let needed = images.chunks(MOST_IMAGES);
    for task in 0..needed.len() {
        let all = |task: &mut gantry_domain::task::Task| {
            task.source_trigger = None;
            task.base_image_trigger.as_mut().unwrap().kind = BaseImageKind::All;
        };
        gantry.task_with(&format!("t{task}"), "web:{{.Run.ID}}", all).await;
    }
    for images in needed {
        // Not all scans are ready at once.
        gantry.schedule().await;
        let scan = take(&gantry).await;
        let found = Scanned::Read { commit: None, images: read(images) };
        runs::scanned(gantry.store.as_ref(), scan.run.id, &scan.holder, &found).await.unwrap();
    }
    look(&gantry).await;
    assert_eq!(asked(&gantry, &images), (1, 1, count));
    gantry.leaves_work();
    (gantry, images)
}

async fn take(gantry: &TestPipeline) -> TakenRun {
    let (pool, worker) = ("linux-amd64".parse().unwrap(), "w".parse().unwrap());
    let nonce = "1".repeat(32).parse().unwrap();
    runs::take(gantry.store.as_ref(), &pool, &worker, &nonce, LEASE).await.unwrap().unwrap()
}

fn read(images: &[String]) -> NeededImages {
    let mut needed = NeededImages::default();
    for (step, image) in images.iter().enumerate() {
        needed.add(NeededImage {
            image: image.parse().unwrap(),
            role: ImageRole::Step,
            step: format!("s{step}").parse().unwrap(),
            dockerfile: None,
            platform: Platform::default(),
        });
    }
    needed
}

/// Two schedulers ask for all that is due.
async fn look(gantry: &TestPipeline) {
    let (one, other) = (gantry.scheduler(), gantry.scheduler());
    loop {
        let (one, other) = tokio::join!(one.watch_images(), other.watch_images());
        if !(one.unwrap() | other.unwrap()) {
            return;
        }
    }
}

/// How often images were asked for: the least, the most, and all together.
fn asked(gantry: &TestPipeline, images: &[String]) -> (usize, usize, usize) {
    let looks: Vec<usize> = images.iter().map(|image| gantry.registries.looks(image)).collect();
    (*looks.iter().min().unwrap(), *looks.iter().max().unwrap(), looks.iter().sum())
}

/// A limit that suffices costs nothing: each image is asked for once an interval.
async fn suffices(count: usize) {
    let (gantry, images) = watched(count).await;
    let most = images.len() as u64 + 2 * IN_PROGRESS + 1;
    gantry.registries.limit(&gantry.clock, most, INTERVAL, 0);
    for _ in 0..4 {
        gantry.clock.advance(INTERVAL);
        look(&gantry).await;
    }
    assert_eq!(asked(&gantry, &images), (1 + 4, 1 + 4, count * (1 + 4)));
    assert_eq!(gantry.registries.refused(), 0);
}

/// A limit of a fifth of the images an hour, which somebody else has used up at first.
async fn does_not_suffice(count: usize) {
    let (gantry, images) = watched(count).await;
    let most = images.len() as u64 / 5;
    gantry.registries.limit(&gantry.clock, most, HOUR, most);
    gantry.clock.advance(INTERVAL);
    look(&gantry).await;
    let refused = gantry.registries.refused();
    assert!((1..=2 * IN_PROGRESS).contains(&refused), "{refused}: those that were in progress");
    let (_, _, before) = asked(&gantry, &images);
    let hours = 12;
    for _ in 0..hours * 6 {
        gantry.clock.advance(HOUR / 6);
        look(&gantry).await;
    }
    assert_eq!(gantry.registries.refused(), refused, "none after the first");
    let (least, most_often, all) = asked(&gantry, &images);
    let spent = (all - before) as u64;
    assert!(spent <= hours * most && spent >= hours * (most - 2 * IN_PROGRESS - 1), "{spent}");
    // Those that were refused were asked once more.
    assert!(least >= 2 && most_often - least <= 2, "{least} to {most_often}");
}

#[tokio::test]
async fn a_limit_that_suffices_is_no_reason_to_ask_less_often() {
    suffices(400).await;
}

#[tokio::test]
async fn a_limit_that_does_not_suffice_is_shared_by_all_images_and_never_exceeded() {
    does_not_suffice(400).await;
}

mod slow {
    #[tokio::test]
    async fn ten_thousand_images_are_asked_for_once_an_interval() {
        super::suffices(10_000).await;
    }

    #[tokio::test]
    async fn ten_thousand_images_share_the_limit_of_their_registry() {
        super::does_not_suffice(10_000).await;
    }
}

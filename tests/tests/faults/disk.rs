//! A full disk under the data folder, the objects, or Redis. What was answered 2xx is kept, what cannot be kept is
//! answered 503, the reason is reported everywhere, and when there is space again everything continues by itself.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::time::{Duration, Instant};

use gantry_api::DeliveryDetails;
use gantry_tests::installation::Installation;
use gantry_tests::servers::redis::Redis;
use gantry_tests::small_disk::SmallDisk;
use rand::Rng as _;
use reqwest::StatusCode;

use crate::ledger::Delivery;
use crate::up::{self, Up, WITHIN};

const QUICK: &str = "FROM BASE\nCOPY file /file\nRUN echo it is built\n";

/// More than fits into the free space within the files when their disk is full.
const PUSHES: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_store_costs_no_delivery_and_no_restart() {
    let disk = SmallDisk::start(24).await.unwrap();
    let (data, telemetry) = (disk.path().join("data"), up::free_address());
    let program = disk.holds(up::program(&data, telemetry, &[]));
    let mut up = Up::start(&program, telemetry, QUICK).await.unwrap();
    let (client, hook) = (up.client.clone(), up.hook());
    let first = build_one(&mut up).await;

    disk.fill().unwrap();
    let (kept, mut refused) = push_until_refused(&mut up, first, 20).await;
    let mut moved = up.push().unwrap();
    let _full = moved.ask(&client, &hook).await.unwrap();
    let began = Instant::now();
    loop {
        let (is_ready, parts) = up.ready().await.unwrap();
        let said = parts["store"].as_str().unwrap_or_default().to_owned();
        if !is_ready && said.contains("the store is full: free space") {
            break;
        }
        assert!(began.elapsed() < WITHIN, "{parts}");
    }
    all_are_kept(&up, &kept).await;

    disk.free().unwrap();
    let freed = Instant::now();
    moved.send(&client, &hook).await.unwrap();
    let taken_after = freed.elapsed();
    while !up.ready().await.unwrap().0 {
        assert!(freed.elapsed() < WITHIN);
    }
    for push in &mut refused {
        push.send(&client, &hook).await.unwrap();
    }
    up.until_run_is(&moved, "Succeeded").await.unwrap();
    println!(
        "hooks were taken {taken_after:?} after there was room, the run was built after {:?}; {} were taken on the full disk",
        freed.elapsed(),
        kept.len()
    );

    // The process was never restarted; a restarted one finds everything as well.
    up.installation.kill().await.unwrap();
    up.installation.start(&program).await.unwrap();
    all_are_kept(&up, kept.iter().chain(&refused)).await;
}

#[tokio::test]
async fn a_start_on_a_full_disk_ends_and_says_what_to_do() {
    let disk = SmallDisk::start(4).await.unwrap();
    disk.fill().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = disk.holds(up::program(&disk.path().join("data"), up::free_address(), &[]));
    let mut installation = Installation::new(folder.path().join("log"));
    let error = installation.start(&program).await.unwrap_err().to_string();
    assert!(error.contains("is full: free some space there, then start again"), "{error}");
}

async fn fill_the_mirrors_disk() {
    let disk = SmallDisk::start(8).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (data, telemetry) = (folder.path().join("data"), up::free_address());
    DirBuilder::new().mode(0o700).create(&data).unwrap();
    std::fs::create_dir(data.join("work")).unwrap();
    std::os::unix::fs::symlink(disk.path(), data.join("work/mirrors")).unwrap();
    let program = disk.holds(up::program(&data, telemetry, &[]));
    let mut up = Up::start(&program, telemetry, QUICK).await.unwrap();
    let (client, hook) = (up.client.clone(), up.hook());
    let mut first = up.push_file(&noise(3)).unwrap();
    first.send(&client, &hook).await.unwrap();
    up.until_run_is(&first, "Succeeded").await.unwrap();

    // Without the old mirror there is room.
    disk.fill().unwrap();
    let mut second = up.push_file(&noise(2)).unwrap();
    second.send(&client, &hook).await.unwrap();
    let run = up.until_run_is(&second, "Succeeded").await.unwrap();
    assert!(run.attempts.len() > 1, "{run:?}");

    // Now there is none, until somebody makes some.
    disk.fill().unwrap();
    let mut third = up.push_file(&noise(5)).unwrap();
    third.send(&client, &hook).await.unwrap();
    up.until_attempt_says(&third, "is full: free space there").await.unwrap();
    disk.free().unwrap();
    up.until_run_is(&third, "Succeeded").await.unwrap();
}

async fn fill_the_objects_disk() {
    // BuildKit truncates the output of a step per second.
    let loud = |step| format!("RUN echo step {step}; yes 'a line of the log' | head -c 180000\n");
    let loud = format!("FROM BASE\nCOPY file /file\n{}", (0..16).map(loud).collect::<String>());
    let disk = SmallDisk::start(16).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (data, telemetry) = (folder.path().join("data"), up::free_address());
    let objects = format!("objects.url=file://{}", disk.path().join("objects").display());
    let program = disk.holds(up::program(&data, telemetry, &[objects]));
    let mut up = Up::start(&program, telemetry, &loud).await.unwrap();
    let (client, hook) = (up.client.clone(), up.hook());

    disk.fill().unwrap();
    let mut archive = vec![0; 1 << 20];
    archive[..2].copy_from_slice(&[0x1f, 0x8b]);
    let (status, said) = client
        .post_bytes("registries/reg/uploads", "application/gzip", archive.clone())
        .await
        .unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
    assert!(said.contains("\"objects_full\""), "{said}");

    let mut push = up.push().unwrap();
    push.send(&client, &hook).await.unwrap();
    let run = up.until_run_is(&push, "Running").await.unwrap();
    let log = format!("runs/{}/log", run.id);
    let began = Instant::now();
    let mut held = 0;
    // It grows up to the limit of the tail in the store, and then stops.
    loop {
        let length = client.text(&log).await.unwrap().len();
        if length == held && held > 500_000 {
            break;
        }
        held = length;
        assert!(began.elapsed() < WITHIN, "{held} bytes\n{}", up.installation.last_words());
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert!(held < 1_200_000, "{held} bytes of one log are in the store");
    assert_eq!(up.until_run_is(&push, "Running").await.unwrap().id, run.id);
    let (_, parts) = up.ready().await.unwrap();
    assert!(parts["objects"].as_str().unwrap().contains("full"), "{parts}");

    disk.free().unwrap();
    let freed = Instant::now();
    up.until_run_is(&push, "Succeeded").await.unwrap();
    println!("the held log went on and its run ended {:?} after there was room", freed.elapsed());
    let text = client.text(&log).await.unwrap();
    assert!(text.matches("a line of the log").count() > 16 * 9_000, "{} bytes", text.len());
    assert!(!text.contains("are lost"), "nothing is missing");
    let (status, said) =
        client.post_bytes("registries/reg/uploads", "application/gzip", archive).await.unwrap();
    assert_eq!(status, StatusCode::CREATED, "{said}");
}

async fn fill_the_redis_disk() {
    let disk = SmallDisk::start(16).await.unwrap();
    let mut redis = Redis::start_on(&disk).await.unwrap();
    let scaled = up::Scaled::over(&redis).await.unwrap();
    let telemetry = up::free_address();
    let program = up::program(&scaled.data("up"), telemetry, &scaled.settings);
    let mut up = Up::start(&program, telemetry, QUICK).await.unwrap();
    let (client, hook) = (up.client.clone(), up.hook());
    let first = build_one(&mut up).await;

    disk.fill().unwrap();
    let (kept, mut refused) = push_until_refused(&mut up, first, 10).await;
    // With `appendfsync always` Redis exits if it cannot write; a service manager would restart it.
    redis.ends(WITHIN).await.unwrap();
    let began = Instant::now();
    while up.ready().await.unwrap().0 {
        assert!(began.elapsed() < WITHIN, "it says that it is ready");
    }

    disk.free().unwrap();
    redis.start_again().await.unwrap();
    let back = Instant::now();
    let mut moved = up.push().unwrap();
    moved.send(&client, &hook).await.unwrap();
    let taken_after = back.elapsed();
    for push in &mut refused {
        push.send(&client, &hook).await.unwrap();
    }
    up.until_run_is(&moved, "Succeeded").await.unwrap();
    println!(
        "hooks were taken {taken_after:?} after Redis was back, the run was built after {:?}",
        back.elapsed()
    );
    all_are_kept(&up, kept.iter().chain(&refused)).await;
}

/// A file of this many MiB that no compression makes smaller.
fn noise(mebibytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; mebibytes << 20];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// Sends a push and waits until it is built.
async fn build_one(up: &mut Up) -> Delivery {
    let (client, hook) = (up.client.clone(), up.hook());
    let mut push = up.push().unwrap();
    assert_eq!(push.ask(&client, &hook).await.unwrap(), Some(StatusCode::ACCEPTED));
    up.until_run_is(&push, "Succeeded").await.unwrap();
    push
}

/// Sends pushes until `times` of them were answered 503. Returns the accepted ones, beginning with `first`, and the
/// refused ones.
async fn push_until_refused(
    up: &mut Up,
    first: Delivery,
    times: usize,
) -> (Vec<Delivery>, Vec<Delivery>) {
    let (client, hook) = (up.client.clone(), up.hook());
    let (mut kept, mut refused) = (vec![first], Vec::new());
    while refused.len() < times {
        assert!(kept.len() < PUSHES, "everything is taken on a full disk");
        let mut push = up.idle_push();
        let answer = push.ask(&client, &hook).await.unwrap();
        assert!(answer.is_some(), "no answer\n{}", up.installation.last_words());
        match answer {
            Some(StatusCode::SERVICE_UNAVAILABLE) => refused.push(push),
            _ => kept.push(push),
        }
    }
    (kept, refused)
}

async fn all_are_kept(up: &Up, pushes: impl IntoIterator<Item = &Delivery>) {
    for push in pushes {
        let path = format!("hooks/{}/deliveries/{}", up.hook().id, push.id);
        up.client.get::<DeliveryDetails>(&path).await.unwrap();
    }
}

mod slow {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_under_the_mirrors_is_cleared_of_them_and_fails_no_run() {
        super::fill_the_mirrors_disk().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_under_the_objects_holds_logs_back_and_refuses_uploads() {
        super::fill_the_objects_disk().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_under_redis_costs_no_delivery() {
        super::fill_the_redis_disk().await;
    }
}

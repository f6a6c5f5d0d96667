//! The engine of `gantry up` is killed, terminated or paused during a build or push, or its disk is full: this is never
//! the user's failure, and nothing is left behind.

use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptions, ListVolumesOptions,
};
use gantry_tests::engine_images::images_with;
use gantry_tests::faulty_registry::{Fault, FaultyRegistry};
use gantry_tests::git_server::{GitServer, TestRepository};
use gantry_tests::on_each_engine;
use gantry_tests::own_engine::{OwnEngine, shell};
use gantry_tests::pulled::PulledImage;
use gantry_tests::real::{self, Engine};

use crate::service::{Gantry, text, unique};

on_each_engine! {
    slow on the default engine:
    a_build_whose_engine_is_killed_is_tried_again_and_leaves_nothing,
    a_build_whose_engine_is_asked_to_end_is_tried_again_and_leaves_nothing,
    an_engine_that_hangs_is_waited_for_and_given_up_in_time,
    a_push_with_a_killed_engine_is_retried_and_leaves_nothing,
    a_build_on_a_full_disk_succeeds_once_there_is_space,
}

/// The time limit for anything on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// A running build on a private engine.
struct Building {
    engine: OwnEngine,
    gantry: Gantry,
    _git: GitServer,
    repository: TestRepository,
    run: String,
    /// A word in the command of the step.
    mark: String,
}

impl Building {
    /// Starts a build whose step takes this many seconds.
    async fn start(name: &str, on: Engine, seconds: u32) -> Self {
        let (engine, git) =
            (OwnEngine::start(name, on.dockerd(), None).await, GitServer::start().await.unwrap());
        let mut gantry = Gantry::installed();
        gantry.start(&format!("unix://{}", engine.socket().display())).await;
        gantry.ok(&["registry", "create", "demo", "--login-server", "registry.test"]).await;
        let repository = git.repository("app").unwrap();
        std::fs::write(repository.work().join("sh"), shell()).unwrap();
        let mark = unique("mark");
        commit(&repository, &mark, seconds);
        let context = format!("{}#main", git.url("app"));
        let queued = gantry.json(&["build", &context, "--no-push", "--no-wait"]).await;
        let run = queued["id"].as_str().unwrap().to_owned();
        let building = Self { engine, gantry, _git: git, repository, run, mark };
        building.until("begin its step", || building.is_running()).await;
        building
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + WITHIN;
        while !holds() {
            assert!(Instant::now() < deadline, "it does not {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn is_running(&self) -> bool {
        std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            command.starts_with(b"/bin/sh\0")
                && String::from_utf8_lossy(&command).contains(&self.mark)
        })
    }

    async fn shown(&self) -> serde_json::Value {
        self.gantry.json(&["runs", "show", &self.run]).await
    }

    /// Follows the run to its end, and checks that it succeeded.
    async fn succeeds(&self) -> serde_json::Value {
        let followed = self.gantry.run(&["logs", &self.run, "--follow"]).await;
        assert_eq!(followed.status.code(), Some(0), "{}", text(&followed));
        self.shown().await
    }

    /// Checks that nothing of any build is left in the engine or as a process.
    async fn is_clean(&self) {
        is_clean(&self.engine, || self.is_running()).await;
    }
}

/// Waits until nothing of any build is left in an engine, and no process of a step.
async fn is_clean(engine: &OwnEngine, is_running: impl Fn() -> bool) {
    let socket = engine.socket().display().to_string();
    let engine = Docker::connect_with_unix(&socket, 20, bollard::API_DEFAULT_VERSION).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let all = ListContainersOptionsBuilder::default().all(true).build();
        let mut left: Vec<String> = Vec::new();
        let containers = engine.list_containers(Some(all)).await.unwrap();
        left.extend(containers.iter().map(|one| format!("container {:?}", one.names)));
        left.extend(images_with(&engine, &[]).await.unwrap());
        let volumes = engine.list_volumes(None::<ListVolumesOptions>).await.unwrap();
        left.extend(volumes.volumes.iter().flatten().map(|one| format!("volume {}", one.name)));
        let networks = engine.list_networks(None::<ListNetworksOptions>).await.unwrap();
        let names = networks.into_iter().filter_map(|one| one.name);
        let own = |name: &String| !["bridge", "host", "none"].contains(&name.as_str());
        left.extend(names.filter(own).map(|name| format!("network {name}")));
        left.extend(is_running().then(|| "a step's process".to_owned()));
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "it leaves {left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn commit(repository: &TestRepository, mark: &str, seconds: u32) {
    let dockerfile = format!(
        "FROM scratch\nCOPY --chmod=755 sh /bin/sh\nRUN : {mark}; /bin/sh -c 'sleep {seconds}; : {mark}'; echo at last\n"
    );
    repository.commit("main", &[("Dockerfile", &dockerfile)]).unwrap();
}

/// The ends of a run's attempts, as shown to operators.
fn ends(run: &serde_json::Value) -> Vec<String> {
    let attempts = run["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| attempt.to_string()).collect()
}

async fn ends_in_the_middle(on: Engine, signal: &str) {
    let mut building = Building::start(&signal.to_lowercase(), on, 3600).await;
    building.engine.end(signal);
    // The next attempt builds the then current commit.
    commit(&building.repository, &building.mark, 0);
    building.engine.start_again().await;
    let run = building.succeeds().await;
    let ends = ends(&run);
    assert_eq!(ends.len(), 2, "{run:#}");
    assert!(
        ends[0].contains("engine_unavailable") || ends[0].contains("does not answer"),
        "{run:#}"
    );
    assert_eq!(run["status"], "Succeeded");
    building.is_clean().await;
}

async fn a_build_whose_engine_is_killed_is_tried_again_and_leaves_nothing(on: Engine) {
    ends_in_the_middle(on, "KILL").await;
}

async fn a_build_whose_engine_is_asked_to_end_is_tried_again_and_leaves_nothing(on: Engine) {
    ends_in_the_middle(on, "TERM").await;
}

/// A short pause of the engine only delays the build. With `GANTRY_ENGINE_STOPPED` seconds of more than 40, the attempt
/// fails and is retried.
#[allow(clippy::disallowed_methods, reason = "how long is asked of whoever runs it")]
async fn an_engine_that_hangs_is_waited_for_and_given_up_in_time(on: Engine) {
    let stopped = std::env::var("GANTRY_ENGINE_STOPPED").ok().and_then(|time| time.parse().ok());
    let stopped = Duration::from_secs(stopped.unwrap_or(3));
    let building = Building::start("stop", on, 2).await;
    building.engine.signal("STOP");
    let began = Instant::now();
    while began.elapsed() < stopped {
        let run = building.shown().await;
        if ends(&run).len() > 1 || run["status"] != "Running" {
            eprintln!("given up after {:?}: {run:#}", began.elapsed());
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let is_given_up = building.shown().await["status"] != "Running";
    assert_eq!(is_given_up, stopped > Duration::from_secs(50), "after {:?}", began.elapsed());
    building.engine.signal("CONT");
    let run = building.succeeds().await;
    assert_eq!(ends(&run).len(), if is_given_up { 2 } else { 1 }, "{run:#}");
    building.is_clean().await;
}

async fn a_push_with_a_killed_engine_is_retried_and_leaves_nothing(on: Engine) {
    let mut engine = OwnEngine::start_without_steps("push", on.dockerd()).await;
    let registry = FaultyRegistry::start(&real::registry()).await.unwrap();
    // The engine waits for the answer to its first layer.
    registry.plan(1, "POST", "/blobs/uploads/", Fault::Silence);
    let mut gantry = Gantry::installed();
    gantry.start(&format!("unix://{}", engine.socket().display())).await;
    gantry.ok(&["registry", "create", "demo", "--login-server", &registry.host()]).await;
    let (context, repository) =
        (gantry.context("app", "FROM scratch\nCOPY Dockerfile /\n"), unique("app"));
    let image = format!("{repository}:latest");
    let queued = gantry.json(&["build", &context, "-t", &image, "--no-wait"]).await;
    let deadline = Instant::now() + WITHIN;
    while !registry.is_done() {
        assert!(Instant::now() < deadline, "it does not push");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    engine.end("KILL");
    engine.start_again().await;
    let id = queued["id"].as_str().unwrap();
    let followed = gantry.run(&["logs", id, "--follow"]).await;
    assert_eq!(followed.status.code(), Some(0), "{}", text(&followed));
    let run = gantry.json(&["runs", "show", id]).await;
    assert_eq!(ends(&run).len(), 2, "{run:#}");
    let pushed =
        PulledImage::find(&format!("{}/{image}", real::registry())).await.unwrap().unwrap();
    assert_eq!(run["images"][0]["digest"], pushed.digest, "{run:#}");
    assert!(pushed.file("Dockerfile").await.unwrap().starts_with("FROM scratch"));
    is_clean(&engine, || false).await;
}

async fn a_build_on_a_full_disk_succeeds_once_there_is_space(on: Engine) {
    let engine = OwnEngine::start("room", on.dockerd(), Some(64)).await;
    let mut gantry = Gantry::installed();
    gantry.start(&format!("unix://{}", engine.socket().display())).await;
    gantry.ok(&["registry", "create", "demo", "--login-server", "registry.test"]).await;
    let context = gantry.context("app", "FROM scratch\nCOPY big /\n");
    std::fs::write(format!("{context}/big"), vec![b'x'; 1 << 20]).unwrap();
    let full = engine.fill_disk();
    let queued = gantry.json(&["build", &context, "--no-push", "--no-wait"]).await;
    let id = queued["id"].as_str().unwrap();
    let deadline = Instant::now() + WITHIN;
    let mut run = queued.clone();
    while run["attempts"].as_array().is_none_or(|all| all.iter().all(|one| one["end"] == "held")) {
        assert!(Instant::now() < deadline, "its first attempt does not end: {run:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        run = gantry.json(&["runs", "show", id]).await;
    }
    assert!(ends(&run)[0].contains("disk"), "{run:#}");
    assert_eq!(run["status"], "Queued", "{run:#}");
    drop(full);
    let followed = gantry.run(&["logs", id, "--follow"]).await;
    assert_eq!(followed.status.code(), Some(0), "{}", text(&followed));
    is_clean(&engine, || false).await;
}

//! What holds when the engine is killed under its builds, or its disk is full.
//!
//! These tests start and kill an engine of their own, so they need root, `dockerd`, and a static `busybox`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_worker::engine::docker::DockerEngine;
use gantry_worker::engine::{BuildError, BuildEvent, Engine, EngineError, Leftover, LeftoverKind};
use tokio::sync::mpsc;

use crate::docker::is_running;
use crate::rig::{build, context, order, tar, until};

/// A `dockerd` with a network, mounts and a cgroup of its own: nothing of it stays.
struct OwnEngine {
    folder: tempfile::TempDir,
    cgroup: String,
    daemon: Child,
}

impl OwnEngine {
    /// Its disk is the machine's, or one of this many megabytes.
    async fn start(name: &str, disk: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = format!("gantry-test-{name}-{}", std::process::id());
        let daemon = launch(folder.path(), &cgroup, disk);
        let engine = Self { folder, cgroup, daemon };
        engine.until_up().await;
        engine
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    fn client(&self) -> DockerEngine {
        DockerEngine::connect(self.socket().to_str().unwrap()).unwrap()
    }

    async fn until_up(&self) {
        let begun = Instant::now();
        while let Err(error) = self.client().info().await {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(30), "{error}\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the engine by this signal and what it started to help it, but no build step.
    fn end(&mut self, signal: &str) {
        kill(signal, self.daemon.id());
        self.daemon.wait().unwrap();
        // The next one would not start beside it.
        let helper = self.folder.path().join("e/containerd/containerd.pid");
        if let Ok(pid) = std::fs::read_to_string(&helper) {
            kill("KILL", pid.trim().parse().unwrap());
        }
        let _absent = std::fs::remove_file(helper);
        let _absent = std::fs::remove_file(self.folder.path().join("p"));
    }

    async fn start_again(&mut self) {
        self.daemon = launch(self.folder.path(), &self.cgroup, None);
        self.until_up().await;
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.end("TERM");
        for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            remove_groups(&controller.path().join(&self.cgroup));
        }
        remove_groups(&Path::new("/sys/fs/cgroup").join(&self.cgroup));
    }
}

fn launch(folder: &Path, cgroup: &str, disk: Option<u32>) -> Child {
    let folder = folder.display();
    let data = format!("{folder}/d");
    std::fs::create_dir_all(&data).unwrap();
    let mount = disk.map(|size| format!("mount -t tmpfs -o size={size}m disk {data} && "));
    let dockerd = format!(
        "{}exec dockerd --cgroup-parent /{cgroup} --data-root {data} --exec-root {folder}/e \
         --pidfile {folder}/p --host unix://{folder}/s 2>{folder}/log",
        mount.unwrap_or_default(),
    );
    // Its rules and mounts are its own and go with it; a second engine would undo those of the machine's.
    Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &dockerd])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdout(Stdio::null())
        .spawn()
        .expect("`unshare` to start `dockerd`")
}

fn kill(signal: &str, pid: u32) {
    let _gone = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
}

/// Ends what is in the cgroup still, after a test that failed, and removes it.
fn remove_groups(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    for pid in std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().lines() {
        kill("KILL", pid.parse().unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    let _absent = std::fs::remove_dir(folder);
}

fn shell() -> Vec<u8> {
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok());
    tar(&[("sh", &busybox.expect("a static busybox"))])
}

async fn processes(engine: &DockerEngine) -> Vec<Leftover> {
    let mut found = engine.leftovers("nobody").await.unwrap();
    found.retain(|leftover| leftover.kind == LeftoverKind::BuildProcess);
    found
}

#[tokio::test]
async fn a_killed_engine_fails_its_build_and_the_process_it_left_is_found_and_ended() {
    let mut own = OwnEngine::start("killed", None).await;
    for (signal, mark) in [("KILL", "86001"), ("TERM", "86002")] {
        let engine = own.client();
        let order = order(
            "registry.test",
            &format!(
                "FROM scratch\nCOPY --chmod=755 sh /bin/sh\nRUN echo waiting; /bin/sh -c 'sleep {mark}'; exit 3\n"
            ),
        );
        let (events, mut heard) = mpsc::channel(16);
        let building = tokio::spawn({
            let engine = engine.clone();
            async move { engine.build(order, context(shell()), events).await }
        });
        while let Some(event) = heard.recv().await {
            if matches!(event, BuildEvent::Output { bytes, .. } if bytes.starts_with(b"waiting")) {
                break;
            }
        }
        until("the step to run", || is_running(mark)).await;
        assert_eq!(processes(&engine).await, [], "a build that goes on left nothing");

        own.end(signal);
        let error = building.await.unwrap().unwrap_err();
        assert!(
            matches!(error, BuildError::Engine(EngineError::Unreachable { .. })),
            "{signal}: {error:?}"
        );

        own.start_again().await;
        let left = processes(&engine).await;
        assert!(is_running(mark), "what the engine does not end itself is what this is about");
        let [leftover] = left.as_slice() else { panic!("{signal}: {left:?}") };
        engine.remove(leftover).await.unwrap();
        engine.remove(leftover).await.unwrap();
        assert!(!is_running(mark));
        assert_eq!(processes(&engine).await, []);
    }
}

#[tokio::test]
async fn a_full_disk_of_the_engine_is_told_as_such() {
    let own = OwnEngine::start("full", Some(64)).await;
    let big = tar(&[("big", &vec![b'x'; 40_000_000])]);
    // Its archive has room, and then the files in it have none.
    let order = order("registry.test", "FROM scratch\nCOPY big /\n");
    let error = build(&own.client(), order, context(big)).await.0.unwrap_err();
    assert!(matches!(error, BuildError::DiskFull { .. }), "{error:?}");
    assert!(error.is_transient());
}

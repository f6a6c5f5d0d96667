//! An engine that a test may kill, stop and restart.
//!
//! Needs root, a `dockerd` and, for builds, a static `busybox`.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};

/// What an engine can connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// Nothing: it has a separate network.
    None,
    /// Whatever this machine can connect to. It cannot run steps, which would need a bridge.
    Machine,
}

/// The program of an engine.
#[derive(Debug, Clone, Copy)]
pub enum Dockerd {
    /// `dockerd`, or the one in `GANTRY_TEST_DOCKERD`.
    Default,
    /// The one in `GANTRY_TEST_CONTAINERD_DOCKERD`, with the containerd image store.
    Containerd,
}

/// A `dockerd` with a separate network, mount namespace and cgroup, so that nothing of it remains.
///
/// Its network only has a loopback device. Port 80 on it also replaces Docker Hub: see [`OwnEngine::listen`].
#[derive(Debug)]
pub struct OwnEngine {
    folder: tempfile::TempDir,
    cgroup: String,
    network: Network,
    program: Dockerd,
    daemon: Child,
}

impl OwnEngine {
    /// Starts an engine. Its disk is the machine's, or has this many megabytes. It cannot connect to other machines.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(name: &str, program: Dockerd, disk: Option<u32>) -> Self {
        Self::start_on(name, program, disk, Network::None).await
    }

    /// Starts an engine that can connect to this machine's registries, but cannot run steps.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_without_steps(name: &str, program: Dockerd) -> Self {
        Self::start_on(name, program, None, Network::Machine).await
    }

    async fn start_on(name: &str, program: Dockerd, disk: Option<u32>, network: Network) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = format!("gantry-test-{name}-{program:?}-{}", std::process::id());
        let daemon = launch(folder.path(), &cgroup, program, disk, network);
        let engine = Self { folder, cgroup, network, program, daemon };
        engine.until_up().await;
        engine
    }

    /// Fills its disk until the guard is dropped.
    ///
    /// # Panics
    /// If its disk is the machine's.
    #[must_use]
    pub fn fill_disk(&self) -> FullDisk {
        let data = self.folder.path().join("d");
        // Its mounts are visible through its process.
        let data = data.strip_prefix("/").unwrap();
        let filler =
            Path::new(&format!("/proc/{}/root", self.daemon.id())).join(data).join("filler");
        let mut file = File::create(&filler).unwrap();
        let full = std::iter::repeat_with(|| file.write_all(&[b'x'; 1 << 16]))
            .take(1 << 14)
            .find_map(Result::err);
        let full = full.expect("a disk of its own, of less than a gigabyte");
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        FullDisk(filler)
    }

    /// The path of its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Listens on port 80 of the engine's loopback device.
    ///
    /// # Panics
    /// If the engine has ended, or the port is in use.
    #[must_use]
    pub fn listen(&self) -> TcpListener {
        let network = File::open(format!("/proc/{}/ns/net", self.daemon.id())).unwrap();
        // A socket belongs to the network namespace in which it was created, so only this thread has to enter it.
        let bind = move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            std::net::TcpListener::bind("127.0.0.1:80").unwrap()
        };
        let listener = std::thread::spawn(bind).join().unwrap();
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    }

    async fn until_up(&self) {
        let begun = Instant::now();
        while !self.answers().await {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not come up\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn answers(&self) -> bool {
        let asked = async {
            let mut stream = UnixStream::connect(self.socket()).await?;
            stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        asked.await.is_ok_and(|answer| answer.ends_with("OK"))
    }

    /// Ends the engine and its helper process with this signal, but no build step.
    ///
    /// # Panics
    /// If it does not end.
    pub fn end(&mut self, signal: &str) {
        kill(signal, self.daemon.id());
        self.daemon.wait().unwrap();
        // A new engine would not start while it runs.
        let helper = self.folder.path().join("e/containerd/containerd.pid");
        if let Ok(pid) = std::fs::read_to_string(&helper) {
            kill("KILL", pid.trim().parse().unwrap());
        }
        let _absent = std::fs::remove_file(helper);
        let _absent = std::fs::remove_file(self.folder.path().join("p"));
    }

    /// Sends a signal to the engine, such as `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) {
        kill(signal, self.daemon.id());
    }

    /// Restarts the engine with its data.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_again(&mut self) {
        self.daemon = launch(self.folder.path(), &self.cgroup, self.program, None, self.network);
        self.until_up().await;
    }
}

/// A file that fills the disk.
#[derive(Debug)]
pub struct FullDisk(PathBuf);

impl Drop for FullDisk {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
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

fn launch(
    folder: &Path,
    cgroup: &str,
    program: Dockerd,
    disk: Option<u32>,
    network: Network,
) -> Child {
    let folder = folder.display();
    let data = format!("{folder}/d");
    std::fs::create_dir_all(&data).unwrap();
    let mount = disk.map(|size| format!("mount -t tmpfs -o size={size}m disk {data} && "));
    let (space, lo, network): (&[&str], _, _) = match network {
        Network::None => {
            (&["--net", "--mount"], "ip link set lo up && ", "--registry-mirror http://127.0.0.1 ")
        }
        Network::Machine => {
            (&["--mount"], "", "--bridge=none --iptables=false --ip-forward=false ")
        }
    };
    let dockerd = format!(
        "{}{lo}exec {} {network}--cgroup-parent /{cgroup} --data-root {data} --exec-root {folder}/e \
         --pidfile {folder}/p --host unix://{folder}/s 2>{folder}/log",
        mount.unwrap_or_default(),
        program.path(),
    );
    // In a separate namespace, because a second engine would otherwise change the machine's firewall rules and mounts.
    Command::new("unshare")
        .args(space)
        .args(["sh", "-c", &dockerd])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdout(Stdio::null())
        .spawn()
        .expect("`unshare` to start `dockerd`")
}

impl Dockerd {
    #[allow(clippy::disallowed_methods, reason = "the environment says which engine the tests use")]
    fn path(self) -> String {
        match self {
            Self::Default => {
                std::env::var("GANTRY_TEST_DOCKERD").unwrap_or_else(|_| "dockerd".to_owned())
            }
            Self::Containerd => std::env::var("GANTRY_TEST_CONTAINERD_DOCKERD")
                .expect("GANTRY_TEST_CONTAINERD_DOCKERD to name a program"),
        }
    }
}

fn kill(signal: &str, pid: u32) {
    let _gone = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
}

/// Kills what is left in the cgroup after a failed test, and removes the cgroup.
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

/// A statically linked shell.
///
/// # Panics
/// If this machine has none.
#[must_use]
pub fn shell() -> Vec<u8> {
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok());
    busybox.expect("a static busybox")
}

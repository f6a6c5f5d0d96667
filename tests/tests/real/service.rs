//! `gantry up` and the client as users run them: only the program, its output and its exit codes.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use gantry_tests::git_server::GitServer;
use gantry_tests::real;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::push::{Push, repository};

/// The service and a user's folder on one machine.
pub(crate) struct Gantry {
    pub(crate) folder: TempDir,
    /// The same at each start, so that the client finds it again.
    listen: String,
    up: Option<Up>,
}

struct Up {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    words: String,
}

impl Gantry {
    /// Installed, but not running.
    pub(crate) fn installed() -> Self {
        // It was free a moment ago; other tests choose other ports.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), listen: free.to_string(), up: None }
    }

    /// Running on the real engine, with the real registry as `demo`.
    pub(crate) async fn up() -> Self {
        let mut gantry = Self::installed();
        gantry.start(&real::docker_host()).await;
        gantry.ok(&["registry", "create", "demo", "--login-server", &real::registry()]).await;
        gantry
    }

    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(gantry_program());
        command
            .env_clear()
            // Only git can be found, in particular no `docker`.
            .env("PATH", "/nonexistent")
            .env("HOME", self.folder.path())
            .env("GANTRY_CONFIG", self.folder.path().join("client.toml"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn start(&mut self, docker_host: &str) {
        self.start_with(docker_host, &[]).await;
    }

    /// Starts with settings, like `images.interval=30s`.
    pub(crate) async fn start_with(&mut self, docker_host: &str, settings: &[&str]) {
        let allow = format!("127.0.0.1,http://{}", real::registry());
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let mut child = self
            .program()
            .args(["up", "--data", "data", "--listen", &self.listen])
            .args(settings)
            .env("DOCKER_HOST", docker_host)
            .env("GANTRY_OUTBOUND_ALLOW", allow)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut words = String::new();
        while let Some(line) = said.next_line().await.unwrap() {
            words.push_str(&line);
            words.push('\n');
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        assert!(words.contains("is up"), "{words}");
        self.up = Some(Up { child, said, words });
    }

    /// Sends SIGTERM, as an init system does, and waits for the end.
    pub(crate) async fn stop(&mut self) {
        let mut up = self.up.take().unwrap();
        let pid = up.child.id().unwrap().to_string();
        Command::new("/bin/kill").args(["-TERM", &pid]).status().await.unwrap();
        while up.said.next_line().await.unwrap().is_some() {}
        assert!(up.child.wait().await.unwrap().success());
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        self.program().args(arguments).output().await.unwrap()
    }

    pub(crate) async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "gantry {arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        serde_json::from_str(&self.ok(&all).await).unwrap()
    }

    /// A folder with a Dockerfile on the base image.
    pub(crate) fn context(&self, name: &str, dockerfile: &str) -> String {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let dockerfile = dockerfile.replace("BASE", &real::base_image());
        std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
        folder.to_str().unwrap().to_owned()
    }
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn gantry_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("gantry");
    assert!(program.exists(), "{} is not built: `cargo build -p gantry`", program.display());
    program
}

pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", gantry_ops::secret::random_hex::<6>().unwrap().as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_push_becomes_an_image_with_its_commit() {
    let gantry = Gantry::up().await;
    let git = GitServer::start().await.unwrap();
    let name = unique("web");
    let (repository, first) = repository(&git, &name, &real::base_image());
    let image = format!("{name}:{{{{.Run.ID}}}}");
    let context = format!("{}#main", git.url(&name));
    gantry
        .ok(&["task", "create", "-n", "web", "-t", &image, "-c", &context, "-f", "Dockerfile"])
        .await;
    let hook = gantry
        .json(&["hook", "create", "--provider", "github", "--repository", &git.url(&name)])
        .await;
    let url = hook["url"].as_str().unwrap();
    gantry.ok(&["hook", "test", url.rsplit('/').next().unwrap()]).await;

    let second = repository.commit("main", &[("file", "changed")]).unwrap();
    let push = Push { git: &git, name: &name, before: &first, after: &second };
    assert_eq!(push.deliver(&hook, "72d3162e-cc78-11e3-81ab-4c9367dc0958").await, 202);

    let log = gantry.run(&["logs", "--task", "web", "--follow"]).await;
    assert!(text(&log).contains("it is built"), "{}", text(&log));
    let runs = gantry.json(&["task", "list-runs", "-n", "web"]).await;
    let run = &runs.as_array().or_else(|| runs["runs"].as_array()).unwrap()[0];
    assert_eq!(
        (run["status"].as_str(), run["commit"].as_str()),
        (Some("Succeeded"), Some(second.as_str()))
    );
    let delivery = gantry.ok(&["delivery", "list"]).await;
    assert!(delivery.contains("72d3162e-cc78-11e3-81ab-4c9367dc0958"), "{delivery}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_report_the_outcome_of_a_build() {
    let gantry = Gantry::up().await;
    let name = unique("codes");
    let good = gantry.context("good", "FROM BASE\nRUN true\n");
    assert_eq!(gantry.run(&["build", &good, "-t", &name]).await.status.code(), Some(0));

    let bad = gantry.context("bad", "FROM BASE\nRUN echo about to fail; exit 42\n");
    let failed = gantry.run(&["build", &bad, "-t", &name]).await;
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
    assert!(text(&failed).contains("exit code 42") && text(&failed).contains("about to fail"));

    let usage = gantry.run(&["build", &good, "-t", "No:Such:Name"]).await;
    assert_eq!(usage.status.code(), Some(2), "{}", text(&usage));

    let slow = gantry.context("slow", "FROM BASE\nRUN sleep 600\n");
    let timeout = gantry.run(&["build", &slow, "-t", &name, "--timeout", "2"]).await;
    assert_eq!(timeout.status.code(), Some(4), "{}", text(&timeout));

    let nowhere = gantry
        .program()
        .args(["runs", "list"])
        .env("GANTRY_CONFIG", "none.toml")
        .output()
        .await
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(2), "{}", text(&nowhere));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_removes_the_step_s_process_within_two_seconds() {
    let gantry = Gantry::up().await;
    let seconds = format!(
        "9{}",
        &gantry_ops::secret::random_hex::<4>()
            .unwrap()
            .bytes()
            .map(|b| char::from(b'0' + b % 10))
            .collect::<String>()[..6]
    );
    let slow = gantry.context("slow", &format!("FROM BASE\nRUN sleep {seconds}\n"));
    let queued = gantry.json(&["build", &slow, "-t", &unique("slow"), "--no-wait"]).await;
    let run = queued["id"].as_str().or_else(|| queued["run"].as_str()).unwrap().to_owned();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_running(&seconds) {
        assert!(Instant::now() < deadline, "the step does not begin");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked = Instant::now();
    gantry.ok(&["cancel", &run]).await;
    while is_running(&seconds) {
        assert!(asked.elapsed() < Duration::from_secs(30), "the step goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let followed = gantry.run(&["logs", &run, "--follow"]).await;
    assert_eq!(followed.status.code(), Some(3), "{}", text(&followed));
}

/// Whether a process on this machine runs `sleep` with this argument.
fn is_running(seconds: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line == format!("sleep\0{seconds}\0").as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_repeated_after_a_restart_of_the_service() {
    let mut gantry = Gantry::up().await;
    let slow = gantry.context("slow", "FROM BASE\nRUN sleep 3; echo done at last\n");
    let queued = gantry.json(&["build", &slow, "-t", &unique("slow"), "--no-wait"]).await;
    let run = queued["id"].as_str().or_else(|| queued["run"].as_str()).unwrap().to_owned();
    let deadline = Instant::now() + Duration::from_secs(30);
    while gantry.json(&["runs", "show", &run]).await["status"] != "Running" {
        assert!(Instant::now() < deadline, "the build does not begin");
    }
    gantry.stop().await;
    gantry.start(&real::docker_host()).await;
    let followed = gantry.run(&["logs", &run, "--follow"]).await;
    assert_eq!(followed.status.code(), Some(0), "{}", text(&followed));
    assert!(text(&followed).contains("done at last"));
    let shown = gantry.json(&["runs", "show", &run]).await;
    assert_eq!(shown["status"], "Succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_the_service_starts_with_advice() {
    let mut gantry = Gantry::installed();
    gantry.start("unix:///nonexistent/docker.sock").await;
    let words = &gantry.up.as_ref().unwrap().words;
    assert!(words.contains("docker.io"), "{words}");
    gantry.ok(&["registry", "create", "demo", "--login-server", &real::registry()]).await;
    let context = gantry.context("app", "FROM BASE\n");
    gantry.ok(&["build", &context, "-t", "x", "--no-wait"]).await;
    let status = gantry.run(&["status"]).await;
    assert!(text(&status).contains("does not answer"), "{}", text(&status));
}

#[tokio::test]
async fn all_wrong_settings_are_reported_before_a_port_is_bound() {
    let gantry = Gantry::installed();
    let refused = gantry
        .program()
        .args(["up", "--data", "data"])
        .env("GANTRY_SERVER_LISTEN", "nowhere")
        .env("GANTRY_LEASE_DURATION", "soon")
        .env("GANTRY_NO_SUCH_SETTING", "1")
        .output()
        .await
        .unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    for mistake in ["nowhere", "soon", "GANTRY_NO_SUCH_SETTING"] {
        assert!(text(&refused).contains(mistake), "{}", text(&refused));
    }
    assert!(!gantry.folder.path().join("data").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_has_one_service() {
    let gantry = Gantry::up().await;
    let second = gantry
        .program()
        .args(["up", "--data", "data", "--listen", "127.0.0.1:0"])
        .output()
        .await
        .unwrap();
    assert!(!second.status.success());
    let pid = gantry.up.as_ref().unwrap().child.id().unwrap().to_string();
    assert!(text(&second).contains(&pid), "{}", text(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_neither_in_the_data_folder_nor_in_the_output() {
    let mut gantry = Gantry::up().await;
    let canary = unique("canary");
    let context = gantry.context("app", "FROM BASE\nARG TOKEN\nRUN echo it is $TOKEN\n");
    let built = gantry
        .program()
        .args(["build", &context, "-t", &unique("secret"), "--secret-build-arg", "TOKEN"])
        .env("TOKEN", &canary)
        .output()
        .await
        .unwrap();
    assert!(built.status.success(), "{}", text(&built));
    assert!(
        text(&built).contains("it is ***") && !text(&built).contains(&canary),
        "{}",
        text(&built)
    );
    gantry.stop().await;
    let mut folders = vec![gantry.folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if contains(&entry.path(), &canary) {
                panic!("{} has the secret in it", entry.path().display());
            }
        }
    }
}

fn contains(file: &Path, needle: &str) -> bool {
    let bytes = std::fs::read(file).unwrap_or_default();
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

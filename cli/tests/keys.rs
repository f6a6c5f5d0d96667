//! The service's keys from the operator's side: the program itself, on a data folder.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that cannot be done has failed"
)]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A working folder that contains a data folder.
struct TestFolder {
    folder: TempDir,
}

impl TestFolder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key(&self) -> PathBuf {
        self.path("data").join("secret.key")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
        command.current_dir(self.folder.path()).args(words).stdin(Stdio::null());
        command.env_clear().env("GANTRY_CONFIG", self.path("client.toml"));
        command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
        command
    }

    /// The output of a command, which must succeed.
    fn does(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The error of a command, which must fail with exit code 1.
    fn is_refused(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", errors(&output));
        errors(&output)
    }

    /// Starts `gantry up` on the data folder, and stops it.
    fn starts(&self) {
        let mut up =
            self.command(&UP).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(up.stdout.take().unwrap()).lines();
        let is_up = said.map_while(Result::ok).any(|line| line.starts_with("Ctrl-C stops it"));
        up.kill().unwrap();
        let ended = up.wait_with_output().unwrap();
        assert!(is_up, "{}", errors(&ended));
    }
}

const UP: [&str; 5] = ["up", "--data", "data", "--listen", "127.0.0.1:0"];

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_key_is_created_once_and_a_pool_key_is_deterministic() {
    let folder = TestFolder::new();
    folder.does(&["secret", "key", "--to", "service.key"]);
    let key = std::fs::read_to_string(folder.path("service.key")).unwrap();
    assert_eq!(mode(&folder.path("service.key")), 0o600);
    let refused = folder.is_refused(&["secret", "key", "--to", "service.key"]);
    assert!(refused.contains("service.key already exists"), "{refused}");
    assert_eq!(std::fs::read_to_string(folder.path("service.key")).unwrap(), key);

    let pool_key = |pool: &str| {
        folder.does(&["secret", "pool-key", pool, "--set", "secrets.key_file=service.key"])
    };
    let printed = pool_key("linux-amd64");
    assert!(printed.contains("\nlinux-amd64 ") && !printed.contains(key.trim()), "{printed}");
    assert_ne!(pool_key("linux-arm64"), printed);
    for _ in 0..2 {
        let to = ["secret", "pool-key", "linux-amd64", "--set", "secrets.key_file=service.key"];
        folder.does(&[&to[..], &["--to", "pool.key"]].concat());
        assert_eq!(std::fs::read_to_string(folder.path("pool.key")).unwrap(), printed);
        assert_eq!(mode(&folder.path("pool.key")), 0o600);
    }
    let to = ["secret", "pool-key", "linux-amd64", "--set", "secrets.key_file=service.key"];
    folder.is_refused(&[&to[..], &["--to", "service.key"]].concat());
    assert_eq!(
        std::fs::read_to_string(folder.path("service.key")).unwrap(),
        key,
        "it is no pool's"
    );
}

#[test]
fn a_wrong_key_stops_the_start_until_everything_is_sealed_with_it() {
    let folder = TestFolder::new();
    folder.starts();
    let old = std::fs::read_to_string(folder.key()).unwrap();
    folder.does(&["secret", "key", "--to", "new.key"]);
    let new = std::fs::read_to_string(folder.path("new.key")).unwrap();

    std::fs::remove_file(folder.key()).unwrap();
    let refused = folder.is_refused(&UP);
    assert!(refused.contains("there is no key file"), "{refused}");
    assert!(!folder.key().exists(), "another key would open nothing");

    std::fs::write(folder.key(), &new).unwrap();
    for command in [&UP[..], &["secret", "rekey", "--data", "data"]] {
        let refused = folder.is_refused(command);
        assert!(refused.contains("secret.key is refused: it lacks key "), "{refused}");
        assert!(refused.contains("put the line of that key back"), "{refused}");
    }

    std::fs::write(folder.key(), format!("{new}{old}")).unwrap();
    let told = folder.does(&["secret", "rekey", "--data", "data"]);
    assert!(told.contains("runs: 0 of 0 sealed anew"), "{told}");
    folder.does(&["secret", "rekey", "--data", "data"]);

    std::fs::write(folder.key(), &old).unwrap();
    folder.is_refused(&UP);
    std::fs::write(folder.key(), &new).unwrap();
    folder.starts();
}

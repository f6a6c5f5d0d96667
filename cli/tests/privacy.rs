//! Files that gantry writes are private to its user, whatever the umask and the folder.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that cannot be done has failed"
)]

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The program with the usual umask, 022.
fn gantry(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 022; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_gantry")]).args(words);
    command.current_dir(folder).stdin(Stdio::null());
    command.env("GANTRY_CONFIG", folder.join("client.toml"));
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    command
}

/// Asserts that no other user can read a folder or anything in it.
fn assert_private(path: &Path) {
    let there = fs::symlink_metadata(path).unwrap();
    assert_eq!(there.mode() & 0o077, 0, "{} has {:o}", path.display(), there.mode());
    if there.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            assert_private(&entry.unwrap().path());
        }
    }
}

/// Starts `gantry up` with its output in a pipe, and stops it once it is ready. Returns its output.
fn up(folder: &Path, more: &[&str]) -> String {
    let words = [&["up", "--data", "data", "--listen", "127.0.0.1:0"], more].concat();
    let mut up =
        gantry(folder, &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(up.stdout.take().unwrap()).lines() {
        said += &line.unwrap();
        said.push('\n');
        if said.contains("Ctrl-C stops it") {
            break;
        }
    }
    up.kill().unwrap();
    let ended = up.wait_with_output().unwrap();
    said + &String::from_utf8_lossy(&ended.stderr)
}

#[test]
fn data_folder_export_and_backup_are_private() {
    let place = TempDir::new().unwrap();
    let folder = place.path();
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    up(folder, &[]);
    assert_private(&data);
    assert!(data.join("work").is_dir());

    // Left by a process with another umask.
    fs::create_dir_all(data.join("objects/logs")).unwrap();
    fs::write(data.join("objects/logs/1"), "text").unwrap();
    fs::set_permissions(data.join("objects/logs/1"), Permissions::from_mode(0o644)).unwrap();
    for (command, to) in [("backup", "copy"), ("export", "moved")] {
        let done =
            gantry(folder, &["store", command, "--to", to, "--data", "data"]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_private(&folder.join(to));
    }
}

#[test]
fn the_admin_token_is_in_no_log_but_in_a_file_of_its_owner() {
    let place = TempDir::new().unwrap();
    for more in [&[][..], &["--new-admin-token"]] {
        let said = up(place.path(), more);
        let path = said.lines().find_map(|line| line.trim().strip_prefix("token    in ")).unwrap();
        let token = fs::read_to_string(path).unwrap();
        assert!(token.starts_with("gantry_"), "{token}");
        assert!(!said.contains(token.trim()), "{said}");
        assert_private(Path::new(path));
    }
}

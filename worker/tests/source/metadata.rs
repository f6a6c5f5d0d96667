//! The metadata of an archive or a commit reaches the engine unchanged, whatever the umask.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use gantry_worker::source::{Checkout, UnpackLimits};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::archives::{archive, entry, file};
use super::{TestSources, at, git_source, soon, sources, sources_with};
use crate::git_server::GitServer;

fn run(program: &str, arguments: &[&str], folder: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _closed_early = writing.join().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

/// Modes, sizes, times, names and targets as listed by GNU tar, and all contents.
fn by_gnu_tar(archive: &[u8]) -> (Vec<String>, Vec<u8>) {
    let folder = TempDir::new().unwrap();
    let listed =
        run("tar", &["-tv", "--full-time", "--numeric-owner", "-f", "-"], folder.path(), archive);
    let lines = String::from_utf8(listed).unwrap();
    let mut lines: Vec<String> =
        lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in &mut lines {
        line.truncate(line.trim_end_matches('/').len());
    }
    lines.sort();
    let contents = run("tar", &["-xO", "--exclude=fifo", "-f", "-"], folder.path(), archive);
    (lines, contents)
}

async fn packed(checkout: &Checkout) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ignore = checkout.ignore(&at("Dockerfile")).unwrap();
    checkout.pack(ignore).read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn through(rig: &TestSources, archive: &[u8]) -> Vec<u8> {
    let archive = std::io::Cursor::new(archive.to_owned());
    packed(&rig.sources.from_archive(archive, soon()).await.unwrap()).await
}

fn write(path: &Path, content: &str, mode: u32) {
    let options = std::fs::OpenOptions::new().write(true).create(true).mode(0o600).to_owned();
    options.open(path).unwrap().write_all(content.as_bytes()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// An entry of every kind that the oldest format supports.
fn entries() -> TempDir {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, mode) in [("a", 0o4755), ("b", 0o2711), ("c", 0o000), ("d", 0o666), ("e", 0o1640)] {
        write(&at(name), name, mode);
    }
    for (name, mode) in [("shared", 0o2775), ("tmp", 0o1777), ("closed", 0o500), ("none", 0o000)] {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::fs::hard_link(at("a"), at("second-name")).unwrap();
    symlink("../outside", at("shared/link")).unwrap();
    symlink("nowhere", at("tmp/broken")).unwrap();
    run("mkfifo", &["-m", "0622", "fifo"], folder.path(), b"");
    folder
}

fn sparse(folder: &Path) {
    let file = std::fs::File::create(folder.join("sparse")).unwrap();
    file.set_len(300_000).unwrap();
    for offset in [8192, 100_000, 299_999] {
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", offset).unwrap();
    }
    // A file with only a hole.
    std::fs::File::create(folder.join("hole")).unwrap().set_len(70_000).unwrap();
}

#[tokio::test]
async fn every_kind_of_entry_in_every_format_is_sent_on_as_gnu_tar_reads_it() {
    let long = format!("{}/{}", "d".repeat(99), "f".repeat(99));
    let very_long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    for (format, options) in [
        ("v7", &[][..]),
        ("ustar", &[]),
        ("oldgnu", &["-S"]),
        ("gnu", &["-S"]),
        ("posix", &["-S", "--sparse-version=0.0"]),
        ("posix", &["-S", "--sparse-version=0.1"]),
        ("posix", &["-S", "--sparse-version=1.0"]),
    ] {
        let folder = entries();
        let inside = |name: &str| folder.path().join(name);
        if format == "v7" {
            std::fs::remove_file(inside("fifo")).unwrap();
        } else {
            std::fs::create_dir_all(inside(&long).parent().unwrap()).unwrap();
            write(&inside(&long), "long", 0o644);
        }
        if !options.is_empty() {
            std::fs::create_dir_all(inside(&very_long).parent().unwrap()).unwrap();
            write(&inside(&very_long), "very long", 0o644);
            symlink(&very_long, inside("far")).unwrap();
            sparse(folder.path());
            run("touch", &["-d", "1960-02-03T04:05:06Z", "d", "tmp"], folder.path(), b"");
        }
        if format == "posix" {
            write(&inside("two\nlines"), "name", 0o644);
            run("touch", &["-d", "1960-02-03T04:05:06.25Z", "e"], folder.path(), b"");
        }
        let format = format!("--format={format}");
        let mut arguments = vec!["-c", "--sort=name", "--owner=0", "--group=0", &format];
        arguments.extend(options.iter().chain(&["-f", "-", "--transform=s,^\\./,,", "."]));
        let original = run("tar", &arguments, folder.path(), b"");
        let limits = UnpackLimits { archive_bytes: 4 << 20, unpacked_bytes: 4 << 20, entries: 100 };
        let sent = through(&sources_with(0, limits), &original).await;
        let (mut expected, contents) = by_gnu_tar(&original);
        expected.retain(|line| !line.ends_with(" ."));
        let (found, found_contents) = by_gnu_tar(&sent);
        assert_eq!(found, expected, "{format} {options:?}");
        assert!(found_contents == contents, "{format} {options:?}");
        assert!(expected.len() >= 12 && expected.iter().any(|line| line.starts_with("-rws")));
    }
}

#[tokio::test]
async fn folders_of_old_archives_are_marked_by_a_slash() {
    let old = archive(&[entry(b'0', "d/", "", ""), entry(0, "e/", "", ""), file("d/f", "x")]);
    let (found, _) = by_gnu_tar(&through(&sources(0), &old).await);
    let kinds: Vec<_> =
        found.iter().map(|line| (&line[..1], line.split(' ').next_back())).collect();
    assert_eq!(kinds, [("-", Some("d/f")), ("d", Some("d")), ("d", Some("e"))]);
}

/// Modes and names of the entries sent for a commit, and for an archive without entries for its folders.
async fn modes() -> Vec<String> {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    write(&repository.work().join("tool"), "x", 0o700);
    repository.commit("main", &[("d/f", "x"), ("Dockerfile", "x")]).unwrap();
    let rig = sources(1 << 30);
    let source = git_source(&server.url("app"));
    let commit = packed(&rig.sources.from_git(&source, None, soon()).await.unwrap()).await;
    let implied = through(&rig, &archive(&[file("a/b/c", "x")])).await;
    let lines = by_gnu_tar(&commit).0.into_iter().chain(by_gnu_tar(&implied).0);
    lines
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            format!("{} {}", words[0], words[5])
        })
        .collect()
}

#[tokio::test]
async fn modes_do_not_depend_on_the_umask() {
    let expected = [
        "-rw-r--r-- Dockerfile",
        "-rw-r--r-- d/f",
        "-rwxr-xr-x tool",
        "drwxr-xr-x d",
        "-rwsr-sr-x a/b/c",
        "drwxr-xr-x a",
        "drwxr-xr-x a/b",
    ];
    assert_eq!(modes().await, expected);
    // The umask belongs to the process, so each umask needs a child process. This argument marks the child.
    if std::env::args().any(|argument| argument == "--color=never") {
        return;
    }
    let program = std::env::current_exe().unwrap();
    for umask in ["000", "022", "027", "077"] {
        let script = format!(
            "umask {umask}; exec \"$0\" --exact metadata::modes_do_not_depend_on_the_umask --color=never"
        );
        let child = Command::new("sh").arg("-c").arg(script).arg(&program).output().unwrap();
        assert!(child.status.success(), "{umask}: {}", String::from_utf8_lossy(&child.stderr));
    }
}

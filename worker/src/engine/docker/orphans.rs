//! Finds the processes of builds that a killed engine left running.
//!
//! A build step is not a container that the engine could list. It is a process group in a cgroup named by the step's
//! id, started by `runc`, which waits for it. When the engine is killed, `runc` dies with it and the step runs for
//! ever, even across restarts of the engine. So a step's processes are orphaned if
//!
//! - their id belongs to this engine: it has a folder `buildkit/executor/<id>` under the engine's data root. Other
//!   engines, a separate buildkitd or one in a container, have theirs elsewhere;
//! - and no `runc` waits for them: the parent of the topmost process is no longer `runc`. A step of a running build
//!   still has its `runc`, whoever started it. So it is never selected, and builds may continue meanwhile.
//!
//! Used only if the engine's data root is a readable folder on this machine.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use gantry_ops::process::kill_if;

/// A killed process is gone at once, unless it hangs in the kernel.
const DEATH: Duration = Duration::from_secs(10);

/// A process of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
}

/// The ids of orphaned steps. Reads `/proc`: blocking.
pub(super) fn find(data_root: &Path) -> Vec<String> {
    let known = steps(data_root);
    if known.is_empty() {
        return Vec::new();
    }
    let running = processes(&known);
    running.into_iter().filter(|(_, processes)| is_orphaned(processes)).map(|(id, _)| id).collect()
}

/// Kills a step's processes if they are still orphaned, and waits until they are gone. Blocking.
pub(super) fn kill(data_root: &Path, id: &str) -> io::Result<()> {
    let known: HashSet<String> = steps(data_root).into_iter().filter(|step| step == id).collect();
    let until = Instant::now() + DEATH;
    loop {
        let running = processes(&known);
        let Some(processes) = running.get(id).filter(|processes| is_orphaned(processes)) else {
            return Ok(());
        };
        for process in processes {
            kill_if(process.pid, || step_of(process.pid).as_deref() == Some(id))?;
        }
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a killed process does not end"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The steps for which the engine has a folder, or had one when it was killed.
fn steps(data_root: &Path) -> HashSet<String> {
    let Ok(entries) = fs::read_dir(data_root.join("buildkit/executor")) else {
        return HashSet::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_step_id(name))
        .collect()
}

/// BuildKit's ids have 25 random base-36 digits; other folders beside them have other names.
fn is_step_id(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn processes(known: &HashSet<String>) -> BTreeMap<String, Vec<Process>> {
    let mut found: BTreeMap<String, Vec<Process>> = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return found };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids {
        let Some(id) = step_of(pid).filter(|id| known.contains(id)) else { continue };
        let Some(parent) = living_parent_of(pid) else { continue };
        found.entry(id).or_default().push(Process { pid, parent });
    }
    found
}

fn step_of(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    step_in(&text).map(str::to_owned)
}

/// The step's id in the content of `/proc/<pid>/cgroup`: `12:pids:/docker/buildkit/ID` with cgroup v1, `0::/…` with v2,
/// and `/system.slice:docker:ID` if systemd manages the cgroups.
fn step_in(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        let last = path.rsplit(['/', ':']).next()?;
        is_step_id(last).then_some(last)
    })
}

fn living_parent_of(pid: i32) -> Option<i32> {
    parent_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The parent in the content of `/proc/<pid>/stat`, its fourth field. The second field is the name in parentheses,
/// which may contain anything. `None` for a zombie, because an init process may take long to reap it.
fn parent_in(stat: &str) -> Option<i32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut words = after_name.split_ascii_whitespace();
    match words.next()? {
        "Z" | "X" => None,
        _ => words.next()?.parse().ok(),
    }
}

fn is_orphaned(processes: &[Process]) -> bool {
    let inside: HashSet<i32> = processes.iter().map(|process| process.pid).collect();
    let mut outer =
        processes.iter().map(|process| process.parent).filter(|pid| !inside.contains(pid));
    outer.all(|parent| parent != 0 && !is_runc(parent))
}

/// A parent with pid 0 is outside of this pid namespace, and counts as waiting.
fn is_runc(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| matches!(name.trim_end(), "runc" | "buildkit-runc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "v8qz3h1c9s0kd7x2m5n4p6r8t";

    #[test]
    fn a_step_is_identified_by_its_cgroup() {
        let v1 =
            format!("12:pids:/docker/buildkit/{ID}\n1:name=systemd:/docker/buildkit/{ID}\n0::/\n");
        let v2 = format!("0::/docker/buildkit/{ID}\n");
        let systemd = format!("0::/system.slice/docker.service/system.slice:docker:{ID}\n");
        for text in [v1, v2, systemd] {
            assert_eq!(step_in(&text), Some(ID), "{text}");
        }
        let container = format!("0::/docker/{}\n", "a".repeat(64));
        assert_eq!(step_in(&container), None);
        assert_eq!(step_in("0::/user.slice\n"), None);
    }

    #[test]
    fn no_process_is_an_orphan_without_known_steps() {
        let empty = tempfile::tempdir().unwrap();
        assert!(find(empty.path()).is_empty());
        fs::create_dir_all(empty.path().join("buildkit/executor").join(ID)).unwrap();
        assert!(find(empty.path()).is_empty());
    }

    #[test]
    fn zombies_are_ignored() {
        assert_eq!(parent_in("42 (a) b) S 7 1 1"), Some(7));
        assert_eq!(parent_in("42 (sleep) Z 7 1 1"), None);
        assert_eq!(parent_in(""), None);
    }

    #[test]
    fn an_invisible_parent_counts_as_waiting() {
        assert!(!is_orphaned(&[Process { pid: 10, parent: 0 }, Process { pid: 11, parent: 10 }]));
        assert!(is_orphaned(&[Process { pid: 10, parent: 1 }, Process { pid: 11, parent: 10 }]));
    }
}

//! Kills git processes that a killed gantry process left running.
//!
//! They are not children of the next process, and a silent host keeps them alive for half a minute, while they write
//! into a mirror that is already in use again. So each git process carries its folder in an environment variable, which
//! its child processes inherit, and the folder's next owner kills processes with that mark. No others have it, since a
//! folder has one owner at a time.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use gantry_ops::process::kill_if;

/// The environment variable with the folder.
pub(super) const MARK: &str = "GANTRY_WORK_FOLDER";

/// A killed process is gone at once, unless it hangs in the kernel.
const DEATH: Duration = Duration::from_secs(10);

/// Kills the processes marked with `folder`, waits until they are gone, and returns how many there were. Reads `/proc`;
/// finds nothing on systems without it. Blocking.
pub(super) fn end(folder: &Path) -> io::Result<usize> {
    let mark = [MARK.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
    let until = Instant::now() + DEATH;
    let mut ended = 0;
    loop {
        // Git may start another process while it is being killed.
        let running = marked(&mark);
        if running.is_empty() {
            return Ok(ended);
        }
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a killed process does not end"));
        }
        ended = ended.max(running.len());
        for pid in running {
            kill_if(pid, || is_marked(pid, &mark))?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn marked(mark: &[u8]) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_marked(*pid, mark)).collect()
}

/// The environment of an ended process, or of another user's process, reads as empty.
fn is_marked(pid: i32, mark: &[u8]) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark)
}

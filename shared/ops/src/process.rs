//! Kills orphaned processes.

use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Kills a process if `is_meant` returns true. A pidfd is opened before the check, because the pid may have been
/// reused. An ended process is ignored, so a second call does nothing.
///
/// # Errors
/// The system's error if it may not be killed.
pub fn kill_if(pid: i32, is_meant: impl FnOnce() -> bool) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    let held = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(held) => held,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !is_meant() {
        return Ok(());
    }
    match pidfd_send_signal(&held, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_killed_only_if_the_check_passes() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        kill_if(pid, || false).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        kill_if(pid, || true).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}

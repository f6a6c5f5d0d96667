//! A small disk: a tmpfs of a few megabytes, visible only to the processes that are started on it.
//!
//! It is in a user and mount namespace that a process holds, so it needs no root, and disappears with that process.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::process::Command;

use crate::installation::Program;
use crate::process::Process;

const START_WITHIN: Duration = Duration::from_secs(10);

/// The name of the file that fills the disk.
const FILLER: &str = "filler";

/// The disk. Dropping it removes it.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Process,
    pid: u32,
    folder: TempDir,
}

impl SmallDisk {
    /// Creates an empty disk of this many megabytes.
    ///
    /// # Errors
    /// This user may not create namespaces: run the tests as root, or allow unprivileged user namespaces.
    pub async fn start(megabytes: u32) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mount = format!(
            "mkdir disk && mount -t tmpfs -o size={megabytes}m disk disk && touch disk/mounted && exec sleep infinity"
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]);
        command.current_dir(folder.path());
        let mut holder = Process::spawn(command, &folder.path().join("log"))?;
        let pid = holder.pid().context("it runs")?;
        let mounted = seen(pid, folder.path()).join("mounted");
        let is_mounted = || std::future::ready(mounted.exists());
        let remedy = "a small disk needs root, or unprivileged user namespaces";
        holder.until("mount", START_WITHIN, is_mounted).await.context(remedy)?;
        std::fs::remove_file(&mounted)?;
        Ok(Self { holder, pid, folder })
    }

    /// The path for processes that are started on it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// The path for all other processes.
    #[must_use]
    pub fn seen(&self) -> PathBuf {
        seen(self.pid, self.folder.path())
    }

    /// The same program, started on this disk.
    #[must_use]
    pub fn holds(&self, program: Program) -> Program {
        let own = [program.path.display().to_string()];
        let mut words = self.enter().into_iter().chain(own).chain(program.arguments);
        let path = words.next().unwrap_or_default().into();
        Program { path, arguments: words.collect(), environment: program.environment }
    }

    /// The command prefix that runs a program on it.
    pub(crate) fn enter(&self) -> Vec<String> {
        let target = self.pid.to_string();
        [
            "/usr/bin/nsenter",
            "--target",
            &target,
            "--user",
            "--mount",
            "--preserve-credentials",
            "--",
        ]
        .map(str::to_owned)
        .into()
    }

    /// Fills the disk. Returns the number of bytes.
    ///
    /// # Errors
    /// The system's error, except that the disk is full.
    pub fn fill(&self) -> Result<u64> {
        let mut file = File::options().create(true).append(true).open(self.seen().join(FILLER))?;
        let mut taken = 0;
        let mut size = 1 << 20;
        while size > 0 {
            match file.write(&vec![b'x'; size]) {
                Ok(length) => taken += length as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => bail!("{error}"),
            }
        }
        Ok(taken)
    }

    /// Frees the disk again.
    ///
    /// # Errors
    /// The disk was not filled.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.seen().join(FILLER))?)
    }

    /// Checks that the disk still exists.
    ///
    /// # Errors
    /// It does not.
    pub fn lives(&mut self) -> Result<()> {
        self.holder.lives()
    }
}

fn seen(holder: u32, folder: &Path) -> PathBuf {
    let inside = folder.join("disk");
    Path::new("/proc")
        .join(holder.to_string())
        .join("root")
        .join(inside.strip_prefix("/").unwrap_or(&inside))
}

//! Servers in separate processes, and the resources that they use.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// The unit of processor times in `/proc`, on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// A folder on the disk with the build, where writes are really durable, unlike in a `tmpfs`.
pub(crate) fn folder() -> Result<TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// The address where it listens.
    pub(crate) address: SocketAddr,
    /// The server's own folder, which is removed with it.
    folder: Option<TempDir>,
}

impl Server {
    /// Starts a program that prints its address as the first line when it is ready. Its log goes to `folder`.
    pub(crate) fn start(mut command: Command, folder: &Path) -> Result<Self> {
        // Several servers may share a folder.
        let log = fs::File::options().create(true).append(true).open(folder.join("log"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        let out = child.stdout.take().context("its output is connected")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let Ok(address) = line.trim().parse() else {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            let _ended = child.kill();
            anyhow::bail!("{command:?} said `{}` instead of its address: {log}", line.trim());
        };
        Ok(Self { child, address, folder: None })
    }

    /// Starts a program that listens at a given address.
    pub(crate) fn start_at(
        mut command: Command,
        address: SocketAddr,
        folder: &Path,
    ) -> Result<Self> {
        let log = fs::File::create(folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        let server = Self { child, address, folder: None };
        for _ in 0..500 {
            if std::net::TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        anyhow::bail!("{command:?} does not listen at {address}")
    }

    /// Removes the folder when the server is dropped.
    pub(crate) fn with(mut self, folder: TempDir) -> Self {
        self.folder = Some(folder);
        self
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Gives a process real-time priority over all other processes.
pub(crate) fn put_first(pid: u32) -> Result<()> {
    let said = Command::new("chrt").args(["-f", "-p", "10", &pid.to_string()]).output()?;
    let why = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "process {pid} is not put first, which takes root: {why}");
    Ok(())
}

/// Restricts a process, and the processes that it starts from now on, to these cores, like `0,2-3`.
pub(crate) fn keep_on(pid: u32, cores: &str) -> Result<()> {
    let said = Command::new("taskset").args(["-pc", cores, &pid.to_string()]).output()?;
    let why = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "process {pid} does not stay on the cores {cores}: {why}");
    Ok(())
}

/// All cores from this one on, as text.
pub(crate) fn cores(from: usize) -> Result<String> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online")?;
    let last = text.trim().rsplit(['-', ',']).next().context("a core is online")?;
    ensure!(from <= last.parse::<usize>()?, "nothing has a core of its own where there is one");
    Ok(format!("{from}-{last}"))
}

/// How long a process's first thread waited for a core, relative to the time in which it was runnable.
pub(crate) fn waited_for_core(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let (ran, waited) = numbers.next().zip(numbers.next()).context("it was scheduled")?;
    let (ran, waited) = (ran?, waited?);
    Ok(waited / (ran + waited).max(1.0))
}

/// The processor time of a process and its ended children.
pub(crate) fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before it may contain any character, even a bracket.
    let (_, fields) = stat.rsplit_once(')').context("it has a name in brackets")?;
    let ticks = fields.split_whitespace().skip(11).take(4).map(str::parse::<u32>);
    let ticks = ticks.collect::<Result<Vec<_>, _>>()?;
    ensure!(ticks.len() == 4, "{stat} has too few fields");
    let ticks: f64 = ticks.into_iter().map(f64::from).sum();
    Ok(Duration::from_secs_f64(ticks / TICKS_A_SECOND))
}

/// The memory of a process, in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// The current resident memory.
    pub(crate) resident: f64,
    /// The peak since [`forget_peak`].
    pub(crate) peak: f64,
}

/// Reads the memory of a process.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mebibytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kibibytes / 1024.0)
    };
    let (resident, peak) = (mebibytes("VmRSS:"), mebibytes("VmHWM:"));
    let (resident, peak) = resident.zip(peak).context("a process has memory")?;
    Ok(Memory { resident, peak })
}

/// Resets the peak.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    Ok(fs::write(Path::new("/proc").join(pid.to_string()).join("clear_refs"), "5")?)
}

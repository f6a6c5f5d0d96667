//! The machine of a measurement, without which figures mean little.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::process;
use crate::samples::Samples;

/// The machine's description.
#[derive(Debug)]
pub(crate) struct Machine {
    date: String,
    commit: String,
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    disk: String,
    sync_us: Samples,
}

impl Machine {
    /// Reads it from the system.
    pub(crate) fn look() -> Result<Self> {
        let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
        let memory = std::fs::read_to_string("/proc/meminfo")?;
        let memory_kib: u64 = field(&memory, "MemTotal").parse().unwrap_or(0);
        let folder = process::folder()?;
        let path = folder.path().to_str().context("a path is text")?;
        Ok(Self {
            date: say(&["date", "--utc", "+%Y-%m-%d %H:%M UTC"]),
            commit: say(&["git", "describe", "--always", "--dirty", "--abbrev=8"]),
            processor: field(&cpus, "model name").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: memory_kib.div_ceil(1 << 20),
            kernel: say(&["uname", "--kernel-release"]),
            disk: say(&["stat", "--file-system", "--format=%T", path]),
            sync_us: sync(&folder.path().join("synced"))?,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, commit {}. {} cores of {}, {} GiB, Linux {}, {}; 4 KiB written and synced: {} µs.",
            self.date,
            self.commit,
            self.cores,
            self.processor,
            self.memory_gib,
            self.kernel,
            self.disk,
            self.sync_us.show(0)
        )
    }
}

/// The minimum cost of a durable write.
fn sync(path: &std::path::Path) -> Result<Samples> {
    let mut file = File::create(path)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Samples::of(times))
}

/// The value after `name:`, without its unit.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    let value = line.split_once(':').map_or("", |(_, value)| value);
    value.trim().trim_end_matches(" kB")
}

/// The output of a program, or `unknown`.
fn say(words: &[&str]) -> String {
    let said = Command::new(words[0]).args(&words[1..]).output();
    let said = said.ok().filter(|said| said.status.success());
    said.map_or_else(
        || "unknown".to_owned(),
        |said| String::from_utf8_lossy(&said.stdout).trim().to_owned(),
    )
}

//! A load generator: many keep-alive connections that each send one webhook after the other.
//!
//! It has one thread, and each request is one write of prepared bytes with a new delivery id. So the sender's processor
//! time is small, and the same for every server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::process;

/// Requests in this time are not counted.
const WARM_UP: Duration = Duration::from_millis(400);

/// The length of a delivery id, which is formatted as a UUID.
const ID_LENGTH: usize = 36;

/// Makes ids unique among all loads of this process.
static NEXT_SENDER: AtomicU64 = AtomicU64::new(1);

/// A prepared request.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    /// Head and body, with space for an id.
    bytes: Vec<u8>,
    id_at: usize,
}

impl Webhook {
    /// A push with this signature to this path.
    pub(crate) fn push(path: &str, signature: &str, body: &[u8]) -> Self {
        let mut bytes = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: GitHub-Hookshot/0000000\r\nAccept: */*\r\n\
             Content-Type: application/json\r\nX-GitHub-Event: push\r\nX-GitHub-Hook-ID: 1\r\n\
             X-Hub-Signature-256: {signature}\r\nContent-Length: {}\r\nX-GitHub-Delivery: ",
            body.len()
        )
        .into_bytes();
        let id_at = bytes.len();
        bytes.resize(id_at + ID_LENGTH, b'0');
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(body);
        Self { bytes, id_at }
    }

    /// The bytes of the request.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sets a delivery id, which looks as random as GitHub's and is unique.
    pub(crate) fn rename(&mut self, sender: u64, number: u64) {
        let (high, low) = (scatter(sender), scatter(sender << 32 | number));
        let id = format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            low >> 32,
            low >> 16 & 0xffff,
            low >> 4 & 0xfff,
            high & 0xfff,
            (low & 0xf) << 44 | high >> 20
        );
        self.bytes[self.id_at..][..ID_LENGTH].copy_from_slice(id.as_bytes());
    }
}

/// Scatters a number; different numbers stay different.
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// The parameters of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Volley {
    /// Concurrent connections.
    pub(crate) connections: u64,
    /// The duration.
    pub(crate) seconds: f64,
    /// The status that every response must have.
    pub(crate) expected: u16,
}

/// The results of a load.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    /// Responses per second.
    pub(crate) rate: f64,
    /// The median response time, in milliseconds.
    pub(crate) p50_ms: f64,
    /// The 99th percentile of the response time, in milliseconds.
    pub(crate) p99_ms: f64,
    /// The processor time per response of each server process, in microseconds.
    pub(crate) processor_us: Vec<f64>,
}

/// Sends load to a server that consists of these `processes`, whose processor time is measured.
///
/// # Errors
/// If a response has another status than the expected one.
pub(crate) fn fire(
    address: SocketAddr,
    processes: &[u32],
    hook: &Webhook,
    volley: Volley,
) -> Result<Answers> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let from = Instant::now() + WARM_UP;
        let until = from + Duration::from_secs_f64(volley.seconds);
        let mut senders = JoinSet::new();
        for _ in 0..volley.connections {
            let hook = hook.clone();
            senders.spawn(send(address, hook, volley.expected, from, until));
        }
        sleep_until(from).await;
        let before = processor_times(processes)?;
        sleep_until(until).await;
        let after = processor_times(processes)?;
        let took =
            after.into_iter().zip(before).map(|(after, before)| after.saturating_sub(before));
        let processor: Vec<Duration> = took.collect();
        let mut times = Vec::new();
        while let Some(sent) = senders.join_next().await {
            times.append(&mut sent??);
        }
        summarise(times, volley, &processor)
    })
}

fn processor_times(processes: &[u32]) -> Result<Vec<Duration>> {
    processes.iter().map(|pid| process::processor_time(*pid)).collect()
}

fn summarise(mut times: Vec<Duration>, volley: Volley, processor: &[Duration]) -> Result<Answers> {
    ensure!(!times.is_empty(), "there was no answer in {} s", volley.seconds);
    times.sort_unstable();
    let count = u32::try_from(times.len())?;
    let milliseconds = |place: usize| times[place].as_secs_f64() * 1e3;
    Ok(Answers {
        rate: f64::from(count) / volley.seconds,
        p50_ms: milliseconds(times.len() / 2),
        p99_ms: milliseconds(times.len() * 99 / 100),
        processor_us: processor
            .iter()
            .map(|time| time.as_secs_f64() * 1e6 / f64::from(count))
            .collect(),
    })
}

/// Sends over one connection; returns the response times after the warm-up.
async fn send(
    address: SocketAddr,
    mut hook: Webhook,
    expected: u16,
    from: Instant,
    until: Instant,
) -> Result<Vec<Duration>> {
    let sender = NEXT_SENDER.fetch_add(1, Ordering::Relaxed);
    let mut connection = Connection::open(address).await?;
    let mut times = Vec::new();
    for number in 0.. {
        hook.rename(sender, number);
        let began = Instant::now();
        let status = connection.exchange(&hook.bytes).await?;
        let ended = Instant::now();
        ensure!(status == expected, "an answer was {status} instead of {expected}");
        if ended >= until {
            break;
        }
        if ended >= from {
            times.push(ended - began);
        }
    }
    Ok(times)
}

/// Sends a number of webhooks, distributed over the connections, and returns when all are answered.
///
/// # Errors
/// If a response has another status than the expected one.
pub(crate) fn send_all(
    address: SocketAddr,
    hook: &Webhook,
    connections: u64,
    count: u64,
    expected: u16,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut senders = JoinSet::new();
        for place in 0..connections {
            let part = count / connections + u64::from(place < count % connections);
            senders.spawn(send_some(address, hook.clone(), part, expected));
        }
        while let Some(sent) = senders.join_next().await {
            sent??;
        }
        Ok(())
    })
}

async fn send_some(
    address: SocketAddr,
    mut hook: Webhook,
    count: u64,
    expected: u16,
) -> Result<()> {
    let sender = NEXT_SENDER.fetch_add(1, Ordering::Relaxed);
    let mut connection = Connection::open(address).await?;
    for number in 0..count {
        hook.rename(sender, number);
        let status = connection.exchange(&hook.bytes).await?;
        ensure!(status == expected, "an answer was {status} instead of {expected}");
    }
    Ok(())
}

/// Sends one webhook, and returns the status.
pub(crate) async fn send_one(address: SocketAddr, hook: &Webhook) -> Result<u16> {
    let mut hook = hook.clone();
    hook.rename(NEXT_SENDER.fetch_add(1, Ordering::Relaxed), 0);
    Connection::open(address).await?.exchange(&hook.bytes).await
}

/// A keep-alive connection.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(4096) })
    }

    /// Sends a request, reads the whole response and returns its status.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        self.read.clear();
        loop {
            let count = self.stream.read_buf(&mut self.read).await?;
            ensure!(count > 0, "the server closed the connection");
            if let Some((status, length)) = parse_answer(&self.read)?
                && self.read.len() >= length
            {
                return Ok(status);
            }
        }
    }
}

/// The status and the length of a response, once its head is complete.
fn parse_answer(bytes: &[u8]) -> Result<Option<(u16, usize)>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head])?;
    let status = text.get(9..12).context("it begins with a status")?.parse()?;
    let body = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    Ok(Some((status, head + 4 + body.unwrap_or(Ok(0))?)))
}

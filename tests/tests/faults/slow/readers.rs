//! A thousand readers of logs that read one byte per second, or nothing.

use std::time::{Duration, Instant};

use gantry_api::Run;
use reqwest::StatusCode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::up::{self, Up, WITHIN};

const READERS: usize = 1000;

/// The output of each step of the build, in bytes: BuildKit truncates the output of a step per second.
const SAID: usize = 180_000;
const STEPS: usize = 2;

/// How many other requests are answered meanwhile.
const ASKED: usize = 100;

/// A connection with small buffers, with its request sent.
async fn ask(address: &str, token: &str, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let head = format!(
        "GET /api/v1/{path} HTTP/1.1\r\nhost: gantry\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_readers_who_do_not_read_keep_nobody_waiting() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let telemetry = up::free_address();
    let program = up::program(&folder.path().join("data"), telemetry, &[]);
    let loud = |step| format!("RUN echo step {step}; yes 'a line of the log' | head -c {SAID}\n");
    let loud = format!(
        "FROM BASE\nCOPY file /file\n{}RUN sleep 600\n",
        (0..STEPS).map(loud).collect::<String>()
    );
    let mut up = Up::start(&program, telemetry, &loud).await.unwrap();
    let (client, hook) = (up.client.clone(), up.hook());
    let mut push = up.push().unwrap();
    push.send(&client, &hook).await.unwrap();
    let run = up.until_run_is(&push, "Running").await.unwrap();
    let log = format!("runs/{}/log", run.id);
    let began = Instant::now();
    while client.text(&log).await.unwrap().len() < STEPS * SAID {
        assert!(began.elapsed() < WITHIN, "{}", up.installation.last_words());
    }

    let pid = up.installation.pid().unwrap();
    let before = resident_mib(pid);
    let (address, token) = client.reached_at().await.unwrap();
    let address = address.trim_start_matches("http://");
    let mut silent = Vec::new();
    let mut slow = tokio::task::JoinSet::new();
    for number in 0..READERS {
        let path = if number % 2 == 0 { log.clone() } else { format!("{log}/events") };
        let mut stream = ask(address, &token, &path).await;
        if number % 4 < 2 {
            silent.push(stream);
            continue;
        }
        slow.spawn(async move {
            while stream.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    let mut hooks = Vec::new();
    let mut reads = Vec::new();
    for _ in 0..ASKED {
        let mut push = up.idle_push();
        let asked = Instant::now();
        assert_eq!(push.ask(&client, &hook).await.unwrap(), Some(StatusCode::ACCEPTED));
        hooks.push(asked.elapsed());
        let asked = Instant::now();
        client.get::<Run>(&format!("runs/{}", run.id)).await.unwrap();
        reads.push(asked.elapsed());
    }
    // A later reader waits for its turn, which comes when readers that do not read are disconnected.
    let began = Instant::now();
    while client.text(&log).await.map_or(0, |text| text.len()) < STEPS * SAID {
        assert!(began.elapsed() < 5 * WITHIN, "{}", up.installation.last_words());
    }
    let read_after = began.elapsed();
    let after = resident_mib(pid);
    hooks.sort_unstable();
    reads.sort_unstable();
    println!(
        "with {READERS} readers: hooks p50 {:?} p99 {:?}, reads p50 {:?} p99 {:?}; a log was read in {read_after:?}; memory {before} to {after} MiB",
        hooks[ASKED / 2],
        hooks[ASKED - 2],
        reads[ASKED / 2],
        reads[ASKED - 2]
    );
    assert!(after < before + 512, "{before} to {after} MiB");
    let still: Run = client.get(&format!("runs/{}", run.id)).await.unwrap();
    assert_eq!((still.status.as_str(), still.attempts.len()), ("Running", 1));
}

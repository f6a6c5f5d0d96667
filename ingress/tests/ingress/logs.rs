//! Logs: complete, from any offset, live.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use gantry_api::LogEvent;
use gantry_domain::attempt::Holder;
use gantry_domain::id::{LeaseNonce, PoolName, RunId, WorkerId};
use gantry_domain::log::{LogFrame, OutputStream};
use gantry_domain::run::{Outcome, Product};
use gantry_domain::step::Steps;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::logs::{self, LogId, Piece};
use gantry_seams::runs::{self, Finish};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::rig::{Answer, TestServer, within};

/// A worker that has leased one run and writes its log.
struct LogWriter<'a> {
    server: &'a TestServer,
    run: RunId,
    holder: Holder,
    offset: u64,
    pieces: Vec<Piece>,
}

impl<'a> LogWriter<'a> {
    async fn take(server: &'a TestServer) -> Self {
        let store = server.store.as_ref();
        let pool: PoolName = "linux-amd64".parse().unwrap();
        let limits = runs::Limits { registry: 8, task: None };
        for run in runs::waiting(store, None, 10).await.unwrap() {
            runs::ready(store, run.id, &"linux-amd64".parse().unwrap(), None, limits)
                .await
                .unwrap();
        }
        let worker: WorkerId = "w1".parse().unwrap();
        let nonce: LeaseNonce = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let lease = Duration::from_secs(60);
        let taken = runs::take(store, &pool, &worker, &nonce, lease).await.unwrap().unwrap();
        Self { server, run: taken.run.id, holder: taken.holder, offset: 0, pieces: Vec::new() }
    }

    fn log(&self) -> LogId {
        LogId { run: self.run, attempt: self.holder.attempt }
    }

    async fn write(&mut self, text: &str) {
        self.write_in("build", text).await;
    }

    async fn write_in(&mut self, step: &str, text: &str) {
        let frame = LogFrame {
            offset: self.offset,
            at: Timestamp::from_millis(0),
            step: step.parse().ok(),
            stream: OutputStream::Stdout,
            text: text.to_owned(),
        };
        let mut lines = serde_json::to_vec(&frame).unwrap();
        lines.push(b'\n');
        let piece = Piece { start: self.offset, end: frame.end(), lines: lines.into() };
        self.offset = frame.end();
        logs::append_tail(self.server.store.as_ref(), self.log(), &piece).await.unwrap();
        self.pieces.push(piece);
    }

    async fn pack(&mut self) {
        let (store, blobs) = (self.server.store.as_ref(), self.server.blobs.as_ref());
        logs::pack_segment(store, blobs, self.log(), &self.pieces).await.unwrap();
        self.pieces.clear();
    }

    async fn finish(self) {
        let outcome = Outcome::Succeeded(Product::default());
        let finish = Finish::Outcome(outcome);
        runs::finish(self.server.store.as_ref(), self.run, &self.holder, finish, &Steps::default())
            .await
            .unwrap();
    }

    async fn vanish(self) {
        runs::lapse_now(self.server.store.as_ref(), self.run).await.unwrap();
    }
}

async fn server_with_run() -> TestServer {
    let server = TestServer::with_registry().await;
    let build = json!({"context": "https://git.test/a.git", "push": false});
    server.post("/registries/contoso/builds", build).await.expect(StatusCode::CREATED);
    server
}

async fn text(server: &TestServer, query: &str) -> String {
    let answer = server.get(&format!("/runs/ca1/log{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.text
}

#[tokio::test]
async fn a_log_is_read_whole_and_from_any_offset() {
    let server = server_with_run().await;
    assert_eq!(text(&server, "").await, "");
    let mut writer = LogWriter::take(&server).await;
    writer.write("one\n").await;
    writer.write("zwö\n").await;
    writer.pack().await;
    writer.write("three\n").await;
    let whole = "one\nzwö\nthree\n";
    assert_eq!(text(&server, "").await, whole);
    for offset in 0..=whole.len() {
        if whole.is_char_boundary(offset) {
            let rest = text(&server, &format!("?attempt=1&offset={offset}")).await;
            assert_eq!(rest, whole[offset..], "{offset}");
        }
    }
    writer.finish().await;
    assert_eq!(text(&server, "").await, whole);
}

#[tokio::test]
async fn lines_of_a_task_file_have_the_names_of_their_steps() {
    let server = TestServer::with_registry().await;
    let run = json!({"task_file": {"text": "steps:\n- cmd: busybox\n"}});
    server.post("/registries/contoso/runs", run).await.expect(StatusCode::CREATED);
    let mut writer = LogWriter::take(&server).await;
    // The run itself writes without a step.
    writer.write_in("", "fetching\n").await;
    writer.write_in("lint", "one\ntwo\n").await;
    writer.write_in("test", "begun ").await;
    writer.write_in("test", "and ended\n\n").await;
    writer.write_in("test", "half of").await;
    writer.write_in("lint", "three\n").await;
    writer.write_in("test", "a line\n").await;
    insta::assert_snapshot!(text(&server, "").await, @r"
    fetching
    lint │ one
    lint │ two
    test │ begun and ended
    test │ 
    test │ half of
    lint │ three
    test │ a line
    ");
}

#[tokio::test]
async fn attempts_are_in_order_and_holes_are_shown() {
    let server = server_with_run().await;
    let mut first = LogWriter::take(&server).await;
    first.write("half of").await;
    first.vanish().await;
    let mut second = LogWriter::take(&server).await;
    second.write("all\n").await;
    second.offset += 100;
    second.write("of it\n").await;
    second.finish().await;
    insta::assert_snapshot!(text(&server, "").await, @r"
    --- attempt 1 ---
    half of
    --- attempt 2 ---
    all
    --- 100 bytes of the log are lost ---
    of it
    ");
    assert_eq!(text(&server, "?attempt=1").await, "half of");
    assert_eq!(text(&server, "?attempt=2&offset=104").await, "of it\n");
}

/// Reads a live log to its end, or until a number of events.
async fn follow(
    server: &TestServer,
    query: &str,
    last_event: Option<&str>,
    most: usize,
) -> Vec<(String, LogEvent)> {
    let mut request =
        server.api(Method::GET, &format!("/runs/ca1/log/events{query}")).bearer_auth(&server.admin);
    if let Some(id) = last_event {
        request = request.header("last-event-id", id);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut stream = response.bytes_stream();
    let mut buffer = Vec::new();
    let mut events = Vec::new();
    while events.len() < most {
        let Some(bytes) = stream.next().await else { break };
        buffer.extend_from_slice(&bytes.unwrap());
        while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            events.extend(parse(std::str::from_utf8(&event).unwrap()));
        }
    }
    events
}

fn parse(event: &str) -> Option<(String, LogEvent)> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    let id = field("id: ").unwrap_or_default().to_owned();
    let name = field("event: ")?;
    Some((id, LogEvent::parse(name, field("data: ")?).unwrap().unwrap()))
}

fn texts(events: &[(String, LogEvent)]) -> String {
    events
        .iter()
        .map(|(_, event)| match event {
            LogEvent::Status(status) => format!("<{}>", status.status),
            LogEvent::Attempt(attempt) => format!("[{}]", attempt.attempt),
            LogEvent::Log(chunk) => chunk.text.clone(),
            LogEvent::Hole(hole) => format!("({} lost)", hole.until - hole.offset),
            LogEvent::End(run) => format!("<<{}>>", run.status),
        })
        .collect()
}

#[tokio::test]
async fn a_hundred_readers_follow_a_whole_log() {
    let server = server_with_run().await;
    let readers = async {
        let early = join_all((0..50).map(|_| follow(&server, "", None, usize::MAX)));
        let late = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            join_all((0..50).map(|_| follow(&server, "", None, usize::MAX))).await
        };
        let (mut early, late) = tokio::join!(early, late);
        early.extend(late);
        early
    };
    let writer = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut writer = LogWriter::take(&server).await;
        for n in 0..200 {
            writer.write(&format!("{n} ")).await;
            if n % 50 == 49 {
                writer.pack().await;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }
        writer.finish().await;
    };
    let (all, ()) = within(async { tokio::join!(readers, writer) }).await;
    let expected: String = (0..200).map(|n| format!("{n} ")).collect();
    for events in all {
        let output: String = events
            .iter()
            .filter_map(|(_, event)| match event {
                LogEvent::Log(chunk) => Some(chunk.text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(output, expected);
        assert!(
            matches!(&events.last().unwrap().1, LogEvent::End(run) if run.status == "Succeeded")
        );
    }
}

#[tokio::test]
async fn a_reader_resumes_at_its_position() {
    let server = server_with_run().await;
    let mut first = LogWriter::take(&server).await;
    first.write("a").await;
    first.write("b").await;
    first.vanish().await;
    let mut second = LogWriter::take(&server).await;
    second.write("c").await;
    let begun = within(follow(&server, "", None, 2)).await;
    assert_eq!(texts(&begun), "[1]a");
    assert_eq!(begun[1].0, "1:1");

    let more = within(follow(&server, "", Some("1:1"), 4)).await;
    assert_eq!(texts(&more), "b[2]c<Started>");
    second.offset += 5;
    second.write("d").await;
    second.finish().await;
    let rest = within(follow(&server, "", Some(&more[2].0), usize::MAX)).await;
    assert_eq!(texts(&rest), "(5 lost)d<<Succeeded>>");
    // A log that has ended is returned at once, from any offset.
    let again = within(follow(&server, "?attempt=2&offset=6", None, usize::MAX)).await;
    assert_eq!(texts(&again), "d<<Succeeded>>");
}

#[tokio::test]
async fn a_reader_of_a_queued_run_receives_its_status() {
    let server = server_with_run().await;
    let reader = follow(&server, "", None, usize::MAX);
    let canceller = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.post("/runs/ca1/cancel", json!({})).await.expect(StatusCode::OK);
    };
    let (events, ()) = within(async { tokio::join!(reader, canceller) }).await;
    let told = texts(&events);
    assert!(told.starts_with("<Queued>") && told.ends_with("<<Canceled>>"), "{told}");
}

#[tokio::test]
async fn a_hostile_log_is_served_as_plain_text() {
    let server = server_with_run().await;
    let mut writer = LogWriter::take(&server).await;
    let hostile = "<script>alert(1)</script>\u{1b}]52;c;eA==\u{7}\u{9b}2J\0\u{202e}\r\n\ndata: forged\nevent: end\n";
    writer.write(hostile).await;
    writer.finish().await;
    let ask = async |path: &str| {
        let path = format!("/runs/ca1/{path}");
        Answer::of(server.api(Method::GET, &path).bearer_auth(&server.admin)).await
    };
    let (text, events) = (ask("log").await, ask("log/events").await);
    for (answer, kind) in [(&text, "text/plain; charset=utf-8"), (&events, "text/event-stream")] {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["content-type"], kind);
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    let shown = "<script>alert(1)</script>\\x1b]52;c;eA==\\x07\\u{9b}2J\\x00\\u{202e}\n\ndata: forged\nevent: end\n";
    assert_eq!(text.text, shown, "what a terminal would obey is shown");
    // In an event it is JSON on one line, so it cannot inject another event.
    let chunks = events.text.lines().filter_map(|line| line.strip_prefix("data: "));
    let said: Vec<serde_json::Value> =
        chunks.map(|data| serde_json::from_str(data).unwrap()).collect();
    assert!(said.iter().any(|data| data["text"] == hostile), "{}", events.text);
    assert_eq!(events.text.matches("\nevent: end\n").count(), 1, "{}", events.text);
}

#[tokio::test]
async fn revoking_a_token_ends_following_a_log() {
    let server = server_with_run().await;
    let mut writer = LogWriter::take(&server).await;
    writer.write("before\n").await;
    let token = server.token("read", Some(&["contoso"])).await;
    let path = format!("{}/api/v1/runs/ca1/log/events", server.url);
    let answer = server.client.get(path).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let id = token.split('_').nth(1).unwrap();
    server.delete(&format!("/tokens/{id}")).await;
    // The stream ends by itself, though the run continues.
    let text = within(answer.text()).await.unwrap();
    assert!(text.contains("before"), "{text}");
    assert!(!text.contains("event: end"), "{text}");
}

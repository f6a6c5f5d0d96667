//! Attacks on the hook server by strangers and compromised senders, over real sockets.

use std::io::Write as _;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use gantry_domain::hook::{Hook, Provider};
use gantry_ingress::IngressSettings;
use reqwest::StatusCode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::{Answer, SECRET, SHORT, TestServer, push, signature, signature_of, within};
use crate::wire::{connect, converse, head, signed, statuses};

const MIB: usize = 1 << 20;

/// The server still works.
async fn assert_serves(server: &TestServer, hook: &Hook, id: &str) {
    let answer = within(Answer::of(server.github(hook, "ping", id, "{}"))).await;
    answer.expect(StatusCode::ACCEPTED);
}

async fn with_github_hook() -> (TestServer, Hook) {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    (server, hook)
}

#[tokio::test]
async fn ten_gibibytes_are_refused_when_announced_and_cut_when_they_come() {
    let (server, hook) = with_github_hook().await;
    for (expect, statuses_expected) in
        [("", vec![413]), ("Expect: 100-continue\r\n", vec![100, 413])]
    {
        let announced = head(&hook, &format!("{expect}Content-Length: 10737418240\r\n"));
        let answer = converse(&server, announced.as_bytes()).await;
        assert_eq!(statuses(&answer), statuses_expected, "{answer}");
    }

    let (mut reader, mut writer) = connect(&server).await.into_split();
    writer.write_all(head(&hook, "Transfer-Encoding: chunked\r\n").as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let mut sent = 0;
    while sent < 10 << 30 && writer.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 0x10000;
    }
    // Bytes in the buffers of the two sockets count as sent, although the server never reads them.
    assert!(sent < 25 * MIB + 16 * MIB, "{sent} bytes were taken");
    let mut answer = Vec::new();
    let _reset = within(reader.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || statuses(&answer) == [413], "{answer}");
    assert_serves(&server, &hook, "after").await;
}

/// Sends a byte at intervals until the peer closes or responds, and returns the response.
async fn drip(mut stream: TcpStream, first: &str) -> String {
    stream.write_all(first.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let mut answer = Vec::new();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _closed = writer.write_all(b"x").await;
        }
    };
    tokio::select! {
        () = drip => {}
        _ = within(reader.read_to_end(&mut answer)) => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn three_hundred_senders_of_a_byte_now_and_then_are_disconnected_and_hold_up_nobody() {
    let settings = IngressSettings {
        head_patience: SHORT,
        body_patience: SHORT,
        ..IngressSettings::default()
    };
    let server = TestServer::open_with(settings, false).await;
    server.create_registry("contoso").await;
    let hook = server.hook(Provider::GitHub).await;
    let in_head = format!("POST /hooks/github/{} HTTP/1.1\r\nHost: x\r\nX-Slow: ", hook.id);
    let in_body = head(&hook, "Content-Length: 1000\r\n");
    let in_chunk = format!("{}3e8\r\n", head(&hook, "Transfer-Encoding: chunked\r\n"));
    let slow =
        (0..300).map(|number| [&in_head, &in_body, &in_chunk][number % 3]).map(async |first| {
            let stream = connect(&server).await;
            drip(stream, first).await
        });
    let honest = async {
        for number in 0..20 {
            assert_serves(&server, &hook, &format!("d-{number}")).await;
        }
    };
    let (answers, ()) = tokio::join!(join_all(slow), honest);
    for answer in answers {
        assert_eq!(statuses(&answer), [408], "{answer}");
    }
}

#[tokio::test]
async fn an_endless_head_of_a_second_request_is_disconnected() {
    let settings = IngressSettings {
        head_patience: SHORT,
        body_patience: SHORT,
        ..IngressSettings::default()
    };
    let server = TestServer::open_with(settings, false).await;
    server.create_registry("contoso").await;
    let hook = server.hook(Provider::GitHub).await;
    let whole = signed(&hook, "d-1", "{}");
    let began = Instant::now();
    let answer = drip(connect(&server).await, &format!("{whole}POST /hooks/")).await;
    assert_eq!(statuses(&answer), [202], "{answer}");
    assert!(began.elapsed() > Duration::from_secs(1), "it was disconnected early: {answer}");
    assert_serves(&server, &hook, "after").await;
}

#[tokio::test]
async fn incomplete_requests_with_a_token_are_disconnected() {
    let settings = IngressSettings {
        head_patience: SHORT,
        body_patience: SHORT,
        ..IngressSettings::default()
    };
    let server = TestServer::open_with(settings, false).await;
    let token = server.token("read", None).await;
    let writer = server.token("write", None).await;
    let whole = |token: &str, rest: &str| {
        format!("{rest} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n")
    };
    let status = format!("{}\r\n", whole(&token, "GET /api/v1/status"));
    let json = "Content-Type: application/json\r\n";
    let slow_body = format!(
        "{}{json}Content-Length: 1000\r\n\r\n{{",
        whole(&writer, "POST /api/v1/registries/contoso/tasks")
    );
    let sent = ["GET /api/v1/status HTTP/1.1\r\nX-Slow: ", "G", &slow_body]
        .map(|second| format!("{status}{second}"));
    let answers = sent.iter().map(async |sent| drip(connect(&server).await, sent).await);
    let [half, idle, body] = join_all(answers).await.try_into().unwrap();
    assert_eq!(statuses(&half), [200], "{half}");
    assert_eq!(statuses(&idle), [200], "{idle}");
    assert_eq!(statuses(&body), [200, 408], "{body}");
}

/// Raises the limit of open files, for both ends of thousands of connections.
fn allow_many_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    assert!(
        maximum.is_none_or(|most| most >= 12_000),
        "{maximum:?} files are too few for this test"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_requests_in_every_place_that_tokens_have_hold_up_neither_hooks_nor_health() {
    // The server's own client holds some of the connections that authenticated clients may have.
    const EACH: [usize; 3] = [1024, 1024, 1000];
    allow_many_files();
    let patience = Duration::from_secs(120);
    let settings = IngressSettings {
        head_patience: patience,
        body_patience: patience,
        ..IngressSettings::default()
    };
    let server = TestServer::open_with(settings, false).await;
    server.create_registry("contoso").await;
    let hook = server.hook(Provider::GitHub).await;
    let mut tokens = Vec::new();
    for _ in EACH {
        tokens.push(server.token("read", None).await);
    }
    // A complete request and half of another, on nearly all connections that authenticated clients may have; and some
    // without a token.
    let half = "GET /api/v1/status HTTP/1.1\r\nX-Slow: ";
    let whole = |token: &str| {
        format!(
            "GET /api/v1/tokens/current HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n{half}"
        )
    };
    let mut sent: Vec<String> =
        tokens.iter().zip(EACH).flat_map(|(token, count)| vec![whole(token); count]).collect();
    sent.extend(vec![half.to_owned(); 200]);
    let held = stream::iter(sent).map(async |sent| {
        let mut stream = connect(&server).await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        if sent.len() > half.len() {
            let mut answer = [0; 12];
            within(stream.read_exact(&mut answer)).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
        stream
    });
    let held: Vec<TcpStream> = held.buffer_unordered(64).collect().await;

    // On separate connections.
    let client = || reqwest::Client::builder().no_proxy().build().unwrap();
    let health = within(client().get(format!("{}/healthz", server.url)).send()).await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    for number in 0..8 {
        let request = server.github(&hook, "ping", &format!("d-{number}"), "{}").build().unwrap();
        let answer = within(client().execute(request)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }
    drop(held);
}

#[tokio::test]
async fn heads_without_measure_are_refused_by_name() {
    let (server, hook) = with_github_hook().await;
    let post = format!("POST /hooks/github/{} HTTP/1.1\r\nHost: x\r\n", hook.id);
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let path = |length: usize| format!("POST /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(length));
    let cases = [
        ("100 headers", format!("{post}{}\r\n", many(100)), 431),
        ("100 000 headers", format!("{post}{}\r\n", many(100_000)), 431),
        ("a header of 1 MiB", format!("{post}x: {}\r\n\r\n", "a".repeat(MIB)), 431),
        ("a path of 1 MiB", path(MIB), 431),
        ("a path of 66 000 bytes", path(66_000), 400),
        ("a header without an end", format!("{post}{}", "a".repeat(MIB)), 431),
        ("NUL in a header", format!("{post}x: a\0b\r\n\r\n"), 400),
        ("a bare carriage return", format!("{post}x: a\rb\r\n\r\n"), 400),
        ("a folded header", format!("{post}x: a\r\n b\r\n\r\n"), 400),
        ("a space before the colon", format!("{post}Content-Length : 5\r\n\r\n"), 400),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("two hosts", format!("{post}Host: y\r\n\r\n"), 400),
        ("no version", "GET /\r\n\r\n".to_owned(), 400),
        ("HTTP/3", "GET / HTTP/3.0\r\nHost: x\r\n\r\n".to_owned(), 400),
        ("HTTP/2 in plain text", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        ("a method with a slash", post.replacen("POST", "PO/ST", 1) + "\r\n", 400),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\r\n\r\n".to_owned(), 400),
    ];
    for (name, sent, status) in cases {
        let answer = converse(&server, sent.as_bytes()).await;
        // A client that continues to send after it was refused may lose the answer together with the connection.
        let was_cut = answer.is_empty() && sent.len() > 128 << 10;
        assert!(was_cut || statuses(&answer) == [status], "{name}: {answer}");
    }
    for method in ["GET", "PUT", "DELETE", "TRACE", "OPTIONS", "post", "A-METHOD-OF-MY-OWN"] {
        let sent = post.replacen("POST", method, 1) + "Connection: close\r\n\r\n";
        let status = statuses(&converse(&server, sent.as_bytes()).await);
        assert!(status == [404] || status == [405], "{method}: {status:?}");
    }
    assert_serves(&server, &hook, "after").await;
    assert_eq!(server.ledger().await.len(), 1);
}

#[tokio::test]
async fn no_second_request_is_smuggled_in_a_body() {
    let (server, hook) = with_github_hook().await;
    let inner = signed(&hook, "smuggled", &push('1', '2'));
    let smuggle = |lines: &str, rest: &str| format!("{}{rest}{inner}", head(&hook, lines));
    let cases = [
        (
            "both lengths",
            smuggle("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "both, turned",
            smuggle("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ),
        ("two lengths", smuggle("Content-Length: 0\r\nContent-Length: 5\r\n", "")),
        ("one length twice", smuggle("Content-Length: 0\r\nContent-Length: 0\r\n", "")),
        ("a list of lengths", smuggle("Content-Length: 0, 5\r\n", "")),
        ("a length with a sign", smuggle("Content-Length: +0\r\n", "")),
        ("a negative length", smuggle("Content-Length: -1\r\n", "")),
        ("a length in hexadecimal", smuggle("Content-Length: 0x0\r\n", "")),
        ("a length beyond 64 bits", smuggle("Content-Length: 18446744073709551616\r\n", "")),
        (
            "two codings",
            smuggle("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        ("a list of codings", smuggle("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        ("a coding that is none", smuggle("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
        ("a coding with a tab", smuggle("Transfer-Encoding:\u{b}chunked\r\n", "0\r\n\r\n")),
        ("identity", smuggle("Transfer-Encoding: identity\r\n", "")),
        (
            "a chunk beyond 64 bits",
            smuggle("Transfer-Encoding: chunked\r\n", "10000000000000000\r\n\r\n"),
        ),
        ("a chunk with a sign", smuggle("Transfer-Encoding: chunked\r\n", "-1\r\n\r\n")),
        ("a chunk ended by a bare newline", smuggle("Transfer-Encoding: chunked\r\n", "0\n\n")),
    ];
    for (name, sent) in cases {
        let answer = converse(&server, sent.as_bytes()).await;
        // An invalid chunk ends the connection without an answer, because its request was already being handled.
        let was_cut = name.contains("chunk") && answer.is_empty();
        assert!(was_cut || statuses(&answer) == [400], "{name}: {answer}");
    }
    let old =
        smuggle("Transfer-Encoding: chunked\r\n", "0\r\n\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1);
    let answer = converse(&server, old.as_bytes()).await;
    assert_eq!(statuses(&answer.replace("HTTP/1.0 ", "HTTP/1.1 ")), [400], "{answer}");
    assert_eq!(server.ledger().await, Vec::<Value>::new());
}

#[tokio::test]
async fn chunk_extensions_and_trailers_do_not_affect_verification() {
    let (server, hook) = with_github_hook().await;
    let body = push('1', '2');
    let proof = format!("X-Hub-Signature-256: {}\r\n", signature(SECRET, &body));
    let chunks: String = body
        .as_bytes()
        .chunks(7)
        .map(|chunk| {
            format!("{:x};name=\"a\"\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap())
        })
        .collect();
    let lines = "Transfer-Encoding: chunked\r\nConnection: close\r\nX-GitHub-Delivery: d-1\r\n";
    let whole = format!("{}{chunks}0\r\n\r\n", head(&hook, &format!("{proof}{lines}")));
    assert_eq!(statuses(&converse(&server, whole.as_bytes()).await), [202]);
    // A signature in a trailer, after the body, is not accepted.
    let late = format!("{}{chunks}0\r\n{proof}\r\n", head(&hook, lines));
    let refused = statuses(&converse(&server, late.as_bytes()).await);
    assert!(refused == [401] || refused == [400], "{refused:?}");
    assert_eq!(server.ledger().await.len(), 1);
}

#[tokio::test]
async fn fifty_pipelined_requests_are_answered_in_order() {
    let (server, hook) = with_github_hook().await;
    let mut sent = String::new();
    for number in 0..50 {
        let whole = signed(&hook, &format!("d-{number}"), &push('1', '2'));
        sent += &match number {
            49 => whole.replacen("Host: x\r\n", "Host: x\r\nConnection: close\r\n", 1),
            // One in five is forged, and does not affect the others.
            _ if number % 5 == 0 => whole.replacen("sha256=", "sha256=0", 1),
            _ => whole,
        };
    }
    let answer = converse(&server, sent.as_bytes()).await;
    let expected: Vec<u16> = (0..50).map(|n| if n % 5 == 0 { 401 } else { 202 }).collect();
    assert_eq!(statuses(&answer), expected);
    let mut last = 0;
    for number in (0..50).filter(|number| number % 5 != 0) {
        let place = answer.find(&format!("\"delivery\":\"d-{number}\"")).unwrap();
        assert!(place > last, "d-{number} was answered out of order");
        last = place;
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn only_the_bytes_that_were_signed_are_taken() {
    let (server, hook) = with_github_hook().await;
    let body = push('1', '2');
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&body).unwrap());
    let pretty = pretty.unwrap().into_bytes();
    let form = serde_urlencoded::to_string([("payload", &body)]).unwrap().into_bytes();
    let utf_16: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let [json, urlencoded] = ["application/json", "application/x-www-form-urlencoded"];
    let send = async |content_type: &str, coding: Option<&str>, signed: &[u8], sent: &[u8]| {
        let request = server
            .client
            .post(server.hook_url(&hook))
            .header("content-type", content_type)
            .header("x-github-event", "push")
            .header("x-hub-signature-256", signature_of(SECRET, signed));
        let request = coding
            .iter()
            .fold(request, |request, coding| request.header("content-encoding", *coding));
        Answer::of(request.body(sent.to_vec())).await.status.as_u16()
    };

    let signed = body.as_bytes();
    let bom = ["\u{feff}".as_bytes(), signed].concat();
    for sent in [&pretty[..], &[signed, b"\n"].concat(), &[b" ", signed].concat(), &bom, &utf_16] {
        assert_eq!(send(json, None, signed, sent).await, 401);
    }
    assert_eq!(send(urlencoded, None, signed, &form).await, 401);
    assert_eq!(send(json, None, &form, signed).await, 401);
    assert_eq!(server.ledger().await, Vec::<Value>::new());

    let packed = gzip(&body);
    for coding in ["gzip", "deflate", "br", "x-unknown", "identity, gzip", ""] {
        assert_eq!(send(json, Some(coding), &packed, &packed).await, 415, "{coding}");
        assert_eq!(send(json, Some(coding), signed, &packed).await, 415, "{coding}");
    }
    for content_type in ["", "text/json", "multipart/form-data", "application/jsonp"] {
        assert_eq!(send(content_type, None, signed, signed).await, 415, "{content_type}");
    }
    assert_eq!(server.ledger().await, Vec::<Value>::new());

    // Correctly signed, but not of the declared content type: recorded as such.
    for (content_type, bytes) in [
        (json, &packed),
        (json, &form),
        (urlencoded, &signed.to_vec()),
        (urlencoded, &[&form[..], b"&", &form].concat()),
        (json, &bom),
        (json, &utf_16),
    ] {
        assert_eq!(send(content_type, None, bytes, bytes).await, 202);
    }
    let ledger = server.ledger().await;
    assert_eq!(ledger.len(), 6);
    assert!(ledger.iter().all(|delivery| delivery["verdict"] == "unreadable"), "{ledger:?}");

    // Parameters of a content type do not change how the body is read.
    let other = push('1', '3');
    let other = other.as_bytes();
    let json = "Application/JSON; charset=utf-16";
    assert_eq!(send(json, Some("identity"), other, other).await, 202);
    assert_eq!(server.ledger().await[0]["verdict"], "events");
}

/// A push with extra bytes before its first field.
fn push_with(bytes: &[u8]) -> Vec<u8> {
    [b"{", bytes, b",", &push('1', '2').as_bytes()[1..]].concat()
}

#[tokio::test]
async fn whatever_a_signed_body_has_in_it_is_recorded_and_answered_202() {
    let (server, hook) = with_github_hook().await;
    let field = |name: &str, value: &str| {
        push('1', '2').replacen('{', &format!("{{\"{name}\":{value},"), 1)
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let keys: String = (0..1_000_000).map(|n| format!("\"k{n}\":{n},")).collect();
    let commits =
        format!("[{}1]", "{\"id\":\"1\",\"message\":\"m\",\"added\":[]},".repeat(100_000));
    let [read, unreadable] = ["events", "unreadable"];
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("100 000 arrays in each other", push_with(format!("\"x\":{deep}").as_bytes()), read),
        ("100 000 objects in each other", push_with(format!("\"x\":{objects}").as_bytes()), read),
        ("100 000 open arrays", "[".repeat(100_000).into(), unreadable),
        ("100 000 open objects", "{\"a\":".repeat(100_000).into(), unreadable),
        ("a deep branch", format!("{{\"ref\":{deep}}}").into(), unreadable),
        ("a deep repository", format!("{{\"repository\":{objects}}}").into(), unreadable),
        ("a million keys", push_with(keys.trim_end_matches(',').as_bytes()), read),
        ("100 000 commits", push_with(format!("\"commits\":{commits}").as_bytes()), read),
        ("a key twice", field("y", "1,\"y\":2").into(), read),
        ("a branch twice", field("ref", "\"refs/heads/other\"").into(), unreadable),
        ("a lone surrogate", push_with(br#""x":"\ud800""#), read),
        (
            "a lone surrogate in the branch",
            push('1', '2').replace("heads/main", r"heads/\ud800").into(),
            unreadable,
        ),
        (
            "a pair the wrong way round",
            push('1', '2').replace("heads/main", r"heads/\udc00\ud800").into(),
            unreadable,
        ),
        (
            "an escaped NUL in the branch",
            push('1', '2').replace("heads/main", r"heads/a\u0000b").into(),
            unreadable,
        ),
        ("NUL", push_with(b"\"x\":\"\0\""), unreadable),
        ("bytes that are no UTF-8", push_with(b"\"x\":\"\xff\xfe\""), read),
        ("a branch that is no UTF-8", b"{\"ref\":\"refs/heads/\xff\"}".to_vec(), unreadable),
        (
            "a number of 100 000 digits",
            push_with(format!("\"x\":{}", "9".repeat(100_000)).as_bytes()),
            read,
        ),
        ("a number without measure", push_with(b"\"x\":1e999999999"), read),
        (
            "a number in place of a commit",
            push('1', '2').replace(&format!("\"{}\"", "2".repeat(40)), "1e400").into(),
            unreadable,
        ),
        (
            "a branch of 1 MiB",
            push('1', '2').replace("heads/main", &format!("heads/{}", "a".repeat(MIB))).into(),
            unreadable,
        ),
        (
            "an address of 1 MiB",
            push('1', '2').replace("octo/hello", &"a".repeat(MIB)).into(),
            unreadable,
        ),
        ("a comment", b"/* {} */{}".to_vec(), unreadable),
        ("nothing", Vec::new(), unreadable),
    ];
    for (number, (name, body, _)) in cases.iter().enumerate() {
        let request = server
            .client
            .post(server.hook_url(&hook))
            .header("content-type", "application/json")
            .header("x-github-event", "push")
            .header("x-github-delivery", format!("d-{number}"))
            .header("x-hub-signature-256", signature_of(SECRET, body))
            .body(body.clone());
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{name}: {}", answer.text);
    }
    let ledger = server.ledger().await;
    assert_eq!(ledger.len(), cases.len());
    for (number, (name, _, verdict)) in cases.iter().enumerate() {
        let id = format!("d-{number}");
        let delivery = ledger.iter().find(|delivery| delivery["id"] == id.as_str()).unwrap();
        assert_eq!(delivery["verdict"], *verdict, "{name}: {delivery}");
    }
}

#[tokio::test]
async fn any_body_of_a_registry_is_answered_202() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::Distribution).await;
    let manifest = include_str!(
        "../../../tests/fixtures/registry-notifications/registry-notification-push-oci-manifest.json"
    );
    let event = serde_json::from_str::<Value>(manifest).unwrap()["events"][0].to_string();
    let events =
        |count: usize, event: &str| format!("{{\"events\":[{}]}}", vec![event; count].join(","));
    let deep =
        |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    for body in [
        events(1000, &event),
        events(20_000, "{\"action\":\"pull\"}"),
        format!("{{\"events\":{}}}", deep("[", "]")),
        format!("{{\"events\":[{{\"target\":{}}}]}}", deep("{\"target\":", "}")),
        format!("{{\"events\":[],\"x\":{}}}", deep("[", "]")),
        events(1, "{\"id\":\"\\ud800\"}"),
        events(1, "{\"id\":\"a\",\"id\":\"b\"}"),
        events(1, &format!("{{\"id\":\"{}\"}}", "a".repeat(MIB))),
    ] {
        let answer = Answer::of(server.notify(&hook, &body)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", &body[..body.len().min(80)]);
    }
    let ledger = server.ledger().await;
    assert!(ledger.iter().all(|delivery| delivery["verdict"] == "unreadable"), "{ledger:?}");
}

#[tokio::test]
async fn slow_senders_cannot_block_honest_ones() {
    let budget = 4 * MIB as u64;
    let settings = IngressSettings { body_budget: budget, ..IngressSettings::default() };
    let server = TestServer::open_with(settings, false).await;
    server.create_registry("contoso").await;
    let hook = server.hook(Provider::GitHub).await;
    let part = "x".repeat(MIB - (64 << 10));
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&server).await;
        let head = head(&hook, &format!("Content-Length: {MIB}\r\n"));
        stream.write_all(format!("{head}{part}").as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // A body that does not fit is answered with "retry later" until one of the slow bodies is dropped.
    let large = format!("{{\"zen\":\"{}\"}}", " ".repeat(MIB));
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut told = Vec::new();
    for number in 0.. {
        let id = format!("d-{number}");
        let answer = Answer::of(server.github(&hook, "ping", &id, &large)).await;
        let taken = answer.status == StatusCode::ACCEPTED;
        if !taken {
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "busy"));
            assert_eq!(answer.headers["retry-after"], "2");
        }
        for stream in &slow {
            let mut answer = [0; 4096];
            if let Ok(length @ 1..) = stream.try_read(&mut answer) {
                told.extend(statuses(&String::from_utf8_lossy(&answer[..length])));
            }
        }
        if taken && !told.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "slow senders hold the room");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told.iter().all(|status| *status == 503) && told.len() < 4, "{told:?}");
}

#[tokio::test]
async fn a_burst_beyond_the_budget_is_answered_2xx_or_503_without_loss() {
    let settings = IngressSettings { body_budget: MIB as u64, ..IngressSettings::default() };
    let server = TestServer::open_with(settings, false).await;
    server.create_registry("contoso").await;
    let hook = server.hook(Provider::GitHub).await;
    let body = format!("{{\"zen\":\"{}\"}}", " ".repeat(8 << 10));
    let ids: Vec<String> = (0..400).map(|number| format!("d-{number}")).collect();
    let send = async |id: &String| Answer::of(server.github(&hook, "ping", id, &body)).await;
    let mut waiting: Vec<&String> = ids.iter().collect();
    let mut refused = 0;
    for _ in 0..100 {
        let answers = join_all(waiting.iter().map(|id| send(id))).await;
        let mut again = Vec::new();
        for (id, answer) in waiting.into_iter().zip(answers) {
            match answer.status.as_u16() {
                200 | 202 => {}
                503 => {
                    assert!(answer.headers.contains_key("retry-after"));
                    again.push(id);
                }
                other => panic!("{other}: {}", answer.text),
            }
        }
        refused += again.len();
        waiting = again;
        if waiting.is_empty() {
            break;
        }
    }
    assert!(waiting.is_empty(), "{} never came in", waiting.len());
    assert!(refused > 0, "the burst was too small to be one");
    assert_eq!(server.ledger().await.len(), ids.len());
}

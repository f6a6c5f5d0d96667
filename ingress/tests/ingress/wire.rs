//! Raw bytes on a socket, as no well-behaved client sends them.

use std::time::Duration;

use gantry_domain::hook::Hook;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::{SECRET, TestServer, signature};

/// Longer than any response takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// The head of a delivery to this hook, with additional header lines.
pub(crate) fn head(hook: &Hook, lines: &str) -> String {
    format!(
        "POST /hooks/{}/{} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         X-GitHub-Event: push\r\n{lines}\r\n",
        hook.provider(),
        hook.id
    )
}

/// A complete signed delivery.
pub(crate) fn signed(hook: &Hook, id: &str, body: &str) -> String {
    let lines = format!(
        "X-GitHub-Delivery: {id}\r\nX-Hub-Signature-256: {}\r\nContent-Length: {}\r\n",
        signature(SECRET, body),
        body.len()
    );
    format!("{}{body}", head(hook, &lines))
}

/// Sends as much as the peer accepts, and returns the response until the connection is closed.
pub(crate) async fn converse(server: &TestServer, sent: &[u8]) -> String {
    let (mut reader, mut writer) = connect(server).await.into_split();
    let mut answer = Vec::new();
    let talk = async {
        let write = async {
            // The server may have closed its side already.
            let _cut = writer.write_all(sent).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = write => {}
            // Bytes before a reset count.
            _ = reader.read_to_end(&mut answer) => {}
        }
    };
    tokio::time::timeout(PATIENCE, talk).await.expect("the server neither answers nor closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of all responses in a text, in order.
pub(crate) fn statuses(answers: &str) -> Vec<u16> {
    let lines = answers.lines().filter_map(|line| line.split_once("HTTP/1.1 "));
    lines.map(|(_, rest)| rest[..3].parse().unwrap()).collect()
}

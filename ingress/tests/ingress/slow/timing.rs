//! Response times reveal nothing to a stranger.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use gantry_domain::hook::Provider;

use super::welch::{TOLD_APART, timed, told};
use crate::rig::TestServer;

const SAMPLES: usize = 3_000;

fn request(hook: &str) -> Vec<u8> {
    format!(
        "POST /hooks/github/{hook} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         X-Hub-Signature-256: sha256={}\r\nContent-Length: 2\r\n\r\n{{}}",
        "0".repeat(64)
    )
    .into()
}

#[tokio::test]
async fn a_stranger_cannot_tell_a_hook_from_none_by_the_time_of_the_answer() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let asking = tokio::task::spawn_blocking(move || {
        // One connection for both, because two would be served by different threads.
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let ask = |request: &[u8]| {
            (&stream).write_all(request).unwrap();
            let mut answer = [0; 1024];
            let length = (&stream).read(&mut answer).unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 401"), "{length} bytes");
        };
        let (known, unknown) = (request(hook.id.as_str()), request(&"0".repeat(32)));
        told(SAMPLES, || timed(|| ask(&known)), || timed(|| ask(&unknown)))
    });
    let t = asking.await.unwrap();
    assert!(t < TOLD_APART, "|t| = {t:.1}");
}

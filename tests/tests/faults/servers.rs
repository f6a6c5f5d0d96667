//! Checks that the servers and the proxy of the rounds behave as the rounds assume.

use std::time::Duration;

use gantry_tests::proxy::{Flow, Proxy, Way};
use gantry_tests::servers::redis::Redis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

async fn ask(stream: &mut TcpStream, question: &str) -> String {
    let mut answer = [0; 64];
    stream.write_all(question.as_bytes()).await.unwrap();
    let length = timeout(SOON, stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn a_killed_store_keeps_acknowledged_commits() {
    let mut redis = Redis::start().await.unwrap();
    let mut stream = TcpStream::connect(redis.address()).await.unwrap();
    assert_eq!(ask(&mut stream, "SET it kept\r\n").await, "+OK\r\n");
    redis.kill().await.unwrap();
    redis.start_again().await.unwrap();
    let mut stream = TcpStream::connect(redis.address()).await.unwrap();
    assert_eq!(ask(&mut stream, "GET it\r\n").await, "$4\r\nkept\r\n");
}

#[tokio::test]
async fn a_proxy_forwards_delays_drops_and_cuts() {
    let redis = Redis::start().await.unwrap();
    let proxy = Proxy::start(redis.address()).await.unwrap();
    let connect = || TcpStream::connect(proxy.address());
    let mut old = connect().await.unwrap();
    assert_eq!(ask(&mut old, "PING\r\n").await, "+PONG\r\n");

    let delay = Duration::from_millis(100);
    proxy.set(Way::both(Flow::Slow(delay)));
    let asked = std::time::Instant::now();
    assert_eq!(ask(&mut old, "PING\r\n").await, "+PONG\r\n");
    assert!(asked.elapsed() >= 2 * delay);

    proxy.set(Way::Open { to_server: Flow::Pass, to_client: Flow::Swallow });
    old.write_all(b"SET half open\r\n").await.unwrap();
    let mut new = TcpStream::connect(redis.address()).await.unwrap();
    while ask(&mut new, "GET half\r\n").await != "$4\r\nopen\r\n" {}
    assert!(timeout(2 * delay, old.read(&mut [0; 64])).await.is_err(), "the answer is lost");
    proxy.set(Way::CLEAR);
    old.write_all(b"PING\r\n").await.unwrap();
    assert!(timeout(2 * delay, old.read(&mut [0; 64])).await.is_err(), "what it lost is lost");
    let mut new = connect().await.unwrap();
    assert_eq!(ask(&mut new, "PING\r\n").await, "+PONG\r\n");

    proxy.set(Way::Cut);
    let closed = |read: std::io::Result<usize>| read.is_err() || read.is_ok_and(|read| read == 0);
    assert!(closed(timeout(SOON, new.read(&mut [0; 64])).await.unwrap()));
    let mut refused = connect().await.unwrap();
    assert!(closed(timeout(SOON, refused.read(&mut [0; 64])).await.unwrap()));
}

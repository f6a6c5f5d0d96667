//! Objects on a server with the S3 API: moto, whose address `deploy/bootstrap.sh s3 start` prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use gantry_objects::{ObjectBlobs, ObjectsOptions, ProbeError};
use gantry_seams::blobs::{BlobError, Blobs};
use gantry_seams::contract;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::net::TcpListener;

const MEBIBYTE: u64 = 1 << 20;

/// The server's address.
#[allow(clippy::disallowed_methods, reason = "a test has no settings but these")]
fn server() -> String {
    std::env::var("GANTRY_TEST_S3").expect(
        "GANTRY_TEST_S3 names no S3 server: run `make test`, or start one with deploy/bootstrap.sh s3 start --state DIR",
    )
}

fn options(endpoint: &str, bucket: &str, secret: &str) -> ObjectsOptions {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    ObjectsOptions {
        url: format!("s3://{bucket}/some/prefix").parse().unwrap(),
        endpoint: Some(endpoint.parse().unwrap()),
        region: "us-east-1".to_owned(),
        ca_file: None,
        environment: vec![
            variable("AWS_ACCESS_KEY_ID", "test"),
            variable("AWS_SECRET_ACCESS_KEY", secret),
        ],
    }
}

/// Objects in a new bucket.
async fn fresh_bucket() -> (ObjectBlobs, String) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let bucket = format!("objects-{}-{count}", std::process::id());
    let url = format!("{}/{bucket}", server());
    let _already = rustls::crypto::ring::default_provider().install_default();
    let made = reqwest::Client::new().put(url).send().await.unwrap();
    assert!(made.status().is_success(), "{made:?}");
    (ObjectBlobs::open(&options(&server(), &bucket, "test")).unwrap(), bucket)
}

#[tokio::test]
async fn objects_in_a_bucket_pass_the_contract() {
    let (blobs, _) = fresh_bucket().await;
    blobs.probe().await.unwrap();
    contract::blobs::all(&blobs).await;
}

#[tokio::test]
async fn all_objects_are_below_the_prefix() {
    let (blobs, bucket) = fresh_bucket().await;
    let mut options = options(&server(), &bucket, "test");
    options.url = format!("s3://{bucket}").parse().unwrap();
    let whole = ObjectBlobs::open(&options).unwrap();
    whole.put("some/prefix2/a", Bytes::new()).await.unwrap();
    blobs.put("logs/a", Bytes::new()).await.unwrap();
    assert_eq!(paths(&blobs).await, ["logs/a"]);
    assert_eq!(paths(&whole).await, ["some/prefix/logs/a", "some/prefix2/a"]);
}

#[tokio::test]
async fn more_objects_than_one_request_may_name_are_deleted() {
    let (blobs, _) = fresh_bucket().await;
    for at in 0..1_100 {
        blobs.put(&format!("logs/ca1/{at}"), Bytes::new()).await.unwrap();
    }
    blobs.put("logs/ca10/0", Bytes::new()).await.unwrap();
    blobs.delete_all("logs/ca1").await.unwrap();
    assert_eq!(paths(&blobs).await, ["logs/ca10/0"]);
}

/// A stream of a given length that counts how much of it was read.
struct Counted {
    left: u64,
    read: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.left.min(buffer.remaining() as u64);
        buffer.put_slice(&vec![b'x'; usize::try_from(length).unwrap()]);
        self.left -= length;
        self.read.fetch_add(length, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn uploading_applies_backpressure_to_the_reader() {
    // A server that accepts connections but never responds, so nothing is ever sent.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let blobs = ObjectBlobs::open(&options(&endpoint, "silent", "test")).unwrap();
    let read = Arc::new(AtomicU64::new(0));
    let reader = Counted { left: 1 << 30, read: Arc::clone(&read) };
    let put = blobs.put_stream("large", Box::pin(reader), 1 << 30).await;
    assert!(matches!(put, Err(BlobError::Unavailable { .. })), "{put:?}");
    assert!(read.load(Ordering::Relaxed) <= 10 * MEBIBYTE, "{read:?}");
}

#[tokio::test]
async fn large_streams_round_trip() {
    let (blobs, _) = fresh_bucket().await;
    let read = Arc::new(AtomicU64::new(0));
    let reader = Counted { left: 64 * MEBIBYTE, read };
    assert_eq!(blobs.put_stream("large", Box::pin(reader), 1 << 30).await.unwrap(), 64 * MEBIBYTE);
    let mut back = blobs.get_stream("large").await.unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        match back.read(&mut buffer).await.unwrap() {
            0 => break,
            length => {
                assert!(buffer[..length].iter().all(|&byte| byte == b'x'));
                total += length as u64;
            }
        }
    }
    assert_eq!(total, 64 * MEBIBYTE);
}

#[tokio::test]
async fn an_unavailable_object_store_is_reported_in_time() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let blobs = ObjectBlobs::open(&options(&endpoint, "away", "test")).unwrap();
    let got = blobs.get("a").await;
    assert!(matches!(got, Err(BlobError::Unavailable { .. })), "{got:?}");
    let put = blobs.put("a", Bytes::new()).await;
    assert!(matches!(put, Err(BlobError::Unavailable { .. })), "{put:?}");

    let probed = blobs.probe().await.unwrap_err();
    assert!(probed.is_temporary(), "{probed:?}");
    assert!(probed.to_string().contains("objects.endpoint"), "{probed}");
}

#[tokio::test]
async fn an_absent_bucket_is_distinguished_from_an_absent_object() {
    let blobs = ObjectBlobs::open(&options(&server(), "never-made", "test")).unwrap();
    let probed = blobs.probe().await.unwrap_err();
    assert!(matches!(probed, ProbeError::NoBucket { .. }), "{probed:?}");
    assert!(!probed.is_temporary());
    let got = blobs.get("a").await;
    assert!(matches!(got, Err(BlobError::Unavailable { .. })), "{got:?}");
}

async fn paths(blobs: &ObjectBlobs) -> Vec<String> {
    let mut found: Vec<String> = blobs.list("").unwrap().try_collect().await.unwrap();
    found.sort_unstable();
    found
}

//! The error messages of each cloud's servers, and how gantry translates them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use gantry_objects::{ObjectBlobs, ObjectsOptions, ProbeError};
use gantry_seams::blobs::{BlobError, Blobs as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const S3: &[(&str, &str)] = &[("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "hushhush")];
const AZURE: &[(&str, &str)] =
    &[("AZURE_STORAGE_ACCOUNT_NAME", "account"), ("AZURE_STORAGE_ACCOUNT_KEY", "aHVzaGh1c2g=")];
const GOOGLE: &[(&str, &str)] = &[(
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    r#"{"private_key": "hushhush", "private_key_id": "id", "client_email": "a@b", "disable_oauth": true}"#,
)];

/// A cloud, its credentials, and its error codes for: no such bucket, no such object, wrong credentials.
type Cloud = (&'static str, &'static [(&'static str, &'static str)], [&'static str; 3]);

const CLOUDS: [Cloud; 3] = [
    ("s3", S3, ["NoSuchBucket", "NoSuchKey", "SignatureDoesNotMatch"]),
    ("az", AZURE, ["ContainerNotFound", "BlobNotFound", "AuthenticationFailed"]),
    ("gs", GOOGLE, ["NoSuchBucket", "NoSuchKey", "AccessDenied"]),
];

#[tokio::test]
async fn every_cloud_distinguishes_absent_buckets_absent_objects_and_wrong_credentials() {
    for (scheme, credentials, [no_bucket, no_object, refused]) in CLOUDS {
        let blobs = answering(scheme, credentials, 404, no_bucket).await;
        let probed = blobs.probe().await.unwrap_err();
        assert!(matches!(probed, ProbeError::NoBucket { .. }), "{scheme}: {probed:?}");
        let got = blobs.get("a").await.unwrap_err();
        assert!(matches!(got, BlobError::Unavailable { .. }), "{scheme}: {got:?}");

        let blobs = answering(scheme, credentials, 404, no_object).await;
        blobs.probe().await.unwrap();
        let got = blobs.get("a").await.unwrap_err();
        assert!(matches!(got, BlobError::Absent { .. }), "{scheme}: {got:?}");

        let blobs = answering(scheme, credentials, 403, refused).await;
        let probed = blobs.probe().await.unwrap_err();
        assert!(!probed.is_temporary(), "{scheme}: {probed:?}");
        let said = probed.to_string();
        assert!(said.contains(refused) && said.contains(credentials_of(scheme)), "{said}");
        assert!(!said.contains("hushhush") && !said.contains("aHVzaGh1c2g"), "{said}");

        let blobs = answering(scheme, credentials, 503, "SlowDown").await;
        let probed = blobs.probe().await.unwrap_err();
        assert!(probed.is_temporary(), "{scheme}: {probed:?}");
    }
}

#[tokio::test]
async fn incomplete_credentials_are_refused_with_the_missing_part_named() {
    let opened = ObjectBlobs::open(&options("s3", "http://127.0.0.1:1", &S3[..1]));
    let refused = opened.unwrap_err().to_string();
    assert!(refused.contains("AWS_SECRET_ACCESS_KEY"), "{refused}");
    let opened = ObjectBlobs::open(&options("az", "http://127.0.0.1:1", &AZURE[1..]));
    let refused = opened.unwrap_err().to_string();
    assert!(refused.contains("AZURE_STORAGE_ACCOUNT_NAME"), "{refused}");
}

fn credentials_of(scheme: &str) -> &'static str {
    match scheme {
        "s3" => "AWS_SECRET_ACCESS_KEY",
        "az" => "AZURE_STORAGE_ACCOUNT_KEY",
        _ => "GOOGLE_APPLICATION_CREDENTIALS",
    }
}

fn options(scheme: &str, endpoint: &str, environment: &[(&str, &str)]) -> ObjectsOptions {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    ObjectsOptions {
        url: format!("{scheme}://builds/some/prefix").parse().unwrap(),
        endpoint: Some(endpoint.parse().unwrap()),
        region: "us-east-1".to_owned(),
        ca_file: None,
        environment: environment.iter().map(owned).collect(),
    }
}

/// Objects on a server that gives the same response to every request below the prefix.
async fn answering(
    scheme: &str,
    credentials: &[(&str, &str)],
    status: u16,
    code: &'static str,
) -> ObjectBlobs {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = vec![0; 8192];
            let length = connection.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).replace("%2F", "/");
            let is_ours = request.contains(" /builds/some/prefix/");
            let code = if is_ours { code } else { "AskedForSomethingElse" };
            let body = format!("<Error><Code>{code}</Code></Error>");
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    ObjectBlobs::open(&options(scheme, &endpoint, credentials)).unwrap()
}

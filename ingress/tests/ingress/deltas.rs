//! Uploads that are sent as a difference to an earlier one: whole or refused, and silent about what others have.

use gantry_api::{DeltaPart, StoredBytes};
use gantry_ingress::IngressSettings;
use gantry_seams::uploads;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::rig::{Answer, TestServer};

/// An earlier archive: what is compressed is of no interest here.
fn archive() -> Vec<u8> {
    let bytes = (0..1_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    [0x1f, 0x8b].into_iter().chain(bytes).collect()
}

fn copy(of: &[u8], offset: usize, length: usize) -> Vec<u8> {
    let sha256 = Sha256::digest(&of[offset..offset + length]).into();
    DeltaPart::Copy(StoredBytes {
        offset: offset as u64,
        length: u32::try_from(length).unwrap(),
        sha256,
    })
    .encode()
}

fn new(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [DeltaPart::New { length }.encode().as_slice(), bytes].concat()
}

fn end() -> Vec<u8> {
    DeltaPart::End.encode()
}

struct Sender {
    server: TestServer,
    token: String,
}

impl Sender {
    async fn new(settings: IngressSettings) -> Self {
        let server = TestServer::open_with(settings, false).await;
        server.create_registry("contoso").await;
        server.create_registry("fabrikam").await;
        let token = server.token("run", Some(&["contoso"])).await;
        Self { server, token }
    }

    async fn upload_as(&self, token: &str, registry: &str, bytes: Vec<u8>) -> Answer {
        let path = format!("/registries/{registry}/uploads");
        let request = self.server.api(Method::POST, &path).bearer_auth(token);
        Answer::of(request.body(bytes)).await
    }

    /// Uploads an archive. Returns its id.
    async fn upload(&self, bytes: Vec<u8>) -> String {
        let upload = self.upload_as(&self.token, "contoso", bytes).await;
        upload.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned()
    }

    async fn delta(&self, from: &str, parts: &[Vec<u8>]) -> Answer {
        let path = format!("/registries/contoso/uploads?from={from}");
        let request = self.server.api(Method::POST, &path);
        Answer::of(request.bearer_auth(&self.token).body(parts.concat())).await
    }

    async fn stored(&self, id: &str) -> Vec<u8> {
        let path = uploads::blob_path(&id.parse().unwrap());
        self.server.blobs.get(&path).await.unwrap().to_vec()
    }

    async fn kept_bytes(&self) -> u64 {
        let registry = "contoso".parse().unwrap();
        uploads::bytes_of(self.server.store.as_ref(), &registry).await.unwrap()
    }
}

#[tokio::test]
async fn a_delta_becomes_the_whole_archive_as_an_upload_of_its_own() {
    let sender = Sender::new(IngressSettings::default()).await;
    let before = archive();
    let from = sender.upload(before.clone()).await;
    let parts = [
        copy(&before, 0, 300_000),
        copy(&before, 300_000, 200_000),
        new(b"what is new"),
        copy(&before, 700_000, 1),
        copy(&before, 10, 50_000),
        new(&[7; 100_000]),
        end(),
    ];
    let whole = [
        &before[..500_000],
        b"what is new",
        &before[700_000..700_001],
        &before[10..50_010],
        &[7; 100_000],
    ]
    .concat();
    let created = sender.delta(&from, &parts).await.expect(StatusCode::CREATED);
    let id = created["id"].as_str().unwrap();
    assert_eq!(created["bytes"], whole.len());
    assert!(sender.stored(id).await == whole);
    // A run's signature has the digest of the whole archive.
    let record = uploads::find(sender.server.store.as_ref(), &id.parse().unwrap()).await.unwrap();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&whole)));
    assert_eq!(record.unwrap().digest.as_str(), digest);
    assert_eq!(sender.kept_bytes().await, (before.len() + whole.len()) as u64);

    // It needs the earlier one no more, and can itself be the earlier one.
    sender.server.delete(&format!("/registries/contoso/uploads/{from}")).await;
    assert!(sender.stored(id).await == whole);
    let again = [copy(&whole, 0, whole.len()), end()];
    let again = sender.delta(id, &again).await.expect(StatusCode::CREATED);
    assert!(sender.stored(again["id"].as_str().unwrap()).await == whole);
    let build = json!({"upload": again["id"], "images": ["a:1"]});
    sender.server.post("/registries/contoso/builds", build).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_delta_that_does_not_fit_is_refused_and_leaves_nothing() {
    let settings = IngressSettings { upload_limit: 1_200_000, ..IngressSettings::default() };
    let sender = Sender::new(settings).await;
    let before = archive();
    let from = sender.upload(before.clone()).await;
    let other = [&[0x1f, 0x8b][..], &[1; 100_000]].concat();
    let behind = DeltaPart::Copy(StoredBytes {
        offset: before.len() as u64 - 1,
        length: 2,
        sha256: [0; 32],
    });
    let far = DeltaPart::Copy(StoredBytes { offset: u64::MAX, length: 2, sha256: [0; 32] });
    let (bad, conflict) = (StatusCode::BAD_REQUEST, StatusCode::CONFLICT);
    for (what, parts, status) in [
        ("other bytes than it says", vec![copy(&other, 0, 100_000), end()], conflict),
        (
            "the bytes of another place",
            vec![copy(&before, 0, 10), copy(&other, 10, 9), end()],
            conflict,
        ),
        ("bytes behind the end", vec![copy(&before, 0, 9), behind.encode(), end()], conflict),
        ("an offset that overflows", vec![far.encode(), end()], conflict),
        ("no end", vec![copy(&before, 0, 1000)], bad),
        ("new bytes that break off", vec![DeltaPart::New { length: 9 }.encode(), vec![1; 8]], bad),
        ("half a part", vec![copy(&before, 0, 1000)[..20].to_vec()], bad),
        ("bytes after the end", vec![copy(&before, 0, 1000), end(), vec![0]], bad),
        ("an unknown part", vec![copy(&before, 0, 1000), vec![9; 50]], bad),
        ("an archive", vec![before.clone()], bad),
        ("nothing", vec![], bad),
        ("no archive", vec![new(b"FROM scratch"), end()], StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("an empty archive", vec![end()], StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (
            "a few bytes that make a large archive",
            vec![copy(&before, 0, 400_000); 4].into_iter().chain([end()]).collect(),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
    ] {
        let refused = sender.delta(&from, &parts).await;
        assert_eq!(refused.status, status, "{what}: {}", refused.text);
        assert_eq!(sender.kept_bytes().await, before.len() as u64, "{what} left something");
    }
}

#[tokio::test]
async fn nothing_tells_of_the_uploads_of_others() {
    let sender = Sender::new(IngressSettings::default()).await;
    let before = archive();
    let parts = [copy(&before, 0, 1000), end()];
    let others = sender.server.token("run", Some(&["contoso"])).await;
    let foreign = sender.server.token("run", Some(&["fabrikam"])).await;
    let mut told = Vec::new();
    for (token, registry) in [(&others, "contoso"), (&foreign, "fabrikam")] {
        let upload = sender.upload_as(token, registry, before.clone()).await;
        let id = upload.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
        let refused = sender.delta(&id, &parts).await;
        told.push((refused.status, refused.text.replace(&id, "ID")));
    }
    // As if there were none, and as for one that has expired meanwhile.
    let gone = sender.upload(before.clone()).await;
    sender.server.delete(&format!("/registries/contoso/uploads/{gone}")).await;
    for id in ["0123456789abcdef0123456789abcdef", &gone] {
        let refused = sender.delta(id, &parts).await;
        told.push((refused.status, refused.text.replace(id, "ID")));
    }
    assert_eq!(told[0].0, StatusCode::NOT_FOUND);
    assert!(told.iter().all(|it| *it == told[0]), "{told:#?}");
}

#[tokio::test]
async fn an_upload_whose_bytes_are_gone_or_exchanged_is_no_base() {
    let sender = Sender::new(IngressSettings::default()).await;
    let before = archive();
    let from = sender.upload(before.clone()).await;
    let path = uploads::blob_path(&from.parse().unwrap());
    let parts = [copy(&before, 0, before.len()), end()];
    let mut exchanged = before.clone();
    exchanged[500_000] ^= 1;
    sender.server.blobs.put(&path, exchanged.into()).await.unwrap();
    assert_eq!(sender.delta(&from, &parts).await.code(), "other_upload");
    sender.server.blobs.put(&path, before[..400_000].to_vec().into()).await.unwrap();
    let shorter = sender.delta(&from, &parts).await;
    assert!(!shorter.status.is_success(), "{}", shorter.text);
    sender.server.blobs.delete(&path).await.unwrap();
    assert_eq!(sender.delta(&from, &parts).await.status, StatusCode::NOT_FOUND);
    assert_eq!(sender.kept_bytes().await, before.len() as u64);
}

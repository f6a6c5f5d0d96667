//! What `gantry build DIR` uploads through one process is built by another process that shares no disk with it.

use gantry_domain::run::RunStatus;
use gantry_tests::pipeline::LEASE;
use gantry_worker::LeaseTimes;
use serde_json::json;

use crate::ingress::TestIngress;
use crate::installation::Installation;

/// More than one part of a multipart upload.
const LARGE: usize = 7 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploaded_folder_is_built_by_another_process() {
    let installation = Installation::start().await;
    installation.schedule().await;
    let (ingress, other) =
        (TestIngress::open(&installation).await, TestIngress::open(&installation).await);
    let _worker = installation.work(LeaseTimes { period: LEASE, renew: LEASE / 3 }).await;

    let upload = ingress.upload(archive()).await;
    let run = other.build(json!({"upload": upload})).await;
    installation.until(&run, RunStatus::Succeeded).await;
    let asked = installation.parts.engine.asked().pop().unwrap();
    assert!(asked.context_length > LARGE as u64, "{}", asked.context_length);
}

fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let large: Vec<u8> = (0..LARGE).map(|at| (at % 251).to_le_bytes()[0]).collect();
    let dockerfile: &[u8] = b"FROM registry.test/busybox:1\nCOPY large /\n";
    for (name, bytes) in [("Dockerfile", dockerfile), ("large", large.as_slice())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

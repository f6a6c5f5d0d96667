//! A real registry behind a failing proxy: what is retried, for how long, and with which final error.

use std::time::Duration;

use gantry_domain::image::ImageReference;
use gantry_remote::registry::RegistryError;
use tokio::time::Instant;

use crate::faulty_registry::{Fault, FaultyRegistry};
use crate::registry::{client, real_registry, within};

async fn registry() -> (FaultyRegistry, ImageReference) {
    let registry = FaultyRegistry::start(&real_registry()).await.unwrap();
    let image = format!("{}/busybox:1", registry.host()).parse().unwrap();
    (registry, image)
}

#[tokio::test]
async fn every_call_retries_temporary_errors() {
    let (registry, image) = registry().await;
    let client = client(&registry.host(), None);
    registry.plan(1, "GET", "/v2/", Fault::Status(429, Some(1)));
    let began = Instant::now();
    client.check(within(10)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "it wanted a second");

    registry.plan(1, "HEAD", "/manifests/1", Fault::Status(502, None));
    registry.plan(1, "HEAD", "/manifests/1", Fault::BreaksAfter(0));
    let digest = client.resolve(&image, within(10)).await.unwrap();
    registry.plan(1, "GET", "/manifests/", Fault::Status(500, None));
    let manifest = client.manifest(&image.pinned(digest), within(10)).await.unwrap();

    registry.plan(1, "PUT", "/manifests/", Fault::BreaksAfter(100));
    registry.plan(1, "PUT", "/manifests/", Fault::Status(503, Some(0)));
    let tag = "gantry-test-faults".parse().unwrap();
    client.put_manifest(image.repository(), &tag, &manifest, within(10)).await.unwrap();
    assert!(registry.is_done());
    assert_eq!(client.resolve(&image.with_tag(tag), within(10)).await.unwrap(), manifest.digest);
}

#[tokio::test]
async fn a_retry_after_the_deadline_is_not_waited_for() {
    let (registry, image) = registry().await;
    registry.plan(9, "HEAD", "/manifests/", Fault::Status(429, Some(3600)));
    let error = client(&registry.host(), None).resolve(&image, within(30)).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    let said = "429 Too Many Requests, and wants to be left alone for 3600s";
    assert!(error.to_string().ends_with(said), "{error}");
    assert_eq!(registry.requests().len(), 1);
}

#[tokio::test]
async fn a_silent_registry_times_out() {
    let (registry, image) = registry().await;
    registry.plan(9, "HEAD", "/manifests/", Fault::Silence);
    let error = client(&registry.host(), None).resolve(&image, within(1)).await.unwrap_err();
    let RegistryError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().starts_with("no whole answer came within 1."), "{source}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn endless_and_mismatched_answers_are_refused() {
    let (registry, image) = registry().await;
    let client = client(&registry.host(), None);
    let image = image.pinned(client.resolve(&image, within(10)).await.unwrap());
    registry.plan(1, "GET", "/manifests/", Fault::EndlessBody);
    let error = client.manifest(&image, within(10)).await.unwrap_err();
    assert!(error.to_string().ends_with("with more than 8 MiB"), "{error}");
    registry.plan(1, "GET", "/manifests/", Fault::WrongBody);
    let error = client.manifest(&image, within(10)).await.unwrap_err();
    assert!(error.to_string().ends_with("the manifest is not the one of its digest"), "{error}");
}

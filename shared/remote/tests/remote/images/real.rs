//! The same with a real registry, in which other images refer to the base image's layer.

use gantry_domain::image::ImageReference;
use gantry_remote::image_registry::ImageRegistry as _;
use gantry_remote::registry::{RawManifest, RegistryClient};
use reqwest::header::LOCATION;
use serde_json::{Value, json};

use super::content::{INDEX, MANIFEST, configuration, digest_of};
use super::{looks, platforms};
use crate::registry::{client, real_registry, within};

/// A repository in the real registry.
struct Real {
    client: RegistryClient,
    http: reqwest::Client,
    base: String,
    name: String,
}

impl Real {
    fn repository(name: &str) -> Self {
        let host = real_registry();
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let base = format!("http://{host}/v2/{name}");
        let name = format!("{host}/{name}");
        Self { client: client(&host, None), http: reqwest::Client::new(), base, name }
    }

    fn image(&self, tag: &str) -> ImageReference {
        format!("{}:{tag}", self.name).parse().unwrap()
    }

    async fn push_blob(&self, media_type: &str, bytes: Vec<u8>) -> Value {
        let descriptor =
            json!({"mediaType": media_type, "digest": digest_of(&bytes), "size": bytes.len()});
        let upload = self.http.post(format!("{}/blobs/uploads/", self.base)).send().await.unwrap();
        let mut to: reqwest::Url = upload.headers()[LOCATION].to_str().unwrap().parse().unwrap();
        to.query_pairs_mut().append_pair("digest", digest_of(&bytes).as_str());
        self.http.put(to).body(bytes).send().await.unwrap().error_for_status().unwrap();
        descriptor
    }

    async fn push(&self, tag: &str, media_type: &str, manifest: &Value) -> RawManifest {
        let bytes = manifest.to_string().into_bytes();
        let digest = digest_of(&bytes);
        let manifest =
            RawManifest { media_type: media_type.to_owned(), bytes: bytes.into(), digest };
        let image = self.image(tag);
        self.client
            .put_manifest(image.repository(), image.tag().unwrap(), &manifest, within(20))
            .await
            .unwrap();
        manifest
    }

    async fn push_image(&self, tag: &str, configuration: &Value) -> RawManifest {
        let bytes = configuration.to_string().into_bytes();
        let config = self.push_blob("application/vnd.oci.image.config.v1+json", bytes).await;
        let layer = b"a layer".to_vec();
        let layer = self.push_blob("application/vnd.oci.image.layer.v1.tar", layer).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        });
        self.push(tag, MANIFEST, &manifest).await
    }
}

#[tokio::test]
async fn a_real_registry_says_what_manifests_and_indexes_are() {
    let registry = Real::repository("gantry-test-looks");
    let looks = looks();
    let wanted = platforms(&["linux/amd64", "linux/arm64", "linux/s390x"]);

    let amd = registry.push_image("amd", &configuration("linux/amd64", "2026-01-01")).await;
    let arm = registry.push_image("arm", &configuration("linux/arm64/v8", "2026-01-01")).await;
    let entry = |manifest: &RawManifest, architecture: &str| {
        json!({
            "mediaType": MANIFEST, "digest": manifest.digest, "size": manifest.bytes.len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let entries = [entry(&amd, "amd64"), entry(&arm, "arm64")];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let index = registry.push("index", INDEX, &index).await;

    for (tag, pushed) in [("amd", &amd), ("arm", &arm), ("index", &index)] {
        let image = registry.image(tag);
        for known in [None, Some(&pushed.digest)] {
            let digest = looks.digest(&image, known, None).await.unwrap().value;
            assert_eq!(digest.as_ref(), Some(&pushed.digest));
        }
    }
    assert_eq!(looks.digest(&registry.image("absent"), None, None).await.unwrap().value, None);

    let single = looks.versions(&registry.image("amd"), &amd.digest, &wanted, None).await.unwrap();
    let of_index =
        looks.versions(&registry.image("index"), &index.digest, &wanted, None).await.unwrap();
    assert!(!single.value.is_index && of_index.value.is_index);
    assert_eq!(single.value.by_platform.len(), 1);
    assert_eq!(of_index.value.by_platform.len(), 2);
    let amd64 = "linux/amd64".parse().unwrap();
    let (alone, listed) = (&single.value.by_platform[&amd64], &of_index.value.by_platform[&amd64]);
    assert_eq!((&alone.digest, &alone.content), (&listed.digest, &listed.content));
    assert_eq!((&alone.index, &listed.index), (&None, &Some(index.digest)));

    let rebuilt = registry.push_image("amd", &configuration("linux/amd64", "2026-02-02")).await;
    let again = looks.versions(&registry.image("amd"), &rebuilt.digest, &wanted, None).await;
    let (before, after) =
        (&single.value.by_platform[&amd64], &again.unwrap().value.by_platform[&amd64]);
    assert_eq!(after.content, before.content);
    assert_ne!(after.digest, before.digest);

    let list = looks.tags(&registry.image("amd"), None).await.unwrap().value;
    let names: Vec<_> = list.tags.iter().map(|tag| tag.as_str()).collect();
    assert_eq!((names, list.is_cut), (vec!["amd", "arm", "index"], false));
}

//! Manifests: their bytes, type and content.

use bytes::Bytes;
use gantry_domain::image::Digest;
use gantry_domain::platform::Platform;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Both types of index and of manifest. Without them, registries convert to a legacy format.
pub(super) const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or index, exactly as the registry stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawManifest {
    /// The `Content-Type`.
    pub media_type: String,
    /// The bytes that the digest is computed from.
    pub bytes: Bytes,
    /// The digest of `bytes`.
    pub digest: Digest,
}

/// A layer of an artifact: <https://oras.land/docs/concepts/artifact/>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// The path of the file or folder, unchecked.
    pub name: String,
    /// The blob.
    pub digest: Digest,
    /// Whether the blob is an archive of the folder.
    pub is_folder: bool,
}

impl RawManifest {
    /// The digest of the image's configuration, according to the manifest. `None` for an index.
    #[must_use]
    pub fn config(&self) -> Option<Digest> {
        #[derive(Deserialize)]
        struct Image {
            config: Config,
        }
        #[derive(Deserialize)]
        struct Config {
            digest: Digest,
        }
        serde_json::from_slice::<Image>(&self.bytes).ok().map(|image| image.config.digest)
    }

    /// The files of an artifact, as ORAS packs them, in order. Empty for an index, and for an image, whose layers have no
    /// names.
    #[must_use]
    pub fn files(&self) -> Vec<ArtifactFile> {
        #[derive(Deserialize)]
        struct Artifact {
            layers: Vec<Layer>,
        }
        #[derive(Deserialize)]
        struct Layer {
            digest: Digest,
            #[serde(default)]
            annotations: Annotations,
        }
        #[derive(Deserialize, Default)]
        struct Annotations {
            #[serde(rename = "org.opencontainers.image.title")]
            title: Option<String>,
            #[serde(rename = "io.deis.oras.content.unpack")]
            unpack: Option<String>,
        }
        let artifact = serde_json::from_slice::<Artifact>(&self.bytes);
        let layers = artifact.map_or_else(|_| Vec::new(), |artifact| artifact.layers);
        let files = layers.into_iter().filter_map(|Layer { digest, annotations }| {
            let is_folder = annotations.unpack.as_deref() == Some("true");
            Some(ArtifactFile { name: annotations.title?, digest, is_folder })
        });
        files.collect()
    }

    /// The size of the image's configuration and layers, according to the manifest. 0 for an index.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        #[derive(Deserialize)]
        struct Image {
            config: Part,
            layers: Vec<Part>,
        }
        #[derive(Deserialize)]
        struct Part {
            size: u64,
        }
        serde_json::from_slice::<Image>(&self.bytes).map_or(0, |image| {
            let layers = image.layers.iter().map(|layer| layer.size);
            layers.fold(image.config.size, u64::saturating_add)
        })
    }
}

/// The image of an index for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry<'a> {
    /// The platform.
    pub platform: &'a Platform,
    /// Its manifest, in the same repository.
    pub manifest: &'a RawManifest,
}

impl RawManifest {
    /// An index of these images, in this order. The same images give the same bytes. Its type is of the same kind as that of
    /// the images: registries and engines need not take a mixture.
    #[must_use]
    pub fn index(entries: &[IndexEntry<'_>]) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Index<'a> {
            schema_version: u8,
            media_type: &'a str,
            manifests: Vec<Entry<'a>>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Entry<'a> {
            media_type: &'a str,
            digest: &'a Digest,
            size: usize,
            platform: StatedPlatform<'a>,
        }
        #[derive(Serialize)]
        struct StatedPlatform<'a> {
            architecture: &'a str,
            os: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            variant: Option<&'a str>,
        }

        let is_docker = entries.iter().all(|entry| entry.manifest.media_type == DOCKER_MANIFEST);
        let media_type = if is_docker { DOCKER_LIST } else { OCI_INDEX };
        let manifests = entries.iter().map(|IndexEntry { platform, manifest }| Entry {
            media_type: &manifest.media_type,
            digest: &manifest.digest,
            size: manifest.bytes.len(),
            platform: StatedPlatform {
                architecture: platform.architecture(),
                os: platform.os(),
                variant: platform.variant(),
            },
        });
        let index = Index { schema_version: 2, media_type, manifests: manifests.collect() };
        let Ok(bytes) = serde_json::to_vec(&index) else {
            unreachable!("texts and numbers always make JSON")
        };
        let digest = digest_of(&bytes);
        Self { media_type: media_type.to_owned(), bytes: bytes.into(), digest }
    }
}

/// The type in the header, without parameters, which must not be sent back. If a registry sends all bodies as plain
/// text or bytes, the type in the manifest itself.
pub(super) fn media_type_of(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let said = said.map(|said| said.split(';').next().unwrap_or_default().trim().to_owned());
    if said.as_deref().is_some_and(|said| MANIFEST_TYPES.contains(said) && !said.is_empty()) {
        return said;
    }
    let own = serde_json::from_slice::<Typed>(body).ok().and_then(|typed| typed.media_type);
    own.or(said).filter(|media_type| !media_type.is_empty())
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    match format!("sha256:{}", hex::encode(Sha256::digest(bytes))).parse() {
        Ok(digest) => digest,
        Err(_) => unreachable!("a SHA-256 in hexadecimal digits is what a digest is"),
    }
}

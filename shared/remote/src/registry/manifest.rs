//! Manifests: their bytes, type and content.

use bytes::Bytes;
use gantry_domain::image::Digest;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Both types of index and of manifest. Without them, registries convert to a legacy format.
pub(super) const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

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

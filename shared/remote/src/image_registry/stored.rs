//! What a registry stores under the digest of an image.
//!
//! In: the bytes of a manifest or index. Out: the manifests of the index, or the configuration that the manifest names.
//! Pure.

use gantry_domain::image::Digest;
use gantry_domain::image_version::LARGEST_CONFIGURATION;
use gantry_domain::platform::Platform;
use gantry_ops::terminal::one_line;
use serde::Deserialize;

/// The types of an image's configuration. Other manifests are of charts, signatures or whatever else is kept in
/// registries.
const CONFIGURATION_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What is stored under a digest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// An index, or Docker's manifest list.
    Index(Index),
    /// The manifest of an image for one platform, with the digest of its configuration.
    Image {
        /// The digest of a blob.
        configuration: Digest,
    },
}

/// The manifests of an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index(Vec<Entry>);

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Entry {
    digest: Digest,
    // Attestations are for the platform `unknown/unknown`, which suits none.
    platform: Option<EntryPlatform>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct EntryPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// The bytes are nothing that gantry can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// The format that Docker replaced in 2016. It has no configuration.
    #[error(
        "its manifest has the outdated schema 1: push it again with a current version of docker"
    )]
    Schema1,
    /// A manifest of something else.
    #[error("it is not an image, but {0}")]
    NotAnImage(String),
    /// The configuration is too large.
    #[error("its configuration is larger than {} MiB", LARGEST_CONFIGURATION >> 20)]
    TooLarge,
    /// The bytes are no manifest.
    #[error("the registry has no manifest there, but something else: push the image again")]
    Malformed,
}

impl Stored {
    /// Parses a manifest or index by its fields, because not every registry keeps its type.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields {
            schema_version: u64,
            manifests: Option<Vec<Entry>>,
            config: Option<Descriptor>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Descriptor {
            media_type: String,
            digest: Digest,
            size: u64,
        }

        let fields: Fields = serde_json::from_slice(bytes).map_err(|_| Unreadable::Malformed)?;
        match (fields.schema_version, fields.manifests, fields.config) {
            (1, ..) => Err(Unreadable::Schema1),
            (_, Some(manifests), None) => Ok(Self::Index(Index(manifests))),
            (_, None, Some(config)) => {
                if !CONFIGURATION_TYPES.contains(&config.media_type.as_str()) {
                    let named: String = config.media_type.chars().take(100).collect();
                    return Err(Unreadable::NotAnImage(one_line(&named)));
                }
                if config.size > LARGEST_CONFIGURATION {
                    return Err(Unreadable::TooLarge);
                }
                Ok(Self::Image { configuration: config.digest })
            }
            // Both at once would be another image for each reader.
            (_, Some(_), Some(_)) | (_, None, None) => Err(Unreadable::Malformed),
        }
    }
}

impl Index {
    /// The digest of the manifest that suits a platform best; of several equal ones the first, as in engines.
    pub(super) fn best(&self, platform: &Platform) -> Option<&Digest> {
        let suitable = self.0.iter().filter_map(|entry| {
            let stated = entry.platform.as_ref()?;
            let fit = platform.fit(&stated.os, &stated.architecture, stated.variant.as_deref())?;
            Some((fit, &entry.digest))
        });
        suitable.min_by_key(|(fit, _)| *fit).map(|(_, digest)| digest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn parse(manifest: &Value) -> Result<Stored, Unreadable> {
        Stored::parse(manifest.to_string().as_bytes())
    }

    fn digest(digit: char) -> Digest {
        format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap()
    }

    fn entry(digit: char, platform: Value) -> Value {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        json!({"mediaType": media_type, "digest": digest(digit), "size": 7, "platform": platform})
    }

    #[test]
    fn an_index_has_the_best_manifest_for_a_platform_and_never_an_attestation() {
        let unknown = json!({"os": "unknown", "architecture": "unknown"});
        let index = json!({"schemaVersion": 2, "manifests": [
            entry('a', json!({"os": "linux", "architecture": "amd64"})),
            entry('b', json!({"os": "linux", "architecture": "arm64", "variant": "v8"})),
            entry('c', json!({"os": "linux", "architecture": "arm", "variant": "v6"})),
            entry('d', json!({"os": "linux", "architecture": "arm", "variant": "v7"})),
            entry('e', json!({"os": "windows", "architecture": "amd64", "os.version": "10.0"})),
            entry('f', unknown),
            entry('0', json!(null)),
            entry('1', json!({"os": "linux", "architecture": "amd64"})),
        ]});
        let Ok(Stored::Index(index)) = parse(&index) else { panic!("an index") };
        for (platform, best) in [
            ("linux/amd64", Some('a')),
            ("linux/arm64", Some('b')),
            ("linux/arm64/v8", Some('b')),
            ("linux/arm", Some('d')),
            ("linux/arm/v6", Some('c')),
            ("linux/s390x", None),
        ] {
            let found = index.best(&platform.parse().unwrap());
            assert_eq!(found, best.map(digest).as_ref(), "{platform}");
        }
    }

    #[test]
    fn what_is_no_image_is_refused_with_the_reason() {
        let config = |media_type: &str, size: u64| json!({"mediaType": media_type, "digest": digest('a'), "size": size});
        let image = |config: Value| json!({"schemaVersion": 2, "config": config, "layers": []});
        for media_type in CONFIGURATION_TYPES {
            let parsed = parse(&image(config(media_type, 1000)));
            assert_eq!(parsed, Ok(Stored::Image { configuration: digest('a') }));
            let too_large = parse(&image(config(media_type, LARGEST_CONFIGURATION + 1)));
            assert_eq!(too_large, Err(Unreadable::TooLarge));
        }
        let chart = parse(&image(config("application/vnd.cncf.helm.config.v1+json", 7)));
        let said = chart.unwrap_err().to_string();
        assert_eq!(said, "it is not an image, but application/vnd.cncf.helm.config.v1+json");
        let schema1 = json!({"schemaVersion": 1, "name": "web", "fsLayers": [], "history": []});
        assert_eq!(parse(&schema1), Err(Unreadable::Schema1));
        let mut both = image(config(CONFIGURATION_TYPES[0], 7));
        both["manifests"] = json!([]);
        for malformed in [
            json!({"schemaVersion": 2}),
            json!({"manifests": []}),
            json!({"schemaVersion": 2, "manifests": [{"digest": "sha512:00"}]}),
            json!([]),
            both,
        ] {
            assert_eq!(parse(&malformed), Err(Unreadable::Malformed), "{malformed}");
        }
        assert_eq!(Stored::parse(b"<html>"), Err(Unreadable::Malformed));
    }

    proptest! {
        #[test]
        fn parsing_any_bytes_terminates(bytes: Vec<u8>) {
            let _any = Stored::parse(&bytes);
        }
    }
}

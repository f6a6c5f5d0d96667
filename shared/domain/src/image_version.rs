//! What an image consists of, whenever and wherever it was built.
//!
//! In: the configuration of an image, as a registry stores it. Out: its platform and a key of its content. The digest of
//! a rebuilt image always differs, because its configuration says when it was built; the key differs only if a container
//! would notice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::image::{Digest, Tag};
use crate::image_label;
use crate::platform::{Fit, Platform};
use crate::text::text_type;

/// The largest configuration that is read, in bytes. Those of real images have a few KiB.
pub const LARGEST_CONFIGURATION: u64 = 1 << 20;

text_type!(
    /// What an image consists of: equal for images with the same layers and configuration, whenever they were built.
    ContentKey,
    "content key",
    "`sha256:` and 64 lower-case hexadecimal digits",
    |text| text.parse::<Digest>().is_ok()
);

/// A manifest of one platform, and what it consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVersion {
    /// The digest of the platform's manifest; not that of the index which lists it.
    pub digest: Digest,
    /// What it consists of.
    pub content: ContentKey,
    /// The digest of the index that listed it when it was first seen; `None` if the tag was a single image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// The tag that a policy chose; `None` if the image is one tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
}

/// The part of an image's configuration that gantry uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfiguration {
    os: String,
    architecture: String,
    variant: Option<String>,
    content: ContentKey,
}

/// The bytes are no image configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfiguration {
    /// It is larger than [`LARGEST_CONFIGURATION`].
    #[error("its configuration is larger than {} MiB", LARGEST_CONFIGURATION >> 20)]
    TooLarge,
    /// It is not JSON, or not an object.
    #[error("its configuration is not a JSON object")]
    NotJson,
    /// It does not list layers, so it is not that of an image.
    #[error("its configuration lists no layers: it is not an image")]
    NotAnImage,
}

impl ImageConfiguration {
    /// Parses the configuration of an image, in Docker's or OCI's format.
    ///
    /// # Errors
    /// [`InvalidConfiguration`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidConfiguration> {
        if bytes.len() as u64 > LARGEST_CONFIGURATION {
            return Err(InvalidConfiguration::TooLarge);
        }
        let mut fields: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|_| InvalidConfiguration::NotJson)?;
        if !fields.get("rootfs").is_some_and(Value::is_object) {
            return Err(InvalidConfiguration::NotAnImage);
        }
        let text = |name: &str| {
            let text = fields.get(name).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let (os, architecture, variant) = (text("os"), text("architecture"), text("variant"));
        leave_content(&mut fields);
        Ok(Self {
            os: os.unwrap_or_default(),
            architecture: architecture.unwrap_or_default(),
            variant,
            content: key_of(&Value::Object(fields)),
        })
    }

    /// What the image consists of.
    #[must_use]
    pub fn content(&self) -> &ContentKey {
        &self.content
    }

    /// How well the image suits a platform; `None` if it does not run there.
    #[must_use]
    pub fn fit(&self, platform: &Platform) -> Option<Fit> {
        platform.fit(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// The fields that only say when and how an image was built. Docker's classic builder wrote all but the first two, from
/// the container and the image of the step before.
const ABOUT_THE_BUILD: [&str; 8] = [
    "created",
    "history",
    "comment",
    "container",
    "container_config",
    "docker_version",
    "id",
    "parent",
];

/// The prefix of the fields in which BuildKit embeds its cache and what it was asked to build.
const OF_BUILDKIT: &str = "moby.buildkit.";

/// The image that the classic builder had built in the step before. It changes with every build.
const FORMER_IMAGE: &str = "Image";

/// The container that the classic builder ran a step in.
const BUILD_CONTAINER: [&str; 2] = ["Hostname", "Domainname"];

/// Removes all fields that say nothing about what a container gets.
fn leave_content(fields: &mut Map<String, Value>) {
    fields.retain(|name, _| {
        !ABOUT_THE_BUILD.contains(&name.as_str()) && !name.starts_with(OF_BUILDKIT)
    });
    let Some(Value::Object(config)) = fields.get_mut("config") else { return };
    config.retain(|name, _| name != FORMER_IMAGE && !BUILD_CONTAINER.contains(&name.as_str()));
    if let Some(Value::Object(labels)) = config.get_mut("Labels") {
        labels.retain(|name, _| !image_label::is_of_gantry(name));
    }
    // Builders write no labels as an empty object, as null or not at all.
    let is_none =
        |labels: &Value| labels.is_null() || labels.as_object().is_some_and(Map::is_empty);
    if config.get("Labels").is_some_and(is_none) {
        config.remove("Labels");
    }
}

fn key_of(content: &Value) -> ContentKey {
    let mut text = String::new();
    write_sorted(content, &mut text);
    ContentKey(format!("sha256:{}", hex::encode(Sha256::digest(text))))
}

/// Writes JSON with sorted keys and without spaces. `Value` itself sorts only as long as no crate of the program enables
/// a feature of `serde_json`, and keys are stored.
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            text.push('{');
            for (place, (name, value)) in sorted.into_iter().enumerate() {
                text.push_str(if place == 0 { "" } else { "," });
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (place, value) in values.iter().enumerate() {
                text.push_str(if place == 0 { "" } else { "," });
                write_sorted(value, text);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests;

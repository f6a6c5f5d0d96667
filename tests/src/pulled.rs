//! Reads images from a registry without gantry's own client.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use flate2::read::GzDecoder;
use serde_json::Value;

const MANIFESTS: &str = "application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.oci.image.manifest.v1+json";

/// An image in a registry without TLS.
#[derive(Debug)]
pub struct PulledImage {
    /// The digest of its manifest.
    pub digest: String,
    /// `http://HOST/v2/REPOSITORY`.
    base: String,
    manifest: Value,
}

impl PulledImage {
    /// Reads the manifest of `HOST/REPOSITORY:TAG` or `HOST/REPOSITORY@DIGEST`; `None` if it does not exist.
    ///
    /// # Errors
    /// The registry's error, or that the manifest is not an image.
    pub async fn find(image: &str) -> Result<Option<Self>> {
        let (name, reference) = match image.split_once('@') {
            Some(parts) => parts,
            None => image.rsplit_once(':').context("an image with a tag")?,
        };
        let (host, repository) = name.split_once('/').context("an image with a host")?;
        let base = format!("http://{host}/v2/{repository}");
        // An error means that it was already installed.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let manifest = reqwest::Client::new()
            .get(format!("{base}/manifests/{reference}"))
            .header("accept", MANIFESTS)
            .send()
            .await?;
        if manifest.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let manifest = manifest.error_for_status()?;
        let digest = manifest.headers().get("docker-content-digest").context("a digest")?;
        let digest = digest.to_str()?.to_owned();
        Ok(Some(Self { digest, base, manifest: manifest.json().await? }))
    }

    /// A label of the image.
    ///
    /// # Errors
    /// The registry's error.
    pub async fn label(&self, name: &str) -> Result<Option<String>> {
        let config: Value = serde_json::from_slice(&self.blob(&self.manifest["config"]).await?)?;
        Ok(config["config"]["Labels"][name].as_str().map(str::to_owned))
    }

    /// The content of the file at `path` (without a leading slash), from the last layer that has it.
    ///
    /// # Errors
    /// The registry's error, or that no layer has the file.
    pub async fn file(&self, path: &str) -> Result<String> {
        let layers = self.manifest["layers"].as_array().context("layers")?;
        for layer in layers.iter().rev() {
            let blob = self.blob(layer).await?;
            let mut archive = tar::Archive::new(GzDecoder::new(blob.as_slice()));
            for entry in archive.entries()? {
                let mut entry = entry?;
                if entry.path()?.as_os_str() == path {
                    let mut text = String::new();
                    entry.read_to_string(&mut text)?;
                    return Ok(text);
                }
            }
        }
        bail!("{}@{} has no file {path}", self.base, self.digest)
    }

    async fn blob(&self, descriptor: &Value) -> Result<Vec<u8>> {
        let digest = descriptor["digest"].as_str().context("a descriptor with a digest")?;
        let blob = reqwest::get(format!("{}/blobs/{digest}", self.base)).await?;
        Ok(blob.error_for_status()?.bytes().await?.to_vec())
    }
}

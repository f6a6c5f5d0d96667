//! A private registry, CNCF Distribution, which may notify gantry of what is pushed to it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::process::Command;

use super::{free_port, is_open, loopback};
use crate::process::Process;

const START_WITHIN: Duration = Duration::from_secs(30);

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Where a registry sends its notifications.
#[derive(Debug)]
pub struct Notified<'a> {
    /// The URL of a hook.
    pub url: &'a str,
    /// The hook's secret.
    pub secret: &'a str,
}

/// The user of a registry that demands a login, and the password.
pub const LOGIN: (&str, &str) = ("gantry", "hunter2");

/// [`LOGIN`], hashed with bcrypt.
const USERS: &str = "gantry:$2a$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";

/// A registry.
#[derive(Debug)]
pub struct Distribution {
    port: u16,
    demands_login: bool,
    process: Option<Process>,
    folder: TempDir,
    client: Client,
}

impl Distribution {
    /// A registry that is not started yet: its address is known, for the hook that it is to notify.
    ///
    /// # Errors
    /// The system's error.
    pub fn new() -> Result<Self> {
        // An error means that it was already installed.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().build()?;
        let (port, folder) = (free_port(), tempfile::tempdir()?);
        Ok(Self { port, demands_login: false, process: None, folder, client })
    }

    /// The same registry, which shows and takes nothing without [`LOGIN`].
    #[must_use]
    pub fn with_login(self) -> Self {
        Self { demands_login: true, ..self }
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, already runs or does not start.
    pub async fn start(&mut self, notified: Option<&Notified<'_>>) -> Result<()> {
        ensure!(self.process.is_none(), "it runs");
        let config = self.folder.path().join("config.yml");
        // JSON is YAML.
        std::fs::write(&config, self.config(notified).to_string())?;
        std::fs::write(self.folder.path().join("users"), USERS)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        let process = Process::spawn(command, &self.folder.path().join("log"))?;
        let (process, port) = (self.process.insert(process), self.port);
        process.until("answer", START_WITHIN, || is_open(port)).await
    }

    fn config(&self, notified: Option<&Notified<'_>>) -> Value {
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": true}},
            "storage": {
                "filesystem": {"rootdirectory": self.folder.path().join("data")},
                "delete": {"enabled": true},
            },
            "http": {"addr": loopback(self.port), "secret": "one-process-needs-no-shared-secret"},
        });
        if self.demands_login {
            let users = self.folder.path().join("users");
            config["auth"] = json!({"htpasswd": {"realm": "r", "path": users}});
        }
        if let Some(Notified { url, secret }) = notified {
            config["notifications"] = json!({
                "events": {"includereferences": true},
                "endpoints": [{
                    "name": "gantry",
                    "url": url,
                    "headers": {"Authorization": [format!("Bearer {secret}")]},
                    "timeout": "1s",
                    "threshold": 5,
                    "backoff": "1s",
                    "ignore": {"mediatypes": ["application/octet-stream"], "actions": ["pull"]},
                }],
            });
        }
        config
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn host(&self) -> String {
        loopback(self.port).to_string()
    }

    /// Pushes `of` (`HOST/REPOSITORY:TAG`) of another registry as `repository:tag`, with a variable whose value is `word`: other
    /// content for each word. Returns the digest.
    ///
    /// # Errors
    /// Either registry's error.
    pub async fn push(&self, of: &str, repository: &str, tag: &str, word: &str) -> Result<String> {
        let (name, of_tag) = of.rsplit_once(':').context("an image with a tag")?;
        let (host, of_repository) = name.split_once('/').context("an image with a host")?;
        let from = format!("http://{host}/v2/{of_repository}");
        let manifest = format!("{from}/manifests/{of_tag}");
        let manifest = self.client.get(manifest).header(header::ACCEPT, MANIFEST).send().await?;
        let mut manifest: Value = manifest.error_for_status()?.json().await?;
        for layer in manifest["layers"].as_array().context("layers")? {
            self.upload(repository, self.blob(&from, layer).await?).await?;
        }
        let mut config: Value =
            serde_json::from_slice(&self.blob(&from, &manifest["config"]).await?)?;
        let variables = config["config"]["Env"].as_array_mut().context("variables")?;
        variables.push(json!(format!("WORD={word}")));
        let config = config.to_string().into_bytes();
        manifest["config"]["size"] = json!(config.len());
        manifest["config"]["digest"] = json!(self.upload(repository, config).await?);
        let manifest = manifest.to_string();
        let digest = digest(manifest.as_bytes());
        let put = format!("http://{}/v2/{repository}/manifests/{tag}", self.host());
        let put = self.client.put(put).header(header::CONTENT_TYPE, MANIFEST).body(manifest);
        put.send().await?.error_for_status()?;
        Ok(digest)
    }

    async fn blob(&self, from: &str, descriptor: &Value) -> Result<Vec<u8>> {
        let digest = descriptor["digest"].as_str().context("a descriptor with a digest")?;
        let blob = self.client.get(format!("{from}/blobs/{digest}")).send().await?;
        Ok(blob.error_for_status()?.bytes().await?.to_vec())
    }

    /// Uploads a blob. Returns its digest.
    async fn upload(&self, repository: &str, blob: Vec<u8>) -> Result<String> {
        let begin = format!("http://{}/v2/{repository}/blobs/uploads/", self.host());
        let begun = self.client.post(begin).send().await?.error_for_status()?;
        let location = begun.headers().get(header::LOCATION).context("a location")?.to_str()?;
        let digest = digest(&blob);
        // The location has a query already.
        let put = self.client.put(format!("{location}&digest={digest}")).body(blob);
        let status = put.send().await?.status();
        ensure!(status == StatusCode::CREATED, "the registry answered {status} to a blob");
        Ok(digest)
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

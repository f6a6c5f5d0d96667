//! Opens the object store that `objects.url` names.

use std::error::Error;
use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use url::Url;

use crate::blobs::ObjectBlobs;
use crate::client::{self, Connector};
use crate::storage_url::{Cloud, InvalidStorageUrl, StorageUrl};
use crate::unfinished;

/// In a folder that several processes use, an unfinished file of this age was abandoned.
const LEFT_OVER: Duration = Duration::from_secs(24 * 3600);

/// The location of objects, and how to reach it.
#[derive(Clone)]
pub struct ObjectsOptions {
    /// `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix` or `file:///folder`.
    pub url: Url,
    /// Another server than the cloud's own.
    pub endpoint: Option<Url>,
    /// The region of an S3 bucket.
    pub region: String,
    /// A PEM file with certificate authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// The environment. Credentials are read from it as the cloud's own tools do.
    pub environment: Vec<(String, String)>,
}

impl ObjectsOptions {
    /// Checks that this is a valid location. Does not connect.
    ///
    /// # Errors
    /// [`InvalidStorageUrl`].
    pub fn check_url(url: &Url) -> Result<(), InvalidStorageUrl> {
        StorageUrl::parse(url).map(drop)
    }
}

impl std::fmt::Debug for ObjectsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, endpoint, region, ca_file, environment: _ } = self;
        f.debug_struct("ObjectsOptions")
            .field("url", &url.as_str())
            .field("endpoint", endpoint)
            .field("region", region)
            .field("ca_file", ca_file)
            .finish_non_exhaustive()
    }
}

/// The object store could not be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum OpenError {
    /// The URL is invalid.
    #[error(transparent)]
    Url(#[from] InvalidStorageUrl),
    /// The folder cannot be used.
    #[error("{} cannot be used to keep objects", path.display())]
    Folder { path: PathBuf, source: Box<dyn Error + Send + Sync> },
    /// The settings or environment variables are inconsistent.
    #[error(
        "the credentials for {place} are incomplete or wrong: they are taken from the environment, like {credentials}"
    )]
    Credentials {
        place: String,
        /// Where the credentials are expected.
        credentials: &'static str,
        /// The client's error.
        source: Box<object_store::Error>,
    },
    /// The file of certificate authorities cannot be used.
    #[error("{} cannot be used as a CA certificate: {message}", path.display())]
    CaFile { path: PathBuf, message: String },
    /// The system has no usable TLS.
    #[error(
        "cannot start an HTTP client: are the system's certificates installed (ca-certificates)?"
    )]
    Client {
        /// The client's error.
        source: reqwest::Error,
    },
}

impl ObjectBlobs {
    /// Opens the object store of `options`. Does not connect yet: see [`ObjectBlobs::probe`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: &ObjectsOptions) -> Result<Self, OpenError> {
        match StorageUrl::parse(&options.url)? {
            StorageUrl::Folder(path) => Self::in_folder(path, LEFT_OVER),
            StorageUrl::Bucket { cloud, name, prefix } => {
                let failed = |source| OpenError::Credentials {
                    place: options.url.to_string(),
                    credentials: cloud.credentials(),
                    source: Box::new(source),
                };
                let bucket = bucket(cloud, &name, options)?.map_err(failed)?;
                let store: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
                    bucket
                } else {
                    Arc::new(PrefixStore::new(bucket, prefix))
                };
                Ok(Self::new(store, options.url.to_string(), Some(cloud)))
            }
        }
    }

    /// Stores objects as files in a directory of their own, which is created if it does not exist, readable only by its
    /// owner. File and name are on disk when a put returns. For one process at a time: another one's unfinished files
    /// are removed.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn local(directory: impl Into<PathBuf>) -> Result<Self, OpenError> {
        // A file's time may be slightly behind the clock; this keeps new files safe.
        Self::in_folder(directory.into(), Duration::from_secs(1))
    }

    fn in_folder(directory: PathBuf, left_over: Duration) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Folder { path: directory.clone(), source };
        create(&directory).map_err(|source| failed(source.into()))?;
        let store = LocalFileSystem::new_with_prefix(&directory)
            .map_err(|source| failed(source.into()))?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        let place = directory.display().to_string();
        unfinished::remove_in_background(directory, left_over);
        Ok(Self::new(Arc::new(store), place, None))
    }
}

/// Creates the directory and its parents, and syncs their names to disk before anything is stored in them.
fn create(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        create(above)?;
    }
    let mut builder = DirBuilder::new();
    // Another process may create it at the same time.
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    #[cfg(unix)]
    std::fs::File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

fn bucket(
    cloud: Cloud,
    name: &str,
    options: &ObjectsOptions,
) -> Result<object_store::Result<Arc<dyn ObjectStore>>, OpenError> {
    let connector = Connector::new(options.ca_file.as_deref())?;
    Ok(match cloud {
        Cloud::S3 => s3(name, options, connector).build().map(|store| Arc::new(store) as _),
        Cloud::Azure => azure(name, options, connector).build().map(|store| Arc::new(store) as _),
        Cloud::Google => google(name, options, connector).build().map(|store| Arc::new(store) as _),
    })
}

fn s3(name: &str, options: &ObjectsOptions, connector: Connector) -> AmazonS3Builder {
    let mut builder = with_environment(
        AmazonS3Builder::new(),
        &options.environment,
        "AWS_",
        |builder, key, value| builder.with_config(key, value),
    );
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    builder
        .with_bucket_name(name)
        .with_region(&options.region)
        .with_retry(client::retries())
        .with_http_connector(connector)
}

fn azure(name: &str, options: &ObjectsOptions, connector: Connector) -> MicrosoftAzureBuilder {
    let mut builder = with_environment(
        MicrosoftAzureBuilder::new(),
        &options.environment,
        "AZURE_",
        |builder, key, value| builder.with_config(key, value),
    );
    // Azure App Service provides the identity of the machine at this endpoint.
    if let Some(identity) = variable(&options.environment, "IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(identity);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned());
    }
    builder.with_container_name(name).with_retry(client::retries()).with_http_connector(connector)
}

fn google(name: &str, options: &ObjectsOptions, connector: Connector) -> GoogleCloudStorageBuilder {
    let mut builder = with_environment(
        GoogleCloudStorageBuilder::new(),
        &options.environment,
        "GOOGLE_",
        |builder, key, value| builder.with_config(key, value),
    );
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint.as_str().trim_end_matches('/'));
    }
    builder.with_bucket_name(name).with_retry(client::retries()).with_http_connector(connector)
}

/// Sets the variables that the cloud's own tools read as well.
fn with_environment<B, K: FromStr>(
    mut builder: B,
    environment: &[(String, String)],
    prefix: &str,
    with: impl Fn(B, K, &str) -> B,
) -> B {
    for (name, value) in environment.iter().filter(|(name, _)| name.starts_with(prefix)) {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = with(builder, key, value);
        }
    }
    builder
}

fn variable<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

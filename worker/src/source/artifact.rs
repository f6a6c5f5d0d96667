//! Downloads the files of an artifact from a registry, as ORAS packs them: a layer is a file, or an archive of a folder.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use gantry_domain::image::{Digest, ImageReference};
use gantry_ops::secret::Credentials;
use gantry_ops::terminal::one_line;
use gantry_remote::registry::{ArtifactFile, RegistryClient};
use tokio::time::{Instant, timeout_at};
use tokio_util::io::StreamReader;

use super::hashed::hashed;
use super::unpack::{Part, UnpackError, Unpacking};
use super::{Checkout, SourceError, Sources};

/// How long a registry may be unavailable before a request fails.
const WITHIN: Duration = Duration::from_secs(30);

impl Sources {
    /// Downloads an artifact. The digest is that of its manifest.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn from_artifact(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(Checkout, Digest), SourceError> {
        let client =
            RegistryClient::new(self.http.clone(), image.host().clone(), credentials.cloned());
        let manifest = client.manifest(image, soon(deadline)).await?;
        let files = manifest.files();
        if files.is_empty() {
            return Err(SourceError::NoArtifact { image: Box::new(image.clone()) });
        }
        let mut unpacking = Unpacking::new(self.new_folder()?, self.limits);
        for file in files {
            unpacking = add(unpacking, &client, image, file, deadline).await?;
        }
        Ok((unpacking.finish()?, manifest.digest))
    }
}

/// A registry that stays away longer is the attempt's business, and not that of one request.
fn soon(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + WITHIN)
}

async fn add(
    unpacking: Unpacking,
    client: &RegistryClient,
    image: &ImageReference,
    file: ArtifactFile,
    deadline: Instant,
) -> Result<Unpacking, SourceError> {
    let ArtifactFile { name, digest, is_folder } = file;
    let response = client.blob(image, &digest, soon(deadline)).await?;
    let stream = response.bytes_stream().map_err(std::io::Error::other);
    let (content, hash) = hashed(Box::pin(StreamReader::new(stream)));
    let part = if is_folder { Part::Archive } else { Part::File(PathBuf::from(&name)) };
    let unpacking = unpacking.add(part, content, deadline).await?;
    let hash = timeout_at(deadline, hash.finish()).await.map_err(|_| SourceError::TimedOut)?;
    let hash = hash.map_err(|source| UnpackError::BrokeOff { source })?;
    match digest.as_str().strip_prefix("sha256:") == Some(hash.as_str()) {
        true => Ok(unpacking),
        false => Err(SourceError::OtherLayer {
            image: Box::new(image.clone()),
            name: one_line(&name.chars().take(200).collect::<String>()),
        }),
    }
}

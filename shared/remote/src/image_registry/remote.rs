//! Registries through the guarded client.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_domain::image_version::{ImageConfiguration, ImageVersion};
use gantry_domain::platform::Platform;
use gantry_ops::aside;
use gantry_ops::secret::Credentials;
use tokio::time::Instant;

use super::look::{Look, tags_of};
use super::stored::{Index, Stored};
use super::{Asked, ImageRegistry, ImageVersions, LookError, TagList};
use crate::http::{ClientError, OutboundClient};
use crate::registry::RegistryClient;

/// The time limit of one look. A caller has many images to look at, and puts off those that take longer.
const WITHIN: Duration = Duration::from_secs(10);

/// The clients that are kept, each with the tokens of one user at one registry.
const MOST_CLIENTS: usize = 256;

/// The pages of tags that are read, and the number of tags after which no further page is.
const MOST_PAGES: usize = 20;
const MOST_TAGS: usize = 20_000;

/// Registries through the guarded client.
pub struct RemoteImageRegistry {
    http: OutboundClient,
    without_redirects: OutboundClient,
    /// The most recently used last.
    clients: Mutex<Vec<Arc<RegistryClient>>>,
    within: Duration,
}

impl RemoteImageRegistry {
    /// Uses `http`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(http: OutboundClient) -> Result<Self, ClientError> {
        let without_redirects = http.without_redirects()?;
        Ok(Self { http, without_redirects, clients: Mutex::default(), within: WITHIN })
    }

    /// With another time limit for a look than 10 seconds.
    #[must_use]
    pub fn with_limit(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// The client of a host for a user, with the tokens of earlier looks.
    fn client(
        &self,
        host: &RegistryHost,
        credentials: Option<&Credentials>,
    ) -> Arc<RegistryClient> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match clients.iter().position(|client| client.is_for(host, credentials)) {
            Some(place) => clients.remove(place),
            None => Arc::new(self.new_client(host, credentials)),
        };
        if clients.len() >= MOST_CLIENTS {
            clients.remove(0);
        }
        clients.push(Arc::clone(&client));
        client
    }

    fn new_client(&self, host: &RegistryHost, credentials: Option<&Credentials>) -> RegistryClient {
        let client = RegistryClient::new(self.http.clone(), host.clone(), credentials.cloned());
        match credentials {
            // A user's credentials are for the name that the user gave, and not for wherever it redirects to.
            Some(_) => client.with_names(self.without_redirects.clone()),
            None => client,
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.within
    }
}

#[async_trait]
impl ImageRegistry for RemoteImageRegistry {
    async fn digest(
        &self,
        image: &ImageReference,
        known: Option<&Digest>,
        credentials: Option<&Credentials>,
    ) -> Asked<Option<Digest>> {
        let client = self.client(image.host(), credentials);
        let look = Look::new(&client, image, self.deadline());
        let digest = look.digest(known).await?;
        Ok(look.answered(digest))
    }

    async fn versions(
        &self,
        image: &ImageReference,
        digest: &Digest,
        platforms: &BTreeSet<Platform>,
        credentials: Option<&Credentials>,
    ) -> Asked<ImageVersions> {
        let client = self.client(image.host(), credentials);
        let look = Look::new(&client, image, self.deadline());
        let Some(stored) = stored(&look, image, digest).await? else {
            return Err(LookError::Gone { image: Box::new(image.clone()), digest: digest.clone() });
        };
        let versions = match stored {
            Stored::Index(index) => ImageVersions {
                is_index: true,
                by_platform: of_index(&look, image, (digest, &index), platforms).await?,
            },
            Stored::Image { configuration } => ImageVersions {
                is_index: false,
                by_platform: {
                    let found = configuration_of(&look, image, &configuration).await?;
                    let suited = platforms.iter().filter(|platform| found.fit(platform).is_some());
                    suited.map(|platform| (platform.clone(), version(digest, &found))).collect()
                },
            },
        };
        Ok(look.answered(versions))
    }

    async fn tags(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Asked<TagList> {
        let client = self.client(image.host(), credentials);
        let look = Look::new(&client, image, self.deadline());
        let (mut list, mut next) = (TagList::default(), None);
        for _ in 0..MOST_PAGES {
            let Some(page) = look.tag_page(next.as_deref()).await? else { break };
            let tags = read(image, page.body, tags_of).await?;
            let problem = "the registry's list of tags is malformed";
            list.tags.extend(tags.ok_or_else(|| LookError::unreadable(image, problem))?);
            next = page.next;
            if next.is_none() || list.tags.len() >= MOST_TAGS {
                break;
            }
        }
        list.is_cut = next.is_some() || list.tags.len() > MOST_TAGS;
        list.tags.truncate(MOST_TAGS);
        Ok(look.answered(list))
    }
}

/// The versions of an index, each manifest read once.
async fn of_index(
    look: &Look<'_>,
    image: &ImageReference,
    (digest, index): (&Digest, &Index),
    platforms: &BTreeSet<Platform>,
) -> Result<BTreeMap<Platform, ImageVersion>, LookError> {
    let chosen: BTreeMap<&Platform, &Digest> =
        platforms.iter().filter_map(|platform| Some((platform, index.best(platform)?))).collect();
    let manifests: BTreeSet<&Digest> = chosen.values().copied().collect();
    let reads = manifests.into_iter().map(|manifest| of_manifest(look, image, manifest));
    let versions: BTreeMap<Digest, ImageVersion> = try_join_all(reads)
        .await?
        .into_iter()
        .flatten()
        .map(|version| ImageVersion { index: Some(digest.clone()), ..version })
        .map(|version| (version.digest.clone(), version))
        .collect();
    let found = chosen
        .into_iter()
        .filter_map(|(platform, digest)| Some((platform.clone(), versions.get(digest)?.clone())));
    Ok(found.collect())
}

/// The version of one manifest of an index. `None` if it is not in the repository: copies of images may have some
/// platforms only.
async fn of_manifest(
    look: &Look<'_>,
    image: &ImageReference,
    digest: &Digest,
) -> Result<Option<ImageVersion>, LookError> {
    match stored(look, image, digest).await? {
        Some(Stored::Image { configuration }) => {
            let configuration = configuration_of(look, image, &configuration).await?;
            Ok(Some(version(digest, &configuration)))
        }
        Some(Stored::Index(_)) => {
            Err(LookError::unreadable(image, "its index lists another index for a platform"))
        }
        None => Ok(None),
    }
}

fn version(digest: &Digest, configuration: &ImageConfiguration) -> ImageVersion {
    let content = configuration.content().clone();
    ImageVersion { digest: digest.clone(), content, index: None, tag: None }
}

async fn stored(
    look: &Look<'_>,
    image: &ImageReference,
    digest: &Digest,
) -> Result<Option<Stored>, LookError> {
    let Some(manifest) = look.manifest(digest).await? else { return Ok(None) };
    let stored = read(image, manifest.bytes, Stored::parse).await?;
    stored.map(Some).map_err(|problem| LookError::unreadable(image, problem))
}

async fn configuration_of(
    look: &Look<'_>,
    image: &ImageReference,
    digest: &Digest,
) -> Result<ImageConfiguration, LookError> {
    let bytes = look.configuration(digest).await?;
    let configuration = read(image, bytes, ImageConfiguration::parse).await?;
    configuration.map_err(|problem| LookError::unreadable(image, problem))
}

/// Parses what a registry sent, off the runtime.
async fn read<T: Send + 'static>(
    image: &ImageReference,
    bytes: Bytes,
    parse: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Result<T, LookError> {
    let parsed = aside::read(move || parse(&bytes)).await;
    parsed.map_err(|problem| LookError::unreadable(image, problem))
}

#[cfg(test)]
mod tests {
    use gantry_ops::secret::SecretString;

    use super::*;
    use crate::guard::OutboundPolicy;

    fn credentials(password: &str) -> Credentials {
        Credentials { username: "ann".to_owned(), password: SecretString::from(password) }
    }

    #[test]
    fn a_client_is_kept_for_its_host_and_user_until_others_were_used_more_recently() {
        let http = OutboundClient::new(OutboundPolicy::default()).unwrap();
        let registry = RemoteImageRegistry::new(http).unwrap();
        let (host, other): (RegistryHost, RegistryHost) =
            ("ghcr.io".parse().unwrap(), "quay.io".parse().unwrap());
        let (ann, ben) = (credentials("ann's"), credentials("ben's"));
        let first = registry.client(&host, Some(&ann));
        for (host, user) in [(&host, None), (&host, Some(&ben)), (&other, Some(&ann))] {
            assert!(!Arc::ptr_eq(&first, &registry.client(host, user)));
        }
        for number in 0..2 * MOST_CLIENTS {
            registry.client(&host, Some(&credentials(&number.to_string())));
            assert!(Arc::ptr_eq(&first, &registry.client(&host, Some(&credentials("ann's")))));
        }
        assert_eq!(registry.clients.lock().unwrap().len(), MOST_CLIENTS);
    }
}

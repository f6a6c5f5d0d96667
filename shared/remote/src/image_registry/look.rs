//! The requests of one look at an image: each is sent once, and all have one deadline.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use gantry_domain::image::{Digest, ImageReference, Tag};
use reqwest::header::LINK;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::{Allowance, Answered, LookError};
use crate::registry::{
    Answer, Call, Content, RawManifest, RegistryClient, RegistryError, content_digest, digest_of,
};

/// The tags that are asked for at once. Registries may send fewer.
const PAGE: usize = 1000;

/// The longest query of a next page that is followed.
const LONGEST_QUERY: usize = 2048;

/// One look at an image.
pub(super) struct Look<'a> {
    client: &'a RegistryClient,
    image: &'a ImageReference,
    deadline: Instant,
    allowance: Mutex<Option<Allowance>>,
}

/// A page of a list of tags.
pub(super) struct TagPage {
    pub(super) body: Bytes,
    /// Asks for the next page, if there is one.
    pub(super) next: Option<String>,
}

impl<'a> Look<'a> {
    pub(super) fn new(
        client: &'a RegistryClient,
        image: &'a ImageReference,
        deadline: Instant,
    ) -> Self {
        Self { client, image, deadline, allowance: Mutex::default() }
    }

    /// The answer to the look, with what the registry last said about its limits.
    pub(super) fn answered<T>(&self, value: T) -> Answered<T> {
        Answered { value, allowance: self.allowance() }
    }

    /// The current digest of the image's tag; `None` if there is no such tag.
    pub(super) async fn digest(&self, known: Option<&Digest>) -> Result<Option<Digest>, LookError> {
        let tagged = self.image.tag().map(|tag| self.image.with_tag(tag.clone()));
        let tagged = tagged.as_ref().unwrap_or(self.image);
        let head = Call { known: known.cloned(), ..RegistryClient::about(tagged, Method::HEAD) };
        let Some(answer) = self.ask(&head).await? else { return Ok(None) };
        if answer.status == StatusCode::NOT_MODIFIED {
            return Ok(known.cloned());
        }
        // Not every registry supports `HEAD`, or sends the digest in an answer without a body.
        let answer = match (answer.body.is_empty(), content_digest(&answer.headers)) {
            (true, Some(digest)) => return Ok(Some(digest)),
            (false, _) => Some(answer),
            (true, None) => self.ask(&RegistryClient::about(tagged, Method::GET)).await?,
        };
        let Some(answer) = answer else { return Ok(None) };
        let manifest = self.client.read_manifest(tagged, answer);
        manifest.map(|manifest| Some(manifest.digest)).map_err(|error| self.failed(error))
    }

    /// The manifest or index with this digest; `None` if it is not in the repository.
    pub(super) async fn manifest(&self, digest: &Digest) -> Result<Option<RawManifest>, LookError> {
        let pinned = self.image.pinned(digest.clone());
        let answer = self.ask(&RegistryClient::about(&pinned, Method::GET)).await?;
        let Some(answer) = answer else { return Ok(None) };
        self.client.read_manifest(&pinned, answer).map(Some).map_err(|error| self.failed(error))
    }

    /// The configuration with this digest.
    pub(super) async fn configuration(&self, digest: &Digest) -> Result<Bytes, LookError> {
        let repository = self.image.repository();
        let call = Call {
            path: format!("{repository}/blobs/{digest}"),
            content: Content::Blob,
            ..RegistryClient::about(self.image, Method::GET)
        };
        let problem = match self.ask(&call).await? {
            Some(answer) if digest_of(&answer.body) == *digest => return Ok(answer.body),
            Some(_) => "its configuration is not the one of its digest: push the image again",
            None => "its configuration is not in the repository: push the image again",
        };
        Err(LookError::unreadable(self.image, problem))
    }

    /// A page of the repository's tags: the first one, or the one that a page named as its next. `None` if there is no
    /// such repository.
    pub(super) async fn tag_page(&self, next: Option<&str>) -> Result<Option<TagPage>, LookError> {
        let repository = self.image.repository();
        let first = format!("n={PAGE}");
        let query = next.unwrap_or(&first);
        let call = Call {
            path: format!("{repository}/tags/list?{query}"),
            ..RegistryClient::about(self.image, Method::GET)
        };
        let Some(answer) = self.ask(&call).await? else { return Ok(None) };
        let next = next_query(&answer);
        Ok(Some(TagPage { body: answer.body, next }))
    }

    /// Sends the call once. `None` if there is no such object.
    async fn ask(&self, call: &Call<'_>) -> Result<Option<Answer>, LookError> {
        let (answered, allowance) = self.client.once(call, self.deadline).await;
        if allowance.is_some() {
            *self.allowance.lock().unwrap_or_else(PoisonError::into_inner) = allowance;
        }
        match answered {
            Ok(answer) => Ok(Some(answer)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: RegistryError) -> LookError {
        LookError::of(self.image, error, self.allowance())
    }

    fn allowance(&self) -> Option<Allowance> {
        *self.allowance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The query of the next page. Its path is not used: the list is of the same repository.
fn next_query(answer: &Answer) -> Option<String> {
    let links = answer.headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let next = links.flat_map(|links| links.split(',')).find(|link| {
        let relation =
            link.rsplit_once("rel=").map(|(_, relation)| relation.trim_matches(['"', ' ']));
        relation == Some("next")
    })?;
    let (_, address) = next.split_once('<')?;
    let (address, _) = address.split_once('>')?;
    let base = Url::parse("https://registry.invalid").ok()?;
    let query = base.join(address).ok()?.query()?.to_owned();
    (query.len() <= LONGEST_QUERY).then_some(query)
}

/// The tags of a page. Names that are no tags are left out.
pub(super) fn tags_of(body: &[u8]) -> Option<Vec<Tag>> {
    #[derive(Deserialize)]
    struct List {
        tags: Option<Vec<String>>,
    }
    let list: List = serde_json::from_slice(body).ok()?;
    Some(list.tags.into_iter().flatten().filter_map(|tag| tag.parse().ok()).collect())
}

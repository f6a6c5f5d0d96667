//! Manifests in a registry, through the distribution API.
//!
//! In: image references. Out: digests and manifests, or an error that tells whether a retry may help.
//!
//! This does not use `oci-client`, because it builds its own HTTP client, to which neither the guard nor size limits
//! could be applied.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use gantry_domain::image::{DOCKER_HUB, Digest, ImageReference, RegistryHost, Repository, Tag};
use gantry_domain::image_version::LARGEST_CONFIGURATION;
use gantry_ops::backoff::Backoff;
use gantry_ops::secret::{Credentials, ExposeSecret};
use gantry_ops::terminal::one_line;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION,
    WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::guard::{OutboundRefused, ResolveError};
use crate::http::{OutboundClient, OutboundError, read_body, retry_after};

mod access;
mod allowance;
mod challenge;
mod error;
mod manifest;
mod token;

use access::{Access, KnownAccess};
pub use allowance::Allowance;
pub(crate) use allowance::LONGEST_LIMIT;
use challenge::Challenge;
pub use error::RegistryError;
pub(crate) use manifest::digest_of;
pub use manifest::{ArtifactFile, IndexEntry, RawManifest};
use manifest::{MANIFEST_TYPES, media_type_of};

/// The host of Docker Hub's registry, which differs from its name.
const DOCKER_HUB_REGISTRY: &str = "registry-1.docker.io";

/// Registries refuse larger ones, and no image needs them.
const LARGEST_MANIFEST: u64 = 8 << 20;
const LARGEST_TOKEN: u64 = 1 << 20;

const CONTENT_DIGEST: &str = "docker-content-digest";

/// A registry and one user's credentials. What was learned about access is never shared between users.
#[derive(Debug)]
pub struct RegistryClient {
    http: OutboundClient,
    /// For everything that is requested by a name. Registries keep blobs elsewhere, and redirect to them.
    names: OutboundClient,
    host: RegistryHost,
    credentials: Option<Credentials>,
    access: Mutex<KnownAccess>,
}

/// A request that can be repeated.
#[derive(Clone, Default)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// After `/v2/`.
    pub(crate) path: String,
    /// The scope of a token; empty for the registry itself.
    pub(crate) scope: String,
    /// For errors.
    pub(crate) what: String,
    pub(crate) content: Content,
    pub(crate) body: Option<&'a RawManifest>,
    /// The registry need not answer with this again.
    pub(crate) known: Option<Digest>,
}

/// The kind of content that a call is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Content {
    /// A manifest, or a list of names.
    #[default]
    Named,
    /// A blob: the configuration of an image, or a layer, which is not read as a whole.
    Blob,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl RegistryClient {
    /// A client of `host` for one user; anonymous if `credentials` is `None`.
    #[must_use]
    pub fn new(http: OutboundClient, host: RegistryHost, credentials: Option<Credentials>) -> Self {
        Self { names: http.clone(), http, host, credentials, access: Mutex::default() }
    }

    /// Uses `names` for everything but blobs and tokens.
    #[must_use]
    pub(crate) fn with_names(self, names: OutboundClient) -> Self {
        Self { names, ..self }
    }

    /// Whether this is the client of `host` for the user with these credentials.
    pub(crate) fn is_for(&self, host: &RegistryHost, credentials: Option<&Credentials>) -> bool {
        let is_same_user = match (&self.credentials, credentials) {
            (Some(own), Some(other)) => {
                own.username == other.username
                    && own.password.expose_secret() == other.password.expose_secret()
            }
            (own, other) => own.is_none() && other.is_none(),
        };
        self.host == *host && is_same_user
    }

    /// Checks that the registry answers and accepts the credentials.
    ///
    /// Retries until `deadline` while the registry is unavailable.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] if it rejects them.
    pub async fn check(&self, deadline: Instant) -> Result<(), RegistryError> {
        let call = Call { what: "its API".to_owned(), ..Call::default() };
        // Cached access says nothing about the credentials' current state.
        *self.learned() = KnownAccess::default();
        match self.call(&call, deadline).await {
            Err(RegistryError::NotFound { host, .. }) => Err(RegistryError::NoApi { host }),
            called => called.map(drop),
        }
    }

    /// The current digest of an image's tag, of an index or a manifest. If the image has a digest, that is returned.
    ///
    /// Retries until `deadline` while the registry is unavailable.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn resolve(
        &self,
        image: &ImageReference,
        deadline: Instant,
    ) -> Result<Digest, RegistryError> {
        let call = Self::about(image, Method::HEAD);
        if let Some(digest) = image.digest() {
            self.permit(&call, deadline).await?;
            return Ok(digest.clone());
        }
        let answer = self.call(&call, deadline).await?;
        if !answer.body.is_empty() {
            return self.read_manifest(image, answer).map(|manifest| manifest.digest);
        }
        match content_digest(&answer.headers) {
            Some(digest) => Ok(digest),
            // Not every registry sends the digest in an answer without a body.
            None => self.manifest(image, deadline).await.map(|manifest| manifest.digest),
        }
    }

    /// The manifest or index of an image. Its digest is verified.
    ///
    /// Retries until `deadline` while the registry is unavailable.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn manifest(
        &self,
        image: &ImageReference,
        deadline: Instant,
    ) -> Result<RawManifest, RegistryError> {
        let answer = self.call(&Self::about(image, Method::GET), deadline).await?;
        self.read_manifest(image, answer)
    }

    pub(crate) fn read_manifest(
        &self,
        image: &ImageReference,
        answer: Answer,
    ) -> Result<RawManifest, RegistryError> {
        let nonsense = |problem| RegistryError::Nonsense {
            host: self.host.clone(),
            what: image.to_string(),
            problem,
        };
        let digest = digest_of(&answer.body);
        let promised = image.digest().cloned().or_else(|| content_digest(&answer.headers));
        if promised.is_some_and(|promised| promised != digest) {
            return Err(nonsense("the manifest is not the one of its digest"));
        }
        let media_type = media_type_of(&answer.headers, &answer.body);
        let media_type = media_type.ok_or_else(|| nonsense("the manifest has no type"))?;
        Ok(RawManifest { media_type, bytes: answer.body, digest })
    }

    /// Begins to download a blob of an image's repository. What arrives is neither limited nor verified here.
    ///
    /// Retries until `deadline` while the registry is unavailable.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn blob(
        &self,
        image: &ImageReference,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Response, RegistryError> {
        let call = Call {
            path: format!("{}/blobs/{digest}", image.repository()),
            content: Content::Blob,
            ..Self::about(image, Method::GET)
        };
        self.repeat(&call, deadline, || self.begin(&call)).await
    }

    /// Points `tag` to the manifest. The manifest must be in the repository already, or refer only to content that is.
    ///
    /// Retries until `deadline` while the registry is unavailable. The request is idempotent.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        tag: &Tag,
        manifest: &RawManifest,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        let what = format!("{}/{repository}:{tag}", self.host);
        self.put((repository, tag.as_str()), what, manifest, deadline).await
    }

    /// Stores an index under its digest, after asking again for each of its children: what a registry has lost meanwhile is
    /// not listed.
    ///
    /// Retries until `deadline` while the registry is unavailable. The requests are idempotent.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::NotFound`] names a child that is gone.
    pub async fn put_index(
        &self,
        repository: &Repository,
        index: &RawManifest,
        children: &[Digest],
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        for child in children {
            let call = Call {
                method: Method::HEAD,
                path: format!("{repository}/manifests/{child}"),
                scope: format!("repository:{repository}:pull,push"),
                what: format!("{}/{repository}@{child}", self.host),
                ..Call::default()
            };
            self.call(&call, deadline).await?;
        }
        let digest = &index.digest;
        let what = format!("{}/{repository}@{digest}", self.host);
        self.put((repository, digest.as_str()), what, index, deadline).await
    }

    /// Stores a manifest under a tag or its digest.
    async fn put(
        &self,
        (repository, reference): (&Repository, &str),
        what: String,
        manifest: &RawManifest,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        let call = Call {
            method: Method::PUT,
            path: format!("{repository}/manifests/{reference}"),
            scope: format!("repository:{repository}:pull,push"),
            what,
            body: Some(manifest),
            ..Call::default()
        };
        let answer = self.call(&call, deadline).await?;
        match content_digest(&answer.headers) {
            Some(digest) if digest != manifest.digest => Err(RegistryError::Nonsense {
                host: self.host.clone(),
                what: call.what,
                problem: "it kept something other than what was sent",
            }),
            _ => Ok(()),
        }
    }

    /// Removes a tag, if the registry supports it: Distribution 2.8 does not. The manifest and its other tags stay.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn delete_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        let call = Call {
            method: Method::DELETE,
            path: format!("{repository}/manifests/{tag}"),
            scope: format!("repository:{repository}:pull,push,delete"),
            what: format!("{}/{repository}:{tag}", self.host),
            ..Call::default()
        };
        self.call(&call, deadline).await.map(drop)
    }

    /// Whether the guard permits the registry. An image with a digest is not requested here, but the engine will pull
    /// it.
    async fn permit(&self, call: &Call<'_>, deadline: Instant) -> Result<(), RegistryError> {
        let url = self.url(&call.path).ok_or_else(|| self.nonsense(call, "its address is none"))?;
        let unreachable = |source| RegistryError::Unreachable {
            host: self.host.clone(),
            what: call.what.clone(),
            source,
        };
        match timeout_at(deadline, self.http.policy().resolve(&url)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(ResolveError::Refused(refused))) => Err(refused.into()),
            Ok(Err(unknown @ ResolveError::Unknown { .. })) => Err(unreachable(unknown.into())),
            Err(elapsed) => Err(unreachable(elapsed.into())),
        }
    }

    /// A call about the manifest or index of an image.
    pub(crate) fn about(image: &ImageReference, method: Method) -> Call<'static> {
        let repository = image.repository();
        let reference = match (image.digest(), image.tag()) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag.as_str(),
            (None, None) => "latest",
        };
        Call {
            method,
            path: format!("{repository}/manifests/{reference}"),
            scope: format!("repository:{repository}:pull"),
            what: image.to_string(),
            ..Call::default()
        }
    }

    /// Sends the call once, without retries. Also returns what the registry said about its limits.
    pub(crate) async fn once(
        &self,
        call: &Call<'_>,
        deadline: Instant,
    ) -> (Result<Answer, RegistryError>, Option<Allowance>) {
        let mut allowance = None;
        let attempt = async {
            let response = self.respond(call).await?;
            allowance = Allowance::of(response.headers());
            self.answer(call, response).await
        };
        let answered = self.within(call, deadline, attempt).await;
        (answered, allowance)
    }

    /// Sends the call until it has a final answer, or the next retry would be after the deadline.
    async fn call(&self, call: &Call<'_>, deadline: Instant) -> Result<Answer, RegistryError> {
        self.repeat(call, deadline, || self.attempt(call)).await
    }

    async fn repeat<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        call: &Call<'_>,
        deadline: Instant,
        attempt: impl Fn() -> F,
    ) -> Result<T, RegistryError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let error = match self.within(call, deadline, attempt()).await {
                Err(error) if error.is_transient() => error,
                done => return done,
            };
            let wait = error.retry_after().unwrap_or_default().max(backoff.wait());
            // A registry may send any wait, so compare before adding: an overflow of the clock would panic.
            if wait >= deadline.saturating_duration_since(Instant::now()) {
                return Err(error);
            }
            tracing::debug!(registry = %self.host, what = %call.what, %error, "the registry is asked again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn within<T>(
        &self,
        call: &Call<'_>,
        deadline: Instant,
        work: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let began = Instant::now();
        timeout_at(deadline, work).await.unwrap_or_else(|_| {
            Err(RegistryError::Unreachable {
                host: self.host.clone(),
                what: call.what.clone(),
                source: format!("no whole answer came within {:.1?}", began.elapsed()).into(),
            })
        })
    }

    /// Sends the call once.
    async fn attempt(&self, call: &Call<'_>) -> Result<Answer, RegistryError> {
        let response = self.respond(call).await?;
        self.answer(call, response).await
    }

    /// Sends the call once. The body of the response is still to be read.
    async fn begin(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let response = self.respond(call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let failed = self.answer(call, response).await;
        Err(failed.err().unwrap_or_else(|| self.nonsense(call, "it was not sent")))
    }

    /// The response to the call. If a registry refuses `HEAD` of a manifest, uses `GET` as containerd does: some do not
    /// support `HEAD`, and some deny it to users who may `GET`. The response then has a body.
    async fn respond(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let response = self.send_admitted(call).await?;
        if call.method != Method::HEAD || !refuses_method(response.status()) {
            return Ok(response);
        }
        self.send_admitted(&Call { method: Method::GET, ..call.clone() }).await
    }

    /// Sends a request, and again with authorization if the registry asks for it.
    async fn send_admitted(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let known = self.learned().find(&call.scope, Instant::now());
        let response = self.send(call, known.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.learned().forget(&call.scope);
        let access = match (strongest_challenge(response.headers()), &self.credentials) {
            (Some(Challenge::Bearer { realm, service, scopes }), _) => {
                self.token(call, &realm, service, scopes).await?
            }
            (Some(Challenge::Basic), Some(_)) if !matches!(known, Some(Access::Basic)) => {
                Access::Basic
            }
            (Some(Challenge::Basic) | None, _) => return Ok(response),
        };
        let response = self.send(call, Some(&access)).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            self.learned().learn(call.scope.clone(), access, Instant::now());
        }
        Ok(response)
    }

    async fn send(
        &self,
        call: &Call<'_>,
        access: Option<&Access>,
    ) -> Result<Response, RegistryError> {
        let url = self.url(&call.path).ok_or_else(|| self.nonsense(call, "its address is none"))?;
        let (client, accepted) = match call.content {
            Content::Named => (&self.names, MANIFEST_TYPES),
            Content::Blob => (&self.http, "*/*"),
        };
        let mut request = client.request(call.method.clone(), url)?.header(ACCEPT, accepted);
        if let Some(known) = &call.known {
            request = request.header(IF_NONE_MATCH, format!("\"{known}\""));
        }
        if let Some(manifest) = call.body {
            request =
                request.header(CONTENT_TYPE, &manifest.media_type).body(manifest.bytes.clone());
        }
        match access {
            Some(Access::Token { token, .. }) => {
                request = request.bearer_auth(token.expose_secret())
            }
            Some(Access::Basic) => {
                if let Some(basic) = self.basic() {
                    request = request.header(AUTHORIZATION, basic);
                }
            }
            None => {}
        }
        client.send(request).await.map_err(|error| self.unsent(call, error))
    }

    async fn answer(&self, call: &Call<'_>, response: Response) -> Result<Answer, RegistryError> {
        let (host, what) = (self.host.clone(), call.what.clone());
        let status = response.status();
        let headers = response.headers().clone();
        let other_address = redirect_of(&response);
        let largest = match call.content {
            Content::Named => LARGEST_MANIFEST,
            Content::Blob => LARGEST_CONFIGURATION,
        };
        let body = read_body(response, largest).await;
        let is_unchanged = status == StatusCode::NOT_MODIFIED && call.known.is_some();
        match status {
            _ if status.is_success() || is_unchanged => {
                let body = body.map_err(|error| self.unsent(call, error))?;
                Ok(Answer { status, headers, body })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(RegistryError::Unauthorized { host, what, message: words(body) })
            }
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound { host, what }),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Err(RegistryError::Unavailable {
                    host,
                    what,
                    status,
                    retry_after: retry_after(&headers),
                })
            }
            _ if status.is_server_error() => Err(RegistryError::Unavailable {
                host,
                what,
                status,
                retry_after: retry_after(&headers),
            }),
            _ => Err(match other_address {
                Some(to) => RegistryError::Moved { host, what, to },
                None => RegistryError::Refused { host, what, status, message: words(body) },
            }),
        }
    }

    /// Requests a token from the realm that the registry names. The guard does not model trust between hosts. The only
    /// rule here is that credentials are sent unencrypted only to hosts that the operator listed as having no TLS.
    async fn token(
        &self,
        call: &Call<'_>,
        realm: &str,
        service: Option<String>,
        scopes: Vec<String>,
    ) -> Result<Access, RegistryError> {
        let url = Url::parse(realm)
            .map_err(|_| self.nonsense(call, "its token service has no address"))?;
        let host = url.host_str().unwrap_or_default();
        if url.scheme() == "http" && !self.http.policy().is_plain(host, url.port().unwrap_or(80)) {
            return Err(OutboundRefused::Plain { host: host.to_owned() }.into());
        }
        // The scope of the call first, then those that the registry names, which may differ.
        let mut wanted: Vec<&str> = vec![&call.scope];
        wanted.extend(scopes.iter().map(String::as_str));
        wanted.retain(|scope| !scope.is_empty());
        if wanted.iter().skip(1).any(|scope| *scope == call.scope) {
            wanted.remove(0);
        }
        let response = self.ask_for_token(call, url, service.as_deref(), &wanted).await?;
        if !response.status().is_success() {
            return match self.answer(call, response).await {
                // This does not say that there is no such image.
                Ok(_) | Err(RegistryError::NotFound { .. }) => {
                    Err(self.nonsense(call, "its token service gave no token"))
                }
                Err(error) => Err(error),
            };
        }
        let body =
            read_body(response, LARGEST_TOKEN).await.map_err(|error| self.unsent(call, error))?;
        let granted = token::parse(&body);
        let granted =
            granted.ok_or_else(|| self.nonsense(call, "its token service gave no token"))?;
        Ok(Access::Token { token: granted.token, until: Instant::now() + granted.lifetime })
    }

    async fn ask_for_token(
        &self,
        call: &Call<'_>,
        url: Url,
        service: Option<&str>,
        scopes: &[&str],
    ) -> Result<Response, RegistryError> {
        if let Some(credentials) = &self.credentials
            && credentials.identity_token().is_some()
        {
            return self.post_for_token(call, url, service, scopes, credentials).await;
        }
        let response = self.get_token(call, url.clone(), service, scopes).await?;
        // A pure OAuth 2 service, which need not support `GET`.
        let has_no_get =
            refuses_method(response.status()) || response.status() == StatusCode::NOT_FOUND;
        if has_no_get && let Some(credentials) = &self.credentials {
            let posted = self.post_for_token(call, url, service, scopes, credentials).await?;
            if posted.status().is_success() {
                return Ok(posted);
            }
        }
        Ok(response)
    }

    async fn get_token(
        &self,
        call: &Call<'_>,
        mut url: Url,
        service: Option<&str>,
        scopes: &[&str],
    ) -> Result<Response, RegistryError> {
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        for scope in scopes {
            url.query_pairs_mut().append_pair("scope", scope);
        }
        let mut request = self.http.request(Method::GET, url)?;
        if let Some(basic) = self.basic() {
            request = request.header(AUTHORIZATION, basic);
        }
        self.http.send(request).await.map_err(|error| self.unsent(call, error))
    }

    async fn post_for_token(
        &self,
        call: &Call<'_>,
        url: Url,
        service: Option<&str>,
        scopes: &[&str],
        credentials: &Credentials,
    ) -> Result<Response, RegistryError> {
        let form = token_form(service, scopes, credentials);
        // A redirect could have the form repeated elsewhere, with the credentials in it.
        let http = self.http.without_redirects().map_err(|error| RegistryError::Unreachable {
            host: self.host.clone(),
            what: call.what.clone(),
            source: error.into(),
        })?;
        let request = http.request(Method::POST, url)?;
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        http.send(request).await.map_err(|error| self.unsent(call, error))
    }

    /// Never held across an await.
    fn learned(&self) -> std::sync::MutexGuard<'_, KnownAccess> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credentials as a header; `None` also for an identity token, which is no password.
    fn basic(&self) -> Option<HeaderValue> {
        let credentials = self.credentials.as_ref().filter(|it| it.identity_token().is_none());
        let Credentials { username, password } = credentials?;
        let pair = BASE64.encode(format!("{username}:{}", password.expose_secret()));
        let mut value = HeaderValue::from_str(&format!("Basic {pair}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn url(&self, path: &str) -> Option<Url> {
        let scheme = if self.is_plain() { "http" } else { "https" };
        let host = match self.host.as_str() {
            DOCKER_HUB => DOCKER_HUB_REGISTRY,
            host => host,
        };
        Url::parse(&format!("{scheme}://{host}/v2/{path}")).ok()
    }

    fn is_plain(&self) -> bool {
        let Ok(url) = Url::parse(&format!("https://{}/", self.host)) else { return false };
        let (host, port) = (url.host_str().unwrap_or_default(), url.port());
        // Without a port the scheme's default applies, and the scheme is what is being decided.
        self.http.policy().is_plain(host, port.unwrap_or(80))
    }

    fn nonsense(&self, call: &Call<'_>, problem: &'static str) -> RegistryError {
        RegistryError::Nonsense { host: self.host.clone(), what: call.what.clone(), problem }
    }

    fn unsent(&self, call: &Call<'_>, error: OutboundError) -> RegistryError {
        match error {
            OutboundError::Refused(refused) => RegistryError::Outbound(refused),
            OutboundError::TooLarge { most, .. } => {
                RegistryError::TooLarge { host: self.host.clone(), what: call.what.clone(), most }
            }
            OutboundError::Unreachable { source, .. } => RegistryError::Unreachable {
                host: self.host.clone(),
                what: call.what.clone(),
                source,
            },
        }
    }
}

/// The form that asks a token service for a token.
fn token_form(service: Option<&str>, scopes: &[&str], credentials: &Credentials) -> String {
    let token = credentials.identity_token();
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", if token.is_some() { "refresh_token" } else { "password" })
        .append_pair("client_id", "gantry")
        .append_pair("service", service.unwrap_or_default())
        .append_pair("scope", &scopes.join(" "));
    match token {
        Some(token) => form.append_pair("refresh_token", token.expose_secret()),
        None => form
            .append_pair("username", &credentials.username)
            .append_pair("password", credentials.password.expose_secret()),
    };
    form.finish()
}

pub(crate) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// The `host/path` that a response redirects to, without a query, which may have a signature.
fn redirect_of(response: &Response) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let to = response.url().join(location).ok()?;
    let port = to.port().map_or_else(String::new, |port| format!(":{port}"));
    let address = format!("{}{port}{}", to.host_str()?, to.path());
    Some(one_line(&address.chars().take(300).collect::<String>()))
}

fn strongest_challenge(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    // A realm may have any characters.
    let challenges: Vec<_> = values
        .flat_map(|value| challenge::parse(&String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let is_bearer = |challenge: &Challenge| matches!(challenge, Challenge::Bearer { .. });
    challenges.iter().find(|it| is_bearer(it)).or(challenges.first()).cloned()
}

/// Whether a status may be about the method rather than the object. 401 and 404 have their own meaning, and temporary
/// errors are retried.
fn refuses_method(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::FORBIDDEN
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::NOT_IMPLEMENTED
    )
}

/// The message in a registry's error body, on one line.
fn words(body: Result<Bytes, OutboundError>) -> String {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }

    let Ok(body) = body else { return "nothing".to_owned() };
    let said = match serde_json::from_slice::<Body>(&body) {
        Ok(body) => {
            let problems = body.errors.into_iter().map(|it| format!("{} {}", it.code, it.message));
            problems.collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    let line = one_line(&said.chars().take(300).collect::<String>());
    if line.trim().is_empty() { "nothing".to_owned() } else { line.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(host: &str, allow: &[&str]) -> RegistryClient {
        let policy = crate::guard::OutboundPolicy::parse(allow.iter().copied()).unwrap();
        RegistryClient::new(OutboundClient::new(policy).unwrap(), host.parse().unwrap(), None)
    }

    #[test]
    fn plain_http_is_only_used_for_listed_registries() {
        for (host, allow, url) in [
            ("docker.io", &[][..], "https://registry-1.docker.io/v2/x"),
            ("ghcr.io", &[], "https://ghcr.io/v2/x"),
            ("127.0.0.1:5000", &[], "https://127.0.0.1:5000/v2/x"),
            ("127.0.0.1:5000", &["127.0.0.1"], "http://127.0.0.1:5000/v2/x"),
            ("localhost:5000", &["localhost:5000"], "http://localhost:5000/v2/x"),
            ("reg.corp:5000", &["reg.corp"], "https://reg.corp:5000/v2/x"),
            ("reg.corp:5000", &["http://reg.corp:5000"], "http://reg.corp:5000/v2/x"),
            ("reg.corp", &["http://reg.corp"], "http://reg.corp/v2/x"),
        ] {
            assert_eq!(client(host, allow).url("x").unwrap().as_str(), url);
        }
    }

    #[tokio::test]
    async fn an_unlisted_private_registry_is_not_contacted() {
        let image = "127.0.0.1:9/a:1".parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let error = client("127.0.0.1:9", &[]).resolve(&image, deadline).await.unwrap_err();
        assert!(matches!(error, RegistryError::Outbound(_)), "{error}");
        let image = "localhost:9/a:1".parse().unwrap();
        let error = client("localhost:9", &[]).resolve(&image, deadline).await.unwrap_err();
        assert!(error.to_string().contains("outbound.allow"), "{error}");
    }

    #[test]
    fn registry_messages_are_shortened_to_one_line() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\nway"},{"code":"X"}]}"#;
        assert_eq!(words(Ok(Bytes::from_static(body))), "DENIED no way; X");
        assert_eq!(words(Ok(Bytes::from_static(b"<html>"))), "<html>");
        assert_eq!(words(Ok(Bytes::new())), "nothing");
    }
}

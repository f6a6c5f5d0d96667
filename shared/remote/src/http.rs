//! The HTTP client for addresses that users give.
//!
//! In: a request. Out: an answer, limited in time and size. The guard checks the URL, the addresses that it resolves to
//! at the moment of connecting, and each redirect. Proxies of the environment are not used, because connections behind
//! a proxy cannot be checked.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::{Attempt, Policy};
pub use reqwest::{Method, RequestBuilder, Response, StatusCode};
use url::Url;

use crate::guard::{OutboundPolicy, OutboundRefused, ResolveError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit between two parts of an answer. Callers limit the total time.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const MOST_REDIRECTS: usize = 5;

/// An HTTP client that only connects where its policy permits. Clones share connections.
#[derive(Debug, Clone)]
pub struct OutboundClient {
    client: reqwest::Client,
    policy: Arc<OutboundPolicy>,
}

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The guard refused it, and it was not sent.
    #[error(transparent)]
    Refused(#[from] OutboundRefused),
    /// The server did not answer, or the connection was lost.
    #[error("{host} did not answer")]
    Unreachable {
        /// The host as named.
        host: String,
        /// The transport's error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The answer is too large.
    #[error("the answer of {host} is larger than {most} bytes")]
    TooLarge {
        /// The host as named.
        host: String,
        /// The limit in bytes.
        most: u64,
    },
}

impl OutboundError {
    /// Whether a retry may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// The client cannot be created, because the system has no usable TLS.
#[derive(Debug, thiserror::Error)]
#[error("cannot start an HTTP client: are the system's certificates installed (ca-certificates)?")]
pub struct ClientError {
    source: reqwest::Error,
}

impl OutboundClient {
    /// A client that connects where `policy` permits.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(policy: OutboundPolicy) -> Result<Self, ClientError> {
        let policy = Arc::new(policy);
        let redirects = Arc::clone(&policy);
        Self::build(policy, Policy::custom(move |attempt| follow(&redirects, attempt)))
    }

    /// A client with the same policy that returns a redirect as the answer, for requests whose headers or body only the
    /// host that they name may see: on the way to another host, reqwest drops `Authorization`, but no header of a
    /// vendor's own, and repeats the body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn without_redirects(&self) -> Result<Self, ClientError> {
        Self::build(Arc::clone(&self.policy), Policy::none())
    }

    fn build(policy: Arc<OutboundPolicy>, redirects: Policy) -> Result<Self, ClientError> {
        // The process has one TLS provider; an error means that it is already installed.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .dns_resolver(GuardedResolver(Arc::clone(&policy)))
            .redirect(redirects)
            .build()
            .map_err(|source| ClientError { source })?;
        Ok(Self { client, policy })
    }

    /// The client's policy.
    #[must_use]
    pub fn policy(&self) -> &Arc<OutboundPolicy> {
        &self.policy
    }

    /// Builds a request.
    ///
    /// # Errors
    /// [`OutboundRefused`] if the URL alone is reason to refuse.
    pub fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, OutboundRefused> {
        self.policy.check(&url)?;
        Ok(self.client.request(method, url))
    }

    /// Sends a request built by [`OutboundClient::request`]. Any status counts as an answer.
    ///
    /// # Errors
    /// [`OutboundError::Refused`], [`OutboundError::Unreachable`].
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, OutboundError> {
        request.send().await.map_err(failure)
    }
}

/// Reads the body of an answer to its end.
///
/// # Errors
/// [`OutboundError::TooLarge`] if it has more than `most` bytes; [`OutboundError::Unreachable`] if the connection is
/// lost.
pub async fn read_body(mut response: Response, most: u64) -> Result<Bytes, OutboundError> {
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let too_large = || OutboundError::TooLarge { host: host.clone(), most };
    if response.content_length().is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if body.len() as u64 + chunk.len() as u64 > most {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Whether a status comes from a gateway or an overloaded server, and so does not answer the request.
#[must_use]
pub fn says_away(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// The `Retry-After` of an answer, if it is a number of seconds.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// What began a chain of errors: the system's error, without the layers that passed it on.
pub(crate) fn first_cause(error: &(dyn StdError + 'static)) -> String {
    let mut first = error;
    while let Some(cause) = first.source() {
        first = cause;
    }
    first.to_string()
}

/// A refusal of the resolver or of a redirect is wrapped in the transport's error.
pub(crate) fn failure(error: reqwest::Error) -> OutboundError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(refused) = current.downcast_ref::<OutboundRefused>() {
            return OutboundError::Refused(refused.clone());
        }
        cause = current.source();
    }
    let host = error.url().and_then(Url::host_str).unwrap_or("the server").to_owned();
    OutboundError::Unreachable { host, source: error.without_url().into() }
}

fn follow(policy: &OutboundPolicy, attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from_https = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
    if from_https && attempt.url().scheme() == "http" {
        let host = attempt.url().host_str().unwrap_or_default().to_owned();
        return attempt.error(OutboundRefused::Downgrade { host });
    }
    if attempt.previous().len() > MOST_REDIRECTS {
        return attempt.error(format!("it redirected more than {MOST_REDIRECTS} times"));
    }
    match policy.check(attempt.url()) {
        Ok(()) => attempt.follow(),
        Err(refused) => attempt.error(refused),
    }
}

/// Resolves names with the policy's resolver and keeps the permitted addresses. Done while connecting, because a name
/// may resolve differently a moment after an earlier check.
struct GuardedResolver(Arc<OutboundPolicy>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.0);
        Box::pin(async move {
            let found = policy.look_up(name.as_str()).await;
            let permitted = found.map_err(|error| match error {
                // Not wrapped, so that `failure` finds it among the causes of the transport's error.
                ResolveError::Refused(refused) => Box::<dyn StdError + Send + Sync>::from(refused),
                unknown @ ResolveError::Unknown { .. } => unknown.into(),
            })?;
            let sockets = permitted.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(sockets) as Addrs)
        })
    }
}

//! Requests to gantry's API, and the mapping of errors to exit codes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use gantry_api::{ErrorBody, Page};
use gantry_ops::secret::{ExposeSecret as _, SecretString, random_hex};
use gantry_ops::terminal::one_line;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::config::{ClientConfig, shown};
use crate::exit::Exit;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How often an idempotent request is sent, and the first pause in between; pauses double.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The most items on one page of a list.
const PAGE: usize = 200;

/// A client of gantry's API at one address, with one token.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: Url,
    token: SecretString,
}

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(
        "gantry at {base} does not answer: is it running there? `gantry up` starts one, `gantry login URL` names another"
    )]
    Unreachable { base: String, source: reqwest::Error },
    #[error("the connection to gantry at {base} was lost")]
    Broken { base: String, source: reqwest::Error },
    #[error("what answers at {base} is not gantry's API: check the address of `gantry login`")]
    NotGantry { base: String },
    #[error("{base} refused the token: run `gantry login {base}` with a valid token")]
    Unauthorized { base: String },
    #[error("{}", refusal(.message, .mistakes))]
    Refused { status: StatusCode, message: String, mistakes: Vec<String> },
}

/// If there are several mistakes, prints each on its own line instead of all in one.
fn refusal(message: &str, mistakes: &[String]) -> String {
    if mistakes.len() < 2 {
        return message.to_owned();
    }
    let lines = mistakes.iter().map(|mistake| format!("\n  {mistake}"));
    format!("{} things are wrong:{}", mistakes.len(), lines.collect::<String>())
}

impl ApiError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::NotGantry { .. } => {
                Exit::Infrastructure
            }
            Self::Unauthorized { .. } => Exit::Failed,
            Self::Refused { status, .. } if status.is_server_error() => Exit::Infrastructure,
            Self::Refused { status, .. } => match *status {
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Exit::Usage,
                _ => Exit::Failed,
            },
        }
    }

    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Broken { .. } => true,
            Self::Refused { status, .. } => matches!(
                *status,
                StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
            Self::Unreachable { .. } | Self::NotGantry { .. } | Self::Unauthorized { .. } => false,
        }
    }
}

impl Api {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // Without redirects, so that the token is only sent to the configured address.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("cannot prepare for HTTP: the system's certificates cannot be read")?;
        Ok(Self { http, base: config.url.clone(), token: config.token.clone() })
    }

    /// Tells this address and token from others, without revealing the token.
    pub(crate) fn identity(&self) -> [u8; 32] {
        let address = Sha256::digest(self.base.as_str());
        let token = Sha256::digest(self.token.expose_secret());
        Sha256::new().chain_update(address).chain_update(token).finalize().into()
    }

    /// The address, for messages.
    pub(crate) fn address(&self) -> String {
        shown(&self.base).to_owned()
    }

    /// Reads one object.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T> {
        let answer = self.repeat(|| self.request(Method::GET, path)).await?;
        self.read(answer).await
    }

    /// Reads one object that the query names.
    pub(crate) async fn get_with<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T> {
        let answer = self.repeat(|| self.request_with(Method::GET, path, query)).await?;
        self.read(answer).await
    }

    /// Reads a list, page by page, to its end or to `limit` items.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        filter: &[(&str, Option<&str>)],
        limit: usize,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let wanted = (limit - items.len()).min(PAGE).to_string();
            let mut query: Vec<(&str, &str)> = vec![("limit", &wanted)];
            query.extend(filter.iter().filter_map(|(name, value)| Some((*name, (*value)?))));
            query.extend(after.as_deref().map(|after| ("after", after)));
            let answer = self.repeat(|| self.request_with(Method::GET, path, &query)).await?;
            let page: Page<T> = self.read(answer).await?;
            items.extend(page.items);
            after = page.next;
            if after.is_none() || items.len() >= limit {
                items.truncate(limit);
                return Ok(items);
            }
        }
    }

    /// Sends a request that is not idempotent, once.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        let answer = self.once(self.request(Method::POST, path).json(body)).await?;
        self.read(answer).await
    }

    /// Starts a run. An idempotency key makes retries safe.
    pub(crate) async fn start<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        let key = random_hex::<16>()?;
        let request =
            || self.request(Method::POST, path).header("Idempotency-Key", key.as_str()).json(body);
        let answer = self.repeat(request).await?;
        self.read(answer).await
    }

    /// Changes an object. Idempotent, so it is retried.
    pub(crate) async fn patch<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        let answer = self.repeat(|| self.request(Method::PATCH, path).json(body)).await?;
        self.read(answer).await
    }

    /// Sets an object. Not retried: a second request may do more than the first.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        let answer = self.once(self.request(Method::PUT, path).json(body)).await?;
        self.read(answer).await
    }

    pub(crate) async fn delete(&self, path: &[&str]) -> Result<()> {
        self.once(self.request(Method::DELETE, path)).await?;
        Ok(())
    }

    /// Sends a body as a stream, without a time limit.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        content_type: &str,
        body: reqwest::Body,
    ) -> Result<T> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.post(url).bearer_auth(self.token.expose_secret());
        let request = request.header("Content-Type", content_type).body(body);
        let answer = self.checked(request.send().await).await?;
        self.read(answer).await
    }

    /// Opens an answer that is read as a stream.
    pub(crate) async fn open(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        headers: &[(&'static str, &str)],
    ) -> Result<Response, ApiError> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.get(url).bearer_auth(self.token.expose_secret());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.checked(request.send().await).await
    }

    /// The error of a lost connection.
    pub(crate) fn broken(&self, source: reqwest::Error) -> ApiError {
        ApiError::Broken { base: self.address(), source: source.without_url() }
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.request_with(method, path, &[])
    }

    fn request_with(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> RequestBuilder {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http
            .request(method, url)
            .bearer_auth(self.token.expose_secret())
            .timeout(ANSWER_TIMEOUT)
    }

    /// The URL of a path in the API. Each element becomes one segment, whatever it contains.
    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut words) = url.path_segments_mut() {
            words.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        url
    }

    async fn repeat(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, ApiError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.once(request()).await {
                Err(error) if error.is_transient() => tokio::time::sleep(pause).await,
                answer => return answer,
            }
            pause *= 2;
        }
        self.once(request()).await
    }

    async fn once(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        self.checked(request.send().await).await
    }

    async fn checked(
        &self,
        answer: Result<Response, reqwest::Error>,
    ) -> Result<Response, ApiError> {
        let answer = answer.map_err(|source| {
            if source.is_connect() || source.is_timeout() {
                ApiError::Unreachable { base: self.address(), source: source.without_url() }
            } else {
                self.broken(source)
            }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(ApiError::Unauthorized { base: self.address() });
        }
        let body = answer.bytes().await.map_err(|source| self.broken(source))?;
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(ErrorBody { error }) => {
                let mistakes = error.details.iter();
                let mistakes =
                    mistakes.map(|one| one_line(&format!("{}: {}", one.target, one.message)));
                Err(ApiError::Refused {
                    status,
                    message: one_line(&error.message),
                    mistakes: mistakes.collect(),
                })
            }
            Err(_) if status.is_server_error() => {
                let message =
                    format!("gantry at {} answers {status}: its log says why", self.address());
                Err(ApiError::Refused { status, message, mistakes: Vec::new() })
            }
            Err(_) => Err(ApiError::NotGantry { base: self.address() }),
        }
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response) -> Result<T> {
        let bytes = answer.bytes().await.map_err(|source| self.broken(source))?;
        serde_json::from_slice(&bytes)
            .map_err(|_| ApiError::NotGantry { base: self.address() }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(base: &str) -> Api {
        let _already = rustls::crypto::ring::default_provider().install_default();
        let token = SecretString::from("secret-token");
        Api::new(&ClientConfig { url: base.parse().unwrap(), token }).unwrap()
    }

    #[test]
    fn user_input_is_a_single_path_segment() {
        let url = api("https://gantry.example/base/").url(&["tasks", "../../x?y#z", "a b"]);
        assert_eq!(
            url.as_str(),
            "https://gantry.example/base/api/v1/tasks/..%2F..%2Fx%3Fy%23z/a%20b"
        );
    }

    #[test]
    fn a_refusal_has_the_exit_code_of_its_cause() {
        let refused = |status| {
            ApiError::Refused { status, message: String::new(), mistakes: Vec::new() }.exit()
        };
        assert_eq!(refused(StatusCode::UNPROCESSABLE_ENTITY), Exit::Usage);
        assert_eq!(refused(StatusCode::NOT_FOUND), Exit::Failed);
        assert_eq!(refused(StatusCode::CONFLICT), Exit::Failed);
        assert_eq!(refused(StatusCode::SERVICE_UNAVAILABLE), Exit::Infrastructure);
    }

    #[tokio::test]
    async fn an_unreachable_server_is_an_infrastructure_error_without_the_token() {
        let error = api("http://127.0.0.1:1/").get::<()>(&["status"]).await.unwrap_err();
        assert_eq!(Exit::of_error(&error), Exit::Infrastructure);
        let shown = format!("{error:#} {error:?}");
        assert!(
            shown.contains("http://127.0.0.1:1 ") && !shown.contains("secret-token"),
            "{shown}"
        );
    }
}

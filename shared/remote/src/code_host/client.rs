//! Requests to the API of one repository, and what their answers mean for any provider.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_domain::source::GitUrl;
use gantry_ops::secret::{Credentials, ExposeSecret, SecretString};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::table::below;
use super::{CodeHostError, CodeHostFailure};
use crate::http::{OutboundClient, OutboundError, first_cause, read_body, retry_after};

/// The largest answer, in bytes. A page of changed files contains their patches.
const LARGEST_ANSWER: u64 = 16 << 20;

/// The longest pause that a host can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The pause after a limit whose end the host does not tell.
pub(super) const PAUSE: Duration = Duration::from_secs(60);

/// What a request is for. Displayed as what the token must be able to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    ReadRepository,
    ReadPullRequest(u64),
    ListPullRequests,
    CompareCommits,
    ListFiles(u64),
    SetStatus,
    ManageHooks,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadRepository => f.write_str("read the repository"),
            Self::ReadPullRequest(number) => write!(f, "read pull request {number}"),
            Self::ListPullRequests => f.write_str("list the open pull requests"),
            Self::CompareCommits => f.write_str("compare commits"),
            Self::ListFiles(number) => write!(f, "list the files of pull request {number}"),
            Self::SetStatus => f.write_str("set a commit status"),
            Self::ManageHooks => f.write_str("manage webhooks"),
        }
    }
}

/// What is different between providers in every answer.
pub(super) trait Conventions: Send + Sync {
    /// The headers of every request.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// What the query of every request contains.
    fn query(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The right that a token needs, in the provider's words.
    fn right(&self, operation: Operation, answer: &Answer) -> &'static str;

    /// Whether requests are made as the operator's App, and not with a token of a task.
    fn is_app(&self) -> bool {
        false
    }

    /// The pause that the answer asks for; `None` if it is no refusal because of too many requests.
    fn limit(&self, answer: &Answer) -> Option<Duration> {
        (answer.status == StatusCode::TOO_MANY_REQUESTS).then(|| answer.pause().unwrap_or(PAUSE))
    }

    /// The parameter for the size of a page.
    fn page_size(&self) -> &'static str {
        "per_page"
    }

    /// Whether a page of `found` entries is the last one, when `asked` were asked for.
    fn is_last_page(&self, found: usize, asked: usize) -> bool {
        found < asked
    }

    /// Whether the answer asks a person to sign in, which means that the token was refused.
    fn asks_to_sign_in(&self, _answer: &Answer) -> bool {
        false
    }
}

/// The API of one repository, with its credential.
#[derive(Clone)]
pub(super) struct RepositoryClient<'a> {
    /// Does not follow redirects.
    pub(super) http: &'a OutboundClient,
    /// The repository's URL, for errors.
    pub(super) url: &'a GitUrl,
    /// The repository's address in the API.
    pub(super) base: Url,
    /// `None` for public repositories.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) conventions: &'static dyn Conventions,
}

/// An answer. No `Debug`: the body may repeat the token.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Retry-After`.
    pub(super) fn pause(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }

    /// Whether the body contains `text`.
    pub(super) fn says(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
    }
}

impl RepositoryClient<'_> {
    /// The same for another repository of this host.
    pub(super) fn with_base(&self, base: Url) -> Self {
        Self { base, ..self.clone() }
    }

    /// Reads what is at `words` below the repository. `None` if it does not exist.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        operation: Operation,
        words: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Option<T>, CodeHostError> {
        let answer = self.get(words, query).await?;
        self.found(operation, &answer).await
    }

    /// What an answer contains. `None` if what was asked for does not exist.
    pub(super) async fn found<T: DeserializeOwned>(
        &self,
        operation: Operation,
        answer: &Answer,
    ) -> Result<Option<T>, CodeHostError> {
        if self.is_success(answer) {
            return self.parse(answer).map(Some);
        }
        // Hosts also answer 404 for what the token may not see.
        if answer.status == StatusCode::NOT_FOUND && self.sees_repository().await? {
            return Ok(None);
        }
        Err(self.failure(operation, answer))
    }

    /// Like [`Self::read`] for what every repository has: a 404 is a refusal.
    pub(super) async fn read_own<T: DeserializeOwned>(
        &self,
        operation: Operation,
        words: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, CodeHostError> {
        let answer = self.get(words, query).await?;
        if self.is_success(&answer) {
            self.parse(&answer)
        } else {
            Err(self.failure(operation, &answer))
        }
    }

    /// Creates or replaces what is at `words`.
    pub(super) async fn write(
        &self,
        operation: Operation,
        method: Method,
        words: &[&str],
        body: &(impl Serialize + Sync),
    ) -> Result<(), CodeHostError> {
        let answer = self.send_json(method, words, body).await?;
        self.done(operation, &answer)
    }

    pub(super) async fn send_json(
        &self,
        method: Method,
        words: &[&str],
        body: &(impl Serialize + Sync),
    ) -> Result<Answer, CodeHostError> {
        self.send(self.request(method, words, &[])?.json(body)).await
    }

    /// Has something done that needs no body.
    pub(super) async fn act(
        &self,
        operation: Operation,
        words: &[&str],
    ) -> Result<(), CodeHostError> {
        let answer = self.send(self.request(Method::POST, words, &[])?).await?;
        self.done(operation, &answer)
    }

    /// Deletes what is at `words`. It is no error if it is gone.
    pub(super) async fn delete(
        &self,
        operation: Operation,
        words: &[&str],
    ) -> Result<(), CodeHostError> {
        let answer = self.send(self.request(Method::DELETE, words, &[])?).await?;
        match answer.status {
            // Whoever may list hooks got their ids there.
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(()),
            _ => self.done(operation, &answer),
        }
    }

    /// An error unless the API did what it was asked for.
    pub(super) fn done(&self, operation: Operation, answer: &Answer) -> Result<(), CodeHostError> {
        let has_no_body = matches!(answer.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT);
        if has_no_body || self.is_success(answer) {
            return Ok(());
        }
        Err(self.failure(operation, answer))
    }

    async fn sees_repository(&self) -> Result<bool, CodeHostError> {
        let answer = self.get(&[], &[]).await?;
        if self.is_success(&answer) {
            return Ok(true);
        }
        let error = self.failure(Operation::ReadRepository, &answer);
        if error.refused_token() { Ok(false) } else { Err(error) }
    }

    /// Whether an answer refuses because of too many requests.
    pub(super) fn is_limited(&self, answer: &Answer) -> bool {
        self.conventions.limit(answer).is_some()
    }

    /// Whether the API did what it was asked for.
    pub(super) fn is_success(&self, answer: &Answer) -> bool {
        matches!(answer.status, StatusCode::OK | StatusCode::CREATED)
            && !self.conventions.asks_to_sign_in(answer)
    }

    pub(super) async fn get(
        &self,
        words: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Answer, CodeHostError> {
        self.send(self.request(Method::GET, words, query)?).await
    }

    pub(super) async fn post(
        &self,
        words: &[&str],
        body: &(impl Serialize + Sync),
    ) -> Result<Answer, CodeHostError> {
        self.send_json(Method::POST, words, body).await
    }

    fn request(
        &self,
        method: Method,
        words: &[&str],
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, CodeHostError> {
        let mut url = below(&self.base, words.iter().copied());
        let always = self.conventions.query();
        if !query.is_empty() || !always.is_empty() {
            url.query_pairs_mut().extend_pairs(query).extend_pairs(always);
        }
        let mut request =
            self.http.request(method, url).map_err(|refused| self.unsent(refused.into()))?;
        for (name, value) in self.conventions.headers() {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, CodeHostError> {
        let response = self.http.send(request).await.map_err(|error| self.unsent(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_body(response, LARGEST_ANSWER).await.map_err(|error| self.unsent(error))?;
        Ok(Answer { status, headers, body })
    }

    /// Parses the body. The parser's error is dropped, because it quotes values.
    pub(super) fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, CodeHostError> {
        serde_json::from_slice(&answer.body).map_err(|_| self.nonsense())
    }

    /// An answer that the provider's API never gives.
    pub(super) fn nonsense(&self) -> CodeHostError {
        let message = format!(
            "{} did not answer for {} as the API of this code host does: check its entry in `code_hosts.apis`",
            self.host(),
            self.url
        );
        CodeHostError { message, kind: CodeHostFailure::Permanent }
    }

    /// The error for an answer that is no success.
    pub(super) fn failure(&self, operation: Operation, answer: &Answer) -> CodeHostError {
        let (host, url, status) = (self.host(), self.url, answer.status);
        if let Some(pause) = self.conventions.limit(answer) {
            let message = format!(
                "{host} limits the number of requests, so gantry could not {operation} for {url}: it is tried again"
            );
            return transient(message, Some(pause));
        }
        if self.conventions.asks_to_sign_in(answer)
            || matches!(
                status,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
            )
        {
            return self.refused(operation, answer);
        }
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            let message =
                format!("{host} could not {operation} for {url} ({status}): it is tried again");
            return transient(message, answer.pause());
        }
        let message = if status.is_redirection() {
            format!(
                "{host} redirects to {} to {operation} for {url}: if the repository moved, change its address in the task",
                self.redirect_target(answer)
            )
        } else {
            format!("{host} refused to {operation} for {url} ({status})")
        };
        CodeHostError { message, kind: CodeHostFailure::Permanent }
    }

    fn refused(&self, operation: Operation, answer: &Answer) -> CodeHostError {
        let (host, url, status) = (self.host(), self.url, answer.status);
        let right = self.conventions.right(operation, answer);
        if self.conventions.is_app() {
            let message = format!(
                "{host} does not let the GitHub App {operation} for {url} ({status}): it needs {right}"
            );
            return CodeHostError { message, kind: CodeHostFailure::RefusedApp };
        }
        let message = match (&self.authorization, status) {
            (None, _) => format!(
                "{host} does not {operation} for {url} without a token ({status}): give the task a git access token with {right}"
            ),
            (Some(_), StatusCode::UNAUTHORIZED) => format!(
                "{host} rejected the token for {url} ({status}): it is wrong, expired or revoked; to {operation}, give the task one with {right}"
            ),
            (Some(_), _) => format!(
                "{host} refused the token for {url} ({status}): to {operation}, it needs {right}"
            ),
        };
        CodeHostError { message, kind: CodeHostFailure::RefusedToken }
    }

    /// Not the whole target, which may repeat what was sent.
    fn redirect_target(&self, answer: &Answer) -> String {
        let location = answer.header(LOCATION.as_str());
        let target = location.and_then(|location| self.base.join(location).ok());
        target
            .map_or_else(|| "no address".to_owned(), |target| target.origin().ascii_serialization())
    }

    fn unsent(&self, error: OutboundError) -> CodeHostError {
        let (host, url) = (self.host(), self.url);
        match error {
            OutboundError::Refused(refused) => {
                CodeHostError { message: refused.to_string(), kind: CodeHostFailure::Permanent }
            }
            OutboundError::Unreachable { source, .. } => {
                let cause = first_cause(source.as_ref());
                transient(format!("{host} did not answer for {url}: {cause}"), None)
            }
            OutboundError::TooLarge { .. } => CodeHostError {
                message: format!("the answer of {host} for {url} is larger than 16 MiB"),
                kind: CodeHostFailure::Permanent,
            },
        }
    }

    fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }
}

pub(super) fn transient(message: String, pause: Option<Duration>) -> CodeHostError {
    let retry_after = pause.map(|pause| pause.min(LONGEST_PAUSE));
    CodeHostError { message, kind: CodeHostFailure::Transient { retry_after } }
}

/// `Authorization: Bearer …`, which traces do not show.
pub(super) fn bearer(token: &SecretString) -> Result<HeaderValue, CodeHostError> {
    secret_header(&format!("Bearer {}", token.expose_secret()))
}

/// `Authorization: Basic …`, which traces do not show.
pub(super) fn basic(credentials: &Credentials) -> Result<HeaderValue, CodeHostError> {
    let Credentials { username, password } = credentials;
    let pair = format!("{username}:{}", password.expose_secret());
    secret_header(&format!("Basic {}", STANDARD.encode(pair)))
}

pub(super) fn secret_header(text: &str) -> Result<HeaderValue, CodeHostError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| CodeHostError {
        message: "the git access token has characters that no token has: set it again".to_owned(),
        kind: CodeHostFailure::RefusedToken,
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The text, cut to `most` characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most - 1).collect();
    format!("{kept}…")
}

//! One request to a vault or its identity provider, and the whole answer.

use bytes::Bytes;
use gantry_domain::vault::{Origin, SecretAddress};
use reqwest::header::{HeaderValue, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use super::error::VaultError;
use crate::http::{OutboundClient, OutboundError, read_body, retry_after};

/// The largest answer, in bytes. A Key Vault keeps secrets of at most 25 KiB.
const LARGEST_ANSWER: u64 = 64 << 10;

/// A server that is asked so that a secret can be read.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    /// Does not follow redirects.
    pub(super) http: &'a OutboundClient,
    pub(super) with: &'a Origin,
    /// For errors.
    pub(super) at: &'a SecretAddress,
}

/// An answer that is neither a redirect nor a temporary failure. No `Debug`: the body may contain secrets.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    body: Bytes,
}

impl Exchange<'_> {
    pub(super) fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, VaultError> {
        Ok(self.http.request(method, url)?)
    }

    /// The value of a header that traces do not show.
    pub(super) fn secret_header(&self, text: &str) -> Result<HeaderValue, VaultError> {
        let value = HeaderValue::from_str(text);
        let mut value = value
            .map_err(|_| self.nonsense("the token has characters that no header can contain"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer, VaultError> {
        let response = self.http.send(request).await.map_err(|error| self.unsent(error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(self.redirected(&response));
        }
        if is_temporary(status) {
            let retry_after = retry_after(response.headers());
            let (by, at) = (self.with.clone(), self.at.clone());
            return Err(VaultError::Unavailable { by, at, status, retry_after });
        }
        let body = read_body(response, LARGEST_ANSWER).await.map_err(|error| self.unsent(error))?;
        Ok(Answer { status, body })
    }

    pub(super) fn rejected(&self, answer: &Answer, code: Option<String>) -> VaultError {
        let (by, at) = (self.with.clone(), self.at.clone());
        VaultError::LoginRejected { by, at, status: answer.status, code }
    }

    pub(super) fn refused(&self, status: StatusCode) -> VaultError {
        VaultError::Refused { by: self.with.clone(), at: self.at.clone(), status }
    }

    pub(super) fn nonsense(&self, problem: &'static str) -> VaultError {
        VaultError::Nonsense { by: self.with.clone(), at: self.at.clone(), problem }
    }

    fn redirected(&self, response: &Response) -> VaultError {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let target = location.and_then(|location| response.url().join(location).ok());
        // Not the whole target, which may repeat what was sent.
        let to = target.map_or_else(
            || "no address".to_owned(),
            |target| target.origin().ascii_serialization(),
        );
        VaultError::Redirected { by: self.with.clone(), to, at: self.at.clone() }
    }

    fn unsent(&self, error: OutboundError) -> VaultError {
        match error {
            OutboundError::Refused(refused) => refused.into(),
            OutboundError::TooLarge { .. } => self.nonsense("the answer is larger than 64 KiB"),
            OutboundError::Unreachable { source, .. } => {
                let (by, at) = (self.with.clone(), self.at.clone());
                VaultError::Unreachable { by, at, source }
            }
        }
    }
}

impl Answer {
    /// `None` if the body is something else. The parser's error is dropped, because it quotes values.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// 412 is a standby of a HashiCorp Vault that has not received the latest write yet.
fn is_temporary(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::PRECONDITION_FAILED
                | StatusCode::TOO_MANY_REQUESTS
        )
}

//! Secrets of a HashiCorp Vault's KV engine, version 2, through its HTTP API. OpenBao has the same API.
//!
//! In: an address. Out: the value of one field. Authorized by a fixed token, or by one that AppRole gives for a role's id
//! and secret id.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use gantry_domain::vault::SecretAddress;
use gantry_ops::secret::{ExposeSecret, SecretString};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::error::VaultError;
use super::exchange::{Answer, Exchange};
use super::token::{Granted, TokenCache};
use crate::http::OutboundClient;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// A Vault may be configured to refuse requests without it, as a protection against forged ones.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// The lifetime 0 is that of a token that does not expire.
const FOREVER: Duration = Duration::MAX;

/// How gantry gets a token for a HashiCorp Vault.
#[derive(Debug, Clone)]
pub enum HashicorpLogin {
    /// A fixed token. Nothing renews it.
    Token(SecretString),
    /// The auth method AppRole, at its default path `auth/approle`.
    AppRole {
        /// The role's id.
        role_id: String,
        /// A secret id that may be used any number of times.
        secret_id: SecretString,
    },
}

pub(super) struct Hashicorp {
    http: OutboundClient,
    login: HashicorpLogin,
    namespace: Option<String>,
    tokens: TokenCache,
}

impl Hashicorp {
    /// `http` does not follow redirects.
    pub(super) fn new(
        http: OutboundClient,
        login: HashicorpLogin,
        namespace: Option<String>,
    ) -> Self {
        Self { http, login, namespace, tokens: TokenCache::default() }
    }

    pub(super) async fn read(
        &self,
        at: &SecretAddress,
        version: Option<NonZeroU64>,
        field: &str,
    ) -> Result<SecretString, VaultError> {
        let answer = match &self.login {
            HashicorpLogin::Token(token) => self.get(at, version, token.clone()).await?,
            HashicorpLogin::AppRole { role_id, secret_id } => {
                // 403 is the status both of an expired token and of one whose policy does not permit the path.
                self.tokens
                    .send(
                        Instant::now(),
                        StatusCode::FORBIDDEN,
                        || self.log_in(at, role_id, secret_id),
                        |token| self.get(at, version, token),
                    )
                    .await?
            }
        };
        match answer.status {
            StatusCode::OK => self.field(at, &answer, field),
            StatusCode::NOT_FOUND => {
                Err(VaultError::NotFound { at: at.clone(), remedy: remedy(&answer) })
            }
            StatusCode::FORBIDDEN => Err(VaultError::Denied {
                at: at.clone(),
                code: None,
                remedy: "check that the policy of the configured token or role lets it read the path, and that the token has not expired",
            }),
            status => Err(self.exchange(at).refused(status)),
        }
    }

    fn field(
        &self,
        at: &SecretAddress,
        answer: &Answer,
        field: &str,
    ) -> Result<SecretString, VaultError> {
        let nonsense = |problem| Err(self.exchange(at).nonsense(problem));
        let Some(Secret { data: Some(Version { data: Some(mut fields), .. }) }) = answer.json()
        else {
            return nonsense("the answer is not one of a KV engine of version 2");
        };
        match fields.remove(field) {
            Some(Value::String(value)) => Ok(value.into()),
            Some(
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_),
            ) => nonsense("the field is not a string"),
            None => Err(VaultError::NotFound {
                at: at.clone(),
                remedy: "the secret has no such field: check what stands after `#`",
            }),
        }
    }

    async fn get(
        &self,
        at: &SecretAddress,
        version: Option<NonZeroU64>,
        token: SecretString,
    ) -> Result<Answer, VaultError> {
        let vault = self.exchange(at);
        let query = version.map(|version| format!("version={version}"));
        let request = self.request(vault, Method::GET, at.url(query.as_deref()))?;
        let token = vault.secret_header(token.expose_secret())?;
        vault.send(request.header(TOKEN, token)).await
    }

    async fn log_in(
        &self,
        at: &SecretAddress,
        role_id: &str,
        secret_id: &SecretString,
    ) -> Result<Granted, VaultError> {
        #[derive(Deserialize)]
        struct Login {
            auth: Auth,
        }
        #[derive(Deserialize)]
        struct Auth {
            client_token: String,
            /// Seconds.
            lease_duration: u64,
        }
        let vault = self.exchange(at);
        let url = at.origin().url("/v1/auth/approle/login", None);
        let body = json!({"role_id": role_id, "secret_id": secret_id.expose_secret()}).to_string();
        let request = self.request(vault, Method::POST, url)?;
        let answer =
            vault.send(request.header(CONTENT_TYPE, "application/json").body(body)).await?;
        if !answer.status.is_success() {
            return Err(vault.rejected(&answer, None));
        }
        let Some(Login { auth: Auth { client_token, lease_duration } }) = answer.json() else {
            return Err(vault.nonsense("the answer has no token"));
        };
        tracing::debug!(vault = %at.origin(), lease_duration, "logged in at {}", at.origin());
        let lifetime =
            if lease_duration == 0 { FOREVER } else { Duration::from_secs(lease_duration) };
        Ok(Granted { token: client_token.into(), lifetime })
    }

    fn request(
        &self,
        vault: Exchange<'_>,
        method: Method,
        url: Url,
    ) -> Result<RequestBuilder, VaultError> {
        let request = vault.request(method, url)?.header(REQUEST, HeaderValue::from_static("true"));
        let Some(namespace) = &self.namespace else { return Ok(request) };
        let namespace = HeaderValue::from_str(namespace).map_err(|_| {
            vault.nonsense("the configured namespace has characters that no header can contain")
        })?;
        Ok(request.header(NAMESPACE, namespace))
    }

    fn exchange<'a>(&'a self, at: &'a SecretAddress) -> Exchange<'a> {
        Exchange { http: &self.http, with: at.origin(), at }
    }
}

#[derive(Deserialize)]
struct Secret {
    data: Option<Version>,
}

#[derive(Deserialize)]
struct Version {
    /// `None` if the version was deleted or destroyed. An instant of deletion may also be in the future.
    data: Option<HashMap<String, Value>>,
    metadata: Option<serde::de::IgnoredAny>,
}

/// What to do about a 404.
fn remedy(answer: &Answer) -> &'static str {
    match answer.json() {
        Some(Secret { data: Some(Version { data: None, metadata: Some(_) }) }) => {
            "this version was deleted: name another one, or restore it"
        }
        Some(Secret { .. }) | None => {
            "check its mount, path and version, and that the mount is a KV engine of version 2"
        }
    }
}

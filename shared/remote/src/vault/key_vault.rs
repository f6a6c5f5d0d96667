//! Secrets of an Azure Key Vault, through its REST API.
//!
//! In: an address. Out: the secret's value. Authorized by a token of the configured identity provider, which gives it for
//! a client's id and secret (OAuth 2, client credentials).

use std::time::Duration;

use gantry_domain::vault::{Origin, SecretAddress};
use gantry_ops::secret::{ExposeSecret, SecretString};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use super::error::VaultError;
use super::exchange::{Answer, Exchange};
use super::token::{Granted, TokenCache};
use crate::http::OutboundClient;

const API_VERSION: &str = "api-version=7.4";

/// How gantry gets a token for a Key Vault.
#[derive(Debug, Clone)]
pub struct KeyVaultLogin {
    /// The identity provider: `https://login.microsoftonline.com`, or that of another cloud.
    pub authority: Origin,
    /// The directory's id or domain.
    pub tenant: String,
    /// The application's id.
    pub client_id: String,
    /// The application's secret.
    pub client_secret: SecretString,
    /// What the token is for: `https://vault.azure.net/.default`, or that of another cloud.
    pub scope: String,
}

pub(super) struct KeyVault {
    http: OutboundClient,
    login: KeyVaultLogin,
    tokens: TokenCache,
}

impl KeyVault {
    /// `http` does not follow redirects.
    pub(super) fn new(http: OutboundClient, login: KeyVaultLogin) -> Self {
        Self { http, login, tokens: TokenCache::default() }
    }

    pub(super) async fn read(&self, at: &SecretAddress) -> Result<SecretString, VaultError> {
        #[derive(Deserialize)]
        struct Bundle {
            value: String,
        }
        // The challenge of a 401 names an identity provider, which is not used: whoever answers in the vault's place
        // would learn the client's secret.
        let answer = self
            .tokens
            .send(
                Instant::now(),
                StatusCode::UNAUTHORIZED,
                || self.log_in(at),
                |token| self.get(at, token),
            )
            .await?;
        let vault = self.exchange(at.origin(), at);
        match answer.status {
            StatusCode::OK => match answer.json::<Bundle>() {
                Some(bundle) => Ok(bundle.value.into()),
                None => Err(vault.nonsense("the answer has no `value`")),
            },
            StatusCode::NOT_FOUND => Err(VaultError::NotFound {
                at: at.clone(),
                remedy: "check its name and version in the Key Vault",
            }),
            // The token is of another directory than the vault's, or for something else.
            StatusCode::UNAUTHORIZED => Err(vault.rejected(&answer, None)),
            StatusCode::FORBIDDEN => Err(VaultError::Denied {
                at: at.clone(),
                code: code(&answer),
                remedy: "allow the configured application to get secrets there",
            }),
            status => Err(vault.refused(status)),
        }
    }

    async fn get(&self, at: &SecretAddress, token: SecretString) -> Result<Answer, VaultError> {
        let vault = self.exchange(at.origin(), at);
        let request = vault.request(Method::GET, at.url(Some(API_VERSION)))?;
        let bearer = vault.secret_header(&format!("Bearer {}", token.expose_secret()))?;
        vault.send(request.header(AUTHORIZATION, bearer)).await
    }

    async fn log_in(&self, at: &SecretAddress) -> Result<Granted, VaultError> {
        #[derive(Deserialize)]
        struct Token {
            access_token: String,
            /// Seconds.
            expires_in: u64,
        }
        let KeyVaultLogin { authority, tenant, client_id, client_secret, scope } = &self.login;
        let provider = self.exchange(authority, at);
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", client_id)
            .append_pair("client_secret", client_secret.expose_secret())
            .append_pair("scope", scope)
            .finish();
        let url = authority.url(&format!("/{tenant}/oauth2/v2.0/token"), None);
        let request = provider.request(Method::POST, url)?;
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        let answer = provider.send(request).await?;
        if !answer.status.is_success() {
            return Err(provider.rejected(&answer, login_code(&answer)));
        }
        let Some(Token { access_token, expires_in }) = answer.json() else {
            return Err(provider.nonsense("the answer has no token"));
        };
        tracing::debug!(provider = %authority, expires_in, "logged in at {authority} for a Key Vault");
        Ok(Granted { token: access_token.into(), lifetime: Duration::from_secs(expires_in) })
    }

    fn exchange<'a>(&'a self, with: &'a Origin, at: &'a SecretAddress) -> Exchange<'a> {
        Exchange { http: &self.http, with, at }
    }
}

/// Codes of a refusal. A closed list, because a server may put anything in their place.
const CODES: [&str; 6] = [
    "AccessDenied",
    "ForbiddenByConnection",
    "ForbiddenByFirewall",
    "ForbiddenByPolicy",
    "ForbiddenByRbac",
    "SecretDisabled",
];

fn code(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Problem,
    }
    #[derive(Deserialize)]
    struct Problem {
        innererror: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        code: String,
    }
    let code = answer.json::<Body>()?.error.innererror.code;
    CODES.contains(&code.as_str()).then_some(code)
}

/// The code of a refused login, like `AADSTS7000215`. The message beside it is free text.
fn login_code(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error_codes: Vec<u32>,
    }
    answer.json::<Body>()?.error_codes.first().map(|code| format!("AADSTS{code}"))
}

//! The private key of a GitHub App, and what it signs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_domain::github_app::AppId;
use gantry_ops::secret::SecretString;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;

/// Subtracted from the time of issue: GitHub accepts none of the future, and clocks differ.
const BACKDATED: i64 = 60;

/// For how long a signed text is valid, in seconds. GitHub accepts at most 600 by its own clock.
const VALID_FOR: i64 = 540;

/// The private key of a GitHub App: RSA, at least 2048 bits.
pub struct AppKey(RsaKeyPair);

/// A file is no private key of a GitHub App.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAppKey {
    /// It has no key.
    #[error(
        "it has no private key in PEM: generate one in the App's settings at GitHub, below \"Private keys\", and use that file \
         as it is"
    )]
    NoPem,
    /// It has another key.
    #[error(
        "its key is no RSA key of at least 2048 bits: generate one in the App's settings at GitHub, below \"Private keys\""
    )]
    NotRsa,
}

#[derive(Serialize)]
struct Header {
    alg: &'static str,
    typ: &'static str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iat: i64,
    exp: i64,
    iss: &'a str,
}

impl AppKey {
    /// Parses the PEM file that GitHub makes (PKCS#1), or the same in PKCS#8.
    ///
    /// # Errors
    /// [`InvalidAppKey`], which quotes nothing of the file.
    pub fn parse(pem: &[u8]) -> Result<Self, InvalidAppKey> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| InvalidAppKey::NoPem)?;
        let pair = match &key {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(_) | _ => return Err(InvalidAppKey::NotRsa),
        };
        pair.map(Self).map_err(|_| InvalidAppKey::NotRsa)
    }

    /// The JSON Web Token with which the App identifies itself, issued at `now` in seconds of the Unix epoch. `None` if the
    /// system's random number generator failed.
    pub(super) fn sign(&self, id: &AppId, now: i64) -> Option<SecretString> {
        let claims = Claims { iat: now - BACKDATED, exp: now + VALID_FOR, iss: id.as_str() };
        let header = encoded(&Header { alg: "RS256", typ: "JWT" })?;
        let text = format!("{header}.{}", encoded(&claims)?);
        let mut signature = vec![0; self.0.public().modulus_len()];
        let random = SystemRandom::new();
        self.0.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).ok()?;
        Some(SecretString::from(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

fn encoded(part: &impl Serialize) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).ok()?))
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppKey(..)")
    }
}

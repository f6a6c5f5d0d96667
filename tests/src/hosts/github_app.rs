//! A GitHub App that is registered at the stand-in for GitHub.
//!
//! It checks what GitHub checks: the signature and the times of the App's JSON Web Tokens, and that each token is used for
//! its repository and with its permissions only.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_remote::code_host::{AppConfig, AppKey};
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs1KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use super::contract::Operation;
use super::hooks::merge;
use super::server::{self, Answer, Asked};

/// The App's client id.
pub const ID: &str = "Iv23liTestOfGantry";

/// The App's number.
pub const NUMBER: u64 = 42;

/// The PEM file of the App's private key, as GitHub makes it.
pub const KEY: &str = include_str!("../../fixtures/github-app/app.pkcs1.pem");

/// A key of another App.
pub const OTHER_KEY: &str = include_str!("../../fixtures/github-app/other.pkcs1.pem");

static PUBLIC_KEY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let der = PrivatePkcs1KeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
    let pair = RsaKeyPair::from_der(der.secret_pkcs1_der()).expect("an RSA key");
    pair.public_key().as_ref().to_vec()
});

/// The App at GitHub, installed on `octo/web`.
pub struct RegisteredApp {
    /// Whether it is installed.
    pub is_installed: bool,
    /// Whether its installation is suspended.
    pub is_suspended: bool,
    /// What it was given.
    pub permissions: BTreeMap<&'static str, &'static str>,
    /// The number of its installation.
    pub installation: u64,
    /// For how many seconds a token is valid.
    pub valid_for: i64,
    /// How many seconds GitHub's clock is ahead of this machine's.
    pub clock_ahead: i64,
    /// The requests for tokens that were granted: the permissions of each.
    pub minted: Vec<String>,
}

impl Default for RegisteredApp {
    fn default() -> Self {
        Self {
            is_installed: true,
            is_suspended: false,
            permissions: BTreeMap::from([
                ("metadata", "read"),
                ("contents", "read"),
                ("pull_requests", "read"),
                ("checks", "write"),
                ("repository_hooks", "write"),
            ]),
            installation: 7,
            valid_for: 3600,
            clock_ahead: 0,
            minted: Vec::new(),
        }
    }
}

/// The setting of the App on `host`, with this key and these grants.
///
/// # Panics
/// If one of them is malformed.
#[must_use]
pub fn config(host: &str, key: &str, grants: &[&str]) -> AppConfig {
    AppConfig {
        host: host.parse().expect("a host"),
        id: ID.parse().expect("an id"),
        key: AppKey::parse(key.as_bytes()).expect("a key"),
        grants: grants.iter().map(|grant| grant.parse().expect("a grant")).collect(),
    }
}

/// The `number`th token with these permissions, as long as GitHub's are now.
#[must_use]
pub fn token(permissions: &str, number: usize) -> String {
    format!("ghs_CanaryOfTheApp.{permissions}.{number}.{}", "x".repeat(600))
}

impl RegisteredApp {
    /// The answer to a request that only the App itself may make.
    pub(super) fn answer(
        &mut self,
        operation: &Operation,
        asked: &Asked,
        words: &[&str],
    ) -> Answer {
        let now = now() + self.clock_ahead;
        if let Err(refusal) = check(asked.header("authorization"), now) {
            return self.dated(401, &json!({"message": refusal}));
        }
        let installed = self.is_installed
            && !matches!(words, ["repos", owner, name, ..] if (*owner, *name) != ("octo", "web"));
        match words {
            ["app"] => server::json(operation.status, &operation.example),
            ["repos", .., "installation"] if installed => {
                let mut found = operation.example.clone();
                merge(
                    &mut found,
                    &json!({
                        "id": self.installation, "app_id": NUMBER,
                        "suspended_at": self.is_suspended.then_some("2026-01-05T10:00:00Z"),
                    }),
                );
                found["permissions"] = json!(self.permissions);
                server::json(operation.status, &found)
            }
            ["app", "installations", id, "access_tokens"]
                if self.is_installed && *id == self.installation.to_string() =>
            {
                self.mint(operation, &asked.body, now)
            }
            _ => server::json(404, &json!({"message": "Not Found"})),
        }
    }

    fn mint(&mut self, operation: &Operation, body: &Value, now: i64) -> Answer {
        if self.is_suspended {
            let message = "This installation has been suspended";
            return server::json(403, &json!({"message": message}));
        }
        let wanted = body["permissions"].as_object().expect("the document requires none, we do");
        let is_given = |(name, level): (&String, &Value)| {
            let given = self.permissions.get(name.as_str()).copied().unwrap_or_default();
            given == level || given == "write"
        };
        if body["repositories"] != json!(["web"])
            || wanted.is_empty()
            || !wanted.iter().all(is_given)
        {
            let message = "The permissions requested are not granted to this installation.";
            return server::json(422, &json!({"message": message}));
        }
        let shown = wanted
            .iter()
            .map(|(name, level)| format!("{name}-{}", level.as_str().unwrap_or_default()));
        let shown = shown.collect::<Vec<_>>().join("+");
        let number = self.minted.iter().filter(|minted| **minted == shown).count() + 1;
        let until = OffsetDateTime::from_unix_timestamp(now + self.valid_for).expect("a time");
        let mut created = operation.example.clone();
        created["token"] = token(&shown, number).into();
        created["expires_at"] = until.format(&Rfc3339).expect("a time").into();
        created["permissions"] = body["permissions"].clone();
        self.minted.push(shown);
        self.dated(operation.status, &created)
    }

    /// Why a token may not be used for a request; `None` if it may.
    pub(super) fn refusal(&self, token: &str, asked: &Asked, words: &[&str]) -> Option<String> {
        let known = self.minted.iter().any(|permissions| {
            (1..=self.minted.len()).any(|number| self::token(permissions, number) == token)
        });
        let permissions = token.split('.').nth(1).unwrap_or_default();
        if !known {
            return Some("the App never had this token".to_owned());
        }
        let reads = asked.method == "GET";
        let needed: &[&str] = match words.get(3..).unwrap_or_default() {
            [] => return None,
            ["pulls", ..] => &["pull_requests-read"],
            ["compare", ..] => &["contents-read"],
            ["check-runs", ..] => &["checks-write"],
            ["commits", _, "check-runs"] if reads => &["checks-read", "checks-write"],
            ["hooks", ..] => &["repository_hooks-write"],
            _ => &["none"],
        };
        let has = permissions.split('+').any(|permission| needed.contains(&permission));
        (!has).then(|| format!("a token with {permissions} is used for {} {words:?}", asked.method))
    }

    fn dated(&self, status: u16, body: &Value) -> Answer {
        let mut answer = server::json(status, body);
        let now = OffsetDateTime::from_unix_timestamp(now() + self.clock_ahead).expect("a time");
        let date = now.format(&Rfc2822).expect("a time").replace("+0000", "GMT");
        answer.headers_mut().insert("date", date.parse().expect("a header"));
        answer
    }
}

/// Checks a JSON Web Token as GitHub does, at `now`.
fn check(authorization: &str, now: i64) -> Result<(), &'static str> {
    let undecodable = "A JSON web token could not be decoded";
    let text = authorization.strip_prefix("Bearer ").ok_or(undecodable)?;
    let (signed, signature) = text.rsplit_once('.').ok_or(undecodable)?;
    let (header, claims) = signed.split_once('.').ok_or(undecodable)?;
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| undecodable);
    let parsed = |part: &str| {
        decoded(part).and_then(|json| serde_json::from_slice(&json).map_err(|_| undecodable))
    };
    let (header, claims): (Value, Value) = (parsed(header)?, parsed(claims)?);
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, PUBLIC_KEY.as_slice());
    if header["alg"] != "RS256" || key.verify(signed.as_bytes(), &decoded(signature)?).is_err() {
        return Err(undecodable);
    }
    let [issued, expires] = [&claims["iat"], &claims["exp"]].map(|time| time.as_i64().unwrap_or(0));
    if claims["iss"] != ID {
        return Err("'Issuer' claim ('iss') must be an Integer or the client id");
    }
    if issued > now {
        return Err("'Issued at' claim ('iat') must not be in the future");
    }
    if expires > now + 600 {
        return Err("'Expiration time' claim ('exp') is too far in the future");
    }
    if expires <= now {
        return Err("'Expiration time' claim ('exp') must be in the future");
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "tokens are signed by the machine's clock")]
fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

//! Addresses of secrets, as task files name them.
//!
//! In: text. Out: a [`SecretAddress`], which has one of two forms:
//!
//! - Azure Key Vault: `https://HOST/secrets/NAME` or `https://HOST/secrets/NAME/VERSION`, as in the task files of Azure
//!   Container Registry.
//! - HashiCorp Vault, KV version 2: `https://HOST:PORT/v1/MOUNT/data/PATH#FIELD`, optionally with `?version=N` before the
//!   `#`. This is the address of its API, as `vault kv get -output-curl-string` prints it, and not a scheme like
//!   `vault://MOUNT/PATH`: it tells which vault is meant if several are configured, and one rule for grants covers both
//!   kinds.
//!
//! Nothing is decoded or normalized, except that Key Vault ignores case and its names become lower case. All other
//! characters stand for themselves in a URL, so the path that a grant permits is the path that the vault receives.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use url::Url;

use super::grant::SecretPrefix;
use super::origin::{InvalidOrigin, Origin};
use crate::text::serde_as_text;

/// The address of one secret. Its `Display` is canonical and parses to the same address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretAddress {
    place: Place,
    detail: SecretDetail,
}

/// What an address contains beyond its path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretDetail {
    /// Nothing more: a secret of an Azure Key Vault.
    KeyVault,
    /// A secret of a HashiCorp Vault has several fields.
    Hashicorp {
        /// The version; `None` for the latest.
        version: Option<NonZeroU64>,
        /// The field.
        field: String,
    },
}

/// A path in a vault. The first segment tells the kind of vault: `secrets` or `v1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    origin: Origin,
    segments: Vec<String>,
}

/// A text is no address of a secret.
///
/// The text itself is not quoted, because it may be a secret that was written in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecretAddress {
    /// It does not begin with the address of a server.
    #[error(transparent)]
    Origin(#[from] InvalidOrigin),
    /// A segment of the path is empty, `.` or `..`, or has other characters than those permitted.
    #[error(
        "the path of a secret has no empty segments, no `.` and `..`, no `%`: write letters, digits and `-._~@+=,:` between single slashes"
    )]
    Path,
    /// The path begins with neither `/secrets` nor `/v1`.
    #[error(
        "expected `/secrets/NAME` (Key Vault) or `/v1/MOUNT/data/PATH#FIELD` (HashiCorp Vault), found `{found}`"
    )]
    Collection {
        /// The first segment of the path, at most 40 characters of it.
        found: String,
    },
    /// It begins with `/secrets`, but is no secret of a Key Vault.
    #[error(
        "a secret of a Key Vault is `/secrets/NAME` or `/secrets/NAME/VERSION`: names have at most 127 letters, digits and `-`, versions letters and digits"
    )]
    KeyVault,
    /// It begins with `/v1`, but is no secret of a KV engine.
    #[error(
        "a secret of a HashiCorp Vault is `/v1/MOUNT/data/PATH#FIELD` or `/v1/MOUNT/data/PATH?version=N#FIELD`, with N from 1"
    )]
    Hashicorp,
}

impl SecretAddress {
    /// The server that the secret is read from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.place.origin
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The secret with all its versions and fields, as a grant names it.
    #[must_use]
    pub fn path(&self) -> SecretPrefix {
        SecretPrefix::of(self.place.clone())
    }

    /// What it contains beyond its path.
    #[must_use]
    pub fn detail(&self) -> &SecretDetail {
        &self.detail
    }

    /// Its path at its server, as a URL with this query.
    #[must_use]
    pub fn url(&self, query: Option<&str>) -> Url {
        self.place.url(query)
    }
}

impl Place {
    /// Parses an address without query and fragment.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidSecretAddress> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidOrigin)?;
        let (host, path) = rest.split_once('/').ok_or(InvalidSecretAddress::Path)?;
        let origin: Origin = format!("{scheme}://{host}").parse()?;
        let mut segments: Vec<_> = path.split('/').map(str::to_owned).collect();
        if !segments.iter().all(|segment| is_segment(segment)) {
            return Err(InvalidSecretAddress::Path);
        }
        match segments.first().map_or("", String::as_str) {
            "v1" => {}
            collection if collection.eq_ignore_ascii_case("secrets") => {
                segments.iter_mut().for_each(|segment| segment.make_ascii_lowercase());
                if !is_of_key_vault(&segments) {
                    return Err(InvalidSecretAddress::KeyVault);
                }
            }
            found => {
                let found = found.chars().take(40).collect();
                return Err(InvalidSecretAddress::Collection { found });
            }
        }
        Ok(Self { origin, segments })
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn is_in_key_vault(&self) -> bool {
        self.segments.first().is_some_and(|collection| collection == "secrets")
    }

    /// Whether it is `v1`, a mount, `data` and a path. Mount and path may have several segments.
    fn is_in_kv_engine(&self) -> bool {
        self.segments.iter().skip(2).rev().skip(1).any(|segment| segment == "data")
    }

    /// Whether `other` is this place or below it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.origin == other.origin && other.segments.starts_with(&self.segments)
    }

    fn url(&self, query: Option<&str>) -> Url {
        self.origin.url(&format!("/{}", self.segments.join("/")), query)
    }
}

/// Whether it is a path of a Key Vault, or a prefix of one.
fn is_of_key_vault(segments: &[String]) -> bool {
    let is_name = |name: &str| {
        name.len() <= 127 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_version = |version: &str| version.bytes().all(|byte| byte.is_ascii_alphanumeric());
    segments.len() <= 3
        && segments.get(1).is_none_or(|name| is_name(name))
        && segments.get(2).is_none_or(|version| is_version(version))
}

/// `%` is not permitted: a server may decode it to a slash or a dot after a grant was checked.
fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~@+=,:".contains(&byte))
}

impl FromStr for SecretAddress {
    type Err = InvalidSecretAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (text, field) = split_off(text, '#');
        let (text, query) = split_off(text, '?');
        let place = Place::parse(text)?;
        let detail = if place.is_in_key_vault() {
            if place.segments.len() < 2 || query.is_some() || field.is_some() {
                return Err(InvalidSecretAddress::KeyVault);
            }
            SecretDetail::KeyVault
        } else {
            let field = field.filter(|field| is_segment(field));
            let field = field.ok_or(InvalidSecretAddress::Hashicorp)?.to_owned();
            if !place.is_in_kv_engine() {
                return Err(InvalidSecretAddress::Hashicorp);
            }
            SecretDetail::Hashicorp { version: query.map(version).transpose()?, field }
        };
        Ok(Self { place, detail })
    }
}

fn split_off(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn version(query: &str) -> Result<NonZeroU64, InvalidSecretAddress> {
    let number = query.strip_prefix("version=").and_then(|number| number.parse().ok());
    number.ok_or(InvalidSecretAddress::Hashicorp)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.origin, self.segments.join("/"))
    }
}

serde_as_text!(SecretAddress);

impl fmt::Display for SecretAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        match &self.detail {
            SecretDetail::KeyVault => Ok(()),
            SecretDetail::Hashicorp { version: None, field } => write!(f, "#{field}"),
            SecretDetail::Hashicorp { version: Some(version), field } => {
                write!(f, "?version={version}#{field}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, InvalidSecretAddress> {
        text.parse::<SecretAddress>().map(|address| address.to_string())
    }

    #[test]
    fn both_forms_parse_and_are_shown_canonically() {
        for (text, canonical) in [
            ("https://v.vault.azure.net/secrets/web", "https://v.vault.azure.net/secrets/web"),
            (
                "https://V.Vault.Azure.Net:443/Secrets/Web-1/0AbC",
                "https://v.vault.azure.net/secrets/web-1/0abc",
            ),
            ("https://v/v1/secret/data/web#token", "https://v/v1/secret/data/web#token"),
            (
                "https://V:8200/v1/kv/data/Team/web?version=3#a.b",
                "https://v:8200/v1/kv/data/Team/web?version=3#a.b",
            ),
            ("http://127.0.0.1:8200/v1/a/b/data/c#d", "http://127.0.0.1:8200/v1/a/b/data/c#d"),
            (
                "https://[::1]:8200/v1/data/data/data#data",
                "https://[::1]:8200/v1/data/data/data#data",
            ),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(canonical), "{text}");
            assert_eq!(parse(canonical).as_deref(), Ok(canonical));
        }
    }

    #[test]
    fn another_collection_is_named() {
        for collection in ["keys", "certificates", "v2", "SECRET"] {
            let error = parse(&format!("https://v.vault.azure.net/{collection}/web")).unwrap_err();
            let told = format!(
                "expected `/secrets/NAME` (Key Vault) or `/v1/MOUNT/data/PATH#FIELD` (HashiCorp Vault), found `{collection}`"
            );
            assert_eq!(error.to_string(), told);
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        use InvalidSecretAddress::{Hashicorp, KeyVault, Path};
        let no_origin = || InvalidSecretAddress::Origin(InvalidOrigin);
        for (text, error) in [
            ("", no_origin()),
            ("hunter2", no_origin()),
            ("vault://secret/web#token", no_origin()),
            ("HTTPS://v/secrets/a", no_origin()),
            ("https:///secrets/a", no_origin()),
            ("https://ann:pw@v/secrets/a", no_origin()),
            ("https://v\\@w/secrets/a", no_origin()),
            ("https://v:99999/secrets/a", no_origin()),
            ("https://v%2fw/secrets/a", no_origin()),
            ("https://v", Path),
            ("https://v/", Path),
            ("https://v/secrets/", Path),
            ("https://v//secrets/a", Path),
            ("https://v/secrets/a/", Path),
            ("https://v/secrets/a/../b", Path),
            ("https://v/secrets/./a", Path),
            ("https://v/secrets/a%2fb", Path),
            ("https://v/secrets/%2e%2e/keys/a", Path),
            ("https://v/secrets/a\\..\\b", Path),
            ("https://v/secrets/a\tb", Path),
            ("https://v/secrets/é", Path),
            ("https://v/secrets", KeyVault),
            ("https://v/secrets/a_b", KeyVault),
            ("https://v/secrets/a/b-c", KeyVault),
            ("https://v/secrets/a/b/c", KeyVault),
            ("https://v/secrets/a#b", KeyVault),
            ("https://v/secrets/a?api-version=7.0", KeyVault),
            ("https://v/v1", Hashicorp),
            ("https://v/v1/secret", Hashicorp),
            ("https://v/v1/secret/web#token", Hashicorp),
            ("https://v/v1/data/web#token", Hashicorp),
            ("https://v/v1/secret/data#token", Hashicorp),
            ("https://v/v1/secret/data/web", Hashicorp),
            ("https://v/v1/secret/data/web#", Hashicorp),
            ("https://v/v1/secret/data/web#a/b", Hashicorp),
            ("https://v/v1/secret/data/web?version=0#a", Hashicorp),
            ("https://v/v1/secret/data/web?version=1&x=2#a", Hashicorp),
            ("https://v/v1/secret/data/web?list=true#a", Hashicorp),
            ("https://v/v1/secret/data/../metadata/web#a", Path),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_vault_receives_exactly_the_path_that_was_checked(path in "/(secrets|v1)/[ -~é/.%]{0,20}") {
            let text = format!("https://v{path}");
            if let Ok(place) = Place::parse(&text) {
                let url = place.url(None);
                prop_assert!(url.path().eq_ignore_ascii_case(&path));
                prop_assert_eq!(url.as_str(), place.to_string());
            }
        }

        #[test]
        fn parsing_any_text_terminates(text in any::<String>()) {
            let _parsed = text.parse::<SecretAddress>();
        }
    }
}

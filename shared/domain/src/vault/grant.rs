//! Which secrets the tasks of a registry may name.
//!
//! In: the operator's list, a registry and an address. Out: yes or no. Pure. Without a grant, whoever may save a task
//! could read every secret that gantry can.

use std::fmt;
use std::str::FromStr;

use super::address::{InvalidSecretAddress, Place, SecretAddress};
use super::origin::Origin;
use crate::InvalidText;
use crate::id::RegistryName;

/// A registry may read the secrets at and below a path of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultGrant {
    /// The registry whose tasks may name the secrets. A later registry of the same name has the same grants.
    pub registry: RegistryName,
    /// The secrets.
    pub below: SecretPrefix,
}

/// A path in a vault: `https://HOST/secrets` for all secrets of a Key Vault, `https://HOST/secrets/NAME` for all versions
/// of one, `https://HOST:PORT/v1/MOUNT/data/PATH` for a secret of a HashiCorp Vault and all secrets below its path.
///
/// A path covers whole segments: `…/data/team` covers `…/data/team/web`, but not `…/data/team-b`. A slash at the end
/// changes nothing. The case of letters counts in HashiCorp Vault, but not in Key Vault or in hosts. Versions and fields
/// of a HashiCorp Vault's secret are not distinguished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretPrefix(Place);

impl VaultGrant {
    /// Whether this grant lets the tasks of `registry` read the secret at `address`.
    #[must_use]
    pub fn permits(&self, registry: &RegistryName, address: &SecretAddress) -> bool {
        self.registry == *registry && self.below.0.covers(address.place())
    }
}

impl SecretPrefix {
    pub(super) fn of(place: Place) -> Self {
        Self(place)
    }

    /// The vault.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        self.0.origin()
    }

    /// Whether it is a path of a Key Vault. Otherwise it is one of a HashiCorp Vault.
    #[must_use]
    pub fn is_in_key_vault(&self) -> bool {
        self.0.is_in_key_vault()
    }
}

impl FromStr for VaultGrant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (registry, below) = text.split_once('=').ok_or(InvalidGrant::Form)?;
        Ok(Self { registry: registry.parse()?, below: below.parse()? })
    }
}

/// A text is no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrant {
    /// It has no `=`.
    #[error(
        "a grant is `REGISTRY=PATH`, like `contoso=https://vault.corp:8200/v1/secret/data/contoso`"
    )]
    Form,
    /// Before the `=` is no registry.
    #[error(transparent)]
    Registry(#[from] InvalidText),
    /// Behind it is no path of a vault.
    #[error(transparent)]
    Path(#[from] InvalidSecretAddress),
}

impl FromStr for SecretPrefix {
    type Err = InvalidSecretAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Place::parse(text.strip_suffix('/').unwrap_or(text)).map(Self)
    }
}

impl fmt::Display for SecretPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(below: &str, address: &str) -> bool {
        let registry: RegistryName = "web".parse().unwrap();
        let grant = VaultGrant { registry: registry.clone(), below: below.parse().unwrap() };
        let address = address.parse().unwrap();
        assert!(!grant.permits(&"other".parse().unwrap(), &address), "{below}");
        grant.permits(&registry, &address)
    }

    #[test]
    fn a_grant_covers_its_path_and_what_is_below() {
        for (below, address) in [
            ("https://v/secrets", "https://v/secrets/web"),
            ("https://v/secrets/", "https://v/secrets/web/0abc"),
            ("https://v/secrets/web", "https://v/secrets/web"),
            ("https://v/secrets/web", "https://v/secrets/web/0abc"),
            ("https://V:443/Secrets/Web", "https://v/secrets/wEB"),
            ("https://v/v1", "https://v/v1/secret/data/web#token"),
            ("https://v/v1/secret", "https://v/v1/secret/data/web#token"),
            ("https://v/v1/secret/data/team/", "https://v/v1/secret/data/team/web?version=2#token"),
            ("https://v/v1/secret/data/team/web", "https://v/v1/secret/data/team/web#token"),
        ] {
            assert!(permits(below, address), "{below} {address}");
        }
    }

    #[test]
    fn a_grant_covers_nothing_beside_its_path() {
        for (below, address) in [
            ("https://v/secrets/web", "https://v/secrets/web-2"),
            ("https://v/secrets/web-2", "https://v/secrets/web"),
            ("https://v/secrets/web/0abc", "https://v/secrets/web"),
            ("https://v/secrets/web/0abc", "https://v/secrets/web/1abc"),
            ("https://v/secrets", "https://w/secrets/web"),
            ("https://v/secrets", "http://v/secrets/web"),
            ("https://v/secrets", "https://v:8443/secrets/web"),
            ("https://v/secrets", "https://v./secrets/web"),
            ("https://v/secrets", "https://v/v1/secrets/data/web#token"),
            ("https://v/v1/secret/data/team", "https://v/v1/secret/data/team-b#token"),
            ("https://v/v1/secret/data/team", "https://v/v1/secret/data/Team/web#token"),
            ("https://v/v1/secret/data/team", "https://v/v1/other/data/team/web#token"),
            ("https://v/v1/secret/data/team", "https://v/v1/x/secret/data/team/web#token"),
        ] {
            assert!(!permits(below, address), "{below} {address}");
        }
    }

    #[test]
    fn a_path_that_a_server_could_read_in_another_way_is_refused() {
        for below in [
            "https://v/secrets//",
            "https://v/secrets/*",
            "https://v/secrets/a/b/c",
            "https://v/v1/secret/data/team/..",
            "https://v/v1/secret/data/team%2fweb",
            "https://v/v1/secret/data/team#token",
            "https://v/v1/secret/data/team?version=1",
            "https://v/keys",
            "https://v/",
            "/v1/secret/data/team",
        ] {
            assert!(below.parse::<SecretPrefix>().is_err(), "{below}");
        }
    }
}

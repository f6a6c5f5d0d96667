//! Compares the secrets that a task file names with those that its task declares.

use std::collections::BTreeMap;
use std::fmt;

use gantry_domain::secret::{SecretId, SecretSource};
use gantry_domain::vault::SecretAddress;

use super::step::{SecretLocation, SecretReference};

/// A secret that a file names, and its run does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretProblem {
    /// The id that the file gives it.
    pub id: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A token of a managed identity.
    Identity,
    /// The file's address is none.
    NoAddress { why: String },
    /// It is not declared.
    Undeclared { at: SecretAddress },
    /// It is declared as another one.
    Other { at: SecretAddress, declared: SecretSource },
}

/// What the secrets that a file names lack. Each must be declared under the same id, at the same address.
#[must_use]
pub fn undeclared(
    named: &[SecretReference],
    declared: &BTreeMap<SecretId, SecretSource>,
) -> Vec<SecretProblem> {
    let problem = |secret: &SecretReference| {
        let kind = kind(secret, declared)?;
        Some(SecretProblem { id: secret.id.clone(), kind })
    };
    named.iter().filter_map(problem).collect()
}

fn kind(secret: &SecretReference, declared: &BTreeMap<SecretId, SecretSource>) -> Option<Kind> {
    let SecretLocation::Vault(url) = &secret.at else { return Some(Kind::Identity) };
    let at: SecretAddress = match url.parse() {
        Ok(at) => at,
        Err(error) => return Some(Kind::NoAddress { why: error.to_string() }),
    };
    match declared.iter().find(|(id, _)| id.as_str() == secret.id) {
        None => Some(Kind::Undeclared { at }),
        Some((_, SecretSource::Vault(declared))) if *declared == at => None,
        Some((_, declared)) => Some(Kind::Other { at, declared: declared.clone() }),
    }
}

impl fmt::Display for SecretProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.id;
        match &self.kind {
            Kind::Identity => write!(
                f,
                "the secret `{id}` is a token of a managed identity, which exists only in Azure: keep a token with \
                 `gantry secret set`, and declare it with `--secret {id}=NAME`"
            ),
            Kind::NoAddress { why } => write!(f, "the secret `{id}`: {why}"),
            Kind::Undeclared { at } => write!(
                f,
                "the secret `{id}` is not declared: add it to the task with `--secret {id}={at}`. A run with a context of \
                 its own has none of its task's secrets"
            ),
            Kind::Other { at, declared } => write!(
                f,
                "the secret `{id}` is {at} in the file, and declared as {declared}: change either, for example with \
                 `--secret {id}={at}`"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "https://v.vault.azure.net/secrets/web";

    fn problems(at: SecretLocation, declared: &str) -> Vec<String> {
        let named = [SecretReference { id: "token".to_owned(), at }];
        let declared = declared.split_once('=').map(|(id, source)| {
            (id.parse::<SecretId>().unwrap(), source.parse::<SecretSource>().unwrap())
        });
        undeclared(&named, &declared.into_iter().collect())
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_secret_is_declared_by_its_id_and_its_address() {
        let at = |url: &str| SecretLocation::Vault(url.to_owned());
        assert!(problems(at(AT), &format!("token={AT}")).is_empty());
        assert!(
            problems(at("https://V.vault.azure.net:443/Secrets/Web"), &format!("token={AT}"))
                .is_empty()
        );
        for (secret, declared, told) in [
            (
                at(AT),
                String::new(),
                format!("`token` is not declared: add it to the task with `--secret token={AT}`"),
            ),
            (at(AT), format!("other={AT}"), "`token` is not declared".to_owned()),
            (
                at(AT),
                format!("token={AT}/1"),
                format!("`token` is {AT} in the file, and declared as {AT}/1"),
            ),
            (
                at(AT),
                "token=npm".to_owned(),
                format!("`token` is {AT} in the file, and declared as npm"),
            ),
            (
                at("npm"),
                "token=npm".to_owned(),
                "`token`: the address of a vault begins with".to_owned(),
            ),
            (
                SecretLocation::Identity,
                "token=npm".to_owned(),
                "`token` is a token of a managed identity".to_owned(),
            ),
        ] {
            let problems = problems(secret, &declared);
            assert_eq!(problems.len(), 1, "{declared}");
            assert!(problems[0].contains(&told), "{declared}: {}", problems[0]);
        }
    }
}

//! Docker credential helpers: programs that give the credentials of registries. The operator names them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::InvalidText;
use crate::image::RegistryHost;

/// What the programs of helpers are called, as Docker calls them.
const PREFIX: &str = "docker-credential-";

/// The helper of one registry: `HOST=NAME` for the program `docker-credential-NAME`, or `HOST=/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelperEntry {
    /// The registry.
    pub host: RegistryHost,
    /// Its helper.
    pub program: HelperProgram,
}

/// The program of a helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelperProgram {
    /// A file in one of the folders of programs.
    Named(String),
    /// This file.
    At(PathBuf),
}

impl HelperProgram {
    /// Where the program is looked for, in this order.
    pub fn candidates<'a>(&'a self, folders: &'a [&str]) -> impl Iterator<Item = PathBuf> + 'a {
        let (at, name) = match self {
            Self::At(path) => (Some(path.clone()), None),
            Self::Named(name) => (None, Some(name)),
        };
        let named = name.into_iter().flat_map(|name| {
            folders.iter().map(move |folder| Path::new(folder).join(format!("{PREFIX}{name}")))
        });
        at.into_iter().chain(named)
    }
}

impl fmt::Display for HelperProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "{PREFIX}{name}"),
            Self::At(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for HelperEntry {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            InvalidText::new(
                "credential helper",
                text,
                "`HOST=NAME` for the program `docker-credential-NAME`, with a name of lower-case letters, digits and `-`, or \
                 `HOST=/PATH`",
            )
        };
        let (host, program) = text.split_once('=').ok_or_else(wrong)?;
        let host = host.parse()?;
        let is_name = |name: &str| {
            (1..=64).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let program = match program {
            name if is_name(name) => HelperProgram::Named(name.to_owned()),
            path if path.starts_with('/') => HelperProgram::At(PathBuf::from(path)),
            _ => return Err(wrong()),
        };
        Ok(Self { host, program })
    }
}

impl fmt::Display for HelperEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            HelperProgram::Named(name) => write!(f, "{}={name}", self.host),
            HelperProgram::At(path) => write!(f, "{}={}", self.host, path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_a_name_in_a_folder_of_programs_or_an_absolute_path() {
        let found = |text: &str| -> Vec<String> {
            let entry: HelperEntry = text.parse().unwrap();
            assert_eq!(entry.to_string(), text);
            let found = entry.program.candidates(&["/usr/local/bin", "/usr/bin"]);
            found.map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            found("1.dkr.ecr.eu-west-1.amazonaws.com=ecr-login"),
            ["/usr/local/bin/docker-credential-ecr-login", "/usr/bin/docker-credential-ecr-login"]
        );
        assert_eq!(found("registry.lan:5000=/opt/helper"), ["/opt/helper"]);
    }

    #[test]
    fn a_name_is_no_path_no_option_of_a_shell_and_has_a_registry() {
        for wrong in [
            "ghcr.io",
            "ghcr.io=",
            "ghcr.io=../x",
            "ghcr.io=ECR",
            "ghcr.io=a b",
            "ghcr.io=a;b",
            "=x",
            "no-host=x",
            "https://ghcr.io=x",
        ] {
            assert!(wrong.parse::<HelperEntry>().is_err(), "{wrong}");
        }
    }
}

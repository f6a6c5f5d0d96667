//! The client's configuration: the server, and the token for it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use gantry_ops::secret::{ExposeSecret as _, SecretString, write_private};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::environment::Environment;
use crate::exit::UsageError;

/// The server to connect to, and the token to use.
#[derive(Debug, Clone)]
pub(crate) struct ClientConfig {
    pub(crate) url: Url,
    pub(crate) token: SecretString,
}

/// The content of the configuration file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    url: Url,
    token: String,
}

impl ClientConfig {
    /// Reads `GANTRY_URL` and `GANTRY_TOKEN`, and what they leave out from the file.
    ///
    /// The token in the file is only used for the server in the file, and not for another one in `GANTRY_URL`.
    pub(crate) fn load(environment: &Environment) -> Result<Self> {
        let url = environment.get("GANTRY_URL").map(parse_url).transpose()?;
        let token = environment.get("GANTRY_TOKEN").map(SecretString::from);
        if let (Some(url), Some(token)) = (&url, &token) {
            return Ok(Self { url: url.clone(), token: token.clone() });
        }
        let path = path(environment)?;
        let Some(saved) = Self::read(&path)? else {
            return Err(UsageError(format!(
                "no server is known: run `gantry login URL` (there is no {})",
                path.display()
            ))
            .into());
        };
        match url {
            Some(url) if url != saved.url => Err(UsageError(format!(
                "the token for {0} is not known: set GANTRY_TOKEN, or run `gantry login {0}`",
                shown(&url)
            ))
            .into()),
            _ => Ok(Self { url: saved.url, token: token.unwrap_or(saved.token) }),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let file: File = toml::from_str(&text).map_err(|error| {
            // A value of the wrong type is not repeated, because it may be the token.
            let reason = match error.message() {
                message if message.starts_with("invalid type") => "`url` and `token` are texts",
                message => message,
            };
            UsageError(format!(
                "{}: {reason}: run `gantry login URL` to write it anew",
                path.display()
            ))
        })?;
        Ok(Some(Self { url: file.url, token: SecretString::from(file.token) }))
    }

    /// Writes the file, readable only by its owner.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let file = File { url: self.url.clone(), token: self.token.expose_secret().to_owned() };
        let text = toml::to_string(&file).context("cannot write the client's settings as TOML")?;
        let write = || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            write_private(path, text.as_bytes())
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The path of the file: GANTRY_CONFIG, or in the user's configuration folder.
pub(crate) fn path(environment: &Environment) -> Result<PathBuf> {
    if let Some(path) = environment.get("GANTRY_CONFIG") {
        return Ok(path.into());
    }
    let folder = match (environment.get("XDG_CONFIG_HOME"), environment.get("HOME")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => Path::new(&home).join(".config"),
        (None, None) => {
            return Err(UsageError(
                "neither GANTRY_CONFIG nor HOME is set, so there is no place for the client's settings".to_owned(),
            )
            .into());
        }
    };
    Ok(folder.join("gantry/client.toml"))
}

/// Parses a server's URL. A scheme is required, because it decides how the token is sent.
pub(crate) fn parse_url(text: &str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    let refused = || {
        // The part before `@` may be a password.
        let shown =
            text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("…@{host}"));
        UsageError(format!(
            "`{shown}` is no server's address: write it like https://gantry.example.com"
        ))
    };
    Ok(url.ok_or_else(refused)?)
}

/// A server's URL without a trailing slash.
pub(crate) fn shown(address: &Url) -> &str {
    address.as_str().trim_end_matches('/')
}

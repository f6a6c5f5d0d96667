//! Credentials for registries, as options and as commands.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use gantry_api::LoginCreate;

use super::arguments::{read_secret, read_secret_file};
use crate::environment::Environment;
use crate::exit::UsageError;

/// Credentials for one run, or saved with a task.
#[derive(Debug, clap::Args)]
pub(crate) struct CredentialArgs {
    /// Credentials for a registry, for images that are read and pushed there: PASSWORD is the name of a variable of the
    /// environment, `@FILE`, `-` for standard input, or the address of a secret in a vault. May be given several times
    #[arg(long = "credential", value_name = "LOGIN_SERVER=USER:PASSWORD")]
    credentials: Vec<String>,
}

impl CredentialArgs {
    /// By their login servers.
    pub(crate) fn read(&self, environment: &Environment) -> Result<BTreeMap<String, LoginCreate>> {
        let mut read = BTreeMap::new();
        for given in &self.credentials {
            // The rest may be a password by mistake, so it is not shown.
            let parts = given.split_once('=').and_then(|(server, rest)| {
                let (user, password) = rest.split_once(':')?;
                Some((server, user, password))
            });
            let Some((server, user, password)) = parts else {
                let message = "--credential: write `LOGIN_SERVER=USER:PASSWORD`, like `ghcr.io=octo:GHCR_TOKEN`";
                return Err(UsageError(message.to_owned()).into());
            };
            let option = format!("--credential {server}");
            let login = login(&option, user, Some(password), environment)?;
            if read.insert(server.to_owned(), login).is_some() {
                return Err(UsageError(format!("{option} is given twice")).into());
            }
        }
        Ok(read)
    }
}

/// Credentials from a user and where the password is; without the latter it is asked for.
pub(crate) fn login(
    option: &str,
    user: &str,
    password: Option<&str>,
    environment: &Environment,
) -> Result<LoginCreate> {
    let mut login = LoginCreate::default();
    match user.contains("://") {
        true => login.username_secret = Some(user.to_owned()),
        false => login.username = Some(user.to_owned()),
    }
    match password {
        Some(address) if address.contains("://") => {
            login.password_secret = Some(address.to_owned());
        }
        password => login.password = Some(read_password(option, user, password, environment)?),
    }
    Ok(login)
}

fn read_password(
    option: &str,
    user: &str,
    given: Option<&str>,
    environment: &Environment,
) -> Result<String> {
    match given {
        None | Some("-") => read_secret(&format!("the password of {user}")),
        Some(given) => match given.strip_prefix('@') {
            Some(file) => {
                let text = read_secret_file(Path::new(file))?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => match environment.get(given) {
                Some(password) => Ok(password.to_owned()),
                // It is not shown: it may be the password itself.
                None => Err(UsageError(format!(
                    "{option}: the environment has no variable of the name that is given for the password: name one that is set, or \
                     give `@FILE` or `-`; a password itself would be seen in the process list"
                ))
                .into()),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[&str]) -> Result<BTreeMap<String, LoginCreate>> {
        let credentials = given.iter().map(|text| (*text).to_owned()).collect();
        let environment = Environment::from([("GHCR_TOKEN", "from-the-environment")]);
        CredentialArgs { credentials }.read(&environment)
    }

    #[test]
    fn a_password_is_in_the_environment_in_a_file_or_in_a_vault_and_never_an_argument() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "from-a-file\n").unwrap();
        let in_file = format!("quay.io=robot:@{}", file.display());
        let vault = "acr.test:5000=https://v.vault.azure.net/secrets/user";
        let read_all = read(&["ghcr.io=octo:GHCR_TOKEN", &in_file]).unwrap();
        let of = |server: &str| read_all[server].clone();
        assert_eq!(of("ghcr.io").password.as_deref(), Some("from-the-environment"));
        assert_eq!(of("ghcr.io").username.as_deref(), Some("octo"));
        assert_eq!(of("quay.io").password.as_deref(), Some("from-a-file"));
        let from_vault = read(&["acr.test:5000=octo:https://v.vault.azure.net/secrets/pass"]);
        let from_vault = from_vault.unwrap()["acr.test:5000"].clone();
        assert_eq!(from_vault.password, None);
        let address = "https://v.vault.azure.net/secrets/pass";
        assert_eq!(from_vault.password_secret.as_deref(), Some(address));

        for wrong in ["ghcr.io=octo:hunter2", "ghcr.io=hunter2", "hunter2", vault] {
            let error = read(&[wrong]).unwrap_err();
            assert!(error.is::<UsageError>(), "{wrong}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        read(&["a.test=b:GHCR_TOKEN", "a.test=c:GHCR_TOKEN"]).unwrap_err();
    }
}

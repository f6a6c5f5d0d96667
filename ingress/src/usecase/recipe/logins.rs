//! The credentials for registries of a task or a quick build.

use std::collections::BTreeMap;

use gantry_api::LoginCreate;
use gantry_domain::image::RegistryHost;
use gantry_domain::login::{Login, MOST_LOGINS, Password, Username};
use gantry_domain::secret::SecretSource;
use gantry_ops::secret::SecretError;

use super::{Checker, refuse_secret};

/// The field of a request, in mistakes.
const FIELD: &str = "credentials";

/// The longest user name, in characters.
const LONGEST_USERNAME: usize = 256;

impl Checker<'_> {
    pub(super) fn logins(
        &mut self,
        given: &BTreeMap<String, LoginCreate>,
    ) -> Result<BTreeMap<RegistryHost, Login>, SecretError> {
        let mut logins = BTreeMap::new();
        for (server, login) in given {
            let host = self.login_server(server);
            let login = self.login(server, login)?;
            let Some((host, login)) = host.zip(login) else { continue };
            if logins.insert(host.clone(), login).is_some() {
                self.mistakes.add(FIELD, format!("it names {host} twice: remove one"));
            }
        }
        self.check_logins(&logins);
        Ok(logins)
    }

    /// Changes the logins of a task: `None` removes one.
    pub(crate) fn change_logins(
        &mut self,
        logins: &mut BTreeMap<RegistryHost, Login>,
        changes: &BTreeMap<String, Option<LoginCreate>>,
    ) -> Result<(), SecretError> {
        for (server, change) in changes {
            let Some(host) = self.login_server(server) else { continue };
            match change {
                Some(login) => {
                    let login = self.login(server, login)?;
                    logins.extend(login.map(|login| (host, login)));
                }
                None => {
                    logins.remove(&host);
                }
            }
        }
        self.check_logins(logins);
        Ok(())
    }

    fn check_logins(&mut self, logins: &BTreeMap<RegistryHost, Login>) {
        if logins.len() > MOST_LOGINS {
            let message = format!(
                "credentials for {} registries are given: at most {MOST_LOGINS}",
                logins.len()
            );
            self.mistakes.add(FIELD, message);
        }
    }

    fn login_server(&mut self, server: &str) -> Option<RegistryHost> {
        self.mistakes.parse(FIELD, server)
    }

    fn login(&mut self, server: &str, given: &LoginCreate) -> Result<Option<Login>, SecretError> {
        let LoginCreate { username, username_secret, password, password_secret } = given;
        let username = match (username, username_secret) {
            (Some(username), None) => self.username(server, username).map(Username::Text),
            (None, Some(source)) => self.login_secret(server, source).map(Username::Secret),
            (None, None) | (Some(_), Some(_)) => {
                let message = format!("{server}: give a `username` or a `username_secret`");
                self.mistakes.add(FIELD, message);
                None
            }
        };
        let password = match (password, password_secret) {
            (Some(password), None) => match refuse_password(password) {
                None => Some(Password::Sealed(self.seal(password)?)),
                Some(why) => {
                    self.mistakes.add(FIELD, format!("{server}: {why}"));
                    None
                }
            },
            (None, Some(source)) => self.login_secret(server, source).map(Password::Secret),
            (None, None) | (Some(_), Some(_)) => {
                let message = format!("{server}: give a `password` or a `password_secret`");
                self.mistakes.add(FIELD, message);
                None
            }
        };
        Ok(username.zip(password).map(|(username, password)| Login { username, password }))
    }

    fn username(&mut self, server: &str, username: &str) -> Option<String> {
        let is_valid = (1..=LONGEST_USERNAME).contains(&username.chars().count())
            && !username.contains(|c: char| c == ':' || c.is_control());
        if !is_valid {
            let message = format!(
                "{server}: a user has 1 to {LONGEST_USERNAME} characters, no `:` and no control character"
            );
            self.mistakes.add(FIELD, message);
            return None;
        }
        Some(username.to_owned())
    }

    fn login_secret(&mut self, server: &str, source: &str) -> Option<SecretSource> {
        let source = source.parse::<SecretSource>().map_err(|error| format!("{server}: {error}"));
        self.mistakes.check(FIELD, source)
    }
}

/// Why a password cannot be stored, without revealing it.
fn refuse_password(password: &str) -> Option<String> {
    if password.is_empty() {
        return Some("the password is empty".to_owned());
    }
    if password.contains(char::is_control) {
        return Some("the password has a line break or another control character in it".to_owned());
    }
    refuse_secret(password)
}

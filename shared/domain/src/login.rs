//! Logins: what a task or a quick build gives its runs for other registries than its own.

use serde::{Deserialize, Serialize};

use crate::sealed::Sealed;
use crate::secret::SecretSource;

/// The most logins of one recipe.
pub const MOST_LOGINS: usize = 32;

/// The credentials for one registry. They are for its host and port alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user.
    pub username: Username,
    /// The password or token.
    pub password: Password,
}

/// The user name of a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Username {
    /// As given.
    Text(String),
    /// The value of a secret when a run becomes ready.
    Secret(SecretSource),
}

/// The password of a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Password {
    /// As given.
    Sealed(Sealed),
    /// The value of a secret when a run becomes ready.
    Secret(SecretSource),
}

impl Login {
    /// The secrets that it names.
    pub fn sources(&self) -> impl Iterator<Item = &SecretSource> {
        let username = match &self.username {
            Username::Text(_) => None,
            Username::Secret(source) => Some(source),
        };
        let password = match &self.password {
            Password::Sealed(_) => None,
            Password::Secret(source) => Some(source),
        };
        username.into_iter().chain(password)
    }

    /// The password, if it was given.
    #[must_use]
    pub fn sealed(&self) -> Option<&Sealed> {
        match &self.password {
            Password::Sealed(sealed) => Some(sealed),
            Password::Secret(_) => None,
        }
    }

    /// The password, to be changed.
    pub fn sealed_mut(&mut self) -> Option<&mut Sealed> {
        match &mut self.password {
            Password::Sealed(sealed) => Some(sealed),
            Password::Secret(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::samples::task;
    use crate::image::RegistryHost;

    #[test]
    fn the_passwords_of_logins_are_among_the_secrets_of_a_recipe_and_dropped_with_them() {
        let mut recipe = task().recipe;
        let before = recipe.sealed().count();
        let named: SecretSource = "ghcr-token".parse().unwrap();
        let given = Login {
            username: Username::Text("ann".to_owned()),
            password: Password::Sealed(Sealed::from_text("sealed".to_owned())),
        };
        let read = Login {
            username: Username::Secret(named.clone()),
            password: Password::Secret(named.clone()),
        };
        assert_eq!((given.sources().count(), read.sources().count()), (0, 2));
        let host = |text: &str| text.parse::<RegistryHost>().unwrap();
        recipe.logins = [(host("quay.io"), given), (host("ghcr.io"), read)].into();
        assert_eq!(recipe.sealed().count(), before + 1);
        for sealed in recipe.sealed_mut() {
            *sealed = Sealed::from_text("anew".to_owned());
        }
        assert_eq!(recipe.logins[&host("quay.io")].sealed().unwrap().as_text(), "anew");
        let text = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<crate::recipe::Recipe>(&text).unwrap(), recipe);
        recipe.drop_secrets();
        assert!(recipe.logins.is_empty());
    }
}

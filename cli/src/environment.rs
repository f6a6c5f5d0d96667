//! Reads the environment, once. No other code in gantry reads it.

use std::collections::BTreeMap;

/// Names that begin like settings but are not: those of the client and of test programs.
const NO_SETTINGS: [&str; 6] = [
    "GANTRY_CODE_HOST_TOKEN",
    "GANTRY_CONFIG",
    "GANTRY_GIT_TOKEN",
    "GANTRY_REGISTRY",
    "GANTRY_TOKEN",
    "GANTRY_URL",
];

/// The variables of this process that are valid text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    pub(crate) fn of_this_process() -> Self {
        let pairs = std::env::vars_os();
        Self(
            pairs
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// A variable; an empty one counts as unset.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All variables, for clouds' clients that look for credentials in them.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The variables that are settings of the server, including misspelt ones.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let is_setting = |name: &str| {
            name.starts_with("GANTRY_")
                && !name.starts_with("GANTRY_TEST_")
                && !NO_SETTINGS.contains(&name)
        };
        let pairs = self.0.iter().filter(|(name, _)| is_setting(name));
        pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }
}

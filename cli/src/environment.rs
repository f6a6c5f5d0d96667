//! The environment, read once. Nothing else in gantry reads it.

use std::collections::BTreeMap;

/// Names that begin like settings and are none: the client's, and those of the test programs.
const NO_SETTINGS: [&str; 5] =
    ["GANTRY_CONFIG", "GANTRY_GIT_TOKEN", "GANTRY_REGISTRY", "GANTRY_TOKEN", "GANTRY_URL"];

/// The variables of this process that are text.
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

    /// A variable; an empty one counts as none.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All of them, for those who find credentials as a cloud's own tools do.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The variables that are settings of the server, or would be.
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

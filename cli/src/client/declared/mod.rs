//! Registries, tasks and hooks as YAML documents, for `gantry apply` and `gantry export`.
//!
//! A document has the fields of the API's request that creates the object, with `kind` and, for a task or a hook, its
//! `registry`. A secret is never in it: there is the name of a variable or a file that has it. What is declared is
//! compared with what the server has field by field; of a secret the server only tells whether it is set.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) mod current;
pub(crate) mod document;
pub(crate) mod files;
pub(crate) mod plan;

/// What a document declares. Registries come first, because the others belong to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Registry,
    Task,
    Hook,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registry => "registry",
            Self::Task => "task",
            Self::Hook => "hook",
        })
    }
}

/// An object, as it is declared or as the server has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    /// The registry that it belongs to, or that it is.
    pub(crate) registry: String,
    /// Its name. Hooks have none, and are told apart by what they are for.
    pub(crate) name: String,
    /// The fields of the request that creates it, each with its value or default, without secrets.
    pub(crate) fields: Map<String, Value>,
    /// The secrets that are declared or set, by JSON pointer into the request: `/secret_build_args/TOKEN`.
    pub(crate) secrets: BTreeMap<String, Option<SecretPlace>>,
    /// The id of a hook on the server.
    pub(crate) id: Option<String>,
}

/// Where a secret is read when it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum SecretPlace {
    /// A variable of the environment.
    Env(String),
    /// A file, relative to the document's folder.
    File(String),
}

impl Object {
    /// The object for people, like `task ghcr/web`.
    pub(crate) fn title(&self) -> String {
        match self.kind {
            Kind::Registry => format!("registry {}", self.name),
            Kind::Task => format!("task {}/{}", self.registry, self.name),
            Kind::Hook => format!("hook {} of {}", self.name, self.registry),
        }
    }
}

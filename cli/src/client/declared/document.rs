//! One document: from YAML to an [`Object`], and back.

use std::collections::BTreeMap;

use gantry_api::{HookCreate, RegistryCreate, SourceTrigger, TaskCreate, Timer};
use gantry_domain::image::RegistryHost;
use gantry_domain::source::Source;
use gantry_domain::ssh::HostKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Kind, Object, SecretPlace};

/// Where the requests have secrets. `*` is any name.
const SECRETS: [(Kind, &[&str]); 3] = [
    (Kind::Registry, &["/credentials/password"]),
    (
        Kind::Task,
        &[
            "/git_token",
            "/api_token",
            "/secret_build_args/*",
            "/task_file/secret_values/*",
            "/credentials/*/password",
        ],
    ),
    (Kind::Hook, &["/secret"]),
];

/// What stands in the place of a secret while a document is checked.
const UNREAD: &str = "unread";

/// The members of a document, in the order in which they are written.
#[derive(Debug, PartialEq)]
pub(crate) struct Document(Vec<(String, Value)>);

impl Serialize for Document {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidDocument {
    #[error("it is no list of fields: begin with `kind: task`, `kind: registry` or `kind: hook`")]
    NoFields,
    #[error("`kind` is one of registry, task and hook")]
    NoKind,
    #[error("`registry` is missing: name the registry that the {0} belongs to")]
    NoRegistry(Kind),
    #[error(
        "`{0}` is a secret, which does not belong into a file: name the variable or the file that has it, like `{{env: \
         NAME}}` or `{{file: PATH}}`"
    )]
    PlainSecret(String),
    #[error("{0}")]
    Fields(#[from] serde_json::Error),
}

impl Object {
    /// Reads a document. Fields that are left out have the defaults of the API.
    pub(crate) fn declared(document: Value) -> Result<Self, InvalidDocument> {
        let Value::Object(mut fields) = document else { return Err(InvalidDocument::NoFields) };
        let kind = fields.remove("kind").ok_or(InvalidDocument::NoKind)?;
        let kind: Kind = serde_json::from_value(kind).map_err(|_| InvalidDocument::NoKind)?;
        let registry = match kind {
            Kind::Registry => fields.get("name").cloned(),
            Kind::Task | Kind::Hook => fields.remove("registry"),
        };
        let registry = registry.as_ref().and_then(Value::as_str);
        let registry = registry.ok_or(InvalidDocument::NoRegistry(kind))?.to_owned();
        let mut request = Value::Object(fields);
        if kind == Kind::Task {
            spell_servers(&mut request);
        }
        let secrets = take_places(&mut request, kind)?;
        let request = match kind {
            Kind::Registry => filled::<RegistryCreate>(request, |it| {
                it.host = it.host.to_ascii_lowercase();
            }),
            Kind::Task => filled::<TaskCreate>(request, fill_task),
            Kind::Hook => filled::<HookCreate>(request, |it| it.repositories.sort()),
        }?;
        Ok(Self::of(kind, registry, request, secrets))
    }

    /// The object of a request. The secrets in it are left out.
    pub(super) fn of(
        kind: Kind,
        registry: String,
        mut request: Map<String, Value>,
        secrets: BTreeMap<String, Option<SecretPlace>>,
    ) -> Self {
        let mut value = Value::Object(std::mem::take(&mut request));
        for pointer in secrets.keys() {
            remove(&mut value, pointer);
        }
        let Value::Object(mut fields) = value else { unreachable!("it was an object") };
        let name = match kind {
            Kind::Registry | Kind::Task => {
                let name = fields.remove("name");
                name.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
            }
            Kind::Hook => {
                fields.get("provider").and_then(Value::as_str).unwrap_or_default().to_owned()
            }
        };
        Self { kind, registry, name, fields, secrets, id: None }
    }

    /// The document that declares the object, without fields that have their default. Secrets that the server has are
    /// named after it, to be set on reading.
    pub(crate) fn document(&self) -> Document {
        let mut fields = Value::Object(self.fields.clone());
        drop_defaults(self.kind, &mut fields);
        for (pointer, place) in &self.secrets {
            let place = place.clone().unwrap_or_else(|| self.suggested(pointer));
            put(&mut fields, pointer, json!(place));
        }
        let mut members = vec![("kind".to_owned(), json!(self.kind))];
        if self.kind != Kind::Registry {
            members.push(("registry".to_owned(), json!(self.registry)));
        }
        if self.kind != Kind::Hook {
            members.push(("name".to_owned(), json!(self.name)));
        }
        // What people look for first.
        for first in ["host", "provider", "context"] {
            let found = fields.as_object_mut().and_then(|fields| fields.remove(first));
            members.extend(found.map(|value| (first.to_owned(), value)));
        }
        if let Value::Object(fields) = fields {
            members.extend(fields);
        }
        Document(members)
    }

    /// A variable for a secret: `GHCR_WEB_GIT_TOKEN`.
    fn suggested(&self, pointer: &str) -> SecretPlace {
        let last = unescaped(pointer.rsplit('/').next().unwrap_or_default());
        let words = match self.kind {
            Kind::Registry => vec![self.name.as_str(), &last],
            Kind::Task | Kind::Hook => vec![self.registry.as_str(), &self.name, &last],
        };
        let name = words.join("_").to_ascii_uppercase();
        SecretPlace::Env(
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect(),
        )
    }
}

/// The request with every default filled in.
fn filled<T: Serialize + DeserializeOwned>(
    request: Value,
    fill: impl FnOnce(&mut T),
) -> Result<Map<String, Value>, InvalidDocument> {
    let mut request: T = serde_json::from_value(request)?;
    fill(&mut request);
    let Value::Object(fields) = serde_json::to_value(&request)? else {
        return Err(InvalidDocument::NoFields);
    };
    Ok(fields)
}

/// Fills in what the server would, so that a task as it is declared and as it is shown are equal.
pub(super) fn fill_task(task: &mut TaskCreate) {
    if task.task_file.is_none() {
        task.dockerfile.get_or_insert_with(|| "Dockerfile".to_owned());
    }
    if let Some(source) = task.context.parse::<Source>().ok().filter(Source::is_ssh) {
        task.context = source.to_string();
    }
    for line in &mut task.git_host_keys {
        if let Ok(key) = line.parse::<HostKey>() {
            *line = key.to_string();
        }
    }
    task.platform.get_or_insert_with(|| "linux/amd64".to_owned());
    task.timeout.get_or_insert(3600);
    task.status.get_or_insert_with(|| "Enabled".to_owned());
    task.base_image_trigger.get_or_insert_default();
}

/// Removes what has its default, also in triggers and timers.
fn drop_defaults(kind: Kind, fields: &mut Value) {
    let mut task = TaskCreate::default();
    fill_task(&mut task);
    let defaults = match kind {
        Kind::Task => json!(task),
        Kind::Registry | Kind::Hook => json!({}),
    };
    for (field, default) in [("source_trigger", json!(SourceTrigger::default()))] {
        if let Some(value) = fields.get_mut(field) {
            drop_equal(value, &default);
        }
    }
    for timer in fields.get_mut("timers").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_equal(timer, &json!(Timer::new("", "")));
    }
    drop_equal(fields, &defaults);
}

/// Removes the members of a map that are equal to those of another, and maps that are empty then.
fn drop_equal(value: &mut Value, default: &Value) {
    let Value::Object(members) = value else { return };
    members.retain(|name, value| {
        let Some(default) = default.get(name) else { return true };
        if value == default {
            return false;
        }
        drop_equal(value, default);
        true
    });
}

/// Names login servers as the service does, so that what it has of one is found.
fn spell_servers(request: &mut Value) {
    let Some(logins) = request.get_mut("credentials").and_then(Value::as_object_mut) else {
        return;
    };
    let spelled = std::mem::take(logins).into_iter().map(|(server, login)| {
        let host = server.parse::<RegistryHost>();
        (host.map_or(server, |host| host.to_string()), login)
    });
    *logins = spelled.collect();
}

/// Takes the places of secrets out of a document, and leaves [`UNREAD`] in them.
fn take_places(
    request: &mut Value,
    kind: Kind,
) -> Result<BTreeMap<String, Option<SecretPlace>>, InvalidDocument> {
    let mut places = BTreeMap::new();
    let patterns =
        SECRETS.iter().find(|(of, _)| *of == kind).map_or(&[][..], |(_, patterns)| patterns);
    for pattern in patterns {
        for pointer in matches(request, pattern) {
            let Some(value) = request.pointer_mut(&pointer) else { continue };
            let place = serde_json::from_value(std::mem::replace(value, json!(UNREAD)));
            let place = place.map_err(|_| InvalidDocument::PlainSecret(shown(&pointer)))?;
            places.insert(pointer, Some(place));
        }
    }
    Ok(places)
}

/// A field for people: `secret_build_args.TOKEN`.
pub(crate) fn shown(pointer: &str) -> String {
    unescaped(&pointer.trim_start_matches('/').replace('/', "."))
}

/// The pointers to what a pattern matches.
fn matches(request: &Value, pattern: &str) -> Vec<String> {
    let candidates = match pattern.split_once("/*") {
        Some((map, rest)) => {
            let names = request.pointer(map).and_then(Value::as_object);
            let names = names.into_iter().flat_map(Map::keys);
            names.map(|name| format!("{}{rest}", pointer(map, name))).collect()
        }
        None => vec![pattern.to_owned()],
    };
    let is_there =
        |pointer: &String| request.pointer(pointer).is_some_and(|value| !value.is_null());
    candidates.into_iter().filter(is_there).collect()
}

/// The pointer to a member of a map, by RFC 6901.
pub(super) fn pointer(map: &str, name: &str) -> String {
    format!("{map}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A word of a pointer, as the name of a member.
fn unescaped(word: &str) -> String {
    word.replace("~1", "/").replace("~0", "~")
}

/// Puts a value at a pointer, with the maps above it.
pub(super) fn put(value: &mut Value, pointer: &str, new: Value) {
    let mut at = value;
    for word in pointer.split('/').skip(1) {
        let word = unescaped(word);
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[word];
    }
    *at = new;
}

/// Removes what a pointer names, and the map that is empty then.
fn remove(value: &mut Value, pointer: &str) {
    let Some((map, name)) = pointer.rsplit_once('/') else { return };
    let name = unescaped(name);
    let Some(members) = value.pointer_mut(map).and_then(Value::as_object_mut) else { return };
    members.remove(&name);
    if members.is_empty() && !map.is_empty() {
        remove(value, map);
    }
}

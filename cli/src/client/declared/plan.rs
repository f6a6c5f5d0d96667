//! Compares what is declared with what the server has. Pure: nothing is asked or sent here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gantry_domain::source::{RepositoryKey, Source};
use gantry_ops::terminal::one_line;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::document::{pointer, put, shown};
use super::files::Declared;
use super::{Kind, Object};

/// What has to be done, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) changes: Vec<Change>,
    /// How many declared objects are as the server has them.
    pub(crate) unchanged: usize,
}

#[derive(Debug)]
pub(crate) enum Change {
    Create(Declared),
    Update(Update),
    Delete(Object),
}

/// An object that differs from what is declared.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) declared: Declared,
    /// The id of a hook.
    pub(crate) id: Option<String>,
    pub(crate) fields: Vec<FieldChange>,
    /// The secrets to send, by pointer.
    pub(crate) send: BTreeSet<String>,
    /// The secrets to remove.
    pub(crate) remove: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct FieldChange {
    pub(crate) field: String,
    /// `null` if it is not set.
    pub(crate) before: Value,
    pub(crate) after: Value,
}

/// What else is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// Delete tasks and hooks of the declared registries that are not declared.
    pub(crate) prune: bool,
    /// Send all secrets again, because the server does not tell whether they are still the same.
    pub(crate) set_secrets: bool,
}

/// Finds what to do, or what is wrong with what is declared.
pub(crate) fn plan(
    declared: Vec<Declared>,
    current: Vec<Object>,
    wanted: Wanted,
) -> Result<Plan, Vec<String>> {
    let mistakes = mistakes(&declared, &current);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let registries: BTreeSet<String> =
        declared.iter().map(|it| it.object.registry.clone()).collect();
    let mut current = current;
    let mut plan = Plan::default();
    let mut declared = declared;
    declared.sort_by(|a, b| order(&a.object).cmp(&order(&b.object)));
    // Hooks that are the same in all respects first, so that the others are matched with what remains.
    let mut same = take_same_hooks(&mut declared, &mut current);
    plan.unchanged += same.len();
    if wanted.set_secrets {
        let again = |(declared, current): (Declared, Object)| update(declared, &current, wanted);
        plan.changes.extend(same.drain(..).filter_map(again).map(Change::Update));
        plan.unchanged -= plan.changes.len();
    }
    for declared in declared {
        let found = current.iter().position(|it| is_same(&declared.object, it));
        let Some(found) = found else {
            plan.changes.push(Change::Create(declared));
            continue;
        };
        match update(declared, &current.swap_remove(found), wanted) {
            Some(update) => plan.changes.push(Change::Update(update)),
            None => plan.unchanged += 1,
        }
    }
    if wanted.prune {
        let mut superfluous: Vec<Object> = current
            .into_iter()
            .filter(|it| it.kind != Kind::Registry && registries.contains(&it.registry))
            .collect();
        superfluous.sort_by(|a, b| order(b).cmp(&order(a)));
        plan.changes.extend(superfluous.into_iter().map(Change::Delete));
    }
    Ok(plan)
}

fn order(object: &Object) -> (Kind, &str, &str) {
    (object.kind, &object.registry, &object.name)
}

fn is_same(declared: &Object, current: &Object) -> bool {
    order(declared) == order(current)
}

fn take_same_hooks(
    declared: &mut Vec<Declared>,
    current: &mut Vec<Object>,
) -> Vec<(Declared, Object)> {
    let mut same = Vec::new();
    let (mut rest, hooks) = (Vec::new(), std::mem::take(declared));
    for hook in hooks {
        let found = current.iter().position(|it| {
            it.kind == Kind::Hook
                && is_same(&hook.object, it)
                && comparable(&hook.object) == comparable(it)
        });
        match found {
            Some(found) => same.push((hook, current.swap_remove(found))),
            None => rest.push(hook),
        }
    }
    *declared = rest;
    same
}

fn mistakes(declared: &[Declared], current: &[Object]) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut places: BTreeMap<(Kind, &str, &str), &str> = BTreeMap::new();
    let known = current.iter().chain(declared.iter().map(|it| &it.object));
    let known: BTreeSet<&str> =
        known.filter(|it| it.kind == Kind::Registry).map(|it| it.name.as_str()).collect();
    for Declared { object, place, .. } in declared {
        if object.kind != Kind::Hook
            && let Some(first) = places.insert(order(object), place)
        {
            mistakes.push(format!("{place}: {} is also declared in {first}", object.title()));
        }
        if !known.contains(object.registry.as_str()) {
            let registry = &object.registry;
            mistakes.push(format!(
                "{place}: there is no registry `{registry}`: declare it, or correct the name"
            ));
        }
        let before = current.iter().find(|it| is_same(object, it));
        if let (Kind::Registry, Some(before)) = (object.kind, before)
            && comparable(before).get("host") != comparable(object).get("host")
        {
            let host = before.fields.get("host").and_then(Value::as_str).unwrap_or_default();
            mistakes.push(format!(
                "{place}: the host of {} is `{host}`, and it cannot change: declare a registry of another name",
                object.title()
            ));
        }
    }
    mistakes
}

/// The fields in one spelling, for comparison.
fn comparable(object: &Object) -> Map<String, Value> {
    let mut fields = object.fields.clone();
    fields.retain(|_, value| !value.is_null() && *value != json!([]) && *value != json!({}));
    match object.kind {
        Kind::Registry => respell(&mut fields, "host", |host| Some(host.to_ascii_lowercase())),
        Kind::Task => respell(&mut fields, "context", |context| {
            context.parse::<Source>().ok().map(|source| source.to_string())
        }),
        Kind::Hook => {
            let list = fields.get_mut("repositories").and_then(Value::as_array_mut);
            for repository in list.into_iter().flatten() {
                let key = repository.as_str().and_then(|it| RepositoryKey::named(it).ok());
                if let Some(key) = key {
                    *repository = json!(key.as_str());
                }
            }
        }
    }
    for list in ["repositories", "timers"] {
        if let Some(list) = fields.get_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(ToString::to_string);
        }
    }
    fields
}

fn respell(fields: &mut Map<String, Value>, field: &str, spell: impl Fn(&str) -> Option<String>) {
    if let Some(text) = fields.get(field).and_then(Value::as_str).and_then(spell) {
        fields.insert(field.to_owned(), Value::String(text));
    }
}

fn update(declared: Declared, current: &Object, wanted: Wanted) -> Option<Update> {
    let object = &declared.object;
    let (mut before, after) = (comparable(current), comparable(object));
    if object.kind == Kind::Registry && !after.contains_key("run_limit") {
        // Its default is the server's.
        before.remove("run_limit");
    }
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let value =
        |fields: &Map<String, Value>, name: &str| fields.get(name).cloned().unwrap_or_default();
    let fields: Vec<FieldChange> = names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| FieldChange {
            field: name.clone(),
            before: value(&before, name),
            after: value(&after, name),
        })
        .collect();
    let (send, remove) = secrets(object, current, &fields, wanted);
    let id = current.id.clone();
    let is_changed = !fields.is_empty() || !send.is_empty() || !remove.is_empty();
    is_changed.then_some(Update { declared, id, fields, send, remove })
}

/// The secrets to send and to remove. What is set is only sent again if it is wanted, or if the server would refuse the
/// change without it: another context must not see a secret that was given for the former one.
fn secrets(
    declared: &Object,
    current: &Object,
    fields: &[FieldChange],
    wanted: Wanted,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let group = |pointer: &str| pointer.rsplit_once('/').map_or("", |(map, _)| map).to_owned();
    let is_set = |pointer: &String| current.secrets.contains_key(pointer);
    let has_changed = |field: &str| fields.iter().any(|change| change.field == field);
    let all = wanted.set_secrets || has_changed("context");
    // A user is sent together with the password.
    let is_needed =
        |pointer: &str| all || has_changed("credentials") && pointer.starts_with("/credentials/");
    let declared_keys: BTreeSet<&String> = declared.secrets.keys().collect();
    // A hook has a secret in any case.
    let remove: BTreeSet<String> = match declared.kind {
        Kind::Hook => BTreeSet::new(),
        Kind::Registry | Kind::Task => {
            let gone = current.secrets.keys().filter(|it| !declared.secrets.contains_key(*it));
            gone.cloned().collect()
        }
    };
    let missing = declared_keys.iter().filter(|it| !is_set(it)).map(|it| (**it).clone());
    let mut send: BTreeSet<String> = missing.collect();
    // The secrets of a map are replaced together.
    let groups: BTreeSet<String> =
        send.iter().chain(&remove).map(|it| group(it)).filter(|it| !it.is_empty()).collect();
    send.extend(
        declared_keys
            .iter()
            .filter(|it| is_needed(it) || groups.contains(&group(it)))
            .map(|it| (**it).clone()),
    );
    (send, remove)
}

impl Object {
    /// The body of the request that creates it.
    pub(crate) fn create_body(&self, secrets: &BTreeMap<String, String>) -> Value {
        let mut body = Value::Object(self.fields.clone());
        if self.kind != Kind::Hook {
            put(&mut body, "/name", json!(self.name));
        }
        for (pointer, secret) in secrets {
            put(&mut body, pointer, json!(secret));
        }
        body
    }
}

impl Update {
    /// The body of the request that makes the object as it is declared.
    pub(crate) fn body(&self, secrets: &BTreeMap<String, String>) -> Value {
        let (mut body, object) = (json!({}), &self.declared.object);
        for FieldChange { field, .. } in &self.fields {
            if object.kind == Kind::Task && field == "credentials" {
                continue;
            }
            let after = object.fields.get(field).cloned().unwrap_or_default();
            if field == "credential_helper" && after.is_null() {
                // It ends with other credentials, or with none.
                put(&mut body, "/credentials", Value::Null);
                continue;
            }
            let after = match (field.as_str(), after) {
                ("task_file", Value::Object(file)) => whole_file(file),
                (
                    "images" | "timers" | "base_image_follow" | "git_host_keys" | "repositories",
                    Value::Null,
                ) => {
                    json!([])
                }
                ("build_args", Value::Null) => json!({}),
                (_, after) => after,
            };
            put(&mut body, &format!("/{field}"), after);
        }
        for pointer in &self.remove {
            match pointer.rsplit_once('/') {
                Some(("", _)) => put(&mut body, pointer, Value::Null),
                Some(("/credentials", _)) => put(&mut body, "/credentials", Value::Null),
                // That of a task goes with its login server.
                Some((map, _)) if map.starts_with("/credentials/") => {}
                Some((map, _)) => put(&mut body, map, json!({})),
                None => {}
            }
        }
        if self.send.contains("/credentials/password")
            && let Some(credentials) = object.fields.get("credentials")
        {
            put(&mut body, "/credentials", credentials.clone());
        }
        if object.kind == Kind::Task {
            self.logins(&mut body);
        }
        for (pointer, secret) in secrets {
            put(&mut body, pointer, json!(secret));
        }
        body
    }

    /// The credentials of a task that have changed. Those of other login servers stay as they are.
    fn logins(&self, body: &mut Value) {
        let changed = self.fields.iter().find(|change| change.field == "credentials");
        let before = changed.map_or(&Value::Null, |change| &change.before);
        let after = self.declared.object.fields.get("credentials").unwrap_or(&Value::Null);
        let servers = |logins: &Value| -> Vec<String> {
            logins.as_object().into_iter().flat_map(Map::keys).cloned().collect()
        };
        for server in servers(after) {
            let at = pointer("/credentials", &server);
            let is_sent = self.send.iter().any(|sent| sent.starts_with(&format!("{at}/")));
            let is_changed = changed.is_some() && before.get(&server) != after.get(&server);
            if is_sent || is_changed {
                put(body, &at, after[&server].clone());
            }
        }
        for server in servers(before).iter().filter(|server| after.get(server).is_none()) {
            put(body, &pointer("/credentials", server), Value::Null);
        }
    }
}

/// Maps that are left out would stay as they are.
fn whole_file(mut file: Map<String, Value>) -> Value {
    for (field, empty) in
        [("values", json!({})), ("secrets", json!({})), ("values_file", Value::Null)]
    {
        file.entry(field).or_insert(empty);
    }
    Value::Object(file)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(declared) => writeln!(f, "+ {}", declared.object.title()),
            Self::Delete(object) => writeln!(f, "- {}", object.title()),
            Self::Update(update) => update.fmt(f),
        }
    }
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "~ {}", self.declared.object.title())?;
        for FieldChange { field, before, after } in &self.fields {
            let (before, after) = (brief(before), brief(after));
            writeln!(f, "    {field}: {before} -> {after}")?;
        }
        for pointer in &self.send {
            writeln!(f, "    {}: set", shown(pointer))?;
        }
        for pointer in &self.remove {
            writeln!(f, "    {}: removed", shown(pointer))?;
        }
        Ok(())
    }
}

/// A value on one line.
fn brief(value: &Value) -> String {
    const LONGEST: usize = 200;
    let text = match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => one_line(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            one_line(&value.to_string())
        }
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;

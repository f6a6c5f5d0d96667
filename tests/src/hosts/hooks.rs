//! The webhooks of a stand-in.

use serde_json::Value;

use super::server::{self, Answer};

/// The webhooks of a repository, as their provider stores them.
#[derive(Default)]
pub struct Hooks {
    /// Each with its id under `id` or `uuid`.
    pub all: Vec<Value>,
    made: u64,
}

impl Hooks {
    /// An id that no hook has had.
    pub(super) fn next_id(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// The hook with this id.
    pub(super) fn find(&mut self, id: &str) -> Option<&mut Value> {
        self.all.iter_mut().find(|hook| has_id(hook, id))
    }

    /// Removes a hook. Returns whether it existed.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let before = self.all.len();
        self.all.retain(|hook| !has_id(hook, id));
        self.all.len() < before
    }
}

fn has_id(hook: &Value, id: &str) -> bool {
    ["id", "uuid"].iter().any(|name| match &hook[*name] {
        Value::String(text) => text == id,
        Value::Number(number) => number.to_string() == id,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    })
}

/// Puts the fields of `from` into `into`, at any depth.
pub(super) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// The answer after a hook was removed, or was not there.
pub(super) fn removed(existed: bool) -> Answer {
    if existed {
        let mut answer = server::json(204, &Value::Null);
        *answer.body_mut() = bytes::Bytes::new().into();
        answer
    } else {
        server::json(404, &serde_json::json!({"message": "Not Found"}))
    }
}

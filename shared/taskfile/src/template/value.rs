//! The values that a template reads, and where they are from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How far the origin of a value is trusted, from the most to the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Saved with the task: the text may be split into words.
    Saved,
    /// Given from outside, like a branch name: the text stays one word.
    Given,
    /// A secret: the text stays one word, and is masked wherever it is shown.
    Secret,
}

/// Where a value is from, and so what may be done with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The name as an author writes it, like `.Values.x`.
    pub name: Arc<str>,
    /// How far it is trusted.
    pub trust: Trust,
}

/// A value and its origin. `Debug` does not show secrets.
#[derive(Clone, PartialEq)]
pub struct Value {
    /// The value itself.
    pub data: Data,
    /// Where it is from; `None` if the template itself has it.
    pub origin: Option<Origin>,
}

/// What a template can compute with. Lists and maps are shared, so a copy costs nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// No value: a missing key, or `null`.
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number. Go's `int` and `int64` are not distinguished.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// A string.
    Text(Arc<str>),
    /// A list.
    List(Arc<Vec<Value>>),
    /// A map, in the order of its keys.
    Map(Arc<BTreeMap<String, Value>>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) if origin.trust == Trust::Secret => write!(f, "*** from {}", origin.name),
            Some(origin) => write!(f, "{:?} from {}", self.data, origin.name),
            None => self.data.fmt(f),
        }
    }
}

impl Value {
    /// No value.
    pub const NIL: Self = Self { data: Data::Nil, origin: None };

    /// The same value from `origin`. Values in a list or a map keep their own origins too.
    #[must_use]
    pub fn from_origin(self, origin: Origin) -> Self {
        Self { data: self.data, origin: Some(origin) }
    }

    /// The same value, at most as trusted as `other`.
    pub(super) fn tainted(self, other: Option<&Origin>) -> Self {
        let origin = least_trusted(self.origin.as_ref(), other).cloned();
        Self { data: self.data, origin }
    }

    /// Go's notion of truth: everything but nil, false, zero and what is empty.
    pub(super) fn is_true(&self) -> bool {
        match &self.data {
            Data::Nil => false,
            Data::Bool(value) => *value,
            Data::Int(value) => *value != 0,
            Data::Float(value) => *value != 0.0,
            Data::Text(text) => !text.is_empty(),
            Data::List(list) => !list.is_empty(),
            Data::Map(map) => !map.is_empty(),
        }
    }

    pub(super) fn is_nil(&self) -> bool {
        matches!(self.data, Data::Nil)
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Data::Text(text) = &self.data { Some(text) } else { None }
    }

    pub(super) fn as_int(&self) -> Option<i64> {
        if let Data::Int(number) = self.data { Some(number) } else { None }
    }

    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.data {
            Data::Nil => "nil",
            Data::Bool(_) => "true or false",
            Data::Int(_) => "a whole number",
            Data::Float(_) => "a number with a fraction",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }
}

/// The less trusted of two origins; the first if they are equal.
pub(super) fn least_trusted<'a>(
    one: Option<&'a Origin>,
    other: Option<&'a Origin>,
) -> Option<&'a Origin> {
    match (one, other) {
        (Some(one), Some(other)) if other.trust > one.trust => Some(other),
        (one, other) => one.or(other),
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Data::Bool(value).into()
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Data::Int(value).into()
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Data::Float(value).into()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Data::Text(text.into()).into()
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Data::Text(text.into()).into()
    }
}

impl From<Vec<Value>> for Value {
    fn from(list: Vec<Value>) -> Self {
        Data::List(Arc::new(list)).into()
    }
}

impl From<BTreeMap<String, Value>> for Value {
    fn from(map: BTreeMap<String, Value>) -> Self {
        Data::Map(Arc::new(map)).into()
    }
}

impl From<Data> for Value {
    fn from(data: Data) -> Self {
        Self { data, origin: None }
    }
}

impl From<serde_json::Value> for Value {
    /// A whole number above the largest `i64` becomes a float.
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::NIL,
            serde_json::Value::Bool(value) => value.into(),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(whole) => whole.into(),
                None => number.as_f64().unwrap_or(f64::NAN).into(),
            },
            serde_json::Value::String(text) => text.into(),
            serde_json::Value::Array(list) => {
                list.into_iter().map(Self::from).collect::<Vec<_>>().into()
            }
            serde_json::Value::Object(map) => {
                let entries = map.into_iter().map(|(key, value)| (key, Self::from(value)));
                entries.collect::<BTreeMap<_, _>>().into()
            }
        }
    }
}

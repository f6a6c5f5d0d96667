//! What a task file is compiled with: run variables, values, secrets.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::LONGEST;
use super::fields;
use super::insertions::Insertions;
use super::mistake::{Mistake, Mistakes};
use super::position::{Lines, Mapped};
use super::yaml::{self, Kind, Node, Scalar};
use crate::template::{Data, Origin, Trust, Value};

/// The run variables: `.Run.ID`, and `$ID` with aliases. What is unknown is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunVariables {
    /// The run's id, for example `ca1`.
    pub id: String,
    /// The name of the volume that is the workspace.
    pub shared_volume: String,
    /// The host of the run's registry, with its port.
    pub registry: String,
    /// The part of the registry's host before the first dot.
    pub registry_name: String,
    /// When the run began, as `20060102-150405z`.
    pub date: String,
    /// `linux`.
    pub os: String,
    /// The version of the machine's operating system.
    pub os_version: String,
    /// Of the machine that runs the steps, for example `amd64`.
    pub architecture: String,
    /// The commit that is checked out.
    pub commit: String,
    /// The branch that was asked for or pushed to.
    pub branch: String,
    /// The task's name; empty for a run without a task.
    pub task_name: String,
    /// The repository, for example `octo/hello`.
    pub repository: String,
    /// The git tag that was pushed.
    pub git_tag: String,
    /// What caused the run, in one word.
    pub triggered_by: String,
    /// The timer that started the run.
    pub timer: String,
    /// When the timer was due, like the date.
    pub timer_due: String,
}

impl RunVariables {
    /// The names in templates, after `.Run.`.
    pub const NAMES: [&str; 16] = [
        "ID",
        "SharedVolume",
        "Registry",
        "RegistryName",
        "Date",
        "OS",
        "OSVersion",
        "Architecture",
        "Commit",
        "Branch",
        "TaskName",
        "Repository",
        "GitTag",
        "TriggeredBy",
        "Timer",
        "TimerDue",
    ];

    /// The variables of a run as it could be, to check a file before there is a run.
    #[must_use]
    pub fn sample() -> Self {
        Self {
            id: "ca1".to_owned(),
            shared_volume: "workspace".to_owned(),
            registry: "registry.example".to_owned(),
            registry_name: "registry".to_owned(),
            date: "20260102-150405z".to_owned(),
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            branch: "main".to_owned(),
            triggered_by: "request".to_owned(),
            ..Self::default()
        }
    }

    /// Sets the variable of this name in templates, or returns whether there is none.
    #[must_use]
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let place = Self::NAMES.iter().position(|known| *known == name);
        let field = place.and_then(|place| self.fields_mut().into_iter().nth(place));
        if let Some(field) = field {
            value.clone_into(field);
        }
        place.is_some()
    }

    /// In the order of [`RunVariables::NAMES`].
    fn fields_mut(&mut self) -> [&mut String; 16] {
        [
            &mut self.id,
            &mut self.shared_volume,
            &mut self.registry,
            &mut self.registry_name,
            &mut self.date,
            &mut self.os,
            &mut self.os_version,
            &mut self.architecture,
            &mut self.commit,
            &mut self.branch,
            &mut self.task_name,
            &mut self.repository,
            &mut self.git_tag,
            &mut self.triggered_by,
            &mut self.timer,
            &mut self.timer_due,
        ]
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, String)> {
        let mut own = self.clone();
        let values = own.fields_mut().map(std::mem::take);
        Self::NAMES.into_iter().zip(values)
    }
}

/// The values of a task file, with who gave them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Values {
    values: BTreeMap<String, Value>,
}

impl Values {
    /// Adds a value, or replaces it.
    pub fn set(&mut self, name: &str, data: Data, trust: Trust) {
        let origin = Origin { name: format!(".Values.{name}").into(), trust };
        self.values.insert(name.to_owned(), Value { data, origin: Some(origin) });
    }

    /// Adds the values of a file: a map in YAML. Lists and maps in it are values as well.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn add_file(&mut self, file: &str, trust: Trust) -> Result<(), Vec<Mistake>> {
        let mut mistakes = Mistakes::default();
        self.read_file(file, trust, &mut mistakes);
        if mistakes.has_errors() { Err(mistakes.into_list(&Lines::of(file))) } else { Ok(()) }
    }

    fn read_file(&mut self, file: &str, trust: Trust, mistakes: &mut Mistakes) {
        if file.len() > LONGEST {
            return mistakes.error(0, format!("the file of values is longer than {LONGEST} bytes"));
        }
        let root = match yaml::parse(&Mapped::source(file), &Insertions::default()) {
            Ok(Some(root)) => root,
            Ok(None) => return,
            Err(error) => return mistakes.error(error.at, error.message),
        };
        let entries = match &root.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null => &[],
            Kind::Scalar(_) | Kind::List(_) => {
                return mistakes.error(
                    root.at,
                    format!("values are a map of names and values, not {}", root.kind_name()),
                );
            }
        };
        for entry in entries {
            self.set(entry.key.exposed(), data(&entry.value), trust);
        }
    }
}

/// A value of YAML 1.1.
fn data(node: &Node) -> Data {
    let value = |node: &Rc<Node>| Value { data: data(node), origin: None };
    match &node.kind {
        Kind::Null => Data::Nil,
        Kind::Scalar(scalar) => scalar_data(scalar),
        Kind::List(items) => Data::List(Arc::new(items.iter().map(value).collect())),
        Kind::Map(entries) => {
            let entries =
                entries.iter().map(|entry| (entry.key.exposed().to_owned(), value(&entry.value)));
            Data::Map(Arc::new(entries.collect()))
        }
    }
}

fn scalar_data(scalar: &Scalar) -> Data {
    let text = scalar.text.exposed();
    let typed = || {
        fields::truth(text)
            .map(Data::Bool)
            .or_else(|| fields::whole(text).map(Data::Int))
            .or_else(|| fields::fraction(text).map(Data::Float))
    };
    scalar.plain.then(typed).flatten().unwrap_or_else(|| Data::Text(text.into()))
}

/// Secrets by id. A file may be compiled before they are known, with an empty text for each.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, Arc<str>>,
}

impl Secrets {
    /// Adds a secret, or replaces it.
    pub fn set(&mut self, id: &str, value: impl Into<Arc<str>>) {
        self.values.insert(id.to_owned(), value.into());
    }
}

/// Everything that a template reads.
pub(super) fn template_data(run: &RunVariables, values: &Values, secrets: &Secrets) -> Value {
    let map = |entries: BTreeMap<String, Value>| Value {
        data: Data::Map(Arc::new(entries)),
        origin: None,
    };
    let variables =
        run.named().map(|(name, value)| (name.to_owned(), given(&format!(".Run.{name}"), &value)));
    let variables: BTreeMap<String, Value> = variables.collect();
    let mut as_json = variables.clone();
    if run.timer.is_empty() {
        // The original has no such variables, and files may compare all of them.
        as_json.retain(|name, _| !name.starts_with("Timer"));
    }
    let secrets = secrets.values.iter().map(|(id, value)| {
        let origin = Origin { name: format!(".Secrets.{id}").into(), trust: Trust::Secret };
        (id.clone(), Value { data: Data::Text(Arc::clone(value)), origin: Some(origin) })
    });
    let build = BTreeMap::from([("ID".to_owned(), given(".Build.ID", &run.id))]);
    map(BTreeMap::from([
        ("RunJSON".to_owned(), json(".RunJSON", &as_json)),
        ("ValuesJSON".to_owned(), json(".ValuesJSON", &values.values)),
        ("Run".to_owned(), map(variables)),
        ("Build".to_owned(), map(build)),
        ("Values".to_owned(), map(values.values.clone())),
        ("Secrets".to_owned(), map(secrets.collect())),
    ]))
}

/// A run variable: some of them, such as a branch's name, are chosen by strangers.
fn given(name: &str, value: &str) -> Value {
    let origin = Origin { name: name.into(), trust: Trust::Given };
    Value { data: Data::Text(value.into()), origin: Some(origin) }
}

/// All values of a map as one JSON object. It is one word of a command already, so it needs no quotes as in the original.
fn json(name: &str, values: &BTreeMap<String, Value>) -> Value {
    given(name, &json_object(values).to_string())
}

fn json_object(values: &BTreeMap<String, Value>) -> serde_json::Value {
    values.iter().map(|(name, value)| (name.clone(), json_value(&value.data))).collect()
}

fn json_value(data: &Data) -> serde_json::Value {
    match data {
        Data::Nil => serde_json::Value::Null,
        Data::Bool(value) => (*value).into(),
        Data::Int(value) => (*value).into(),
        Data::Float(value) => (*value).into(),
        Data::Text(value) => value.as_ref().into(),
        Data::List(values) => values.iter().map(|value| json_value(&value.data)).collect(),
        Data::Map(values) => json_object(values),
    }
}

//! Merges the layers of settings key by key, so that every mistake is found and reported with its origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize as _;
use toml::{Table, Value};

use super::{DEFAULTS, Settings};

/// The prefix of settings in the environment.
const PREFIX: &str = "GANTRY_";

/// The layers above the defaults, lowest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layers<'a> {
    /// `gantry.toml`.
    pub file: Option<SettingsFile<'a>>,
    /// Variables that begin with `GANTRY_`, except those with another meaning.
    pub environment: &'a [(String, String)],
    /// The flags of the command line.
    pub flags: &'a [Flag],
    /// Rules of other crates.
    pub rules: &'a [Rule],
}

/// A rule for one setting that this crate cannot check itself.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The setting, like `outbound.allow`.
    pub key: &'static str,
    /// Checks settings that are the defaults except for this one; returns what is wrong.
    pub check: fn(&Settings) -> Result<(), String>,
}

/// A settings file, already read.
#[derive(Debug, Clone, Copy)]
pub struct SettingsFile<'a> {
    /// The path, for messages.
    pub path: &'a Path,
    /// The content.
    pub text: &'a str,
}

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag as it was given, for messages, like `--listen`.
    pub name: String,
    /// The setting, like `server.listen`.
    pub key: String,
    /// The value, in the syntax of the environment.
    pub value: String,
}

/// All mistakes in the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(Vec<Mistake>);

/// A wrong setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The setting with the given value.
    pub given: String,
    /// The origin: `gantry.toml line 3`, `GANTRY_WORKER_SLOTS`, or `--listen`.
    pub source: String,
    /// The rule that it violates.
    pub rule: String,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("one setting is wrong, so nothing was started:")?,
            count => write!(f, "{count} settings are wrong, so nothing was started:")?,
        }
        self.0.iter().try_for_each(|Mistake { given, source, rule }| {
            write!(f, "\n  {given} ({source}): {rule}")
        })
    }
}

/// A value in a layer, as text or as TOML.
enum Given {
    Text(String),
    Toml(Value),
}

/// The merged settings, and the mistakes found so far.
struct Build<'a> {
    rules: &'a [Rule],
    defaults: BTreeMap<String, Value>,
    merged: BTreeMap<String, Value>,
    sources: BTreeMap<String, String>,
    mistakes: Vec<Mistake>,
}

pub(super) fn parse(layers: &Layers<'_>) -> Result<Settings, Mistakes> {
    let mut build = Build::from_defaults(layers.rules)?;
    if let Some(file) = layers.file {
        build.take_file(file);
    }
    for (name, value) in layers.environment {
        match build.key_of_variable(name) {
            Some(key) => build.take(&key, Given::Text(value.clone()), name.clone()),
            None => build.refuse_variable(name),
        }
    }
    for flag in layers.flags {
        build.take(&flag.key, Given::Text(flag.value.clone()), flag.name.clone());
    }
    build.finish()
}

impl<'a> Build<'a> {
    fn from_defaults(rules: &'a [Rule]) -> Result<Self, Mistakes> {
        let broken = |error: toml::de::Error| {
            Mistakes(vec![Mistake {
                given: "the defaults".to_owned(),
                source: "gantry.default.toml".to_owned(),
                rule: error.message().to_owned(),
            }])
        };
        let mut defaults = BTreeMap::new();
        flatten("", DEFAULTS.parse().map_err(broken)?, &mut defaults);
        Ok(Self {
            rules,
            merged: defaults.clone(),
            defaults,
            sources: BTreeMap::new(),
            mistakes: Vec::new(),
        })
    }

    fn take_file(&mut self, file: SettingsFile<'_>) {
        let path = file.path.display();
        let table: Table = match file.text.parse() {
            Ok(table) => table,
            Err(error) => {
                let line = error.span().map_or(1, |span| line_at(file.text, span.start));
                return self.mistakes.push(Mistake {
                    given: "the file".to_owned(),
                    source: format!("{path} line {line}"),
                    rule: error.message().to_owned(),
                });
            }
        };
        let lines = key_lines(file.text);
        let mut given = BTreeMap::new();
        flatten("", table, &mut given);
        for (key, value) in given {
            let source = match lines.get(&key) {
                Some(line) => format!("{path} line {line}"),
                None => path.to_string(),
            };
            self.take(&key, Given::Toml(value), source);
        }
    }

    /// Merges one setting of one layer, if it is valid on top of the defaults.
    fn take(&mut self, key: &str, given: Given, source: String) {
        let Some(default) = self.defaults.get(key) else {
            // The value is not shown: it may be a password that somebody tried to set as `store.password`.
            let rule = unknown(key, self.defaults.keys());
            return self.mistakes.push(Mistake { given: key.to_owned(), source, rule });
        };
        let shown = match &given {
            Given::Text(text) => format!("{key} = {text:?}"),
            Given::Toml(value) => format!("{key} = {value}"),
        };
        let mut refuse = |rule: String| {
            let given = without_passwords(&shown);
            self.mistakes.push(Mistake { given, source: source.clone(), rule });
        };
        let value = match like_default(default, given) {
            Ok(value) => value,
            Err(rule) => return refuse(rule.to_owned()),
        };
        let mut alone = self.defaults.clone();
        alone.insert(key.to_owned(), value.clone());
        let settings = match read(&alone) {
            Ok(settings) => settings,
            Err(error) => return refuse(error.message().trim().to_owned()),
        };
        let mut rules = self.rules.iter().filter(|rule| rule.key == key);
        if let Some(broken) = rules.find_map(|rule| (rule.check)(&settings).err()) {
            return refuse(broken);
        }
        self.merged.insert(key.to_owned(), value);
        self.sources.insert(key.to_owned(), source);
    }

    fn key_of_variable(&self, name: &str) -> Option<String> {
        self.defaults.keys().find(|key| variable(key) == name).cloned()
    }

    fn refuse_variable(&mut self, name: &str) {
        let names: Vec<String> = self.defaults.keys().map(|key| variable(key)).collect();
        self.mistakes.push(Mistake {
            given: name.to_owned(),
            source: "the environment".to_owned(),
            rule: unknown(name, names.iter()),
        });
    }

    fn finish(mut self) -> Result<Settings, Mistakes> {
        if !self.mistakes.is_empty() {
            return Err(Mistakes(self.mistakes));
        }
        match read(&self.merged) {
            Ok(settings) => {
                let contradictions = settings.contradictions();
                if contradictions.is_empty() {
                    return Ok(settings);
                }
                for (key, rule) in contradictions {
                    self.refuse_together(key, rule);
                }
            }
            // Each setting was parsed before together with the defaults, so parsing the merged settings only fails for
            // combinations.
            Err(error) => self.refuse_together("the settings", error.message()),
        }
        Err(Mistakes(self.mistakes))
    }

    fn refuse_together(&mut self, key: &str, rule: &str) {
        let value = self.merged.get(key).map(|value| format!(" = {value}")).unwrap_or_default();
        self.mistakes.push(Mistake {
            given: format!("{key}{value}"),
            source: self.sources.get(key).cloned().unwrap_or_else(|| "the default".to_owned()),
            rule: rule.to_owned(),
        });
    }
}

/// The text, with the passwords in its URLs replaced by `..`.
fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str("://");
        match part.rsplit_once('@') {
            Some((login, rest)) if login.contains(':') => {
                let user = login.split(':').next().unwrap_or_default();
                shown.push_str(&format!("{user}:..@{rest}"));
            }
            Some(_) | None => shown.push_str(part),
        }
    }
    shown
}

/// The variable of a setting: `worker.min_free` is `GANTRY_WORKER_MIN_FREE`.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// Converts text to the type of the default.
fn like_default(default: &Value, given: Given) -> Result<Value, &'static str> {
    match (default, given) {
        (Value::String(_), Given::Text(text)) => Ok(Value::String(text)),
        (Value::Integer(_), Given::Text(text)) => {
            text.trim().parse().map(Value::Integer).map_err(|_| "it is a whole number")
        }
        (Value::Boolean(_), Given::Text(text)) => {
            text.trim().parse().map(Value::Boolean).map_err(|_| "it is `true` or `false`")
        }
        (Value::Array(_), Given::Text(text)) => {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            Ok(Value::Array(words.map(Value::from).collect()))
        }
        (default, Given::Toml(value)) if default.same_type(&value) => Ok(value),
        (Value::String(_), Given::Toml(_)) => Err("it is a text, in quotes"),
        (Value::Integer(_), Given::Toml(_)) => Err("it is a whole number, without quotes"),
        (Value::Boolean(_), Given::Toml(_)) => Err("it is `true` or `false`, without quotes"),
        (Value::Array(_), Given::Toml(_)) => Err("it is a list of texts, like [\"a\", \"b\"]"),
        (Value::Float(_) | Value::Datetime(_) | Value::Table(_), _) => {
            Err("it is a section, not a setting")
        }
    }
}

fn unknown<'a>(name: &'a str, known: impl Iterator<Item = &'a String>) -> String {
    // Compared without the prefix that all variables share.
    let bare = |name: &'a str| name.strip_prefix(PREFIX).unwrap_or(name);
    let nearest = known
        .map(|known| (strsim::jaro_winkler(bare(name), bare(known)), known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, known)) if likeness > 0.85 => {
            format!("there is no such setting: did you mean `{known}`?")
        }
        _ => "there is no such setting: `gantry settings` lists all".to_owned(),
    }
}

/// Flattens tables: `[worker] slots = 2` becomes `worker.slots = 2`.
fn flatten(above: &str, table: Table, into: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let key = if above.is_empty() { name } else { format!("{above}.{name}") };
        match value {
            Value::Table(table) => flatten(&key, table, into),
            value @ (Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_)) => {
                into.insert(key, value);
            }
        }
    }
}

fn read(flat: &BTreeMap<String, Value>) -> Result<Settings, toml::de::Error> {
    let mut table = Table::new();
    for (key, value) in flat {
        match key.split_once('.') {
            None => {
                table.insert(key.clone(), value.clone());
            }
            Some((section, name)) => {
                let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(section) = section {
                    section.insert(name.to_owned(), value.clone());
                }
            }
        }
    }
    Settings::deserialize(Value::Table(table))
}

/// The line of each key in a file, from 1.
fn key_lines(text: &str) -> BTreeMap<String, usize> {
    fn walk(
        text: &str,
        above: &str,
        table: &toml::de::DeTable<'_>,
        into: &mut BTreeMap<String, usize>,
    ) {
        for (name, value) in table {
            let name_text = name.get_ref();
            let key = if above.is_empty() {
                name_text.to_string()
            } else {
                format!("{above}.{name_text}")
            };
            if let toml::de::DeValue::Table(table) = value.get_ref() {
                walk(text, &key, table, into);
            } else {
                into.insert(key, line_at(text, name.span().start));
            }
        }
    }
    let mut lines = BTreeMap::new();
    if let Ok(table) = toml::de::DeTable::parse(text) {
        walk(text, "", table.get_ref(), &mut lines);
    }
    lines
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

//! Aliases: `$name` in a task file of version v1.1.0 stands for a text.

use std::collections::BTreeMap;

use super::fields::Fields;
use super::insertions::{self, Insertions};
use super::mistake::Mistakes;
use super::position::Mapped;
use super::yaml::{self, Kind, Node};

/// The aliases that every file has: one for each documented run variable except `TaskName`, as in the original.
const PRESETS: [&str; 9] = [
    "ID",
    "SharedVolume",
    "Registry",
    "RegistryName",
    "Date",
    "OS",
    "Architecture",
    "Commit",
    "Branch",
];

/// What the block `alias:` of a file declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    /// Files with more aliases: their byte offset in the source, and their URL or path.
    pub(super) sources: Vec<(usize, String)>,
    pub(super) values: BTreeMap<String, Alias>,
    /// What an alias begins with.
    pub(super) directive: char,
}

/// What an alias stands for. It may contain the marks of insertions.
pub(super) type Alias = String;

impl Default for Declared {
    fn default() -> Self {
        Self { sources: Vec::new(), values: BTreeMap::new(), directive: '$' }
    }
}

/// Reads the block.
pub(super) fn declared(mut fields: Fields<'_>, insertions: &mut Insertions) -> Declared {
    let mut declared = Declared::default();
    for source in fields.texts("src") {
        if let Some(value) = source.value.first_inserted() {
            let value = value.name.clone();
            let message =
                format!("`{value}` is in the address of an alias file: write the address out");
            fields.error(source.at, message);
        } else {
            declared.sources.push((source.at, source.value.exposed().to_owned()));
        }
    }
    if let Some(directive) = fields.text("directive") {
        let text = directive.value.exposed();
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) if !char.is_alphanumeric() => declared.directive = char,
            _ => fields.error(
                directive.at,
                format!(
                    "the directive `{}` is not one character other than a letter or digit: use `$`",
                    directive.value
                ),
            ),
        }
    }
    if let Some(node) = fields.node("values") {
        read_values(node, fields.mistakes(), insertions, &mut declared.values);
    }
    fields.finish();
    declared
}

/// Reads the content of an alias file: a map of names and texts.
pub(super) fn file(content: &str, mistakes: &mut Mistakes) -> BTreeMap<String, Alias> {
    let mut values = BTreeMap::new();
    if let Some(at) = insertions::reserved(content) {
        mistakes.error(
            at,
            "this character is for private use and cannot stand in an alias file: remove it",
        );
        return values;
    }
    let mut insertions = Insertions::default();
    match yaml::parse(&Mapped::source(content), &insertions) {
        Ok(Some(root)) => read_values(&root, mistakes, &mut insertions, &mut values),
        Ok(None) => {}
        Err(error) => mistakes.error(error.at, error.message),
    }
    values
}

fn read_values(
    node: &Node,
    mistakes: &mut Mistakes,
    insertions: &mut Insertions,
    values: &mut BTreeMap<String, Alias>,
) {
    let entries = match &node.kind {
        Kind::Map(entries) => entries.as_slice(),
        Kind::Null => &[],
        Kind::Scalar(_) | Kind::List(_) => {
            let found = node.kind_name();
            mistakes.error(node.at, format!("aliases are a map of names and texts, not {found}"));
            &[]
        }
    };
    for entry in entries {
        let name = entry.key.exposed();
        if !is_name(name) || entry.key.first_inserted().is_some() {
            let message =
                format!("`{}` is not a name for an alias: use ASCII letters and digits", entry.key);
            mistakes.error(entry.at, message);
            continue;
        }
        match &entry.value.kind {
            Kind::Scalar(scalar) => {
                values.insert(name.to_owned(), insertions.keep_all(&scalar.text));
            }
            Kind::Null => {
                values.insert(name.to_owned(), String::new());
            }
            Kind::List(_) | Kind::Map(_) => {
                let found = entry.value.kind_name();
                mistakes.error(
                    entry.value.at,
                    format!("the alias `{name}` stands for a text, not {found}"),
                );
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The aliases of a file, with the presets.
#[derive(Debug, Clone, Default)]
pub(super) struct Aliases {
    directive: Option<char>,
    values: BTreeMap<String, Alias>,
}

impl Aliases {
    /// Of several with one name the last one counts: presets, the operator's images, each file, the values of the block.
    pub(super) fn new(
        declared: Declared,
        images: BTreeMap<String, Alias>,
        files: Vec<BTreeMap<String, Alias>>,
    ) -> Self {
        let presets =
            PRESETS.iter().map(|name| ((*name).to_owned(), format!("{{{{.Run.{name}}}}}")));
        let mut values: BTreeMap<String, Alias> = presets.collect();
        values.extend(images);
        values.extend(files.into_iter().flatten());
        values.extend(declared.values);
        Self { directive: Some(declared.directive), values }
    }

    /// What a word stands for as a whole, with or without the directive.
    pub(super) fn whole_word(&self, word: &str) -> Option<&str> {
        let name =
            self.directive.and_then(|directive| word.strip_prefix(directive)).unwrap_or(word);
        self.values.get(name).map(String::as_str)
    }

    /// Replaces every alias. `None` if the result is longer than `longest` bytes.
    ///
    /// A doubled directive stands for one. An unknown name stays, and so does an alias that is written directly after
    /// it, as in the original: `$unknown$ID`.
    pub(super) fn replace(&self, text: &Mapped, longest: usize) -> Option<Mapped> {
        let Some(directive) = self.directive else { return Some(text.clone()) };
        let source = text.as_str();
        let mut replaced = Mapped::default();
        let mut copied = 0; // Everything before is in `replaced`.
        let mut rest = 0; // Everything before has been looked at.
        while let Some(found) = source.get(rest..).and_then(|rest| rest.find(directive)) {
            let at = rest + found;
            let name_at = at + directive.len_utf8();
            let after = source.get(name_at..).unwrap_or("");
            let length = after.bytes().take_while(u8::is_ascii_alphanumeric).count();
            let (name, end) = (after.get(..length).unwrap_or(""), name_at + length);
            let ends_at_directive =
                after.get(length..).is_some_and(|rest| rest.starts_with(directive));
            let place = text.source_offset(at);
            rest = end;
            if let Some(value) = self.values.get(name) {
                replaced.extend(text, copied, at);
                replaced.insert(value, place);
                copied = end;
            } else if ends_at_directive {
                // The second directive belongs to this name: it is no beginning of another alias.
                rest = end + directive.len_utf8();
                if name.is_empty() {
                    replaced.extend(text, copied, end);
                    copied = rest;
                }
            }
            if replaced.as_str().len() > longest {
                return None;
            }
        }
        replaced.extend(text, copied, source.len());
        (replaced.as_str().len() <= longest).then_some(replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(directive: char) -> Aliases {
        let values = [("repo", "my/repo"), ("a", "$repo")];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Aliases::new(
            Declared { directive, values: values.into(), ..Declared::default() },
            BTreeMap::new(),
            Vec::new(),
        )
    }

    fn replace(text: &str) -> String {
        aliases('$').replace(&Mapped::source(text), 1000).unwrap().as_str().to_owned()
    }

    #[test]
    fn known_names_are_replaced_once_and_all_else_stays() {
        for (text, expected) in [
            ("$Registry/$repo:$ID", "{{.Run.Registry}}/my/repo:{{.Run.ID}}"),
            ("x$repo-y $repoz ${repo} $", "xmy/repo-y $repoz ${repo} $"),
            ("$Registry$ID", "{{.Run.Registry}}{{.Run.ID}}"),
            ("$unknown$ID", "$unknown$ID"),
            ("$unknown$ID$ID", "$unknown$ID{{.Run.ID}}"),
            ("$$ID $$", "$ID $"),
            ("$a", "$repo"),
            ("$TaskName", "$TaskName"),
        ] {
            assert_eq!(replace(text), expected, "{text}");
        }
    }

    #[test]
    fn the_directive_may_be_any_other_character() {
        let text = Mapped::source("🐳repo 🐳🐳 $repo");
        assert_eq!(aliases('🐳').replace(&text, 1000).unwrap().as_str(), "my/repo 🐳 $repo");
    }

    #[test]
    fn a_place_after_an_alias_is_still_the_place_in_the_file() {
        let replaced = aliases('$').replace(&Mapped::source("a $repo b"), 1000).unwrap();
        assert_eq!(replaced.source_offset(replaced.as_str().find('b').unwrap()), 8);
        assert_eq!(replaced.source_offset(4), 2);
    }

    #[test]
    fn what_aliases_make_longer_than_the_limit_is_refused() {
        assert!(aliases('$').replace(&Mapped::source("$repo$repo$repo"), 20).is_none());
    }
}

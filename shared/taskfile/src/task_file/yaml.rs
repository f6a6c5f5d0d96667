//! YAML text to a tree of nodes with places.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::insertions::Insertions;
use super::position::Mapped;
use super::traced::Traced;

/// Deeper than any task file nests.
const DEEPEST: usize = 32;

/// A value in a YAML document.
#[derive(Debug)]
pub(super) struct Node {
    /// Its byte offset in the source.
    pub(super) at: usize,
    pub(super) kind: Kind,
    /// Its bytes with all that is in it, and some for each node.
    weight: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Scalar(Scalar),
    List(Vec<Rc<Node>>),
    /// In the order of the file, with duplicates.
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: usize,
    pub(super) key: Traced,
    pub(super) value: Rc<Node>,
    /// Whether `<<` copied it from another map.
    pub(super) copied: bool,
}

#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) text: Traced,
    /// Written without quotes, so that it may be a number, a truth value or nothing.
    pub(super) plain: bool,
}

impl Node {
    /// How to call it in a message.
    pub(super) fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Scalar(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

/// Why a text is not usable YAML.
#[derive(Debug)]
pub(super) struct YamlError {
    /// The byte offset in the source.
    pub(super) at: usize,
    pub(super) message: String,
}

/// The first document of a text; `None` if it has none. The values in its marks are restored.
pub(super) fn parse(text: &Mapped, insertions: &Insertions) -> Result<Option<Rc<Node>>, YamlError> {
    // The parser counts characters. Counting them again for each event would take time that grows with the square of a
    // line's length.
    let bytes: Vec<usize> = text.as_str().char_indices().map(|(at, _)| at).collect();
    let place = |mark: &Marker| {
        text.source_offset(bytes.get(mark.index()).copied().unwrap_or(text.as_str().len()))
    };
    let mut tree =
        Tree { insertions, open: Vec::new(), anchors: HashMap::new(), copied: 0, root: None };
    let mut parser = Parser::new_from_str(text.as_str());
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| YamlError {
            at: place(error.marker()),
            message: format!("this is not valid YAML: {}", error.info()),
        })?;
        let at = place(&span.start);
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        tree.event(event, at).map_err(|message| YamlError { at, message })?;
    }
    Ok(tree.root)
}

/// A document that is being read.
struct Tree<'a> {
    insertions: &'a Insertions,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    /// The weight of all nodes that aliases stand for.
    copied: usize,
    root: Option<Rc<Node>>,
}

/// A list or map that has begun.
struct Open {
    at: usize,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, key: Option<(usize, Traced)> },
}

impl Tree<'_> {
    fn event(&mut self, event: Event<'_>, at: usize) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = self.scalar(&text, style, tag.as_deref());
                self.add(anchor, at, kind)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node =
                    node.ok_or("this alias is inside its own anchor: write the value out")?;
                self.copied += node.weight;
                if self.copied > MOST_COPIED {
                    return Err(format!("aliases of YAML copy more than {MOST_COPIED} bytes"));
                }
                self.place(node, at)
            }
            Event::SequenceStart(anchor, _) => self.begin(at, anchor, OpenKind::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.begin(at, anchor, OpenKind::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Kind {
        let plain = style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.suffix != "str");
        let text = self.insertions.restore(text);
        if plain && matches!(text.exposed(), "" | "~" | "null" | "Null" | "NULL") {
            return Kind::Null;
        }
        Kind::Scalar(Scalar { text, plain })
    }

    fn begin(&mut self, at: usize, anchor: usize, kind: OpenKind) -> Result<(), String> {
        if self.open.len() == DEEPEST {
            return Err(format!("lists and maps are nested deeper than {DEEPEST} levels"));
        }
        self.open.push(Open { at, anchor, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Open { at, anchor, kind }) = self.open.pop() else { return Ok(()) };
        let kind = match kind {
            OpenKind::List(items) => Kind::List(items),
            OpenKind::Map { entries, .. } => Kind::Map(entries),
        };
        self.add(anchor, at, kind)
    }

    fn add(&mut self, anchor: usize, at: usize, kind: Kind) -> Result<(), String> {
        let weight = NODE_WEIGHT + weight(&kind);
        let node = Rc::new(Node { at, kind, weight });
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.place(node, at)
    }

    /// Puts a complete node into the list or map that is open.
    fn place(&mut self, node: Rc<Node>, at: usize) -> Result<(), String> {
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map { entries, key }) => match key.take() {
                Some((at, name)) if name.exposed() == "<<" => {
                    merge(entries, &node, at)?;
                }
                Some((at, name)) => {
                    entries.push(Entry { at, key: name, value: node, copied: false })
                }
                None => *key = Some((at, key_text(&node)?)),
            },
        }
        Ok(())
    }
}

fn key_text(node: &Node) -> Result<Traced, String> {
    match &node.kind {
        Kind::Scalar(scalar) => Ok(scalar.text.clone()),
        Kind::Null => Ok(Traced::default()),
        Kind::List(_) | Kind::Map(_) => Err("a key is a text, not a list or map".to_owned()),
    }
}

/// `<<: *base` copies the entries of another map. They come first, because of equal keys the last one counts, and what
/// is written in the map itself wins.
fn merge(entries: &mut Vec<Entry>, value: &Rc<Node>, at: usize) -> Result<(), String> {
    let maps = match &value.kind {
        Kind::List(maps) => maps.as_slice(),
        Kind::Map(_) | Kind::Null | Kind::Scalar(_) => std::slice::from_ref(value),
    };
    let mut copied = Vec::new();
    // Of several maps the first one wins.
    for map in maps.iter().rev() {
        let Kind::Map(others) = &map.kind else {
            return Err("`<<` takes a map, or a list of maps".to_owned());
        };
        copied.extend(others.iter().map(|other| Entry {
            at,
            key: other.key.clone(),
            value: Rc::clone(&other.value),
            copied: true,
        }));
    }
    entries.splice(0..0, copied);
    Ok(())
}

fn weight(kind: &Kind) -> usize {
    match kind {
        Kind::Null => 0,
        Kind::Scalar(scalar) => scalar.text.exposed().len(),
        Kind::List(items) => items.iter().map(|item| item.weight).sum(),
        Kind::Map(entries) => entries
            .iter()
            .map(|entry| NODE_WEIGHT + entry.key.exposed().len() + entry.value.weight)
            .sum(),
    }
}

/// What a node costs beside its text, in bytes.
const NODE_WEIGHT: usize = 16;

/// In one file, in bytes: what aliases stand for could be larger than the file by any factor.
const MOST_COPIED: usize = 1 << 20;

//! Graphs in the language of Graphviz, for `-o dot`.

use std::fmt;

/// What is drawn: boxes and rounded boxes, and arrows between them. Names are escaped.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    arrows: Vec<(String, String, String)>,
}

#[derive(Debug)]
struct Node {
    id: String,
    lines: Vec<String>,
    looks: &'static str,
}

/// The looks of an image, and of a task in its usual state.
pub(crate) const IMAGE: &str = "shape=ellipse";
pub(crate) const TASK: &str = "shape=box";

impl Graph {
    /// Draws a node, unless one with this id is drawn already. It shows `lines`.
    pub(crate) fn node(&mut self, id: &str, lines: Vec<String>, looks: &'static str) -> &mut Self {
        if !self.nodes.iter().any(|node| node.id == id) {
            self.nodes.push(Node { id: id.to_owned(), lines, looks });
        }
        self
    }

    /// Draws an arrow with a label, which may be empty.
    pub(crate) fn arrow(&mut self, from: &str, to: &str, label: &str) -> &mut Self {
        let arrow = (from.to_owned(), to.to_owned(), label.to_owned());
        if !self.arrows.contains(&arrow) {
            self.arrows.push(arrow);
        }
        self
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "digraph gantry {{\n  rankdir=LR;")?;
        for Node { id, lines, looks } in &self.nodes {
            let lines: Vec<String> = lines.iter().map(|line| escaped(line)).collect();
            writeln!(f, "  \"{}\" [{looks}, label=\"{}\"];", escaped(id), lines.join("\\n"))?;
        }
        for (from, to, label) in &self.arrows {
            write!(f, "  \"{}\" -> \"{}\"", escaped(from), escaped(to))?;
            if !label.is_empty() {
                write!(f, " [label=\"{}\"]", escaped(label))?;
            }
            writeln!(f, ";")?;
        }
        writeln!(f, "}}")
    }
}

/// The text within quotes: a name cannot end them, nor begin one of Graphviz's own escapes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        let mut graph = Graph::default();
        graph.node("a\"]; b", vec!["a\\N".to_owned(), "two\nlines".to_owned()], IMAGE);
        graph.node("a\"]; b", vec!["again".to_owned()], TASK);
        graph.arrow("a\"]; b", "c", "\\l").arrow("a\"]; b", "c", "\\l");
        insta::assert_snapshot!(graph, @r#"
        digraph gantry {
          rankdir=LR;
          "a\"]; b" [shape=ellipse, label="a\\N\ntwo lines"];
          "a\"]; b" -> "c" [label="\\l"];
        }
        "#);
    }
}

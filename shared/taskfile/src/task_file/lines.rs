//! What is read from the lines of a task file before it is YAML: comments, the version, the block of aliases.

use std::ops::Range;

use super::position::Mapped;

/// The text without the lines that are comments, also where they are part of a value, as the original has it.
pub(super) fn without_comments(source: &str) -> Mapped {
    let mut text = Mapped::default();
    let mut at = 0;
    for line in source.split_inclusive('\n') {
        if !line.trim_start().starts_with('#') {
            text.copy(line, at);
        }
        at += line.len();
    }
    text
}

/// What follows `version:` on the first line that begins so, without quotes.
pub(super) fn version(text: &str) -> Option<&str> {
    let rest = text.lines().find_map(|line| line.strip_prefix("version:"))?;
    Some(rest.split(" #").next()?.trim().trim_matches(['"', '\'']))
}

/// The lines of the top-level block `alias:`, as a range of bytes.
pub(super) fn alias_block(text: &str) -> Option<Range<usize>> {
    let mut at = 0;
    let mut begin = None;
    for line in text.split_inclusive('\n') {
        match begin {
            None if line
                .strip_prefix("alias:")
                .is_some_and(|rest| rest.trim_start() != rest || rest.is_empty()) =>
            {
                begin = Some(at);
            }
            Some(begin) if begins_entry(line) => return Some(begin..at),
            None | Some(_) => {}
        }
        at += line.len();
    }
    begin.map(|begin| begin..at)
}

/// Whether a line begins the next entry of the top-level map, or another document.
fn begins_entry(line: &str) -> bool {
    line.starts_with(|c: char| c.is_alphanumeric() || "\"'".contains(c))
        || line.starts_with("---")
        || line.starts_with("...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comment_lines_are_removed_wherever_they_are() {
        let source = "# a\nsteps:\n  # b\n  - cmd: |\n      x\n      # c\n      y # d\n#";
        let text = without_comments(source);
        assert_eq!(text.as_str(), "steps:\n  - cmd: |\n      x\n      y # d\n");
        assert_eq!(
            text.source_offset(text.as_str().find('y').unwrap()),
            source.find("y #").unwrap()
        );
    }

    #[test]
    fn the_version_is_the_first_line_that_begins_with_it() {
        for (text, expected) in [
            ("version: v1.1.0", Some("v1.1.0")),
            ("steps: []\nversion:  \"v1.1.0\"  ", Some("v1.1.0")),
            ("version: 'v1.0.0' # old\nversion: v1.1.0", Some("v1.0.0")),
            (" version: v1.1.0", None),
            ("", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn the_block_of_aliases_ends_at_the_next_property() {
        for (text, expected) in [
            ("alias:\n  values: {a: b}\n\nsteps: []\n", Some("alias:\n  values: {a: b}\n\n")),
            ("steps: []\nalias: {values: {a: b,\n}}\n", Some("alias: {values: {a: b,\n}}\n")),
            ("alias:\n- x\n\"steps\": []", Some("alias:\n- x\n")),
            ("aliases: {}\n", None),
            ("x:\n  alias: {}\n", None),
        ] {
            assert_eq!(alias_block(text).map(|block| &text[block]), expected, "{text}");
        }
    }
}

//! Text that is printed on a terminal.

use gantry_ops::terminal::{Sanitiser, is_hidden, json, lines, one_line};

use super::Target;

pub(super) const TARGET: Target = Target {
    name: "terminal",
    run: read,
    words: &[
        "\u{1b}[",
        "\u{1b}]8;;",
        "\u{1b}]52;c;",
        "\u{1b}\\",
        "\u{7}",
        "\u{9b}",
        "\u{9d}",
        "\u{1b}P",
        "\u{1b}[31m",
        "\u{1b}[38:5:1m",
        "\r",
        "\n",
        "\u{202e}",
        "\u{2066}",
        "\u{200b}",
        "\u{feff}",
        "\0",
        "\u{1b}(0",
        "?1049h",
    ],
};

/// Only text gets through, however it is split, and harmless text is unchanged.
fn read(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let whole = lines(&text);
    assert!(whole.chars().all(|c| matches!(c, '\n' | '\t') || !(c.is_control() || is_hidden(c))));
    assert_eq!(lines(&whole), whole);
    assert!(!one_line(&text).contains(['\n', '\t', '\r']));

    let at = text.floor_char_boundary(text.len() / 2);
    let mut sanitiser = Sanitiser::new(false);
    let pieces = sanitiser.push(&text[..at]) + &sanitiser.push(&text[at..]);
    assert_eq!(pieces, whole, "cut at {at}");

    let mut coloured = Sanitiser::new(true);
    let coloured = coloured.push(&text) + coloured.finish();
    assert_eq!(lines(&coloured), whole, "colours are all that is more");
    for (_, after) in coloured.match_indices('\u{1b}').map(|(at, _)| coloured.split_at(at + 1)) {
        let end = after.find('m').expect("a colour ends");
        assert!(after.starts_with('[') && end <= 72, "{after:?}");
    }

    let value = serde_json::to_string(&[&text]).unwrap();
    let shown = json(&value);
    assert!(!shown.chars().any(|c| c.is_control() || is_hidden(c)), "{shown:?}");
    assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [text]);
}

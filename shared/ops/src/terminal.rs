//! Makes untrusted text safe for a terminal.
//!
//! A log may contain control sequences that move the cursor, rename the window, send input, or make a line look like
//! another one. Only text, line breaks, tabs and, if wanted, colours remain.

/// Removes control sequences from text that arrives in arbitrary pieces.
#[derive(Debug)]
pub struct Sanitiser {
    keep_colours: bool,
    coloured: bool,
    state: State,
}

/// The state of the parser within a control sequence.
#[derive(Debug)]
enum State {
    Text,
    /// After a carriage return: part of a line break if a newline follows, otherwise one itself.
    Return,
    /// After ESC.
    Escape,
    /// After `ESC [`, with its parameters so far.
    Control(String),
    /// In a command that ends with BEL or `ESC \`, such as the window's title.
    Command,
    /// In such a command, after ESC.
    CommandEscape,
    /// After `ESC (` and similar: one more character belongs to the sequence.
    Designate,
}

/// Colour sequences have fewer parameters; a longer sequence is dropped.
const LONGEST_COLOUR: usize = 64;

impl Sanitiser {
    /// `keep_colours`: whether sequences that only set colours are kept.
    #[must_use]
    pub fn new(keep_colours: bool) -> Self {
        Self { keep_colours, coloured: false, state: State::Text }
    }

    /// Returns the safe part of the next piece.
    pub fn push(&mut self, text: &str) -> String {
        let mut safe = String::with_capacity(text.len());
        for c in text.chars() {
            self.state = match std::mem::replace(&mut self.state, State::Text) {
                State::Text => Self::text(c, &mut safe),
                State::Return if c == '\n' => {
                    safe.push('\n');
                    State::Text
                }
                State::Return => {
                    safe.push('\n');
                    Self::text(c, &mut safe)
                }
                State::Escape => match c {
                    '[' => State::Control(String::new()),
                    ']' | 'P' | 'X' | '^' | '_' => State::Command,
                    '(' | ')' | '*' | '+' | '-' | '.' | '/' | '#' | '%' | ' ' => State::Designate,
                    '\u{1b}' => State::Escape,
                    // Any other sequence ends here; a newline is still text.
                    '\n' => Self::text(c, &mut safe),
                    _ => State::Text,
                },
                State::Control(parameters) => self.control(parameters, c, &mut safe),
                State::Command => match c {
                    '\u{7}' | '\u{9c}' => State::Text,
                    '\u{1b}' => State::CommandEscape,
                    // A newline ends an unterminated command, which would otherwise hide the rest of the log.
                    '\n' => Self::text(c, &mut safe),
                    _ => State::Command,
                },
                State::CommandEscape if c == '\\' => State::Text,
                State::CommandEscape => State::Command,
                State::Designate => State::Text,
            };
        }
        safe
    }

    /// What to append to the text to reset colours.
    pub fn finish(&mut self) -> &'static str {
        self.state = State::Text;
        if std::mem::take(&mut self.coloured) { "\u{1b}[0m" } else { "" }
    }

    fn text(c: char, safe: &mut String) -> State {
        match c {
            '\u{1b}' => return State::Escape,
            '\u{9b}' => return State::Control(String::new()),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => return State::Command,
            '\r' => return State::Return,
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || is_hidden(c) => {}
            c => safe.push(c),
        }
        State::Text
    }

    fn control(&mut self, mut parameters: String, c: char, safe: &mut String) -> State {
        match c {
            '\u{40}'..='\u{7e}' => {
                let colours = if c == 'm' { legible(&parameters) } else { None };
                if let Some(colours) = colours.filter(|_| self.keep_colours) {
                    self.coloured = true;
                    safe.push_str("\u{1b}[");
                    safe.push_str(&colours);
                    safe.push('m');
                }
                State::Text
            }
            '\u{20}'..='\u{3f}' => {
                if parameters.len() <= LONGEST_COLOUR {
                    parameters.push(c);
                }
                State::Control(parameters)
            }
            // The sequence is incomplete; what follows is text.
            c => Self::text(c, safe),
        }
    }
}

/// The legible part of a colour sequence: bold, dim, italic, underlined, and the 16 named foreground colours, which
/// terminals keep readable on their background. Not those that hide text (`8`), blink, reverse, or set the background
/// or an exact colour, since text may become invisible with them.
fn legible(parameters: &str) -> Option<String> {
    let is_attribute = |b: u8| b.is_ascii_digit() || b == b';' || b == b':';
    if parameters.len() > LONGEST_COLOUR || !parameters.bytes().all(is_attribute) {
        return None;
    }
    let mut kept = Vec::new();
    let mut numbers = parameters.split(';');
    while let Some(number) = numbers.next() {
        match number.parse().unwrap_or(if number.is_empty() { 0 } else { u16::MAX }) {
            0 | 1 | 2 | 3 | 4 | 22 | 23 | 24 | 31..=37 | 39 | 90..=97 => kept.push(number),
            // The parameters of `38;5;N` and `38;2;R;G;B` are not attributes themselves.
            38 | 48 | 58 => match numbers.next() {
                Some("5") => drop(numbers.next()),
                Some("2") => drop(numbers.nth(2)),
                _ => return None,
            },
            _ => {}
        }
    }
    (!kept.is_empty()).then(|| kept.join(";"))
}

/// Whether a character is invisible and changes how others are read: their direction, line breaks, or whether two names
/// look the same. Joiners are excluded: emoji and some scripts need them.
#[must_use]
pub const fn is_hidden(c: char) -> bool {
    matches!(
        c,
        // Directions: U+202E makes `exe.txt` look like `txt.exe`.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
        // Zero width.
        | '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{feff}'
        // Line breaks that line-based tools do not treat as such.
        | '\u{2028}' | '\u{2029}'
        // Annotations and tags.
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// A text with its line breaks, without colours.
#[must_use]
pub fn lines(text: &str) -> String {
    Sanitiser::new(false).push(text)
}

/// A text on one line, without colours, for tables and messages.
#[must_use]
pub fn one_line(text: &str) -> String {
    lines(text.trim_end()).replace(['\n', '\t'], " ")
}

/// The text with all control characters escaped visibly: `\x1b[8m`, `\u{202e}`. Newlines and tabs stay, and so does a
/// carriage return before a newline.
#[must_use]
pub fn visible(text: &str) -> String {
    use std::fmt::Write as _;

    let mut shown = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let _infallible = match letter {
            '\n' | '\t' => write!(shown, "{letter}"),
            '\r' if letters.peek() == Some(&'\n') => Ok(()),
            letter if letter.is_ascii_control() => write!(shown, "\\x{:02x}", u32::from(letter)),
            letter if letter.is_control() || is_hidden(letter) => {
                write!(shown, "{}", letter.escape_unicode())
            }
            letter => write!(shown, "{letter}"),
        };
    }
    shown
}

/// JSON without invisible characters: they are escaped, so its meaning stays the same.
#[must_use]
pub fn json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        // Outside of strings, JSON has no control characters but newlines, and no invisible characters.
        if c == '\n' || !(c.is_control() || is_hidden(c)) {
            safe.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_json_is_equivalent() {
        let value = "\u{202e}a\u{9b}31m\u{7f}\u{200b}\u{e0041}\"é\n";
        let shown = json(&serde_json::to_string_pretty(&[value]).unwrap());
        assert_eq!(shown, "[\n  \"\\u202ea\\u009b31m\\u007f\\u200b\\udb40\\udc41\\\"é\\n\"\n]");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [value]);
    }

    #[test]
    fn nothing_but_text_reaches_the_terminal() {
        for (text, safe) in [
            ("plain é 漢字 \t end\n", "plain é 漢字 \t end\n"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("a\u{1b}[2Jb\u{1b}[10;20Hc\u{1b}[?1049hd", "abcd"),
            ("a\u{1b}]0;title\u{7}b", "ab"),
            ("a\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\b", "alinkb"),
            ("a\u{1b}P1$r0m\u{1b}\\b", "ab"),
            ("a\u{1b}cb\u{1b}(0c", "abc"),
            ("a\u{9b}31mb\u{9d}x\u{9c}c", "abc"),
            ("a\u{8}\u{8}\u{7f}b\u{0}", "ab"),
            ("50%\r100%\r\nnext", "50%\n100%\nnext"),
            ("open \u{1b}]0;never closed\nnext line", "open \nnext line"),
            ("a\u{1b}\u{1b}[31mb", "ab"),
            ("a\u{1b}]52;c;Y3VybCBldmlsfHNo\u{7}b", "ab"),
            ("pay \u{202e}eulav\u{202c} \u{2066}x\u{2069}\u{61c}", "pay eulav x"),
            ("ad\u{200b}min\u{feff}\u{2060}\u{ad}", "admin"),
            ("one\u{2028}two\u{2029}\u{e0041}\u{85}", "onetwo"),
            (
                "\u{1f469}\u{200d}\u{1f680} \u{6cc}\u{200c}\u{627}",
                "\u{1f469}\u{200d}\u{1f680} \u{6cc}\u{200c}\u{627}",
            ),
        ] {
            assert_eq!(lines(text), safe, "{text:?}");
        }
    }

    #[test]
    fn colours_are_kept_if_wanted_and_reset_at_the_end() {
        let mut sanitiser = Sanitiser::new(true);
        assert_eq!(sanitiser.push("\u{1b}[1;31mred\u{1b}[2K"), "\u{1b}[1;31mred");
        assert_eq!(sanitiser.finish(), "\u{1b}[0m");
        assert_eq!(sanitiser.finish(), "");
        assert_eq!(sanitiser.push("\u{1b}[>4;2mx"), "x");
    }

    #[test]
    fn no_colour_hides_what_follows() {
        for (text, safe) in [
            ("\u{1b}[8mhidden", "hidden"),
            ("\u{1b}[0;8mhidden", "\u{1b}[0mhidden"),
            ("\u{9b}8mhidden", "hidden"),
            ("\u{1b}[30;40mblack on black", "black on black"),
            ("\u{1b}[38;5;0mx", "x"),
            ("\u{1b}[38;2;8;8;8;1mx", "\u{1b}[1mx"),
            ("\u{1b}[38:2::0:0:0mx", "x"),
            ("\u{1b}[48;5;8;31mx", "\u{1b}[31mx"),
            ("\u{1b}[7mreversed\u{1b}[5m", "reversed"),
            ("\u{1b}[mplain", "\u{1b}[mplain"),
        ] {
            assert_eq!(Sanitiser::new(true).push(text), safe, "{text:?}");
        }
    }

    #[test]
    fn control_characters_are_shown_escaped() {
        for (text, shown) in [
            ("a\tb\r\nc é \u{1f469}\u{200d}\u{1f680}\n", "a\tb\nc é \u{1f469}\u{200d}\u{1f680}\n"),
            ("\u{1b}[8mx\u{1b}]0;t\u{7}", r"\x1b[8mx\x1b]0;t\x07"),
            ("50%\r100%\u{8}\u{7f}\0", r"50%\x0d100%\x08\x7f\x00"),
            ("\u{9b}2J\u{202e}x\u{feff}\u{2028}", r"\u{9b}2J\u{202e}x\u{feff}\u{2028}"),
        ] {
            assert_eq!(visible(text), shown, "{text:?}");
        }
    }

    #[test]
    fn sequences_are_removed_across_chunks() {
        let text = "a\u{1b}[31mb\u{1b}]0;t\u{1b}\\c\r\nd";
        for cut in text.char_indices().map(|(at, _)| at) {
            let mut sanitiser = Sanitiser::new(false);
            let (head, tail) = text.split_at(cut);
            assert_eq!(sanitiser.push(head) + &sanitiser.push(tail), "abc\nd", "cut at {cut}");
        }
    }
}

//! Options of `docker run` and `docker build`, as a task file's commands have them.

use super::traced::Traced;

/// An option that a command may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Without the dashes.
    pub(super) long: &'static str,
    /// The letter of its short form.
    pub(super) short: Option<char>,
    /// Whether a value follows.
    pub(super) takes_value: bool,
}

/// An option with a value.
pub(super) const fn value(long: &'static str) -> Known {
    Known { long, short: None, takes_value: true }
}

/// An option without a value, or with `=true` or `=false`.
pub(super) const fn flag(long: &'static str) -> Known {
    Known { long, short: None, takes_value: false }
}

impl Known {
    pub(super) const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }
}

/// An option that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its long name, without the dashes.
    pub name: &'static str,
    /// Its value; `true` for an option without one.
    pub value: Traced,
}

/// Why options cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OptionError {
    /// An option that the program does not have.
    #[error("`{program}` has no option `{option}`{suggestion}")]
    Unknown {
        /// For example `docker run`.
        program: &'static str,
        /// As written, without its value.
        option: String,
        /// ": did you mean …?", or nothing.
        suggestion: String,
    },
    /// An option without its value.
    #[error("the option `{option}` has no value: write `{option} VALUE`")]
    NoValue {
        /// As written.
        option: String,
    },
    /// A value where an option is.
    #[error("`{name}` begins with `-`, so it would be an option: write the option in the file")]
    Inserted {
        /// The value's name.
        name: String,
    },
    /// A flag whose value is no truth value.
    #[error("`{option}` is `true` or `false`, not `{value}`")]
    NotFlag {
        /// As written.
        option: String,
        /// As written.
        value: String,
    },
}

/// Reads words as options and operands. `operands_end` stops at the first operand, as `docker run IMAGE ARGS` does;
/// otherwise options may follow operands.
pub(super) fn parse(
    program: &'static str,
    known: &[Known],
    words: Vec<Traced>,
    operands_end: bool,
) -> Result<(Vec<Given>, Vec<Traced>), OptionError> {
    let mut given = Vec::new();
    let mut operands = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let text = word.exposed();
        if text == "--" {
            operands.extend(words);
            break;
        }
        if !text.starts_with('-') || text == "-" {
            operands.push(word);
            if operands_end {
                operands.extend(words);
                break;
            }
            continue;
        }
        if let Some((_, _, Some(origin))) = word.chars().next()
            && !super::traced::may_structure(Some(origin))
        {
            return Err(OptionError::Inserted { name: origin.name.to_string() });
        }
        let parser = Word { program, known, word: &word };
        if text.starts_with("--") {
            given.push(parser.long(&mut words)?);
        } else {
            parser.short(&mut words, &mut given)?;
        }
    }
    Ok((given, operands))
}

/// One word that begins with a dash.
struct Word<'a> {
    program: &'static str,
    known: &'a [Known],
    word: &'a Traced,
}

impl Word<'_> {
    fn long(&self, rest: &mut impl Iterator<Item = Traced>) -> Result<Given, OptionError> {
        let (option, attached) = match self.word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (self.word.clone(), None),
        };
        let option = option.to_string();
        let found = self.known.iter().find(|known| option.strip_prefix("--") == Some(known.long));
        let found = found.ok_or_else(|| self.unknown(&option))?;
        if found.takes_value {
            let value = attached.or_else(|| rest.next());
            let value = value.ok_or(OptionError::NoValue { option })?;
            return Ok(Given { name: found.long, value });
        }
        let value = attached.unwrap_or_else(|| Traced::written("true"));
        if !matches!(value.exposed(), "true" | "false" | "1" | "0") {
            return Err(OptionError::NotFlag { option, value: value.to_string() });
        }
        Ok(Given { name: found.long, value })
    }

    /// `-it`, `-f FILE`, `-fFILE`.
    fn short(
        &self,
        rest: &mut impl Iterator<Item = Traced>,
        given: &mut Vec<Given>,
    ) -> Result<(), OptionError> {
        let length = self.word.exposed().len();
        for (at, letter, _) in self.word.chars().skip(1) {
            let option = format!("-{letter}");
            let found = self.known.iter().find(|known| known.short == Some(letter));
            let found = found.ok_or_else(|| self.unknown(&option))?;
            if !found.takes_value {
                given.push(Given { name: found.long, value: Traced::written("true") });
                continue;
            }
            let attached = self.word.slice(at + letter.len_utf8()..length);
            let attached = match attached.exposed().strip_prefix('=') {
                Some(_) => attached.slice(1..attached.exposed().len()),
                None => attached,
            };
            let value = if attached.exposed().is_empty() { rest.next() } else { Some(attached) };
            let value = value.ok_or(OptionError::NoValue { option })?;
            given.push(Given { name: found.long, value });
            return Ok(());
        }
        Ok(())
    }

    fn unknown(&self, option: &str) -> OptionError {
        let names: Vec<String> =
            self.known.iter().map(|known| format!("--{}", known.long)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        OptionError::Unknown {
            program: self.program,
            option: option.to_owned(),
            suggestion: super::similar::suggestion(option, &names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Known; 4] = [
        value("file").short('f'),
        flag("interactive").short('i'),
        flag("tty").short('t'),
        value("env").short('e'),
    ];

    fn read(text: &str, operands_end: bool) -> Result<String, String> {
        let words = super::super::words::split(&text.into()).unwrap().words;
        let (given, operands) =
            parse("tool", &KNOWN, words, operands_end).map_err(|error| error.to_string())?;
        let given = given.iter().map(|given| format!("{}={}", given.name, given.value));
        let operands = operands.iter().map(ToString::to_string);
        Ok(given.chain(["|".to_owned()]).chain(operands).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn options_have_their_usual_forms() {
        for (text, expected) in [
            ("-it -f a b", "interactive=true tty=true file=a | b"),
            ("-fa --file=b -f=c --file d", "file=a file=b file=c file=d |"),
            ("--tty=false -eA=1 -", "tty=false env=A=1 | -"),
            ("-itea x", "interactive=true tty=true env=a | x"),
            ("a -f b -- -c", "file=b | a -c"),
        ] {
            assert_eq!(read(text, false).unwrap(), expected, "{text}");
        }
        assert_eq!(read("-t image -f b", true).unwrap(), "tty=true | image -f b");
    }

    #[test]
    fn wrong_options_are_refused_by_name() {
        for (text, expected) in [
            ("--fil a", "`tool` has no option `--fil`: did you mean `--file`?"),
            ("-x", "`tool` has no option `-x`"),
            ("-f", "the option `-f` has no value: write `-f VALUE`"),
            ("--tty=maybe", "`--tty` is `true` or `false`, not `maybe`"),
        ] {
            let error = read(text, false).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}

//! Splits a command into words as a shell would, without being one.
//!
//! The original gives a step's command to a shell on its agent. Here nothing runs on a worker but the step's container:
//! quotes are removed, and what only a shell could do is refused.

use super::traced::{Traced, may_structure};
use crate::template::Origin;

/// What a shell would have done with a command, and no shell does here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    /// An operator, such as a pipe.
    #[error(
        "`{operator}` needs a shell, and none runs on the worker: run one in the container, `IMAGE sh -c '…'`, or put quotes around it"
    )]
    Operator {
        /// As written.
        operator: String,
    },
    /// A command substitution.
    #[error(
        "`{operator}` runs a command of the worker's shell, and there is none: put single quotes around it, so that a shell in the container runs it"
    )]
    Substitution {
        /// Its beginning.
        operator: &'static str,
    },
    /// A second command on a line of its own.
    #[error(
        "this is more than one command, on several lines: write `cmd: >-` to join the lines, or one step for each command"
    )]
    SecondLine,
    /// Quotes that do not end.
    #[error("the quote `{quote}` is not closed: add another `{quote}`")]
    OpenQuote {
        /// `'` or `"`.
        quote: char,
    },
}

/// A command as words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) words: Vec<Traced>,
    /// Variables outside of single quotes, such as `$HOME`, which the original's agent would expand. They stay as they
    /// are written.
    pub(super) variables: Vec<String>,
}

/// Splits a command. Values that were not saved with the task neither begin nor end a word, whatever they contain.
pub(super) fn split(command: &Traced) -> Result<Words, WordsError> {
    let chars = command.chars().collect();
    Splitter { chars, at: 0, words: Words::default(), word: None, line_ended: false }.split()
}

type Char<'a> = (usize, char, Option<&'a Origin>);

struct Splitter<'a> {
    chars: Vec<Char<'a>>,
    at: usize,
    words: Words,
    /// The word that has begun.
    word: Option<Traced>,
    /// Whether a line with words has ended.
    line_ended: bool,
}

impl<'a> Splitter<'a> {
    fn split(mut self) -> Result<Words, WordsError> {
        while let Some((_, char, origin)) = self.next() {
            let is_blank = may_structure(origin) && (char.is_ascii_whitespace() || char == '#');
            if self.line_ended && !is_blank {
                return Err(WordsError::SecondLine);
            }
            if !may_structure(origin) {
                self.word().push_char(char, origin);
                continue;
            }
            match char {
                ' ' | '\t' | '\r' => self.end_word(),
                '\n' => {
                    self.end_word();
                    self.line_ended = !self.words.words.is_empty();
                }
                '\'' => self.single_quotes()?,
                '"' => self.double_quotes()?,
                '\\' => self.escape(|_| true),
                '#' if self.word.is_none() => self.skip_line(),
                '|' | '&' | ';' | '<' | '>' | '(' | ')' => return Err(self.operator(char)),
                '$' | '`' => self.variable(char, origin)?,
                _ => self.word().push_char(char, origin),
            }
        }
        self.end_word();
        Ok(self.words)
    }

    fn next(&mut self) -> Option<Char<'a>> {
        let char = self.chars.get(self.at).copied();
        self.at += 1;
        char
    }

    fn peek(&self) -> Option<char> {
        self.chars
            .get(self.at)
            .filter(|(_, _, origin)| may_structure(*origin))
            .map(|(_, char, _)| *char)
    }

    fn word(&mut self) -> &mut Traced {
        self.word.get_or_insert_default()
    }

    fn end_word(&mut self) {
        self.words.words.extend(self.word.take());
    }

    fn single_quotes(&mut self) -> Result<(), WordsError> {
        self.word();
        while let Some((_, char, origin)) = self.next() {
            if char == '\'' && may_structure(origin) {
                return Ok(());
            }
            self.word().push_char(char, origin);
        }
        Err(WordsError::OpenQuote { quote: '\'' })
    }

    fn double_quotes(&mut self) -> Result<(), WordsError> {
        self.word();
        while let Some((_, char, origin)) = self.next() {
            match char {
                _ if !may_structure(origin) => self.word().push_char(char, origin),
                '"' => return Ok(()),
                '\\' => self.escape(|char| matches!(char, '$' | '`' | '"' | '\\' | '\n')),
                '$' | '`' => self.variable(char, origin)?,
                _ => self.word().push_char(char, origin),
            }
        }
        Err(WordsError::OpenQuote { quote: '"' })
    }

    /// After a backslash: the next character, if the backslash protects it; an escaped line end is nothing.
    fn escape(&mut self, protects: impl Fn(char) -> bool) {
        match self.chars.get(self.at).copied() {
            Some((_, char, origin)) if may_structure(origin) && protects(char) => {
                self.at += 1;
                if char != '\n' {
                    self.word().push_char(char, origin);
                }
            }
            Some(_) | None => self.word().push_char('\\', None),
        }
    }

    /// After `$` or a backtick, outside of single quotes.
    fn variable(&mut self, char: char, origin: Option<&Origin>) -> Result<(), WordsError> {
        match (char, self.peek()) {
            ('`', _) => return Err(WordsError::Substitution { operator: "`" }),
            (_, Some('(')) => return Err(WordsError::Substitution { operator: "$(" }),
            (_, Some(next)) if next.is_ascii_alphanumeric() || "_{@*#?$!-".contains(next) => {
                let rest = self.chars.get(self.at..).unwrap_or_default().iter();
                let name: String = rest
                    .map(|(_, char, _)| *char)
                    .enumerate()
                    .take_while(|(at, char)| {
                        *at == 0 || char.is_ascii_alphanumeric() || "_}".contains(*char)
                    })
                    .map(|(_, char)| char)
                    .collect();
                self.words.variables.push(format!("${name}"));
            }
            _ => {}
        }
        self.word().push_char(char, origin);
        Ok(())
    }

    fn operator(&self, char: char) -> WordsError {
        let doubled = self.peek() == Some(char) && "|&<>;".contains(char);
        let operator = if doubled { format!("{char}{char}") } else { char.to_string() };
        WordsError::Operator { operator }
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|char| char != '\n') {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Origin, Trust};

    fn words(command: &str) -> Vec<String> {
        let split = split(&command.into()).unwrap();
        split.words.iter().map(|word| word.exposed().to_owned()).collect()
    }

    #[test]
    fn quotes_group_words_and_are_removed() {
        for (command, expected) in [
            ("bash ls -la", vec!["bash", "ls", "-la"]),
            ("  a\tb\r\n", vec!["a", "b"]),
            (r#"bash -c 'echo "$(date)" > f'"#, vec!["bash", "-c", r#"echo "$(date)" > f"#]),
            (r#"a "b 'c' \" \$ \x" d"#, vec!["a", r#"b 'c' " $ \x"#, "d"]),
            (r"a\ b \; c\\", vec!["a b", ";", r"c\"]),
            ("a '' \"\" b''c", vec!["a", "", "", "bc"]),
            ("a 'b\nc'\n", vec!["a", "b\nc"]),
            ("a \\\n b", vec!["a", "b"]),
            ("a b # c 'd", vec!["a", "b"]),
            ("a#b {c,d} ~ *.txt =", vec!["a#b", "{c,d}", "~", "*.txt", "="]),
            ("", vec![]),
        ] {
            assert_eq!(words(command), expected, "{command}");
        }
    }

    #[test]
    fn what_only_a_shell_can_do_is_refused() {
        for (command, expected) in [
            ("a | b", "`|` needs a shell"),
            ("a && b", "`&&` needs a shell"),
            ("a > b", "`>` needs a shell"),
            ("a; b", "`;` needs a shell"),
            ("a (b)", "`(` needs a shell"),
            ("a $(b)", "`$(` runs a command"),
            ("a \"`b`\"", "`` ` `` runs a command"),
            ("a\nb", "more than one command"),
            ("a 'b", "the quote `'` is not closed"),
            ("a \"b", "the quote `\"` is not closed"),
        ] {
            let error = split(&command.into()).unwrap_err().to_string();
            assert!(error.contains(&expected.replace("`` ` ``", "```")), "{command}: {error}");
        }
    }

    #[test]
    fn variables_of_a_shell_stay_and_are_reported() {
        let split = split(&r#"a $HOME "${B} $" '$C' \$D $"#.into()).unwrap();
        let words: Vec<&str> = split.words.iter().map(Traced::exposed).collect();
        assert_eq!(words, ["a", "$HOME", "${B} $", "$C", "$D", "$"]);
        assert_eq!(split.variables, ["$HOME", "${B}"]);
    }

    #[test]
    fn a_value_given_for_a_run_stays_one_word_and_a_saved_one_is_split() {
        for (trust, expected) in [
            (Trust::Given, vec!["x", "a'; b $(c)", "-a'; b $(c)y"]),
            (Trust::Secret, vec!["x", "a'; b $(c)", "-a'; b $(c)y"]),
        ] {
            let origin = Origin { name: ".Values.v".into(), trust };
            let mut command = Traced::written("x ");
            command.push_inserted("a'; b $(c)", &origin);
            command.push_written(" '-");
            command.push_inserted("a'; b $(c)", &origin);
            command.push_written("'y");
            let words: Vec<String> = split(&command)
                .unwrap()
                .words
                .iter()
                .map(|word| word.exposed().to_owned())
                .collect();
            assert_eq!(words, expected);
        }
        let mut command = Traced::written("x ");
        command
            .push_inserted("-a 'b c'", &Origin { name: ".Values.v".into(), trust: Trust::Saved });
        let words = split(&command).unwrap().words;
        assert_eq!(words.iter().map(Traced::exposed).collect::<Vec<_>>(), ["x", "-a", "b c"]);
    }
}

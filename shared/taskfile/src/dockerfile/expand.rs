//! Shell words of a Dockerfile: quotes, escapes and `$variables`.
//!
//! In: a word and the variables that are set. Out: what BuildKit makes of it. All forms that it knows are known:
//! `$X ${X} ${X:-y} ${X-y} ${X:+y} ${X+y} ${X:?m} ${X?m} ${X#p} ${X##p} ${X%p} ${X%%p} ${X/p/r} ${X//p/r}`.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

/// How deep `${A:-${B:-…}}` may go: text from strangers must not choose the depth of our stack.
const DEEPEST: usize = 32;
/// How long a word may become: each argument may hold the one before it many times over.
const LONGEST: usize = 16 << 10;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote or brace stays open.
    #[error("`{0}` is missing at its end")]
    Open(char),
    /// `${}`, `${{`, `${:…`.
    #[error("a name is missing after `${{`")]
    NoName,
    /// An operator that is none.
    #[error("`{0}` is no operator in `${{…}}`")]
    Operator(String),
    /// `${X?message}`.
    #[error("{name}: {message}")]
    Demanded {
        /// The variable.
        name: String,
        /// What the Dockerfile says.
        message: String,
    },
    /// The pattern of `#`, `%` or `/`.
    #[error("`{0}` is no pattern")]
    Pattern(String),
    /// More than 16 KiB.
    #[error("it becomes longer than {} KiB", LONGEST >> 10)]
    TooLong,
    /// More than 32 levels.
    #[error("it is nested too deep")]
    TooDeep,
}

/// Expands `word` and removes its quotes. `escape` is the Dockerfile's escape token.
pub(super) fn expand(
    word: &str,
    escape: char,
    variables: &BTreeMap<String, String>,
) -> Result<String, ExpandError> {
    let mut expander = Expander { letters: word.chars().peekable(), escape, variables, depth: 0 };
    let expanded = expander.until(None, false)?;
    bounded(&expanded)?;
    Ok(expanded)
}

fn bounded(text: &str) -> Result<(), ExpandError> {
    if text.len() > LONGEST { Err(ExpandError::TooLong) } else { Ok(()) }
}

struct Expander<'a> {
    letters: Peekable<Chars<'a>>,
    escape: char,
    variables: &'a BTreeMap<String, String>,
    depth: usize,
}

impl Expander<'_> {
    /// Reads up to `stop`, or to the end if there is none. `keep_escapes` leaves them to a pattern.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<String, ExpandError> {
        let mut result = String::new();
        while let Some(letter) = self.letters.next() {
            bounded(&result)?;
            match letter {
                _ if Some(letter) == stop => return Ok(result),
                '\'' => self.single_quoted(&mut result)?,
                '"' => self.double_quoted(&mut result, keep_escapes)?,
                '$' => result.push_str(&self.dollar()?),
                _ if letter == self.escape => {
                    if keep_escapes {
                        result.push(letter);
                    }
                    result.extend(self.letters.next());
                }
                _ => result.push(letter),
            }
        }
        stop.map_or(Ok(result), |stop| Err(ExpandError::Open(stop)))
    }

    fn single_quoted(&mut self, result: &mut String) -> Result<(), ExpandError> {
        loop {
            match self.letters.next().ok_or(ExpandError::Open('\''))? {
                '\'' => return Ok(()),
                letter => result.push(letter),
            }
        }
    }

    fn double_quoted(
        &mut self,
        result: &mut String,
        keep_escapes: bool,
    ) -> Result<(), ExpandError> {
        loop {
            bounded(result)?;
            match self.letters.next().ok_or(ExpandError::Open('"'))? {
                '"' => return Ok(()),
                '$' => result.push_str(&self.dollar()?),
                letter if letter == self.escape => {
                    if keep_escapes {
                        result.push(letter);
                    }
                    let escapable = |next: &char| matches!(next, '"' | '$') || *next == letter;
                    match self.letters.next_if(escapable) {
                        Some(escaped) => result.push(escaped),
                        None if self.letters.peek().is_some() => result.push(letter),
                        None => {}
                    }
                }
                letter => result.push(letter),
            }
        }
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        if self.letters.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() {
                "$".to_owned()
            } else {
                self.value(&name).unwrap_or_default()
            });
        }
        if self.depth == DEEPEST {
            return Err(ExpandError::TooDeep);
        }
        self.depth += 1;
        let value = self.braced();
        self.depth -= 1;
        value
    }

    fn braced(&mut self) -> Result<String, ExpandError> {
        match self.letters.peek() {
            None => return Err(ExpandError::Open('}')),
            Some('{' | '}' | ':') => return Err(ExpandError::NoName),
            Some(_) => {}
        }
        let name = self.name();
        let mut operator = self.letters.next().ok_or(ExpandError::Open('}'))?;
        let empty_is_unset = operator == ':';
        if empty_is_unset {
            operator = self.letters.next().ok_or(ExpandError::Open('}'))?;
        }
        let value = self.value(&name).filter(|value| !empty_is_unset || !value.is_empty());
        match operator {
            '}' if !empty_is_unset => Ok(value.unwrap_or_default()),
            '-' => {
                let word = self.until(Some('}'), false)?;
                Ok(value.unwrap_or(word))
            }
            '+' => {
                let word = self.until(Some('}'), false)?;
                Ok(value.map(|_| word).unwrap_or_default())
            }
            '?' => {
                let message = self.until(Some('}'), false)?;
                value.ok_or_else(|| ExpandError::Demanded {
                    message: demand(message, empty_is_unset),
                    name,
                })
            }
            '#' | '%' => {
                let doubled = self.letters.next_if_eq(&operator).is_some();
                let pattern = self.until(Some('}'), true)?;
                without(&value.unwrap_or_default(), &pattern, operator == '%', doubled)
            }
            '/' if !empty_is_unset => {
                let everywhere = self.letters.next_if_eq(&'/').is_some();
                let pattern = self.until(Some('/'), true)?;
                let replacement = self.until(Some('}'), true)?;
                replaced(&value.unwrap_or_default(), &pattern, &replacement, everywhere)
            }
            other if empty_is_unset => Err(ExpandError::Operator(format!(":{other}"))),
            other => Err(ExpandError::Operator(other.to_string())),
        }
    }

    /// A name, a run of digits, or one of the shell's special parameters, which are never set here.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.letters.peek() {
            Some(digit) if digit.is_numeric() => {
                while let Some(digit) = self.letters.next_if(|letter| letter.is_numeric()) {
                    name.push(digit);
                }
                return name;
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                name.extend(self.letters.next());
                return name;
            }
            _ => {}
        }
        while let Some(letter) =
            self.letters.next_if(|letter| letter.is_alphanumeric() || *letter == '_')
        {
            name.push(letter);
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

fn demand(message: String, empty_is_unset: bool) -> String {
    match message.as_str() {
        "" if empty_is_unset => "is not allowed to be empty".to_owned(),
        "" => "is not allowed to be unset".to_owned(),
        _ => message,
    }
}

/// `value` without the shortest or longest part at its start or end that matches `pattern`.
fn without(value: &str, pattern: &str, at_end: bool, longest: bool) -> Result<String, ExpandError> {
    let anchored = |wildcards: Vec<Wildcard>| {
        let body: String = wildcards.iter().map(|wildcard| wildcard.regex(longest)).collect();
        regex(&format!("^{body}"), pattern)
    };
    let mut wildcards = wildcards(pattern)?;
    if !at_end {
        let end = anchored(wildcards)?.find(value).map_or(0, |found| found.end());
        return Ok(value[end..].to_owned());
    }
    // Matching from the end is matching the reversed text from its start.
    wildcards.reverse();
    let reversed: String = value.chars().rev().collect();
    let end = anchored(wildcards)?.find(&reversed).map_or(0, |found| found.end());
    Ok(reversed[end..].chars().rev().collect())
}

fn replaced(
    value: &str,
    pattern: &str,
    replacement: &str,
    everywhere: bool,
) -> Result<String, ExpandError> {
    let body: String = wildcards(pattern)?.iter().map(|wildcard| wildcard.regex(true)).collect();
    let limit = if everywhere { 0 } else { 1 };
    let pattern = regex(&body, pattern)?;
    if pattern.find_iter(value).count().saturating_mul(replacement.len()) > LONGEST {
        return Err(ExpandError::TooLong);
    }
    Ok(pattern.replacen(value, limit, regex::NoExpand(replacement)).into_owned())
}

fn regex(body: &str, pattern: &str) -> Result<Regex, ExpandError> {
    Regex::new(body).map_err(|_| ExpandError::Pattern(pattern.to_owned()))
}

enum Wildcard {
    Any,
    One,
    Letter(char),
}

impl Wildcard {
    fn regex(&self, greedy: bool) -> String {
        match self {
            Self::Any if greedy => ".*".to_owned(),
            Self::Any => ".*?".to_owned(),
            Self::One => ".".to_owned(),
            Self::Letter(letter) => regex::escape(letter.encode_utf8(&mut [0; 4])),
        }
    }
}

fn wildcards(pattern: &str) -> Result<Vec<Wildcard>, ExpandError> {
    let mut wildcards = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        wildcards.push(match letter {
            '*' => Wildcard::Any,
            '?' => Wildcard::One,
            '\\' => match letters.next() {
                Some(escaped @ ('}' | '/' | '*' | '?' | '\\')) => Wildcard::Letter(escaped),
                _ => return Err(ExpandError::Pattern(pattern.to_owned())),
            },
            letter => Wildcard::Letter(letter),
        });
    }
    Ok(wildcards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(word: &str) -> Result<String, ExpandError> {
        let variables = [("V", "3.19"), ("E", ""), ("P", "reg.io/a/b:1-slim"), ("N", "V")];
        let variables = variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        expand(word, '\\', &variables)
    }

    #[test]
    fn words_expand_as_the_engine_expands_them() {
        for (word, result) in [
            ("alpine:$V", "alpine:3.19"),
            ("alpine:${V}-x", "alpine:3.19-x"),
            ("$V_x", ""),
            ("${X:-a}${X-b}${E:-c}${E-d}", "abc"),
            ("${V:+set}${V+set}${E:+no}${E+yes}${X:+no}", "setsetyes"),
            ("${X:-${V:-x}}", "3.19"),
            ("\"a $V\"'b $V'", "a 3.19b $V"),
            ("a\\$V\\\\", "a$V\\"),
            ("\"\\\"\\a\"", "\"\\a"),
            ("$", "$"),
            ("a$-b", "ab"),
            ("${P#*/}", "a/b:1-slim"),
            ("${P##*/}", "b:1-slim"),
            ("${P%/*}", "reg.io/a"),
            ("${P%%/*}", "reg.io"),
            ("${P%-slim}", "reg.io/a/b:1"),
            ("${P/reg.io/r}", "r/a/b:1-slim"),
            ("${P//\\//_}", "reg.io_a_b:1-slim"),
            ("${P/e*b/X$N}", "rXV:1-slim"),
        ] {
            assert_eq!(expanded(word).as_deref(), Ok(result), "{word}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        for (word, error) in [
            ("${V", "`}` is missing at its end"),
            ("'a", "`'` is missing at its end"),
            ("\"a", "`\"` is missing at its end"),
            ("${}", "a name is missing after `${`"),
            ("${V!x}", "`!` is no operator in `${…}`"),
            ("${X?say it}", "X: say it"),
            ("${E:?}", "E: is not allowed to be empty"),
            ("${V#\\a}", "`\\a` is no pattern"),
        ] {
            assert_eq!(expanded(word).unwrap_err().to_string(), error, "{word}");
        }
    }

    #[test]
    fn what_words_become_is_bounded() {
        let long = "x".repeat(LONGEST);
        for (word, value) in [
            ("$V$V".to_owned(), "x".repeat(LONGEST / 2 + 1)),
            ("\"$V$V\"".to_owned(), long.clone()),
            ("${X:-$V$V}".to_owned(), long.clone()),
            (format!("${{V//x/{}}}", "y".repeat(100)), long.clone()),
            ("x".repeat(LONGEST + 1), String::new()),
        ] {
            let variables = [("V".to_owned(), value)].into();
            let error = expand(&word, '\\', &variables).unwrap_err();
            assert_eq!(error.to_string(), "it becomes longer than 16 KiB");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "${X:-".repeat(100_000);
        assert_eq!(expanded(&deep), Err(ExpandError::TooDeep));
    }
}

//! Expands shell words of a Dockerfile: quotes, escapes and `$variables`.
//!
//! In: a word and the variables that are set. Out: the word as BuildKit expands it. All its forms are supported:
//! `$X ${X} ${X:-y} ${X-y} ${X:+y} ${X+y} ${X:?m} ${X?m} ${X#p} ${X##p} ${X%p} ${X%%p} ${X/p/r} ${X//p/r}`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use super::glob::Glob;

/// How deep `${A:-${B:-…}}` may be nested: untrusted text must not exhaust the stack.
const DEEPEST: usize = 32;
/// How long an expanded word may be. Each argument may contain the previous one many times.
const LONGEST: usize = 16 << 10;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// An unclosed quote or brace.
    #[error("the closing `{0}` is missing")]
    Open(char),
    /// `${}`, `${{`, `${:…`.
    #[error("a variable name is missing after `${{`")]
    NoName,
    /// An unknown operator.
    #[error("`{0}` is not an operator of `${{…}}`")]
    Operator(String),
    /// `${X?message}`.
    #[error("{name}: {message}")]
    Demanded {
        /// The variable.
        name: String,
        /// The message in the Dockerfile.
        message: String,
    },
    /// An invalid pattern of `#`, `%` or `/`.
    #[error("`{0}` is not a valid pattern")]
    Pattern(String),
    /// `${X//p/$r}`: `$` has a special meaning to the engine there.
    #[error("`$` in the replacement `{0}` is not supported")]
    Replacement(String),
    /// Expanding the words of the file exceeds the limit of work.
    #[error("expanding the variables of this file takes too long: use shorter values and patterns")]
    TooCostly,
    /// More than 16 KiB.
    #[error("it would be longer than {} KiB", LONGEST >> 10)]
    TooLong,
    /// More than 32 levels.
    #[error("it is nested too deeply")]
    TooDeep,
}

impl ExpandError {
    /// Whether the limit is gantry's own: an engine may accept the word.
    pub(super) fn is_bound(&self) -> bool {
        match self {
            Self::Replacement(_) | Self::TooCostly | Self::TooLong | Self::TooDeep => true,
            Self::Open(_)
            | Self::NoName
            | Self::Operator(_)
            | Self::Demanded { .. }
            | Self::Pattern(_) => false,
        }
    }
}

/// The work done to expand the words of one file, in characters compared or copied.
#[derive(Debug, Default)]
pub(super) struct Work {
    steps: Cell<u64>,
}

impl Work {
    /// This much work takes less than a second.
    const MOST: u64 = 1 << 22;

    /// Counts `steps`; call it before doing them.
    pub(super) fn spend(&self, steps: usize) -> Result<(), ExpandError> {
        let spent = self.steps.get().saturating_add(steps as u64);
        self.steps.set(spent);
        if spent > Self::MOST { Err(ExpandError::TooCostly) } else { Ok(()) }
    }
}

/// Expands `word` and removes its quotes. `escape` is the Dockerfile's escape token.
pub(super) fn expand(
    word: &str,
    escape: char,
    variables: &BTreeMap<String, String>,
    work: &Work,
) -> Result<String, ExpandError> {
    work.spend(word.len())?;
    let letters = word.chars().peekable();
    let mut expander = Expander { letters, escape, variables, work, depth: 0 };
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
    work: &'a Work,
    depth: usize,
}

impl Expander<'_> {
    /// Reads up to `stop`, or to the end without one. With `keep_escapes` escapes are kept, for a pattern.
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
                self.value(&name)?.unwrap_or_default()
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
        let value = self.value(&name)?.filter(|value| !empty_is_unset || !value.is_empty());
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
                self.without(&value.unwrap_or_default(), &pattern, operator == '%', doubled)
            }
            '/' if !empty_is_unset => {
                let everywhere = self.letters.next_if_eq(&'/').is_some();
                let pattern = self.until(Some('/'), true)?;
                let replacement = self.until(Some('}'), true)?;
                self.replaced(&value.unwrap_or_default(), &pattern, &replacement, everywhere)
            }
            other if empty_is_unset => Err(ExpandError::Operator(format!(":{other}"))),
            other => Err(ExpandError::Operator(other.to_string())),
        }
    }

    /// Reads a name, a sequence of digits, or one of the shell's special parameters, which are never set.
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

    fn value(&self, name: &str) -> Result<Option<String>, ExpandError> {
        let value = self.variables.get(name);
        self.work.spend(value.map_or(0, String::len))?;
        Ok(value.cloned())
    }
}

fn demand(message: String, empty_is_unset: bool) -> String {
    match message.as_str() {
        "" if empty_is_unset => "is not allowed to be empty".to_owned(),
        "" => "is not allowed to be unset".to_owned(),
        _ => message,
    }
}

impl Expander<'_> {
    /// `value` without the shortest or longest part at its start or end that matches `pattern`.
    fn without(
        &self,
        value: &str,
        pattern: &str,
        at_end: bool,
        longest: bool,
    ) -> Result<String, ExpandError> {
        let mut glob = Glob::parse(pattern)?;
        let mut letters: Vec<char> = value.chars().collect();
        if at_end {
            // Match the end by matching the start of the reversed text.
            glob.reverse();
            letters.reverse();
        }
        let end = glob.matches_at_start(&letters, longest, self.work)?.unwrap_or(0);
        letters.drain(..end);
        if at_end {
            letters.reverse();
        }
        Ok(letters.into_iter().collect())
    }

    /// `value` with the first or every longest part that matches `pattern` replaced.
    fn replaced(
        &self,
        value: &str,
        pattern: &str,
        replacement: &str,
        everywhere: bool,
    ) -> Result<String, ExpandError> {
        if everywhere && replacement.contains('$') {
            return Err(ExpandError::Replacement(replacement.to_owned()));
        }
        let glob = Glob::parse(pattern)?;
        let letters: Vec<char> = value.chars().collect();
        let mut result = String::new();
        // How many letters are done, and where the last match ended.
        let (mut at, mut last_end) = (0, None);
        while at <= letters.len() {
            let rest = letters.get(at..).unwrap_or_default();
            // An empty match directly after another match does not count.
            let found = glob
                .matches_at_start(rest, true, self.work)?
                .filter(|length| *length > 0 || last_end != Some(at));
            if let Some(length) = found {
                result.push_str(replacement);
                bounded(&result)?;
                at += length;
                last_end = Some(at);
                if !everywhere {
                    break;
                }
                if length > 0 {
                    continue;
                }
            }
            result.extend(letters.get(at));
            at += 1;
        }
        result.extend(letters.get(at..).unwrap_or_default());
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(word: &str) -> Result<String, ExpandError> {
        let variables = [("V", "3.19"), ("E", ""), ("P", "reg.io/a/b:1-slim"), ("N", "V")];
        let variables = variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        expand(word, '\\', &variables, &Work::default())
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
            ("${V//?/x}", "xxxx"),
            ("${V//*/x}", "x"),
            ("${V//x*/y}", "3.19"),
            ("${V///x}", "x3x.x1x9x"),
            ("${V//1*/}", "3."),
            ("${P#*/*}", "a/b:1-slim"),
            ("${P##*/*}", ""),
            ("${P%%[a-z]*}", "reg.io/a/b:1-slim"),
            ("${P%?slim}", "reg.io/a/b:1"),
            ("${P#reg?io\\/}", "a/b:1-slim"),
        ] {
            assert_eq!(expanded(word).as_deref(), Ok(result), "{word}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        for (word, error) in [
            ("${V", "the closing `}` is missing"),
            ("'a", "the closing `'` is missing"),
            ("\"a", "the closing `\"` is missing"),
            ("${}", "a variable name is missing after `${`"),
            ("${V!x}", "`!` is not an operator of `${…}`"),
            ("${X?say it}", "X: say it"),
            ("${E:?}", "E: is not allowed to be empty"),
            ("${V#\\a}", "`\\a` is not a valid pattern"),
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
            let error = expand(&word, '\\', &variables, &Work::default()).unwrap_err();
            assert_eq!(error.to_string(), "it would be longer than 16 KiB");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "${X:-".repeat(100_000);
        assert_eq!(expanded(&deep), Err(ExpandError::TooDeep));
    }

    #[test]
    fn the_work_for_a_file_is_bounded_however_it_is_spread() {
        let values = [
            ("V", "a".repeat(4000)),
            ("P", "*a".repeat(1000) + "b"),
            ("Q", "b".to_owned() + &"a*".repeat(1000)),
        ];
        let variables: BTreeMap<_, _> = values.map(|(name, value)| (name.to_owned(), value)).into();
        for word in ["${V##$P}", "${V%%$Q}", "${V//$P/x}", "${V/$P/x}"] {
            let work = Work::default();
            let refused = (0..1000).find_map(|_| expand(word, '\\', &variables, &work).err());
            assert_eq!(refused, Some(ExpandError::TooCostly), "{word}");
            assert!(work.steps.get() < 2 * Work::MOST, "{word}");
        }
    }
}

//! `.dockerignore`: which files of a source a build does not see.
//!
//! In: the file's text, then paths. Out: whether a path is excluded, by the engine's rules: the last rule that matches
//! the path or a folder above it decides, `!` includes again, `**` spans folders. A [`Scope`] is made for walking a
//! tree: it passes a folder's matches on to its entries, and tells when a whole folder can be skipped.

use regex::Regex;

/// Each rule is compiled and compared with each file. These limits bound the memory and time that untrusted rules cost.
const MOST_RULES: usize = 2000;
const LONGEST_TEXT: usize = 128 << 10;

/// The rules of a `.dockerignore`.
#[derive(Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    takes_back: bool,
    pattern: Pattern,
    /// The leading path segments without wildcards.
    literal: Vec<String>,
    /// Whether more segments follow.
    has_wildcard: bool,
}

/// Why a `.dockerignore` cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// The file exceeds a limit.
    #[error(
        "the ignore file has more than {MOST_RULES} rules or {} KiB: name folders, or use `*` and include again with `!`",
        LONGEST_TEXT >> 10
    )]
    TooMuch,
    /// A `!` without a path.
    #[error("line {line} of the ignore file: `!` without a path: write one after it")]
    Nothing {
        /// The line, from 1.
        line: usize,
    },
    /// An unclosed bracket, or a backslash at the end.
    #[error(
        "line {line} of the ignore file: `{pattern}` is not a valid pattern: a bracket is not closed, or a backslash ends it"
    )]
    Pattern {
        /// The line, from 1.
        line: usize,
        /// The pattern as written.
        pattern: String,
    },
}

/// The files that may hold the rules for a Dockerfile; the first one that exists is used. `dockerfile` is its path in
/// the source.
#[must_use]
pub fn file_names(dockerfile: &str) -> [String; 2] {
    [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()]
}

/// The fallback for a missing `Dockerfile`: `dockerfile` in the same folder. Files with other names have none.
#[must_use]
pub fn lower_case_dockerfile(dockerfile: &str) -> Option<String> {
    let folder = dockerfile.strip_suffix("Dockerfile")?;
    (folder.is_empty() || folder.ends_with('/')).then(|| format!("{folder}dockerfile"))
}

impl Ignore {
    /// Parses the text of an ignore file.
    ///
    /// # Errors
    /// [`IgnoreError`], with the line.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        if text.len() > LONGEST_TEXT {
            return Err(IgnoreError::TooMuch);
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            if rules.len() == MOST_RULES {
                return Err(IgnoreError::TooMuch);
            }
            rules.push(Rule::parse(index + 1, line.trim())?);
        }
        Ok(Self { rules })
    }

    /// Whether the rules exclude `path`, which is relative to the source's root.
    #[must_use]
    pub fn excludes(&self, path: &str) -> bool {
        let mut scope = self.root();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            scope = scope.enter(name);
        }
        scope.is_excluded()
    }

    /// The source's root, which no rule excludes.
    #[must_use]
    pub fn root(&self) -> Scope<'_> {
        Scope { ignore: self, path: String::new(), hits: vec![false; self.rules.len()] }
    }
}

/// A file or folder of the source, and which rules match it or a folder above it.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    ignore: &'a Ignore,
    path: String,
    hits: Vec<bool>,
}

impl Scope<'_> {
    /// The entry `name` of this folder.
    #[must_use]
    pub fn enter(&self, name: &str) -> Self {
        let path =
            if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        let rules = self.ignore.rules.iter().zip(&self.hits);
        let hits = rules.map(|(rule, hit)| *hit || rule.pattern.matches(&path)).collect();
        Self { ignore: self.ignore, path, hits }
    }

    /// Whether the build does not see this file or folder.
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        let last = self.ignore.rules.iter().zip(&self.hits).rev().find(|(_, hit)| **hit);
        last.is_some_and(|(rule, _)| !rule.takes_back)
    }

    /// Whether the build sees neither this folder nor anything in it.
    #[must_use]
    pub fn is_excluded_whole(&self) -> bool {
        let may_take_back = |rule: &Rule| rule.takes_back && rule.may_match_below(&self.path);
        self.is_excluded() && !self.ignore.rules.iter().any(may_take_back)
    }

    /// Its path, relative to the source's root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Rule {
    fn parse(line: usize, text: &str) -> Result<Self, IgnoreError> {
        let (takes_back, written) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        if written.is_empty() {
            return Err(IgnoreError::Nothing { line });
        }
        let path = clean(written);
        let pattern = Pattern::compile(&path)
            .ok_or_else(|| IgnoreError::Pattern { line, pattern: written.to_owned() })?;
        let words = path.split('/');
        let is_literal = |word: &&str| !word.contains(['*', '?', '[', '\\']);
        let literal: Vec<String> =
            words.clone().take_while(is_literal).map(str::to_owned).collect();
        let has_wildcard = literal.len() < words.count();
        Ok(Self { takes_back, pattern, literal, has_wildcard })
    }

    /// Whether the rule may match something in `folder`. It may be wrong only if it returns `true`.
    fn may_match_below(&self, folder: &str) -> bool {
        let mut words = folder.split('/');
        let mut literal = self.literal.iter();
        loop {
            match (words.next(), literal.next()) {
                (None, more) => return more.is_some() || self.has_wildcard,
                (Some(_), None) => return self.has_wildcard,
                (Some(word), Some(literal)) if word != literal => return false,
                (Some(_), Some(_)) => {}
            }
        }
    }
}

/// Normalizes a path: resolves `.` and `..`, and removes doubled, leading and trailing slashes.
fn clean(path: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in path.split('/') {
        match word {
            "" | "." => {}
            ".." if words.last().is_some_and(|last| *last != "..") => {
                words.pop();
            }
            ".." if path.starts_with('/') => {}
            word => words.push(word),
        }
    }
    words.join("/")
}

/// How the engine compares a pattern. `Prefix` and `Suffix` differ from the regular expression of the same pattern:
/// `**file` also matches `otherfile`.
#[derive(Debug)]
enum Pattern {
    Exact(String),
    /// `folder/**`, without its stars.
    Prefix(String),
    /// `**/name` or `**name`, without its stars.
    Suffix(String),
    Wild(Regex),
}

impl Pattern {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix('/').is_some_and(|name| path == name)
            }
            Self::Wild(regex) => regex.is_match(path),
        }
    }

    /// `None` if it is malformed.
    fn compile(pattern: &str) -> Option<Self> {
        let tokens = Token::read(pattern)?;
        let all_plain =
            |tokens: &[Token]| tokens.iter().all(|token| matches!(token, Token::Plain(_)));
        match tokens.as_slice() {
            plain if all_plain(plain) => Some(Self::Exact(pattern.to_owned())),
            [Token::Folders, plain @ ..] if all_plain(plain) => {
                Some(Self::Suffix(pattern[2..].to_owned()))
            }
            [plain @ .., Token::Folders] if all_plain(plain) => {
                Some(Self::Prefix(pattern[..pattern.len() - 2].to_owned()))
            }
            tokens => {
                let last = tokens.len() - 1;
                let body: String =
                    tokens.iter().enumerate().map(|(i, token)| token.regex(i == last)).collect();
                Regex::new(&format!("^(?s:{body})$")).ok().map(Self::Wild)
            }
        }
    }
}

enum Token {
    /// `*`
    Any,
    /// `?`
    One,
    /// `**` or `**/`, which are equivalent.
    Folders,
    /// `[a-z]`, as a regular expression.
    Class(String),
    Plain(char),
    /// After a backslash.
    Escaped(char),
}

impl Token {
    /// `None` if a bracket is not closed, or a backslash ends the pattern.
    fn read(pattern: &str) -> Option<Vec<Self>> {
        let mut tokens = Vec::new();
        let mut letters = pattern.chars().peekable();
        while let Some(letter) = letters.next() {
            tokens.push(match letter {
                '*' if letters.next_if_eq(&'*').is_some() => {
                    letters.next_if_eq(&'/');
                    Self::Folders
                }
                '*' => Self::Any,
                '?' => Self::One,
                '\\' => Self::Escaped(letters.next()?),
                '[' => Self::Class(class(&mut letters)?),
                letter => Self::Plain(letter),
            });
        }
        Some(tokens)
    }

    fn regex(&self, is_last: bool) -> String {
        match self {
            Self::Any => "[^/]*".to_owned(),
            Self::One => "[^/]".to_owned(),
            Self::Folders if is_last => ".*".to_owned(),
            Self::Folders => "(.*/)?".to_owned(),
            Self::Class(class) => class.clone(),
            Self::Plain(letter) | Self::Escaped(letter) => escaped(*letter),
        }
    }
}

/// Reads what follows `[` up to its `]`: one or more ranges, optionally after `^`.
fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut class = String::from("[");
    if letters.next_if_eq(&'^').is_some() {
        class.push('^');
    }
    loop {
        let low = class_letter(letters)?;
        let high = if letters.next_if_eq(&'-').is_some() { class_letter(letters)? } else { low };
        class.push_str(&format!("{}-{}", escaped(low), escaped(high)));
        if letters.next_if_eq(&']').is_some() {
            class.push(']');
            return Some(class);
        }
    }
}

fn class_letter(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match letters.next()? {
        '-' | ']' => None,
        '\\' => letters.next(),
        letter => Some(letter),
    }
}

fn escaped(letter: char) -> String {
    regex::escape(letter.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ignore(text: &str) -> Ignore {
        Ignore::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn one_pattern_matches_as_in_the_engine() {
        for (pattern, matched, unmatched) in [
            ("**", &["file", "dir/file"][..], &[][..]),
            ("**/", &["file", "dir/file"], &[]),
            ("**/**", &["file", "dir/file"], &[]),
            ("dir/**", &["dir/file", "dir/a/b"], &["dir", "dirx", "a/dir/b"]),
            ("**/dir", &["dir", "dir/file", "a/dir", "a/dir/b"], &["xdir", "dirx"]),
            ("**/dir2/*", &["dir/dir2/file", "dir2/a/b"], &["dir2"]),
            ("**/dir2/**", &["dir/dir2/a/file"], &["dir2", "dir/dir2"]),
            ("**file", &["file", "dir/file", "dir/dir/afile"], &["files"]),
            ("**/file*txt", &["dir/dir/file.txt", "filetxt"], &["dir/file.txt2"]),
            ("**/**/*.txt", &["dir/dir/file.txt", "file.txt"], &["file.txt2"]),
            ("a**/*.txt", &["a/file.txt", "a/dir/file.txt"], &["file.txt"]),
            ("a/*.txt", &["a/file.txt"], &["a/dir/file.txt"]),
            ("a/*.txt**", &["a/file.txt", "a/file.txtx"], &["a/b"]),
            ("*", &["a", "a/b"], &[]),
            ("*/*", &["a/b", "a/b/c"], &["a"]),
            ("a[b-d]e", &["ace"], &["ae", "aae"]),
            ("a[^b-d]e", &["aze"], &["ace"]),
            ("[a-ζ]*", &["α"], &["A"]),
            ("[\\]a]", &["]", "a"], &["\\"]),
            ("[x\\-]", &["x", "-"], &["z"]),
            ("a???b", &["a☺☺☺b"], &["a☺b", "a/.xb"]),
            (".*", &[".foo"], &["foo"]),
            ("abc.def", &["abc.def", "abc.def/x"], &["abcZdef"]),
            ("a\\*b", &["a*b"], &["ab", "axb"]),
            ("a(b)c/d+e|f$", &["a(b)c/d+e|f$"], &["abc/d+e|f$"]),
            ("/foo", &["foo", "foo/bar"], &["a/foo"]),
            ("foo/", &["foo", "foo/bar"], &["a/foo"]),
            ("./a//b/../c", &["a/c"], &["a/b"]),
            ("../foo", &[], &["foo"]),
            (".", &[], &["a"]),
            ("docs/*/x", &["docs/a/x", "docs/a/x/y"], &["docs/x", "docs/a/b/x"]),
        ] {
            let rules = ignore(pattern);
            for path in matched {
                assert!(rules.excludes(path), "{pattern} should match {path}");
            }
            for path in unmatched {
                assert!(!rules.excludes(path), "{pattern} should not match {path}");
            }
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        for (text, path, excluded) in [
            ("*.md\n!README.md", "README.md", false),
            ("!README.md\n*.md", "README.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false),
            ("docs\n!docs/README.md", "docs/README.md", false),
            ("docs/\n! docs/README.md  ", "docs/README.md", false),
            ("docs/*\n!docs/README.md", "docs/other", true),
            ("**\n!a/b", "a/b/c/d", false),
            ("**\n!a/b\na/b/c", "a/b/c/d", true),
            ("!a\nb", "a", false),
        ] {
            assert_eq!(ignore(text).excludes(path), excluded, "{text:?} {path}");
        }
    }

    #[test]
    fn comments_blank_lines_ends_and_a_byte_order_mark_do_not_matter() {
        let rules = ignore("\u{feff}# no\r\n\r\n  a  \r\n#b\n #c\n");
        assert!(rules.excludes("a"));
        assert!(!rules.excludes("b"));
        // Only a `#` in the first column begins a comment.
        assert!(rules.excludes("#c"));
    }

    #[test]
    fn a_malformed_rule_names_its_line() {
        assert_eq!(Ignore::parse("a\n!").unwrap_err(), IgnoreError::Nothing { line: 2 });
        for pattern in
            ["[", "[]a]", "[-]", "[x-]", "[-x]", "[^", "[^bc", "a[", "\\", "[a-b-c]", "[z-a]"]
        {
            let error = Ignore::parse(&format!("# x\n{pattern}")).unwrap_err();
            assert!(matches!(error, IgnoreError::Pattern { line: 2, .. }), "{pattern}: {error}");
        }
    }

    #[test]
    fn rules_made_to_cost_are_refused_or_asked_in_linear_time() {
        for text in ["?\n".repeat(MOST_RULES + 1), "x".repeat(LONGEST_TEXT + 1)] {
            let error = Ignore::parse(&text).unwrap_err();
            assert_eq!(
                error.to_string(),
                "the ignore file has more than 2000 rules or 128 KiB: name folders, or use `*` and include again with `!`"
            );
        }
        // A backtracking matcher would never finish this.
        let rules = ignore(&format!("{}b", "a*".repeat(100)));
        assert!(!rules.excludes(&"a".repeat(1000)));
        ignore(&format!("{}\n", "?".repeat(60)).repeat(MOST_RULES));
    }

    #[test]
    fn a_folder_is_skipped_only_if_nothing_in_it_can_come_back() {
        for (text, folder, skipped) in [
            ("node_modules", "node_modules", true),
            ("node_modules\n!src", "node_modules", true),
            ("node_modules\n!node_modules/keep/x", "node_modules", false),
            ("node_modules\n!node_modules/keep/x", "node_modules/keep", false),
            ("node_modules\n!node_modules/keep/x", "node_modules/other", true),
            ("a\n!**/x", "a", false),
            ("a\n!a/*/x", "a", false),
            ("a\n!b/*/x", "a", true),
            ("*\n!a", "a", false),
            ("*\n!a\na/b", "a/b", true),
            ("b", "a", false),
        ] {
            let rules = ignore(text);
            let scope = folder.split('/').fold(rules.root(), |scope, name| scope.enter(name));
            assert_eq!(scope.is_excluded_whole(), skipped, "{text:?} {folder}");
        }
    }

    #[test]
    fn a_dockerfile_may_have_rules_of_its_own() {
        assert_eq!(
            file_names("build/web.Dockerfile"),
            ["build/web.Dockerfile.dockerignore", ".dockerignore"]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), path in any::<String>()) {
            if let Ok(rules) = Ignore::parse(&text) {
                let _ = rules.excludes(&path);
            }
        }

        #[test]
        fn what_is_skipped_whole_holds_nothing_that_is_seen(
            lines in prop::collection::vec("!?[ab*]{1,3}(/[ab*]{1,3}){0,2}", 0..5),
            folder in "[ab]{1,2}",
            name in "[ab]{1,2}(/[ab]{1,2}){0,2}",
        ) {
            let rules = ignore(&lines.join("\n"));
            if rules.root().enter(&folder).is_excluded_whole() {
                let path = format!("{folder}/{name}");
                prop_assert!(rules.excludes(&path));
            }
        }
    }
}

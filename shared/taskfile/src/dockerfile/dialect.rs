//! Differences between versions of BuildKit in splitting a Dockerfile.
//!
//! Which version an engine uses is not known when a file is read. So a file is read as each version reads it, and
//! accepted only if all of them find the same images in the same places.

/// One way to split a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) syntax: Syntax,
    pub(super) heredocs: Option<Heredocs>,
    /// Whether a JSON array is recognized even if text follows it.
    pub(super) array_and_more: bool,
    /// Whether the escape directive applies to flags too.
    pub(super) escapes_flags: bool,
    /// Whether a line ends with at most one `\r` before `\n`, instead of any number.
    pub(super) one_return: bool,
}

/// Where `# syntax=` is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// After directives of any name; the last `# syntax=` applies.
    AnyName,
    /// After `escape`, and after a first line that begins with `#!`.
    Known,
    /// After `check` as well.
    Check,
}

/// How heredocs are recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heredocs {
    /// Whether `${X#y}` and similar forms are understood.
    pub(super) patterns: bool,
    /// Whether `<< NAME` is a heredoc.
    pub(super) spaced: bool,
}

const HEREDOCS: Option<Heredocs> = Some(Heredocs { patterns: true, spaced: false });

impl Dialect {
    /// BuildKit 0.21, in Docker 28. A file that it refuses is refused.
    pub(super) const REFERENCE: Self = Self {
        syntax: Syntax::Check,
        heredocs: HEREDOCS,
        array_and_more: false,
        escapes_flags: true,
        one_return: false,
    };

    /// The other versions.
    pub(super) const OTHERS: [Self; 6] = [
        // 0.8, in Docker 20.10.
        Self {
            syntax: Syntax::AnyName,
            heredocs: None,
            array_and_more: true,
            escapes_flags: false,
            one_return: true,
        },
        // 0.10, in Docker 23.
        Self {
            syntax: Syntax::AnyName,
            heredocs: Some(Heredocs { patterns: false, spaced: false }),
            array_and_more: true,
            escapes_flags: false,
            one_return: false,
        },
        // 0.11, in Docker 24 and 25.
        Self {
            syntax: Syntax::Known,
            heredocs: Some(Heredocs { patterns: false, spaced: false }),
            array_and_more: true,
            escapes_flags: false,
            one_return: false,
        },
        // 0.13, in Docker 26.
        Self {
            syntax: Syntax::Known,
            heredocs: HEREDOCS,
            array_and_more: true,
            escapes_flags: false,
            one_return: false,
        },
        // 0.15, in Docker 27.
        Self { escapes_flags: false, ..Self::REFERENCE },
        // 0.22 and later.
        Self { heredocs: Some(Heredocs { patterns: true, spaced: true }), ..Self::REFERENCE },
    ];
}

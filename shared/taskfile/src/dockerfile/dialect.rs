//! Where versions of BuildKit split a Dockerfile differently.
//!
//! An engine reads by its own version, and nobody knows which until it has read. So a file is read as each version reads
//! it, and used only if all of them find the same images in the same places.

/// One way to split a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) syntax: Syntax,
    pub(super) heredocs: Option<Heredocs>,
    /// A JSON array is one whatever stands behind it.
    pub(super) array_and_more: bool,
    /// The escape directive holds in flags too.
    pub(super) escapes_flags: bool,
    /// A line's end is `\n` with at most one `\r`, not any number of them.
    pub(super) one_return: bool,
}

/// How `# syntax=` is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// Behind directives of any name; the last one holds.
    AnyName,
    /// Behind `escape`, and behind a first line that begins with `#!`.
    Known,
    /// Behind `check` as well.
    Check,
}

/// What is a heredoc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heredocs {
    /// `${X#y}` and the like are understood.
    pub(super) patterns: bool,
    /// `<< NAME` is one.
    pub(super) spaced: bool,
}

const HEREDOCS: Option<Heredocs> = Some(Heredocs { patterns: true, spaced: false });

impl Dialect {
    /// BuildKit 0.21, in Docker 28: what is no Dockerfile for it is none.
    pub(super) const REFERENCE: Self = Self {
        syntax: Syntax::Check,
        heredocs: HEREDOCS,
        array_and_more: false,
        escapes_flags: true,
        one_return: false,
    };

    /// The others.
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

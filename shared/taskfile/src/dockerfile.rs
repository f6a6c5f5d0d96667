//! Which images a Dockerfile uses, and where it names them.
//!
//! In: the text, the build arguments, the target and the platforms. Out: every image with the place of its operand, read
//! as BuildKit reads it, so that the bases can be resolved once, pinned in the text that is sent, and watched for
//! changes. Whether the rest of the file makes sense is the engine's to say.

use std::collections::BTreeMap;
use std::ops::Range;

use gantry_domain::InvalidText;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::platform::Platform;

mod expand;
mod lines;

pub use expand::ExpandError;
use lines::{Instruction, Lines, Piece, Spanned};

/// The base that is no image.
const SCRATCH: &str = "scratch";

/// What a Dockerfile is read with.
#[derive(Debug, Clone, Copy)]
pub struct BuildInputs<'a> {
    /// Build arguments by name.
    pub build_args: &'a BTreeMap<String, String>,
    /// The stage to build; the last if `None`.
    pub target: Option<&'a str>,
    /// What the image is for.
    pub platform: &'a Platform,
    /// What the engine runs on.
    pub build_platform: &'a Platform,
}

/// A Dockerfile and the images that it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    text: String,
    images: Vec<ImageUse>,
}

/// One place where a Dockerfile names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// The image, complete, its variables expanded.
    pub image: ImageReference,
    /// What it is used for.
    pub role: Role,
    /// The target needs it. An engine does not ask for the images of stages that nothing needs.
    pub needed: bool,
    /// The line where the instruction begins, from 1.
    pub line: usize,
    operand: Range<usize>,
}

/// What an image is to the one that is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The built image stands on it.
    Runtime,
    /// Something is run in it or copied from it.
    BuildTime,
    /// It reads the Dockerfile: `# syntax=`.
    Frontend,
}

/// Why a Dockerfile cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerfileError {
    /// No stage at all.
    #[error("the Dockerfile has no FROM")]
    NoStage,
    /// Something other than ARG before the first FROM.
    #[error("line {line}: {keyword} stands before the first FROM, where only ARG may")]
    BeforeFrom {
        /// From 1.
        line: usize,
        /// In capitals.
        keyword: String,
    },
    /// FROM with too few or too many words.
    #[error("line {line}: FROM takes an image, or an image, `AS` and a name")]
    FromWords {
        /// From 1.
        line: usize,
    },
    /// A stage's name that is none.
    #[error("line {line}: `{name}` is no name of a stage: a letter, then letters, digits or `-_.`")]
    StageName {
        /// From 1.
        line: usize,
        /// As written.
        name: String,
    },
    /// A variable that cannot be expanded.
    #[error("line {line}: cannot expand `{word}`")]
    Expand {
        /// From 1.
        line: usize,
        /// As written.
        word: String,
        /// What is wrong with it.
        source: ExpandError,
    },
    /// A base whose variables are all empty.
    #[error(
        "line {line}: the base `{word}` is empty: give its build argument, or a default with ARG before the first FROM"
    )]
    EmptyBase {
        /// From 1.
        line: usize,
        /// As written.
        word: String,
    },
    /// An image that is no reference.
    #[error("line {line}: `{image}` is neither a stage before it nor an image")]
    Reference {
        /// From 1.
        line: usize,
        /// Its variables expanded.
        image: String,
        /// The part that is wrong.
        source: InvalidText,
    },
    /// `--from=` with a variable.
    #[error(
        "line {line}: `from={operand}` takes no variable: add `FROM {operand} AS name` and use that name"
    )]
    VariableFrom {
        /// From 1.
        line: usize,
        /// As written.
        operand: String,
    },
    /// `--from=7` of three stages.
    #[error("line {line}: there is no stage {index}: the first is 0 and there are {stages}")]
    StageIndex {
        /// From 1.
        line: usize,
        /// As written.
        index: String,
        /// How many there are.
        stages: usize,
    },
    /// A target that is no stage.
    #[error("the target `{target}` is no stage of the Dockerfile: it has {}", list(.stages))]
    Target {
        /// As given.
        target: String,
        /// The names there are.
        stages: Vec<String>,
    },
    /// The same directive twice.
    #[error("line {line}: only one `{name}` directive can be used")]
    RepeatedDirective {
        /// From 1.
        line: usize,
        /// In lower case.
        name: String,
    },
    /// An escape directive with another character.
    #[error("line {line}: `{token}` is no escape character: it is \\ or `")]
    Escape {
        /// From 1.
        line: usize,
        /// As written.
        token: String,
    },
    /// A heredoc without end.
    #[error(
        "line {line}: the heredoc `{name}` does not end: a line with nothing but `{name}` is missing"
    )]
    Heredoc {
        /// Where it begins, from 1.
        line: usize,
        /// Its terminator.
        name: String,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "no named stage".to_owned()
    } else {
        names.join(", ")
    }
}

impl Dockerfile {
    /// Reads a Dockerfile.
    ///
    /// # Errors
    /// [`DockerfileError`], with the line where there is one.
    pub fn parse(text: &str, inputs: BuildInputs<'_>) -> Result<Self, DockerfileError> {
        let lines = Lines::split(text)?;
        let mut images = Vec::from_iter(frontend(&lines)?);
        let plan = Stages::read(&lines, inputs)?;
        plan.collect(inputs.target, &mut images)?;
        Ok(Self {
            text: text.to_owned(),
            images,
        })
    }

    /// Every image that is named up to the target's stage or needed by it, in the order of the text within each stage.
    #[must_use]
    pub fn images(&self) -> &[ImageUse] {
        &self.images
    }

    /// The image that the built one stands on; `None` if that is `scratch`.
    #[must_use]
    pub fn runtime_base(&self) -> Option<&ImageReference> {
        self.images
            .iter()
            .find(|used| used.role == Role::Runtime)
            .map(|used| &used.image)
    }

    /// The text with each image of `digests` replaced by itself at its digest, and nothing else touched.
    ///
    /// An image that has a digest already stays as it is.
    #[must_use]
    pub fn pin(&self, digests: &BTreeMap<ImageReference, Digest>) -> String {
        let mut places: Vec<(Range<usize>, String)> = self
            .images
            .iter()
            .filter(|used| used.image.digest().is_none())
            .filter_map(|used| {
                let digest = digests.get(&used.image)?.clone();
                Some((used.operand.clone(), used.image.pinned(digest).to_string()))
            })
            .collect();
        places.sort_by_key(|(range, _)| range.start);
        let mut pinned = String::with_capacity(self.text.len() + 80 * places.len());
        let mut copied = 0;
        for (range, image) in places {
            pinned.push_str(&self.text[copied..range.start]);
            pinned.push_str(&image);
            copied = range.end;
        }
        pinned.push_str(&self.text[copied..]);
        pinned
    }
}

fn frontend(lines: &Lines) -> Result<Option<ImageUse>, DockerfileError> {
    let Some((line, image)) = &lines.syntax else {
        return Ok(None);
    };
    let Some(named) = Named::image(*line, image.piece()) else {
        return Ok(None);
    };
    named.used(Role::Frontend, true).map(Some)
}

/// An operand that may be an image.
#[derive(Debug, Clone)]
struct Named {
    line: usize,
    text: String,
    operand: Range<usize>,
}

impl Named {
    fn image(line: usize, word: Piece<'_>) -> Option<Self> {
        Some(Self {
            line,
            text: word.text.to_owned(),
            operand: word.range()?,
        })
    }

    fn used(&self, role: Role, needed: bool) -> Result<ImageUse, DockerfileError> {
        let image = self
            .text
            .parse()
            .map_err(|source| DockerfileError::Reference {
                line: self.line,
                image: self.text.clone(),
                source,
            })?;
        Ok(ImageUse {
            image,
            role,
            needed,
            line: self.line,
            operand: self.operand.clone(),
        })
    }
}

#[derive(Debug)]
enum Base {
    Stage(usize),
    Scratch,
    Image(Named),
}

#[derive(Debug)]
struct Stage {
    name: Option<String>,
    base: Base,
    /// What `COPY --from` and `RUN --mount=from` name in it.
    sources: Vec<From>,
    /// The same in its ONBUILD instructions: they run in the stages that stand on it.
    onbuild: Vec<From>,
}

/// A `from=` operand, and whether a number means a stage.
#[derive(Debug)]
struct From {
    named: Named,
    may_be_index: bool,
}

struct Stages {
    stages: Vec<Stage>,
    /// The last stage of each name.
    by_name: BTreeMap<String, usize>,
}

impl Stages {
    fn read(lines: &Lines, inputs: BuildInputs<'_>) -> Result<Self, DockerfileError> {
        let mut arguments = Arguments::new(lines.escape, inputs);
        let mut this = Self {
            stages: Vec::new(),
            by_name: BTreeMap::new(),
        };
        for instruction in &lines.instructions {
            match (instruction.keyword.as_str(), this.stages.last_mut()) {
                ("from", _) => this.begin(instruction, &arguments)?,
                ("arg", None) => arguments.declare(instruction)?,
                (_, Some(stage)) => stage.read(instruction)?,
                (keyword, None) => {
                    let keyword = keyword.to_uppercase();
                    return Err(DockerfileError::BeforeFrom {
                        line: instruction.line,
                        keyword,
                    });
                }
            }
        }
        if this.stages.is_empty() {
            Err(DockerfileError::NoStage)
        } else {
            Ok(this)
        }
    }

    fn begin(
        &mut self,
        from: &Instruction,
        arguments: &Arguments<'_>,
    ) -> Result<(), DockerfileError> {
        let line = from.line;
        let (_, rest) = flags(from.arguments.piece());
        let words = rest.trim().words();
        let (word, name) = match words.as_slice() {
            [word] => (*word, None),
            [word, r#as, name] if r#as.text.eq_ignore_ascii_case("as") => {
                (*word, Some(stage_name(line, name.text)?))
            }
            _ => return Err(DockerfileError::FromWords { line }),
        };
        let Some(operand) = word.range() else {
            return Err(DockerfileError::FromWords { line });
        };
        let text = arguments.expand(line, word.text)?;
        if text.is_empty() {
            return Err(DockerfileError::EmptyBase {
                line,
                word: word.text.to_owned(),
            });
        }
        let base = match self.by_name.get(&text) {
            Some(&stage) => Base::Stage(stage),
            None if text == SCRATCH => Base::Scratch,
            None => Base::Image(Named {
                line,
                text,
                operand,
            }),
        };
        if let Some(name) = &name {
            self.by_name.insert(name.clone(), self.stages.len());
        }
        self.stages.push(Stage {
            name,
            base,
            sources: Vec::new(),
            onbuild: Vec::new(),
        });
        Ok(())
    }

    /// Adds every image that is named up to the target or needed by it.
    fn collect(
        &self,
        target: Option<&str>,
        images: &mut Vec<ImageUse>,
    ) -> Result<(), DockerfileError> {
        let target = self.target(target)?;
        let needed = self.needed_by(target)?;
        let runtime = self.root_of(target);
        for (index, stage) in self.stages.iter().enumerate() {
            let from_here = needed[index];
            // Every operand must be an image or a stage, wherever it stands: the engine refuses it otherwise.
            let mut add = |used: ImageUse| {
                if used.needed || index <= target {
                    images.push(used);
                }
            };
            if let Base::Image(named) = &stage.base {
                let role = if index == runtime {
                    Role::Runtime
                } else {
                    Role::BuildTime
                };
                add(named.used(role, from_here)?);
            }
            let stands_on_it =
                |above: &Stage| matches!(above.base, Base::Stage(base) if base == index);
            let onbuild_needed = self
                .stages
                .iter()
                .zip(&needed)
                .any(|(above, needed)| *needed && stands_on_it(above));
            let sources = stage.sources.iter().map(|from| (from, from_here));
            let onbuild = stage.onbuild.iter().map(|from| (from, onbuild_needed));
            for (from, needed) in sources.chain(onbuild) {
                if self.stage_of(from)?.is_none() && from.named.text != SCRATCH {
                    add(from.named.used(Role::BuildTime, needed)?);
                }
            }
        }
        Ok(())
    }

    fn target(&self, target: Option<&str>) -> Result<usize, DockerfileError> {
        let Some(target) = target.filter(|target| !target.is_empty()) else {
            return Ok(self.stages.len() - 1);
        };
        self.by_name
            .get(&target.to_lowercase())
            .copied()
            .ok_or_else(|| DockerfileError::Target {
                target: target.to_owned(),
                stages: self
                    .stages
                    .iter()
                    .filter_map(|stage| stage.name.clone())
                    .collect(),
            })
    }

    /// The first stage of the chain of bases that `stage` ends.
    fn root_of(&self, stage: usize) -> usize {
        let mut root = stage;
        // A base stands before what is built on it, so this ends.
        while let Base::Stage(base) = self.stages[root].base {
            root = base;
        }
        root
    }

    fn needed_by(&self, target: usize) -> Result<Vec<bool>, DockerfileError> {
        let mut needed = vec![false; self.stages.len()];
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut needed[index], true) {
                continue;
            }
            let stage = &self.stages[index];
            let mut sources: Vec<&From> = stage.sources.iter().collect();
            if let Base::Stage(base) = stage.base {
                open.push(base);
                sources.extend(&self.stages[base].onbuild);
            }
            for from in sources {
                open.extend(self.stage_of(from)?);
            }
        }
        Ok(needed)
    }

    /// The stage that a `from=` means, if it is no image.
    fn stage_of(&self, from: &From) -> Result<Option<usize>, DockerfileError> {
        let Named { line, text, .. } = &from.named;
        if from.may_be_index && text.parse::<i64>().is_ok() {
            let stages = self.stages.len();
            let index = text.parse().ok().filter(|index| *index < stages);
            let refused = || DockerfileError::StageIndex {
                line: *line,
                index: text.clone(),
                stages,
            };
            return index.ok_or_else(refused).map(Some);
        }
        Ok(self.by_name.get(&text.to_lowercase()).copied())
    }
}

fn stage_name(line: usize, text: &str) -> Result<String, DockerfileError> {
    let name = text.to_lowercase();
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if name.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) && name.bytes().all(letters) {
        Ok(name)
    } else {
        Err(DockerfileError::StageName {
            line,
            name: text.to_owned(),
        })
    }
}

impl Stage {
    fn read(&mut self, instruction: &Instruction) -> Result<(), DockerfileError> {
        match instruction.kept_by_onbuild() {
            Some(kept) => self.onbuild.extend(sources(&kept)?),
            None => self.sources.extend(sources(instruction)?),
        }
        Ok(())
    }
}

fn sources(instruction: &Instruction) -> Result<Vec<From>, DockerfileError> {
    let wanted = match instruction.keyword.as_str() {
        "copy" => "--from",
        "run" => "--mount",
        _ => return Ok(Vec::new()),
    };
    let (flags, _) = flags(instruction.arguments.piece());
    let mut sources = Vec::new();
    for flag in &flags {
        let Some((name, value)) = flag.piece().split_once('=') else {
            continue;
        };
        if name.text != wanted {
            continue;
        }
        if wanted == "--from" {
            sources.extend(from(instruction.line, value, true)?);
        } else if let Some(field) = mounted_from(value) {
            sources.extend(from(instruction.line, field.piece(), false)?);
        }
    }
    Ok(sources)
}

fn from(
    line: usize,
    operand: Piece<'_>,
    may_be_index: bool,
) -> Result<Option<From>, DockerfileError> {
    if operand.text.contains('$') {
        return Err(DockerfileError::VariableFrom {
            line,
            operand: operand.text.to_owned(),
        });
    }
    Ok(Named::image(line, operand).map(|named| From {
        named,
        may_be_index,
    }))
}

/// The `from` field of a mount that can have one.
fn mounted_from(mount: Piece<'_>) -> Option<Spanned> {
    let mut from = None;
    for field in comma_separated(mount) {
        let Some((key, value)) = field.piece().split_once('=') else {
            continue;
        };
        match key.text.to_lowercase().as_str() {
            "type"
                if matches!(
                    value.text.to_lowercase().as_str(),
                    "tmpfs" | "secret" | "ssh"
                ) =>
            {
                return None;
            }
            "from" => {
                let mut operand = Spanned::default();
                value
                    .chars()
                    .for_each(|(letter, at)| operand.push(letter, at));
                from = Some(operand);
            }
            _ => {}
        }
    }
    from
}

/// Fields as in a line of comma-separated values: one may stand in quotes, and a quote in those is doubled.
fn comma_separated(text: Piece<'_>) -> Vec<Spanned> {
    let mut fields = vec![Spanned::default()];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some((letter, at)) = letters.next() {
        let last = fields.len() - 1;
        match letter {
            '"' if quoted && letters.next_if(|(next, _)| *next == '"').is_none() => quoted = false,
            '"' if !quoted && fields[last].piece().text.is_empty() => quoted = true,
            ',' if !quoted => fields.push(Spanned::default()),
            _ => fields[last].push(letter, at),
        }
    }
    fields
}

/// The `--flags` before an instruction's words, unquoted, and what follows them.
fn flags(arguments: Piece<'_>) -> (Vec<Spanned>, Piece<'_>) {
    let mut flags = Vec::new();
    let mut rest = arguments.trim();
    while rest.text.starts_with("--") {
        let (flag, length) = flag(rest);
        rest = rest.slice(length..rest.text.len()).trim();
        if flag.piece().text == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// The word at the start of `text` without quotes and escapes, and its length with them.
fn flag(text: Piece<'_>) -> (Spanned, usize) {
    let mut word = Spanned::default();
    let mut quote = None;
    let mut length = 0;
    let mut letters = text.chars();
    while let Some((letter, at)) = letters.next() {
        if letter.is_whitespace() && quote.is_none() {
            break;
        }
        length += letter.len_utf8();
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            ('\\', _) => {
                if let Some((escaped, at)) = letters.next() {
                    length += escaped.len_utf8();
                    word.push(escaped, at);
                }
            }
            _ => word.push(letter, at),
        }
    }
    (word, length)
}

/// The arguments that are set outside of every stage: what FROM may use.
struct Arguments<'a> {
    escape: char,
    given: &'a BTreeMap<String, String>,
    set: BTreeMap<String, String>,
}

impl<'a> Arguments<'a> {
    fn new(escape: char, inputs: BuildInputs<'a>) -> Self {
        let mut set = BTreeMap::new();
        for (prefix, platform) in [
            ("BUILD", inputs.build_platform),
            ("TARGET", inputs.platform),
        ] {
            for (name, value) in [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os().to_owned()),
                ("ARCH", platform.architecture().to_owned()),
                ("VARIANT", platform.variant().unwrap_or_default().to_owned()),
            ] {
                let name = format!("{prefix}{name}");
                let value = inputs.build_args.get(&name).cloned().unwrap_or(value);
                set.insert(name, value);
            }
        }
        Self {
            escape,
            given: inputs.build_args,
            set,
        }
    }

    fn declare(&mut self, arg: &Instruction) -> Result<(), DockerfileError> {
        let (_, rest) = flags(arg.arguments.piece());
        for word in quoted_words(rest.text, self.escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default)),
                None => (word.as_str(), None),
            };
            let value = match (self.given.get(name), default) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => self.expand(arg.line, default)?,
                (None, None) => continue,
            };
            self.set.insert(name.to_owned(), value);
        }
        Ok(())
    }

    fn expand(&self, line: usize, word: &str) -> Result<String, DockerfileError> {
        expand::expand(word, self.escape, &self.set).map_err(|source| DockerfileError::Expand {
            line,
            word: word.to_owned(),
            source,
        })
    }
}

/// Words separated by blanks outside of quotes; quotes and escapes stay for [`expand`] to remove.
fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter.is_whitespace() && quote.is_none() {
            words.push(std::mem::take(&mut word));
            continue;
        }
        word.push(letter);
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            (_, None | Some('"')) if letter == escape => word.extend(letters.next()),
            _ => {}
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    fn read_with(
        text: &str,
        pairs: &[(&str, &str)],
        target: Option<&str>,
    ) -> Result<Dockerfile, DockerfileError> {
        let platform = "linux/arm64/v8".parse().unwrap();
        let inputs = BuildInputs {
            build_args: &args(pairs),
            target,
            platform: &platform,
            build_platform: &Platform::default(),
        };
        Dockerfile::parse(text, inputs)
    }

    fn read(text: &str) -> Dockerfile {
        read_with(text, &[], None).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    /// `+` runtime, `-` build time, `#` frontend; in brackets: not needed.
    fn shown(file: &Dockerfile) -> Vec<String> {
        let show = |used: &ImageUse| {
            let sign = match used.role {
                Role::Runtime => '+',
                Role::BuildTime => '-',
                Role::Frontend => '#',
            };
            let image = used.image.to_string();
            let image = image
                .strip_prefix("docker.io/library/")
                .unwrap_or(&image)
                .to_owned();
            if used.needed {
                format!("{sign}{image}")
            } else {
                format!("{sign}({image})")
            }
        };
        file.images().iter().map(show).collect()
    }

    fn digest() -> Digest {
        format!("sha256:{}", "a".repeat(64)).parse().unwrap()
    }

    fn pin_all(file: &Dockerfile) -> String {
        let digests = file
            .images()
            .iter()
            .map(|used| (used.image.clone(), digest()))
            .collect();
        file.pin(&digests).replace(digest().as_str(), "PIN")
    }

    #[test]
    fn images_are_found_wherever_the_engine_finds_them() {
        for (text, images) in [
            ("FROM alpine:3.19", &["+alpine:3.19"][..]),
            ("\u{feff}from\talpine\r\nRUN x\r\n", &["+alpine:latest"]),
            ("# FROM debian\nFROM alpine:1", &["+alpine:1"]),
            ("FROM --platform=$BUILDPLATFORM alpine:1", &["+alpine:1"]),
            (
                "FROM \\\n  # a comment\n\n  alpine:1 \\\n  AS x",
                &["+alpine:1"],
            ),
            ("ARG T=3\nFROM alpine:${T}", &["+alpine:3"]),
            ("ARG B=alpine\nFROM ${B:-debian}", &["+alpine:latest"]),
            ("FROM ${B:-debian}", &["+debian:latest"]),
            ("ARG V=3\nARG T=$V.19\nFROM alpine:$T", &["+alpine:3.19"]),
            ("ARG A=1 T=\"3 \"\nFROM \"alpine:$A\"", &["+alpine:1"]),
            (
                "FROM base/$TARGETARCH:$TARGETVARIANT-$BUILDARCH",
                &["+docker.io/base/arm64:v8-amd64"],
            ),
            (
                "FROM golang AS b\nFROM scratch\nCOPY --from=b / /",
                &["-golang:latest"],
            ),
            (
                "FROM alpine AS base\nFROM golang AS b\nFROM base",
                &["+alpine:latest", "-(golang:latest)"],
            ),
            ("FROM a AS A\nFROM a AS c\nFROM c", &["+a:latest"]),
            (
                "FROM a\nCOPY --from=busybox:1 /x /x",
                &["+a:latest", "-busybox:1"],
            ),
            (
                "FROM a\nCOPY --chown=1 --from=\"busybox:1\" [\"/x\", \"/x\"]",
                &["+a:latest", "-busybox:1"],
            ),
            (
                "FROM g\nFROM a\nCOPY --from=0 /x /x",
                &["-g:latest", "+a:latest"],
            ),
            (
                "FROM a\nRUN --mount=type=bind,from=tool:1,target=/t x",
                &["+a:latest", "-tool:1"],
            ),
            (
                "FROM a\nRUN --mount=target=/t,\"from=tool:1\" --mount=type=tmpfs,from=no x",
                &["+a:latest", "-tool:1"],
            ),
            (
                "FROM a\nRUN --mount=type=cache,target=/t x --mount=from=no",
                &["+a:latest"],
            ),
            (
                "FROM a\nRUN <<EOF\nFROM no\nCOPY --from=no . .\nEOF",
                &["+a:latest"],
            ),
            (
                "# syntax=docker/dockerfile:1 x\nFROM a",
                &["#docker.io/docker/dockerfile:1", "+a:latest"],
            ),
            (
                "#Syntax = f:1\n# escape=`\nFROM `\n a",
                &["#f:1", "+a:latest"],
            ),
            (
                "FROM a AS b\nONBUILD COPY --from=t / /\nFROM b",
                &["+a:latest", "-t:latest"],
            ),
            (
                "FROM a AS b\nONBUILD COPY --from=t / /",
                &["+a:latest", "-(t:latest)"],
            ),
            ("FROM a\nCOPY --from=scratch / /", &["+a:latest"]),
        ] {
            assert_eq!(shown(&read(text)), images, "{text:?}");
        }
    }

    #[test]
    fn build_arguments_and_the_target_choose() {
        let text =
            "ARG T=1\nFROM golang:$T AS build\nFROM node AS Web\nFROM alpine\nCOPY --from=web / /";
        let chosen = |pairs: &[_], target| shown(&read_with(text, pairs, target).unwrap());
        assert_eq!(
            chosen(&[], None),
            ["-(golang:1)", "-node:latest", "+alpine:latest"]
        );
        assert_eq!(
            chosen(&[("T", "2")], Some("WEB")),
            ["-(golang:2)", "+node:latest"]
        );
        assert_eq!(chosen(&[("T", "2")], Some("build")), ["+golang:2"]);
        assert_eq!(
            read_with(text, &[], Some("x")).unwrap_err().to_string(),
            "the target `x` is no stage of the Dockerfile: it has build, web"
        );
        assert_eq!(
            shown(&read_with("ARG T\nFROM a:$T", &[("T", "2")], None).unwrap()),
            ["+a:2"]
        );
    }

    #[test]
    fn pinning_replaces_the_operands_and_nothing_else() {
        for (text, pinned) in [
            (
                "from\t alpine:3  as b\r\nRUN alpine:3\r\n",
                "from\t docker.io/library/alpine:3@PIN  as b\r\nRUN alpine:3\r\n",
            ),
            (
                "ARG T=3\nFROM --platform=linux/amd64 \"alpine:${T}\"\n# alpine:3",
                "ARG T=3\nFROM --platform=linux/amd64 docker.io/library/alpine:3@PIN\n# alpine:3",
            ),
            (
                "FROM a/b\nCOPY --from='c/d' --chown=1 é /é",
                "FROM docker.io/a/b:latest@PIN\nCOPY --from='docker.io/c/d:latest@PIN' --chown=1 é /é",
            ),
            (
                "FROM a/b\nRUN --mount=from=a/b,target=/x \\\n  --mount=target=/y,from=c/d true",
                "FROM docker.io/a/b:latest@PIN\nRUN --mount=from=docker.io/a/b:latest@PIN,target=/x \\\n  --mount=target=/y,from=docker.io/c/d:latest@PIN true",
            ),
            (
                "# syntax = a/f:1  \nFROM scratch",
                "# syntax = docker.io/a/f:1@PIN  \nFROM scratch",
            ),
            (
                "FROM a/b AS x\nFROM x AS y\nCOPY --from=x / /",
                "FROM docker.io/a/b:latest@PIN AS x\nFROM x AS y\nCOPY --from=x / /",
            ),
        ] {
            assert_eq!(pin_all(&read(text)), pinned);
        }
        let already = format!("FROM a/b:1@{}", digest());
        let other: Digest = format!("sha256:{}", "b".repeat(64)).parse().unwrap();
        let file = read(&already);
        let digests = BTreeMap::from([(file.images()[0].image.clone(), other)]);
        assert_eq!(file.pin(&digests), already);
    }

    #[test]
    fn a_file_that_cannot_be_read_says_where_and_why() {
        for (text, message) in [
            ("", "the Dockerfile has no FROM"),
            ("ARG A", "the Dockerfile has no FROM"),
            (
                "RUN x",
                "line 1: RUN stands before the first FROM, where only ARG may",
            ),
            (
                "FROM",
                "line 1: FROM takes an image, or an image, `AS` and a name",
            ),
            (
                "\n\nFROM a b",
                "line 3: FROM takes an image, or an image, `AS` and a name",
            ),
            (
                "FROM a AS 1x",
                "line 1: `1x` is no name of a stage: a letter, then letters, digits or `-_.`",
            ),
            (
                "FROM $B",
                "line 1: the base `$B` is empty: give its build argument, or a default with ARG before the first FROM",
            ),
            (
                "FROM Alpine",
                "line 1: `Alpine` is neither a stage before it nor an image",
            ),
            (
                "FROM a AS x\nARG T=1\nFROM d:$T",
                "line 3: `d:` is neither a stage before it nor an image",
            ),
            ("FROM a:${B", "line 1: cannot expand `a:${B`"),
            (
                "FROM a\nCOPY --from=$B / /",
                "line 2: `from=$B` takes no variable: add `FROM $B AS name` and use that name",
            ),
            (
                "FROM a\nCOPY --from=1 / /",
                "line 2: there is no stage 1: the first is 0 and there are 1",
            ),
            (
                "FROM a\nRUN <<E\n",
                "line 2: the heredoc `E` does not end: a line with nothing but `E` is missing",
            ),
            (
                "# escape=x\nFROM a",
                "line 1: `x` is no escape character: it is \\ or `",
            ),
            (
                "# escape=`\n# escape=`\nFROM a",
                "line 2: only one `escape` directive can be used",
            ),
        ] {
            assert_eq!(
                read_with(text, &[], None).unwrap_err().to_string(),
                message,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_circle_of_stages_is_read_and_left_to_the_engine() {
        let text =
            "FROM a AS x\nCOPY --from=y / /\nFROM b AS y\nCOPY --from=x / /\nCOPY --from=y / /";
        assert_eq!(shown(&read(text)), ["-a:latest", "+b:latest"]);
    }

    fn dockerfile_like() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("FROM "),
            Just("from "),
            Just("ARG "),
            Just("COPY "),
            Just("RUN "),
            Just("ONBUILD "),
            Just("--from="),
            Just("--mount=from="),
            Just("--platform="),
            Just(" AS x"),
            Just("x"),
            Just("alpine:3"),
            Just("${A:-"),
            Just("${x#"),
            Just("$A"),
            Just("}"),
            Just("\""),
            Just("'"),
            Just("\\"),
            Just("\\\n"),
            Just("\n"),
            Just("\r\n"),
            Just("# syntax="),
            Just("# escape=`\n"),
            Just("`\n"),
            Just("<<E"),
            Just("<< E"),
            Just("E\n"),
            Just(","),
            Just("="),
            Just("0"),
            Just("é"),
            Just("\u{feff}"),
            Just(" "),
            Just("\t"),
            Just("--"),
            Just("["),
            Just("@"),
        ];
        prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = read_with(&text, &[("A", "x")], None);
        }

        #[test]
        fn what_was_read_and_pinned_reads_the_same_again(text in dockerfile_like()) {
            if let Ok(file) = read_with(&text, &[("A", "x")], None) {
                let digests = file.images().iter().map(|used| (used.image.clone(), digest())).collect();
                let pinned = file.pin(&digests);
                let again = read_with(&pinned, &[("A", "x")], None).unwrap();
                let images = |file: &Dockerfile| -> Vec<_> {
                    file.images().iter().map(|used| (used.image.pinned(digest()), used.role, used.needed)).collect()
                };
                prop_assert_eq!(images(&file), images(&again));
            }
        }
    }
}

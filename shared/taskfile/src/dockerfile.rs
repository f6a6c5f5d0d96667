//! Which images a Dockerfile uses, and where it names them.
//!
//! In: the text, the build arguments, the target and the platforms. Out: every image with the place of its operand, as
//! BuildKit reads them, so that the bases can be resolved once, pinned in the text that is sent, and watched for
//! changes. The rest of the file is checked only by the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use gantry_domain::image::ImageReference;
use gantry_domain::platform::Platform;

mod arguments;
mod dialect;
mod error;
mod expand;
mod glob;
mod heredoc;
mod lines;
mod operands;
mod stages;

use dialect::Dialect;
pub use error::DockerfileError;
pub use expand::ExpandError;
use lines::Lines;
use operands::Named;
use stages::Stages;

/// The inputs that determine what a Dockerfile means.
#[derive(Debug, Clone, Copy)]
pub struct BuildInputs<'a> {
    /// Build arguments by name.
    pub build_args: &'a BTreeMap<String, String>,
    /// The stage to build; the last if `None`.
    pub target: Option<&'a str>,
    /// The platform to build for.
    pub platform: &'a Platform,
    /// The engine's own platform.
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
    /// The image's full name, with variables expanded.
    pub image: ImageReference,
    /// What it is used for.
    pub role: Role,
    /// Whether the target needs it. An engine does not resolve images of stages that the target does not need.
    pub needed: bool,
    /// The line where the instruction begins, from 1.
    pub line: usize,
    operand: Range<usize>,
}

/// What an image is used for in a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The base of the built image.
    Runtime,
    /// A command runs in it, or files are copied from it.
    BuildTime,
    /// The frontend that reads the Dockerfile: `# syntax=`.
    Frontend,
}

impl Dockerfile {
    /// Parses a Dockerfile.
    ///
    /// # Errors
    /// [`DockerfileError`], with the line if it has one.
    pub fn parse(text: &str, inputs: BuildInputs<'_>) -> Result<Self, DockerfileError> {
        // Some versions of the engine ignore a directive after a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let images = read(text, inputs, Dialect::REFERENCE)?;
        for dialect in Dialect::OTHERS {
            compare_frontends(text, dialect)?;
            if !may_be_read_differently(text) {
                continue;
            }
            match read_strictly(text, inputs, dialect) {
                Ok(others) => compare(&images, &others)?,
                Err(error) if error.is_bound() => return Err(error),
                // An engine of this version refuses the file, so it loads no image.
                Err(_) => {}
            }
        }
        let needed = images.iter().filter(|used| used.needed).map(|used| used.image.to_string());
        if needed.collect::<BTreeSet<_>>().len() > MOST_IMAGES {
            return Err(DockerfileError::TooManyImages { most: MOST_IMAGES });
        }
        Ok(Self { text: text.to_owned(), images })
    }

    /// The images that are named up to the target's stage, or that it needs; by stage, and in the order of the text
    /// within a stage.
    #[must_use]
    pub fn images(&self) -> &[ImageUse] {
        &self.images
    }

    /// The base of the built image; `None` for `scratch`.
    #[must_use]
    pub fn runtime_base(&self) -> Option<&ImageReference> {
        self.images.iter().find(|used| used.role == Role::Runtime).map(|used| &used.image)
    }

    /// The text with other images in place of these; nothing else changes.
    #[must_use]
    pub fn replace(&self, images: &BTreeMap<ImageReference, ImageReference>) -> String {
        let mut places: Vec<(Range<usize>, String)> = self
            .images
            .iter()
            .filter_map(|used| Some((used.operand.clone(), images.get(&used.image)?.to_string())))
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

/// Each image costs a request to its registry.
const MOST_IMAGES: usize = 256;

/// The images that engines of one version find.
fn read(
    text: &str,
    inputs: BuildInputs<'_>,
    dialect: Dialect,
) -> Result<Vec<ImageUse>, DockerfileError> {
    let lines = Lines::split(text, dialect)?;
    images(text, &lines, inputs, dialect)
}

/// All versions split a file the same way if it has no heredocs, no other escape character and no doubled carriage
/// returns.
fn may_be_read_differently(text: &str) -> bool {
    text.contains("<<") || text.contains('`') || text.contains("\r\r")
}

/// Like [`read`], but fails on an instruction that the engine would refuse.
fn read_strictly(
    text: &str,
    inputs: BuildInputs<'_>,
    dialect: Dialect,
) -> Result<Vec<ImageUse>, DockerfileError> {
    let lines = Lines::split(text, dialect)?;
    lines.check_keywords()?;
    images(text, &lines, inputs, dialect)
}

fn images(
    text: &str,
    lines: &Lines,
    inputs: BuildInputs<'_>,
    dialect: Dialect,
) -> Result<Vec<ImageUse>, DockerfileError> {
    let mut images = Vec::from_iter(frontend(text, dialect)?);
    Stages::read(lines, inputs)?.collect(inputs.target, &mut images)?;
    Ok(images)
}

fn frontend(text: &str, dialect: Dialect) -> Result<Option<ImageUse>, DockerfileError> {
    let Some((line, image)) = lines::syntax(text, dialect) else {
        return Ok(None);
    };
    let Some(named) = Named::image(line, image.piece()) else {
        return Ok(None);
    };
    named.used(Role::Frontend, true).map(Some)
}

/// All versions must find the same frontend, even if one of them refuses the rest of the file: the frontend is loaded
/// and run first.
fn compare_frontends(text: &str, dialect: Dialect) -> Result<(), DockerfileError> {
    let (ours, others) = (lines::syntax(text, Dialect::REFERENCE), lines::syntax(text, dialect));
    match (&ours, &others) {
        (ours, others) if ours == others => Ok(()),
        (Some((line, _)), _) | (None, Some((line, _))) => {
            Err(DockerfileError::Ambiguous { line: *line })
        }
        (None, None) => Ok(()),
    }
}

fn compare(images: &[ImageUse], others: &[ImageUse]) -> Result<(), DockerfileError> {
    if images == others {
        return Ok(());
    }
    let differs = images.iter().zip(others).find(|(one, other)| one != other);
    let more = images.get(others.len()).or(others.get(images.len()));
    let line = differs.map(|(one, other)| one.line.min(other.line)).or(more.map(|used| used.line));
    Err(DockerfileError::Ambiguous { line: line.unwrap_or(1) })
}

#[cfg(test)]
mod tests {
    use gantry_domain::image::Digest;
    use proptest::prelude::*;

    use super::*;

    fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
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
            let image = image.strip_prefix("docker.io/library/").unwrap_or(&image).to_owned();
            if used.needed { format!("{sign}{image}") } else { format!("{sign}({image})") }
        };
        file.images().iter().map(show).collect()
    }

    fn digest() -> Digest {
        format!("sha256:{}", "a".repeat(64)).parse().unwrap()
    }

    /// The text with a digest for each image, as a worker sends it.
    fn pinned(file: &Dockerfile) -> String {
        let images = file.images().iter().map(|used| used.image.clone());
        file.replace(&images.map(|image| (image.clone(), image.pinned(digest()))).collect())
    }

    #[test]
    fn images_are_found_wherever_the_engine_finds_them() {
        for (text, images) in [
            ("FROM alpine:3.19", &["+alpine:3.19"][..]),
            ("\u{feff}from\talpine\r\nRUN x\r\n", &["+alpine:latest"]),
            ("# FROM debian\nFROM alpine:1", &["+alpine:1"]),
            ("FROM --platform=$BUILDPLATFORM alpine:1", &["+alpine:1"]),
            ("FROM \\\n  # a comment\n\n  alpine:1 \\\n  AS x", &["+alpine:1"]),
            ("ARG T=3\nFROM alpine:${T}", &["+alpine:3"]),
            ("ARG B=alpine\nFROM ${B:-debian}", &["+alpine:latest"]),
            ("FROM ${B:-debian}", &["+debian:latest"]),
            ("ARG V=3\nARG T=$V.19\nFROM alpine:$T", &["+alpine:3.19"]),
            ("ARG A=1 T=\"3 \"\nFROM \"alpine:$A\"", &["+alpine:1"]),
            (
                "FROM base/$TARGETARCH:$TARGETVARIANT-$BUILDARCH",
                &["+docker.io/base/arm64:v8-amd64"],
            ),
            ("FROM golang AS b\nFROM scratch\nCOPY --from=b / /", &["-golang:latest"]),
            (
                "FROM alpine AS base\nFROM golang AS b\nFROM base",
                &["+alpine:latest", "-(golang:latest)"],
            ),
            ("FROM a AS A\nFROM a AS c\nFROM c", &["+a:latest"]),
            ("FROM a\nCOPY --from=busybox:1 /x /x", &["+a:latest", "-busybox:1"]),
            (
                "FROM a\nCOPY --chown=1 --from=\"busybox:1\" [\"/x\", \"/x\"]",
                &["+a:latest", "-busybox:1"],
            ),
            ("FROM g\nFROM a\nCOPY --from=0 /x /x", &["-g:latest", "+a:latest"]),
            ("FROM a\nRUN --mount=type=bind,from=tool:1,target=/t x", &["+a:latest", "-tool:1"]),
            (
                "FROM a\nRUN --mount=target=/t,\"from=tool:1\" --mount=type=secret,from=newer:1 x",
                &["+a:latest", "-tool:1", "-newer:1"],
            ),
            ("FROM a\nRUN --mount=type=cache,target=/t x --mount=from=no", &["+a:latest"]),
            ("FROM a\nRUN <<EOF\nFROM no\nCOPY --from=no . .\nEOF", &["+a:latest"]),
            (
                "# syntax=docker/dockerfile:1 x\nFROM a",
                &["#docker.io/docker/dockerfile:1", "+a:latest"],
            ),
            ("#Syntax = f:1\n# escape=`\nFROM `\n a", &["#f:1", "+a:latest"]),
            ("# escape=`\n# syntax=f:1\nFROM a", &["#f:1", "+a:latest"]),
            ("# a comment\n# syntax=f:1\nFROM a", &["+a:latest"]),
            ("FROM a\nRUN <<\"\"\nCOPY --from=b:1 / /\n", &["+a:latest", "-b:1"]),
            ("FROM a\nRUN echo $((1 << 2))\nCOPY --from=b:1 / /", &["+a:latest", "-b:1"]),
            (
                "FROM a\nRUN --network=none [\"x\", \"<<E\"]\nCOPY --from=b:1 / /",
                &["+a:latest", "-b:1"],
            ),
            ("FROM a AS b\nONBUILD COPY --from=t / /", &["+a:latest", "-(t:latest)"]),
            ("FROM a\nCOPY --from=scratch / /", &["+a:latest"]),
        ] {
            assert_eq!(shown(&read(text)), images, "{text:?}");
        }
    }

    #[test]
    fn what_versions_of_the_engine_read_differently_is_refused() {
        for (text, line) in [
            // An engine without heredocs reads the body as instructions. It refuses nothing here, because each
            // terminator is also a comment or an instruction.
            ("FROM a\nRUN true <<#x\nCOPY --from=evil / /\n#x\n", 3),
            ("FROM a\nRUN true <<\"USER 1\"\nCOPY --from=evil / /\nUSER 1\n", 3),
            ("FROM a\nRUN echo ${X#y} <<#x\nCOPY --from=evil / /\n#x\n", 3),
            ("FROM a\nRUN true << USER\nCOPY --from=evil / /\nUSER\n", 3),
            ("FROM a\nRUN [\"true\"] <<#x\nCOPY --from=evil / /\n#x\n", 3),
            ("# a=b\n# syntax=evil\nFROM a", 2),
            ("# check=skip=all\n# syntax=evil\nFROM a", 2),
            ("#!/usr/bin/env x\n# syntax=evil\nFROM a", 2),
            ("# a=b\n# syntax=evil\n# syntax=evil\nFROM a", 3),
        ] {
            match read_with(text, &[], None) {
                Err(DockerfileError::Ambiguous { line: told }) => {
                    assert_eq!(told, line, "{text:?}")
                }
                read => panic!("{text:?}: {read:?}"),
            }
        }
    }

    #[test]
    fn a_file_that_needs_more_images_than_can_be_asked_for_is_refused() {
        let lines: String = (0..257).map(|n| format!("COPY --from=tool{n} / /\n")).collect();
        assert_eq!(
            read_with(&format!("FROM scratch\n{lines}"), &[], None).unwrap_err().to_string(),
            "the Dockerfile needs more than 256 images: build it in several tasks"
        );
    }

    #[test]
    fn build_arguments_and_the_target_choose() {
        let text =
            "ARG T=1\nFROM golang:$T AS build\nFROM node AS Web\nFROM alpine\nCOPY --from=web / /";
        let chosen = |pairs: &[_], target| shown(&read_with(text, pairs, target).unwrap());
        assert_eq!(chosen(&[], None), ["-(golang:1)", "-node:latest", "+alpine:latest"]);
        assert_eq!(chosen(&[("T", "2")], Some("WEB")), ["-(golang:2)", "+node:latest"]);
        assert_eq!(chosen(&[("T", "2")], Some("build")), ["+golang:2"]);
        assert_eq!(
            read_with(text, &[], Some("x")).unwrap_err().to_string(),
            "the target `x` is not a stage of the Dockerfile: it has build, web"
        );
        assert_eq!(shown(&read_with("ARG T\nFROM a:$T", &[("T", "2")], None).unwrap()), ["+a:2"]);
    }

    #[test]
    fn a_dockerfile_made_to_cost_is_refused_or_read_quickly() {
        let refused = |text: &str| match read_with(text, &[], None) {
            Err(DockerfileError::Expand { line, source, .. }) => format!("line {line}: {source}"),
            Err(error) => error.to_string(),
            Ok(_) => panic!("{} bytes were read", text.len()),
        };
        // Each argument contains the previous one ten times: the twelfth would need a terabyte.
        let mut laughs = "ARG A0=ha\n".to_owned();
        for n in 1..13 {
            laughs += &format!("ARG A{n}={}\n", format!("$A{}", n - 1).repeat(10));
        }
        let error = refused(&format!("{laughs}FROM a:$A12"));
        assert_eq!(error, "line 5: it would be longer than 16 KiB");

        let mut many = format!("ARG V={}\n", "x".repeat(16_000));
        (0..50_000).for_each(|n| many += &format!("ARG A{n}=$V\n"));
        let error = refused(&format!("{many}FROM a"));
        assert_eq!(
            error,
            "line 66: the arguments before the first FROM are longer than 1 MiB: remove those that FROM does not use"
        );

        let patterns = format!("ARG V={}\nARG P={}b\n", "a".repeat(2000), "*a".repeat(500));
        let error = refused(&format!("{patterns}{}FROM a", "ARG X=${V##$P}\n".repeat(400)));
        assert!(error.contains("takes too long"), "{error}");

        let began = std::time::Instant::now();
        // Each heredoc would be searched for up to the end of the file.
        let error = refused(&format!("FROM a\n{}", "RUN <<a\n".repeat(100_000)));
        assert!(error.contains("the heredoc `a` is not closed"), "{error}");
        let spaced = format!("FROM a\n{}", "RUN x << a\n".repeat(10_000));
        assert_eq!(read(&spaced).images().len(), 1);
        let stages = "FROM a AS b\nFROM b\n".repeat(50_000);
        assert_eq!(read(&stages).images().len(), 50_000);
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
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
            ("# syntax = a/f:1  \nFROM scratch", "# syntax = docker.io/a/f:1@PIN  \nFROM scratch"),
            (
                "FROM a/b AS x\nFROM x AS y\nCOPY --from=x / /",
                "FROM docker.io/a/b:latest@PIN AS x\nFROM x AS y\nCOPY --from=x / /",
            ),
        ] {
            assert_eq!(self::pinned(&read(text)).replace(digest().as_str(), "PIN"), pinned);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_says_where_and_why() {
        for (text, message) in [
            ("", "the Dockerfile has no FROM"),
            ("ARG A", "the Dockerfile has no FROM"),
            ("RUN x", "line 1: RUN comes before the first FROM, where only ARG is allowed"),
            ("FROM", "line 1: FROM takes an image, or an image, `AS` and a name"),
            ("\n\nFROM a b", "line 3: FROM takes an image, or an image, `AS` and a name"),
            (
                "FROM a AS 1x",
                "line 1: `1x` is not a valid stage name: use a letter, then letters, digits or `-_.`",
            ),
            (
                "FROM $B",
                "line 1: the base `$B` is empty: give its build argument, or a default with ARG before the first FROM",
            ),
            ("FROM Alpine", "line 1: `Alpine` is neither an earlier stage nor a valid image name"),
            (
                "FROM a AS x\nARG T=1\nFROM d:$T",
                "line 3: `d:` is neither an earlier stage nor a valid image name",
            ),
            ("FROM a:${B", "line 1: cannot expand `a:${B`"),
            (
                "FROM a\nCOPY --from=$B / /",
                "line 2: variables are not expanded in `from=$B`: add `FROM $B AS name` and use that name",
            ),
            (
                "FROM a\nCOPY --from=1 / /",
                "line 2: there is no stage 1: stages are numbered from 0, and their number is 1",
            ),
            (
                "FROM a\nRUN --mount=\"TYPE=Tmpfs\",target=/t,from=b true",
                "line 2: a tmpfs mount is always empty, and Docker 20.10 crashes on its `from`: remove the `from`",
            ),
            (
                "FROM a AS b\nONBUILD COPY --from=t / /\nFROM b",
                "line 2: older engines do not load the image of an ONBUILD instruction, and copy nothing from it: add `FROM t AS name` before this stage and use that name",
            ),
            (
                "FROM a\nRUN <<E\n",
                "line 2: the heredoc `E` is not closed: add a line with nothing but `E`",
            ),
            ("# escape=x\nFROM a", "line 1: `x` cannot be the escape character: use \\ or `"),
            ("# escape=`\n# escape=`\nFROM a", "line 2: only one `escape` directive can be used"),
        ] {
            assert_eq!(read_with(text, &[], None).unwrap_err().to_string(), message, "{text:?}");
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
                let again = read_with(&pinned(&file), &[("A", "x")], None).unwrap();
                let images = |file: &Dockerfile| -> Vec<_> {
                    file.images().iter().map(|used| (used.image.pinned(digest()), used.role, used.needed)).collect()
                };
                prop_assert_eq!(images(&file), images(&again));
            }
        }
    }
}

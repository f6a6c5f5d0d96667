//! Dockerfiles that were once read wrongly, or could be.

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    let with = |text: &str, build_args: &[(&str, &str)], target: Option<&str>| Case {
        text: text.to_owned(),
        build_args: build_args
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        target: target.map(str::to_owned),
    };
    let texts = TEXTS.iter().map(|text| with(text, &[], None));
    let chosen = CHOSEN.iter().map(|(text, build_args, target)| with(text, build_args, *target));
    texts.chain(chosen).collect()
}

type Chosen = (&'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

/// With build arguments and a target.
const CHOSEN: &[Chosen] = &[
    ("ARG T=1\nFROM a:$T AS b\nFROM c AS Web\nFROM d\nCOPY --from=web / /", &[], Some("WEB")),
    (
        "ARG T=1\nFROM a:$T AS b\nFROM c AS Web\nFROM d\nCOPY --from=web / /",
        &[("T", "2")],
        Some("b"),
    ),
    ("FROM a AS x\nFROM b AS y", &[], Some("0")),
    ("FROM a AS x\nFROM b AS x", &[], Some("x")),
    ("FROM a AS x\nFROM b", &[], Some("")),
    ("ARG T\nFROM a:${T}", &[("T", "3.19")], None),
    ("FROM a:${T:-1}", &[("T", "2")], None),
    ("ARG T=1\nARG U=$T\nFROM a:$U", &[("T", "2")], None),
    ("ARG T=1 U=$T\nFROM a:$U", &[("T", "2")], None),
    ("FROM a-$TARGETARCH:$BUILDOS", &[("TARGETARCH", "x")], None),
    ("ARG TARGETARCH\nFROM a-$TARGETARCH", &[("TARGETARCH", "x")], None),
    ("ARG TARGETARCH=y\nFROM a-$TARGETARCH", &[], None),
];

const TEXTS: &[&str] = &[
    "FROM a\nCOPY --from=b:1 /f /f",
    "FROM a\nCOPY --from=b:1 /x /f",
    "FROM a\nRUN --mount=from=c:1,target=/u x",
    "FROM scratch as e\nFROM scratch\nCOPY --from=e /f /f",
    "FROM a:3.19",
    "FROM a:1@sha256:cdc5e8d4b5a7e7b2f6a5a5e6d5b5d1c4a3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8",
    "\u{feff}from\ta\r\nRUN x\r\n",
    "# FROM b\nFROM a:1",
    "FROM --platform=$BUILDPLATFORM a:1",
    "FROM \\\n  # a comment\n\n  a:1 \\\n  AS x",
    "ARG T=3\nFROM a:${T}",
    "ARG B=a\nFROM ${B:-b}",
    "FROM ${B:-b}",
    "ARG V=3\nARG T=$V.19\nFROM a:$T",
    "ARG A=1 T=\"3 \"\nFROM \"a:$A\"",
    "FROM 127.0.0.1/a/$TARGETARCH:x$TARGETVARIANT-$BUILDARCH",
    "FROM a AS b\nFROM scratch\nCOPY --from=b / /",
    "FROM a AS base\nFROM c AS b\nFROM base",
    "FROM a AS A\nFROM a AS c\nFROM c",
    "FROM a AS A\nFROM A",
    "FROM a\nCOPY --from=b:1 /x /x",
    "FROM a\nCOPY --chown=1 --from=\"b:1\" [\"/x\", \"/x\"]",
    "FROM a\nFROM b\nCOPY --from=0 /x /x",
    "FROM a AS x\nFROM b\nCOPY --from=X /x /x",
    "FROM a\nRUN --mount=type=bind,from=b:1,target=/t x",
    "FROM a\nRUN --mount=target=/t,\"from=b:1\" --mount=type=tmpfs,target=/u,from=c:1 x",
    "FROM a\nRUN --mount=type=cache,target=/t x --mount=from=no",
    "FROM a\nRUN <<EOF\nFROM no\nCOPY --from=no . .\nEOF",
    "# syntax=f:1 x\nFROM a",
    "#Syntax = f:1\n# escape=`\nFROM `\n a",
    "# escape=`\n# syntax=f:1\nFROM a",
    "# a comment\n# syntax=f:1\nFROM a",
    "# a=b\n# syntax=f:1\nFROM a",
    "# check=skip=all\n# syntax=f:1\nFROM a",
    "#!/usr/bin/env x\n# syntax=f:1\nFROM a",
    "FROM a\nRUN <<\"\"\nCOPY --from=b:1 / /\n",
    "FROM a\nRUN echo $((1 << 2))\nCOPY --from=b:1 / /",
    "FROM a\nRUN --network=none [\"x\", \"<<E\"]\nCOPY --from=b:1 / /",
    "FROM a\nRUN true <<#x\nCOPY --from=b / /\n#x\n",
    "FROM a\nRUN true <<\"USER 1\"\nCOPY --from=b / /\nUSER 1\n",
    "FROM a\nRUN echo ${X#y} <<#x\nCOPY --from=b / /\n#x\n",
    "FROM a\nRUN true << USER\nCOPY --from=b / /\nUSER\n",
    "FROM a\nRUN [\"true\"] <<#x\nCOPY --from=b / /\n#x\n",
    "FROM a AS b\nONBUILD COPY --from=t / /\nFROM b",
    "FROM a AS b\nONBUILD COPY --from=t / /",
    "FROM a\nCOPY --from=scratch / /",
    "FROM a AS x\nFROM b AS x\nFROM x",
    "FROM a AS b\nFROM c\nCOPY --from=b / /\nRUN --mount=from=b,target=/x true",
    "FROM scratch AS x\nFROM x\nCOPY --from=a / /",
    "FROM scratch AS a\nFROM a",
];

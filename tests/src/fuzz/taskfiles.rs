//! Dockerfiles and ignore files from strangers.

use std::collections::BTreeMap;

use gantry_domain::image::Digest;
use gantry_domain::platform::Platform;
use gantry_taskfile::dockerfile::{BuildInputs, Dockerfile};
use gantry_taskfile::ignore::Ignore;

use super::Target;

pub(super) const DOCKERFILE: Target = Target {
    name: "dockerfile",
    run: dockerfile,
    words: &[
        "FROM ",
        "ARG ",
        "COPY --from=",
        "RUN --mount=type=bind,from=",
        "# syntax=",
        "# escape=`\n",
        "\\\n",
        "<<EOF\n",
        "EOF\n",
        "${",
        ":-",
        ":+",
        "}",
        " AS ",
        "--platform=$BUILDPLATFORM ",
        "@sha256:",
        "ONBUILD ",
        "scratch",
        "\u{feff}",
        "\r\n",
    ],
};

pub(super) const IGNORE: Target = Target {
    name: "ignore",
    run: ignore,
    words: &["**", "!", "*", "?", "[", "]", "\\", "/", "[a-", "^", "#", "../", "\u{feff}", "\r\n"],
};

/// A pinned Dockerfile parses as before, with a digest for every image.
fn dockerfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let arguments = BTreeMap::from([("VERSION".to_owned(), "1".to_owned())]);
    let platform = Platform::default();
    let inputs = BuildInputs {
        build_args: &arguments,
        target: None,
        platform: &platform,
        build_platform: &platform,
    };
    let parsed = match Dockerfile::parse(text, inputs) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(error.to_string().len() < 8192, "{error}"),
    };
    let unmarked = text.strip_prefix('\u{feff}').unwrap_or(text);
    assert_eq!(parsed.replace(&BTreeMap::new()), unmarked, "nothing is replaced");
    let digest: Digest = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
    let images = parsed.images().iter().map(|used| used.image.clone());
    let pinned = images.map(|image| (image.clone(), image.pinned(digest.clone())));
    let pinned = parsed.replace(&pinned.collect());
    let again = Dockerfile::parse(&pinned, inputs)
        .unwrap_or_else(|error| panic!("it does not read again: {error}:\n{pinned}"));
    let used = |file: &Dockerfile| -> Vec<_> {
        file.images().iter().map(|used| (used.role, used.needed, used.line)).collect()
    };
    assert_eq!(used(&again), used(&parsed), "{pinned}");
    for used in again.images() {
        assert!(used.image.digest().is_some(), "{} in\n{pinned}", used.image);
    }
}

/// Rules are deterministic, and evaluating them terminates.
fn ignore(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(ignore) = Ignore::parse(text) else { return };
    for path in [
        "a",
        "a/b",
        "a/b/c.txt",
        "node_modules/x/y/z",
        ".git/config",
        "é/漢字",
        "a".repeat(200).as_str(),
    ] {
        let mut scope = ignore.root();
        for name in path.split('/') {
            let whole = scope.is_excluded_whole();
            scope = scope.enter(name);
            assert!(!whole || scope.is_excluded(), "{path} is seen below a folder that is not");
        }
        assert_eq!(scope.is_excluded(), ignore.excludes(path), "{path}");
    }
}

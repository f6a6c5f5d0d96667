//! Senders of JSON that gantry is told how to read: with the shapes that these systems send, and with hostile values.

use gantry_domain::hook::{Provider, Sender};

use super::assert_meanings_of;

/// A hook for JSON with these places of image, tag and digest.
fn image_sender(pointers: &[&str]) -> Sender {
    let mut mapping = serde_json::json!({"proof": {"scheme": "standard_webhooks"}});
    for (part, pointer) in ["image", "tag", "digest"].iter().zip(pointers) {
        mapping[part] = (*pointer).into();
    }
    Sender::new(Provider::Generic, Some(serde_json::from_value(mapping).unwrap())).unwrap()
}

/// A hook for JSON with these places of repository, ref, commit, and maybe the commit before.
fn sender(pointers: &[&str]) -> Sender {
    let mut mapping = serde_json::json!({"proof": {"scheme": "standard_webhooks"}});
    for (part, pointer) in ["repository", "ref", "commit", "before"].iter().zip(pointers) {
        mapping[part] = (*pointer).into();
    }
    Sender::new(Provider::Generic, Some(serde_json::from_value(mapping).unwrap())).unwrap()
}

#[test]
fn every_payload_means_what_was_expected() {
    let convention = sender(&["/data/repository/url", "/data/ref", "/data/commit"]);
    let gogs = sender(&["/repository/clone_url", "/ref", "/after", "/before"]);
    let gerrit =
        sender(&["/cloneUrl", "/refUpdate/refName", "/refUpdate/newRev", "/refUpdate/oldRev"]);
    let sourcehut =
        sender(&["/repository/url", "/refs/0/name", "/refs/0/new/id", "/refs/0/old/id"]);
    let codecommit = sender(&[
        "/detail/cloneUrlHttp",
        "/detail/referenceFullName",
        "/detail/commitId",
        "/detail/oldCommitId",
    ]);
    let slashes = sender(&["/octo~1web/~0url", "/octo~1web/ref", "/octo~1web/head"]);
    let image = image_sender(&["/image/name", "/image/tag", "/image/digest"]);
    let artifactory = image_sender(&["/data/image_name", "/data/tag"]);
    let digest = "sha256:8a9e9863dbb6e10edb5adfe917c00da84e1700fa76e7ed02476aa6e6fb8ee0d8";
    let (long, wide) = ("m".repeat(120), "w".repeat(99));
    let gogs_main = "branch main a1b2c3d..b2c3d4e of gogs.example/octo/web, files unknown";
    let no_url = "an `https://…` or `http://…` address";
    let no_ref = "a branch, tag or commit by git's rules for names: no space, `..`, `~^:?*[\\`, `@{`, no leading `-`";
    let rows = [
        (
            "standard-webhooks",
            &convention,
            "branch main none..b2c3d4e of git.example/octo/web, files unknown".to_owned(),
        ),
        ("gogs-branch", &gogs, gogs_main.to_owned()),
        (
            "gogs-new-branch",
            &gogs,
            "branch feature/x none..b2c3d4e of gogs.example/octo/web, files unknown".to_owned(),
        ),
        (
            "gogs-deleted-branch",
            &gogs,
            "branch old a1b2c3d..none of gogs.example/octo/web, files unknown".to_owned(),
        ),
        (
            "gogs-tag",
            &gogs,
            "tag v1.2 none..b2c3d4e of gogs.example/octo/web, files unknown".to_owned(),
        ),
        (
            "gerrit-ref-updated",
            &gerrit,
            "branch main a1b2c3d..b2c3d4e of review.example/octo/web, files unknown".to_owned(),
        ),
        ("gerrit-change", &gerrit, "nothing: it moved neither a branch nor a tag".to_owned()),
        (
            "gerrit-without-url",
            &gerrit,
            "unreadable: `/cloneUrl` points to nothing in this body".to_owned(),
        ),
        (
            "sourcehut-push",
            &sourcehut,
            "branch main a1b2c3d..b2c3d4e of git.example/~octo/web, files unknown".to_owned(),
        ),
        // `"new": null`: the commit is one below it.
        (
            "sourcehut-deleted-branch",
            &sourcehut,
            "branch main a1b2c3d..none of git.example/~octo/web, files unknown".to_owned(),
        ),
        (
            "codecommit-branch",
            &codecommit,
            "branch main a1b2c3d..b2c3d4e of git-codecommit.us-east-2.amazonaws.com/v1/repos/web, files unknown"
                .to_owned(),
        ),
        (
            "codecommit-deleted-branch",
            &codecommit,
            "unreadable: `/detail/commitId` points to nothing in this body".to_owned(),
        ),
        (
            "names-with-slashes",
            &slashes,
            "branch main none..b2c3d4e of git.example/octo/web, files unknown".to_owned(),
        ),
        // As most parsers do, the last one counts.
        ("name-twice", &gogs, gogs_main.to_owned()),
        (
            "before-missing",
            &gogs,
            "branch main none..b2c3d4e of gogs.example/octo/web, files unknown".to_owned(),
        ),
        (
            "before-a-number",
            &gogs,
            "unreadable: `/before` points to a number, not to a text".to_owned(),
        ),
        (
            "commit-null",
            &gogs,
            "branch old a1b2c3d..none of gogs.example/octo/web, files unknown".to_owned(),
        ),
        (
            "commit-a-number",
            &gogs,
            "unreadable: `/after` points to a number, not to a text".to_owned(),
        ),
        (
            "commit-shortened",
            &gogs,
            "unreadable: `/after`: `b2c3d4e5b2c3` is no commit id: 40 or 64 lower-case hexadecimal digits, not all zero"
                .to_owned(),
        ),
        (
            "ref-an-object",
            &gogs,
            "unreadable: `/ref` points to an object, not to a text".to_owned(),
        ),
        ("ref-of-a-note", &gogs, "nothing: it moved neither a branch nor a tag".to_owned()),
        (
            "ref-with-dots",
            &gogs,
            format!("unreadable: `/ref`: `../../main` is no git reference: {no_ref}"),
        ),
        (
            "ref-like-an-option",
            &gogs,
            format!("unreadable: `/ref`: `--upload-pack=id` is no git reference: {no_ref}"),
        ),
        (
            "ref-far-too-long",
            &gogs,
            format!("unreadable: `/ref`: `{long}` is no git reference: {no_ref}"),
        ),
        (
            "repository-in-a-list",
            &gogs,
            "unreadable: `/repository/clone_url` points to nothing in this body".to_owned(),
        ),
        (
            "repository-null",
            &gogs,
            "unreadable: `/repository/clone_url` points to null, not to a text".to_owned(),
        ),
        // User and password are dropped, and are in no event.
        ("url-with-user", &gogs, gogs_main.to_owned()),
        (
            "url-of-a-file",
            &gogs,
            format!("unreadable: `/repository/clone_url`: `file:///etc/passwd` is no git URL: {no_url}"),
        ),
        (
            "url-of-a-command",
            &gogs,
            format!("unreadable: `/repository/clone_url`: `ext::sh -c id` is no git URL: {no_url}"),
        ),
        ("url-of-ssh", &gogs, gogs_main.to_owned()),
        (
            "url-far-too-long",
            &gogs,
            format!(
                "unreadable: `/repository/clone_url`: `https://gogs.example/{wide}` is no git URL: no space or control character, at most 2048 characters"
            ),
        ),
        ("nested-100-deep", &gogs, gogs_main.to_owned()),
        (
            "nested-1000-deep",
            &gogs,
            "unreadable: recursion limit exceeded at line 1 column 912".to_owned(),
        ),
        (
            "image",
            &image,
            "image registry.example:5000/team/base:1.2 is sha256:8a9e986".to_owned(),
        ),
        (
            "image-name-with-tag",
            &image,
            "image registry.example:5000/team/base:1.2".to_owned(),
        ),
        (
            "image-name-with-digest",
            &image,
            "image registry.example:5000/team/base:1.2 is sha256:8a9e986".to_owned(),
        ),
        (
            "image-digest-only",
            &image,
            format!("image registry.example:5000/team/base@{digest} is sha256:8a9e986"),
        ),
        // As everywhere, a name without a tag means `latest`.
        (
            "image-name-alone",
            &image,
            "image registry.example:5000/team/base:latest".to_owned(),
        ),
        ("image-without-host", &image, "image home.example:5000/team/base:1.2".to_owned()),
        ("image-of-docker-hub", &image, "image docker.io/library/alpine:3.20".to_owned()),
        (
            "image-a-number",
            &image,
            "unreadable: `/image/name` points to a number, not to a text".to_owned(),
        ),
        (
            "image-tag-a-list",
            &image,
            "unreadable: `/image/tag` points to a list, not to a text".to_owned(),
        ),
        (
            "image-invalid-digest",
            &image,
            "unreadable: `/image/digest`: `md5:1` is no digest: `sha256:` and 64 lower-case hexadecimal digits"
                .to_owned(),
        ),
        (
            "image-a-url",
            &image,
            "unreadable: `/image/name`: `https:` is no registry host: `host` or `host:port`, without scheme and path; one word alone, like `registry`, needs its port"
                .to_owned(),
        ),
        (
            "image-missing",
            &image,
            "unreadable: `/image/name` points to nothing in this body".to_owned(),
        ),
        ("artifactory-pushed", &artifactory, "image home.example:5000/base:1.2".to_owned()),
        ("a-list", &gogs, "unreadable: `/repository/clone_url` points to nothing in this body".to_owned()),
        ("no-json", &gogs, "unreadable: expected value at line 1 column 1".to_owned()),
    ];
    let rows: Vec<_> =
        rows.iter().map(|(file, sender, meaning)| (*file, *sender, "", meaning.as_str())).collect();
    assert_meanings_of(Provider::Generic, &rows);
}

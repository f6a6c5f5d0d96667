//! Gitea and Forgejo. The payloads have the form that both send.

use gantry_domain::hook::Provider;

use super::assert_meanings;

#[test]
fn every_payload_means_what_was_expected() {
    const NOT_BUILT: &str = "nothing: it changed nothing that is built";
    const NEVER: &str = "nothing: nothing in it can matter";
    const PUSH_TELLS: &str = "nothing: the push of the same branch or tag is acted on";
    let expected = [
        (
            "push-branch",
            "push",
            "branch main a1b2c3d..b2c3d4e of forge.example/octo/web (default main) by mona, files unknown",
        ),
        (
            "push-new-branch",
            "push",
            "branch feature/x none..b2c3d4e of forge.example/octo/web (default main) by mona, files unknown",
        ),
        (
            "push-deleted-branch",
            "push",
            "branch old a1b2c3d..none of forge.example/octo/web (default main) by mona, files unknown",
        ),
        (
            "push-tag",
            "push",
            "tag v1.2 none..c3d4e5f of forge.example/octo/web (default main) by mona, files unknown",
        ),
        (
            "push-skip-mark",
            "push",
            "branch main a1b2c3d..b2c3d4e of forge.example/octo/web (default main) by mona, files unknown, asks to skip",
        ),
        (
            "push-sub-path",
            "push",
            "branch main a1b2c3d..b2c3d4e of forge.example:3000/git/octo/web (default main) by mona, files unknown",
        ),
        (
            "push-invalid-branch",
            "push",
            "unreadable: `a..b` is no git reference: a branch, tag or commit by git's rules for names: no space, `..`, `~^:?*[\\`, `@{`, no leading `-`",
        ),
        ("create-tag", "create", PUSH_TELLS),
        ("delete-branch", "delete", PUSH_TELLS),
        (
            "pr-opened",
            "pull_request",
            "opened 7 fix@b2c3d4e to main of forge.example/octo/web, by mona (stranger); at pull/7/head",
        ),
        (
            "pr-opened-from-fork",
            "pull_request",
            "opened 7 fix@b2c3d4e to main of forge.example/octo/web, by mona (stranger), fork; at pull/7/head",
        ),
        // A head whose repository is not known counts as one of a fork.
        (
            "pr-opened-from-deleted-fork",
            "pull_request",
            "opened 7 fix@b2c3d4e to main of forge.example/octo/web, by mona (stranger), fork; at pull/7/head",
        ),
        (
            "pr-opened-as-draft",
            "pull_request",
            "opened 7 fix@b2c3d4e to main of forge.example/octo/web, by mona (stranger), labels docs, draft; at pull/7/head",
        ),
        (
            "pr-synchronized",
            "pull_request",
            "synchronized 7 fix@d4e5f6a to main of forge.example/octo/web, by mona (stranger); at pull/7/head",
        ),
        (
            "pr-labeled",
            "pull_request",
            "labeled 7 fix@b2c3d4e to main of forge.example/octo/web, by mona (stranger), labels docs ci; at pull/7/head",
        ),
        (
            "pr-labels-cleared",
            "pull_request",
            "unlabeled 7 fix@b2c3d4e to main of forge.example/octo/web, by mona (stranger); at pull/7/head",
        ),
        (
            "pr-edited-base",
            "pull_request",
            "edited 7 fix@b2c3d4e to release/1 of forge.example/octo/web, by mona (stranger); at pull/7/head",
        ),
        (
            "pr-closed",
            "pull_request",
            "closed 7 fix@b2c3d4e to main of forge.example/octo/web, by mona (stranger), closed; at pull/7/head",
        ),
        (
            "pr-reopened",
            "pull_request",
            "reopened 7 fix@b2c3d4e to main of forge.example/octo/web, by mona (stranger); at pull/7/head",
        ),
        ("pr-assigned", "pull_request", NOT_BUILT),
        ("package-created", "package", "image forge.example/octo/web:latest"),
        (
            "package-created-by-digest",
            "package",
            "image forge.example/octo/web@sha256:8a9e9863dbb6e10edb5adfe917c00da84e1700fa76e7ed02476aa6e6fb8ee0d8 is sha256:8a9e986",
        ),
        ("package-created-nested-name", "package", "image forge.example/octo/web/frontend:1.2"),
        // Gitea serves its registry at the root of the host.
        ("package-created-sub-path", "package", "image forge.example:3000/octo/web:latest"),
        ("package-deleted", "package", NEVER),
        ("package-created-npm", "package", NEVER),
        ("package-created-helm", "package", NEVER),
        (
            "package-created-invalid-version",
            "package",
            "unreadable: `a b` is no tag: 1 to 128 letters, digits or `_.-`, not beginning with `.` or `-`",
        ),
        ("package-created-without-host", "package", "unreadable: relative URL without a base"),
        ("issue-comment", "issue_comment", "nothing: nothing starts on `issue_comment`"),
    ];
    assert_meanings(Provider::Gitea, &expected);
}

//! Bitbucket Cloud. The payloads have the documented form; those of pull requests shorten commits.

use gantry_domain::hook::Provider;

use super::assert_meanings;

#[test]
fn every_payload_means_what_was_expected() {
    let expected = [
        (
            "push-branch",
            "repo:push",
            "branch main a1b2c3d..b2c3d4e of bitbucket.org/octo/web by Mona Lisa, files unknown",
        ),
        (
            "push-three-changes",
            "repo:push",
            "branch main a1b2c3d..b2c3d4e of bitbucket.org/octo/web by Mona Lisa, files unknown
branch feature/x none..c3d4e5f of bitbucket.org/octo/web by Mona Lisa, files unknown
tag v1.2 d4e5f6a..none of bitbucket.org/octo/web by Mona Lisa, files unknown",
        ),
        (
            "push-new-tag",
            "repo:push",
            "tag v1.2 none..c3d4e5f of bitbucket.org/octo/web by Mona Lisa, files unknown",
        ),
        (
            "push-deleted-branch",
            "repo:push",
            "branch old a1b2c3d..none of bitbucket.org/octo/web by Mona Lisa, files unknown",
        ),
        (
            "push-forced",
            "repo:push",
            "branch main a1b2c3d..b2c3d4e of bitbucket.org/octo/web by Mona Lisa, files unknown",
        ),
        (
            "push-skip-mark",
            "repo:push",
            "branch main a1b2c3d..b2c3d4e of bitbucket.org/octo/web by Mona Lisa, files unknown, asks to skip",
        ),
        ("push-mercurial", "repo:push", "nothing: it moved neither a branch nor a tag"),
        ("push-of-nothing", "repo:push", "nothing: it moved neither a branch nor a tag"),
        (
            "push-one-invalid-branch",
            "repo:push",
            "branch main a1b2c3d..b2c3d4e of bitbucket.org/octo/web by Mona Lisa, files unknown",
        ),
        (
            "push-short-commit",
            "repo:push",
            "unreadable: reference 0: `a1b2c3d4a1b2` is no commit id: 40 or 64 lower-case hexadecimal digits, not all zero",
        ),
        (
            "pr-created",
            "pullrequest:created",
            "opened 7 b2c3d4e5b2c3 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}); at heads/fix",
        ),
        (
            "pr-created-with-whole-commit",
            "pullrequest:created",
            "opened 7 b2c3d4e5b2c3d4e5b2c3d4e5b2c3d4e5b2c3d4e5 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}); at heads/fix",
        ),
        (
            "pr-created-from-fork",
            "pullrequest:created",
            "opened 7 b2c3d4e5b2c3 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}); at ",
        ),
        (
            "pr-created-from-deleted-fork",
            "pullrequest:created",
            "opened 7 b2c3d4e5b2c3 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}); at ",
        ),
        (
            "pr-created-as-draft",
            "pullrequest:created",
            "opened 7 b2c3d4e5b2c3 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}); at heads/fix",
        ),
        (
            "pr-updated",
            "pullrequest:updated",
            "changed 7 d4e5f6a7d4e5 to release/1 of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}); at heads/fix",
        ),
        (
            "pr-updated-title",
            "pullrequest:updated",
            "changed 7 b2c3d4e5b2c3 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}); at heads/fix",
        ),
        (
            "pr-updated-to-draft",
            "pullrequest:updated",
            "changed 7 b2c3d4e5b2c3 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}); at heads/fix",
        ),
        (
            "pr-fulfilled",
            "pullrequest:fulfilled",
            "closed 7 b2c3d4e5b2c3 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}), closed; at heads/fix",
        ),
        (
            "pr-rejected",
            "pullrequest:rejected",
            "closed 7 b2c3d4e5b2c3 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}), closed; at heads/fix",
        ),
        (
            "pr-superseded",
            "pullrequest:rejected",
            "closed 7 b2c3d4e5b2c3 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}), closed; at heads/fix",
        ),
        (
            "pr-from-invalid-branch",
            "pullrequest:created",
            "opened 7 b2c3d4e5b2c3 to main of bitbucket.org/octo/web ({673a6070-3421-46c9-9d48-90745f7bfe8e}); at ",
        ),
        (
            "pr-to-invalid-branch",
            "pullrequest:created",
            "unreadable: `--upload-pack=id` is no git reference: a branch, tag or commit by git's rules for names: no space, `..`, `~^:?*[\\`, `@{`, no leading `-`",
        ),
        (
            "pr-of-a-file",
            "pullrequest:created",
            "unreadable: `file:///etc/passwd` is no git URL: an `https://…` or `http://…` address",
        ),
        (
            "pr-commit-is-a-revision",
            "pullrequest:created",
            "unreadable: `HEAD~1` is no shortened commit id: 7 to 64 lower-case hexadecimal digits",
        ),
        (
            "pr-commit-of-five-digits",
            "pullrequest:created",
            "unreadable: `b2c3d` is no shortened commit id: 7 to 64 lower-case hexadecimal digits",
        ),
        (
            "pr-without-source",
            "pullrequest:created",
            "unreadable: missing field `source` at line 78 column 2",
        ),
        (
            "pr-without-commit",
            "pullrequest:created",
            "unreadable: invalid type: null, expected struct Commit at line 80 column 17",
        ),
        (
            "pr-number-is-a-text",
            "pullrequest:created",
            "unreadable: invalid type: string \"7\", expected u64 at line 38 column 11",
        ),
        (
            "pr-approved",
            "pullrequest:approved",
            "nothing: nothing starts on `pullrequest:approved`",
        ),
        (
            "pr-unapproved",
            "pullrequest:unapproved",
            "nothing: nothing starts on `pullrequest:unapproved`",
        ),
        (
            "pr-comment-created",
            "pullrequest:comment_created",
            "nothing: nothing starts on `pullrequest:comment_created`",
        ),
        ("repo-fork", "repo:fork", "nothing: nothing starts on `repo:fork`"),
    ];
    assert_meanings(Provider::Bitbucket, &expected);
}

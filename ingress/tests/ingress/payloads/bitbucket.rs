//! Bitbucket Cloud. The payloads have the documented form; those of pull requests also with whole commits.

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
            "opened 7 fix@b2c3d4e to main of bitbucket.org/octo/web, by Mona Lisa (stranger); at heads/fix",
        ),
        (
            "pr-created-from-fork",
            "pullrequest:created",
            "opened 7 fix@b2c3d4e to main of bitbucket.org/octo/web, by Mona Lisa (stranger), fork; at ",
        ),
        (
            "pr-created-from-deleted-fork",
            "pullrequest:created",
            "opened 7 fix@b2c3d4e to main of bitbucket.org/octo/web, by Mona Lisa (stranger), fork; at ",
        ),
        (
            "pr-created-as-draft",
            "pullrequest:created",
            "opened 7 fix@b2c3d4e to main of bitbucket.org/octo/web, by Mona Lisa (stranger), draft; at heads/fix",
        ),
        (
            "pr-created-with-short-commit",
            "pullrequest:created",
            "nothing: Bitbucket shortens the commit of its head (`b2c3d4e5b2c3`), and only a whole one can be built",
        ),
        (
            "pr-updated",
            "pullrequest:updated",
            "changed 7 fix@d4e5f6a to release/1 of bitbucket.org/octo/web, by Mona Lisa (stranger); at heads/fix",
        ),
        (
            "pr-fulfilled",
            "pullrequest:fulfilled",
            "closed 7 fix@b2c3d4e to main of bitbucket.org/octo/web, by Mona Lisa (stranger), closed; at heads/fix",
        ),
        (
            "pr-rejected",
            "pullrequest:rejected",
            "closed 7 fix@b2c3d4e to main of bitbucket.org/octo/web, by Mona Lisa (stranger), closed; at heads/fix",
        ),
        (
            "pr-approved",
            "pullrequest:approved",
            "nothing: nothing starts on `pullrequest:approved`",
        ),
        ("repo-fork", "repo:fork", "nothing: nothing starts on `repo:fork`"),
    ];
    assert_meanings(Provider::Bitbucket, &expected);
}

//! GitLab. The payloads have the documented form.

use gantry_domain::hook::Provider;

use super::assert_meanings;

#[test]
fn every_payload_means_what_was_expected() {
    const NOT_BUILT: &str = "nothing: it changed nothing that is built";
    let expected = [
        ("push-branch", "branch main a1b2c3d..b2c3d4e of gitlab.example/octo/web (default main) by mona, files unknown"),
        ("push-new-branch", "branch feature/x none..b2c3d4e of gitlab.example/octo/web (default main) by mona, files unknown"),
        ("push-deleted-branch", "branch old a1b2c3d..none of gitlab.example/octo/web (default main) by mona, files unknown"),
        ("push-twenty-of-forty-commits", "branch main a1b2c3d..b2c3d4e of gitlab.example/octo/web (default main) by mona, files unknown"),
        ("push-skip-mark", "branch main a1b2c3d..b2c3d4e of gitlab.example/octo/web (default main) by mona, files unknown, asks to skip"),
        ("push-skip-mark-of-an-older-commit", "branch main a1b2c3d..b2c3d4e of gitlab.example/octo/web (default main) by mona, files unknown"),
        // The commit, not the tag object d4e5f6a.
        ("tag-new-annotated", "tag v1.2 none..c3d4e5f of gitlab.example/octo/web (default main) by mona, files unknown"),
        ("tag-deleted", "tag v1.2 d4e5f6a..none of gitlab.example/octo/web (default main) by mona, files unknown"),
        ("push-without-project", "unreadable: missing field `project` at line 45 column 1"),
        ("mr-opened", "opened 7 fix@b2c3d4e to main of gitlab.example/octo/web; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-opened-from-fork", "opened 7 fix@b2c3d4e to main of gitlab.example/octo/web, fork; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-opened-as-draft", "opened 7 fix@b2c3d4e to main of gitlab.example/octo/web, labels docs, draft; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-pushed", "synchronized 7 fix@b2c3d4e to main of gitlab.example/octo/web, was a1b2c3d; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-ready", "ready_for_review 7 fix@b2c3d4e to main of gitlab.example/octo/web; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-back-to-draft", NOT_BUILT),
        ("mr-labeled", "labeled 7 fix@b2c3d4e to main of gitlab.example/octo/web, labels docs ci; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-unlabeled", "unlabeled 7 fix@b2c3d4e to main of gitlab.example/octo/web, labels docs; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-retargeted", "edited 7 fix@b2c3d4e to release/1 of gitlab.example/octo/web; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-assigned", NOT_BUILT),
        ("mr-approved", NOT_BUILT),
        ("mr-merged", "closed 7 fix@b2c3d4e to main of gitlab.example/octo/web, closed; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-closed", "closed 7 fix@b2c3d4e to main of gitlab.example/octo/web, closed; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-reopened", "reopened 7 fix@b2c3d4e to main of gitlab.example/octo/web; at merge-requests/7/head merge-requests/7/merge"),
        ("mr-without-commits", "nothing: the merge request has no commits"),
        ("note", "nothing: nothing starts on `note`"),
        ("pipeline", "nothing: nothing starts on `pipeline`"),
    ]
    .map(|(file, meaning)| (file, "", meaning));
    assert_meanings(Provider::GitLab, &expected);
}

//! GitHub: 59 of the 329 payloads of `@octokit/webhooks-examples`. That each of them has a verdict is tested beside.

use gantry_domain::hook::Sender;
use serde_json::Value;

use super::told;

const TAG_DELETED: &str = "tag simple-tag 6113728..none of github.com/codertocat/hello-world (default master) by Codertocat, files unknown";
/// The push created the branch, so the files of its one commit are not all that changed.
const BRANCH_CREATED: &str = "branch master none..6113728 of github.com/codertocat/hello-world (default master) by Codertocat, files unknown";
const NOT_BUILT: &str = "nothing: it changed nothing that is built";
const NO_COMMAND: &str = "nothing: it is no command below a pull request";
const PUSH_TELLS: &str = "nothing: the push of the same branch or tag is acted on";
const TAG_TELLS: &str = "nothing: the push of its tag is acted on";
const LABELED: &str = "labeled 2 changes@ec26c3e to master of github.com/codertocat/hello-world, merge c4295bd, by Codertocat (owner), labels bug; at pull/2/head pull/2/merge";
const UNLABELED: &str = "unlabeled 2 changes@ec26c3e to master of github.com/codertocat/hello-world, merge c4295bd, by Codertocat (owner), labels bug; at pull/2/head pull/2/merge";
const CLOSED: &str = "closed 2 changes@ec26c3e to master of github.com/codertocat/hello-world, merge c4295bd, by Codertocat (owner), labels bug, closed; at pull/2/head pull/2/merge";
const OPENED: &str = "opened 2 changes@ec26c3e to master of github.com/codertocat/hello-world, by Codertocat (owner), labels bug; at pull/2/head pull/2/merge";
const READY: &str = "ready_for_review 2 changes@ec26c3e to master of github.com/codertocat/hello-world, by Codertocat (owner), labels bug; at pull/2/head pull/2/merge";
const REOPENED: &str = "reopened 2 changes@ec26c3e to master of github.com/codertocat/hello-world, by Codertocat (owner), labels bug; at pull/2/head pull/2/merge";

/// The meanings of the first payloads of each event.
const EXPECTED: &[(&str, &[&str])] = &[
    (
        "push",
        &[
            "tag simple-tag none..6113728 of github.com/codertocat/hello-world (default master) by Codertocat, files unknown",
            TAG_DELETED,
            TAG_DELETED,
            TAG_DELETED,
            BRANCH_CREATED,
            BRANCH_CREATED,
            TAG_DELETED,
        ],
    ),
    (
        "pull_request",
        &[
            "opened 2 changes@ec26c3e to master of github.com/codertocat/hello-world, by Codertocat (owner); at pull/2/head pull/2/merge",
            // Assigned, twice.
            NOT_BUILT,
            NOT_BUILT,
            CLOSED,
            CLOSED,
            // Converted to a draft, three times.
            NOT_BUILT,
            NOT_BUILT,
            NOT_BUILT,
            LABELED,
            LABELED,
            // Locked, twice.
            NOT_BUILT,
            NOT_BUILT,
            OPENED,
            OPENED,
            OPENED,
            READY,
            READY,
            READY,
            REOPENED,
            REOPENED,
            // A review request was removed, and made.
            NOT_BUILT,
            NOT_BUILT,
            "synchronized 2 changes@ec26c3e to master of github.com/codertocat/hello-world, was f95f852, by Codertocat (owner), labels bug; at pull/2/head pull/2/merge",
            // Unassigned, twice.
            NOT_BUILT,
            NOT_BUILT,
            UNLABELED,
            UNLABELED,
            // Unlocked, twice.
            NOT_BUILT,
            NOT_BUILT,
        ],
    ),
    // None is below a pull request.
    (
        "issue_comment",
        &[
            NO_COMMAND, NO_COMMAND, NO_COMMAND, NO_COMMAND, NO_COMMAND, NO_COMMAND, NO_COMMAND,
            NO_COMMAND, NO_COMMAND,
        ],
    ),
    ("ping", &["ping", "ping", "ping", "ping"]),
    ("create", &[PUSH_TELLS, PUSH_TELLS, PUSH_TELLS]),
    ("delete", &[PUSH_TELLS, PUSH_TELLS, PUSH_TELLS]),
    ("release", &[TAG_TELLS, TAG_TELLS]),
    ("issues", &["nothing: nothing starts on `issues`"]),
    ("workflow_run", &["nothing: nothing starts on `workflow_run`"]),
];

#[test]
fn fifty_nine_published_payloads_mean_what_was_expected() {
    let text =
        include_str!("../../../../tests/fixtures/octokit-webhooks-examples/api.github.com.json");
    let all: Vec<Value> = serde_json::from_str(text).unwrap();
    let (mut compared, mut wrong) = (0, Vec::new());
    for (event, meanings) in EXPECTED {
        let kind = all.iter().find(|kind| kind["name"] == *event).unwrap();
        for (place, meaning) in meanings.iter().enumerate() {
            let body = kind["examples"][place].to_string();
            let told = told(&Sender::GitHub, event, body.as_bytes());
            compared += 1;
            if told != *meaning {
                wrong.push(format!("{event} {place}\n  is:       {told}\n  expected: {meaning}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(compared, 59);
}

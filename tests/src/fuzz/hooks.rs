//! Bodies of webhooks with a valid signature.

use gantry_domain::event::EventKind;
use gantry_domain::hook::{Provider, Sender};

use super::Target;

pub(super) const GITHUB: Target = Target {
    name: "github",
    run: |body| read(&Sender::GitHub, "push", body),
    words: &[
        "payload=",
        "%7B",
        "refs/heads/",
        "refs/tags/",
        "\"ref\":",
        "\\ud800",
        "-",
        "..",
        "@{",
        "file://",
        "https://",
    ],
};

pub(super) const DISTRIBUTION: Target = Target {
    name: "distribution",
    run: |body| read(&Sender::Distribution, "push", body),
    words: &[
        "\"action\":\"push\"",
        "sha256:",
        "\\u0000",
        "application/vnd.oci.image.index.v1+json",
        "{\"events\":[",
    ],
};

/// All readers, each with all examples: a sender may send what is meant for another one.
pub(super) const WEBHOOK: Target = Target {
    name: "webhook",
    run: |body| {
        for sender in senders() {
            for kind in KINDS {
                read(&sender, kind, body);
            }
        }
    },
    words: &[
        "refs/heads/",
        "refs/tags/",
        "\"pullrequest\":",
        "\"object_kind\":\"merge_request\"",
        "\"eventType\":\"git.pullrequest.updated\"",
        "\"hash\":\"b2c3d4e5b2c3\"",
        "\"package_type\":\"CONTAINER\"",
        "\"updated_tags\":[",
        "\"type\":\"PUSH_ARTIFACT\"",
        "\"tag\":\"sha256:",
        "null",
        "[[[[",
        "\\ud800",
        "0000000000000000000000000000000000000000",
    ],
};

/// What providers call their deliveries in headers.
const KINDS: [&str; 6] =
    ["push", "pull_request", "issue_comment", "package", "repo:push", "pullrequest:updated"];

/// A sender of each provider, and one for each mapping.
fn senders() -> impl Iterator<Item = Sender> {
    Provider::ALL.iter().flat_map(|provider| match Sender::new(*provider, None) {
        Ok(sender) => vec![sender],
        Err(_) => MAPPINGS
            .map(|mapping| Sender::new(*provider, serde_json::from_str(mapping).ok()).unwrap())
            .to_vec(),
    })
}

const MAPPINGS: [&str; 2] = [
    r#"{"repository":"/repository/clone_url","ref":"/ref","commit":"/after","before":"/before",
    "proof":{"scheme":"standard_webhooks"}}"#,
    r#"{"image":"/image/name","tag":"/image/tag","digest":"/image/digest",
    "proof":{"scheme":"standard_webhooks"}}"#,
];

/// A body has no more events than fit one commit, and each is stored as it was read.
fn read(sender: &Sender, kind: &str, body: &[u8]) {
    let (verdict, events) = gantry_ingress::meaning(sender, None, kind, body);
    assert!(events.len() <= 128, "{}", events.len());
    assert!(serde_json::to_string(&verdict).unwrap().len() < 8192);
    for event in events {
        let stored = serde_json::to_vec(&event).unwrap();
        assert_eq!(serde_json::from_slice::<EventKind>(&stored).unwrap(), event);
    }
}

//! Bodies of webhooks with a valid signature.

use gantry_domain::event::EventKind;
use gantry_domain::hook::Provider;

use super::Target;

pub(super) const GITHUB: Target = Target {
    name: "github",
    run: |body| read(Provider::GitHub, body),
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
    run: |body| read(Provider::Distribution, body),
    words: &[
        "\"action\":\"push\"",
        "sha256:",
        "\\u0000",
        "application/vnd.oci.image.index.v1+json",
        "{\"events\":[",
    ],
};

/// A body has no more events than fit one commit, and each is stored as it was read.
fn read(provider: Provider, body: &[u8]) {
    let (verdict, events) = gantry_ingress::meaning(provider, "push", body);
    assert!(events.len() <= 128, "{}", events.len());
    assert!(serde_json::to_string(&verdict).unwrap().len() < 8192);
    for event in events {
        let stored = serde_json::to_vec(&event).unwrap();
        assert_eq!(serde_json::from_slice::<EventKind>(&stored).unwrap(), event);
    }
}

//! Tests that hold for every provider.

use std::time::{Duration, Instant};

use super::reading::MOST_EVENTS;
use super::*;

mod new_provider;

/// Mappings of Standard Webhooks and of a signature in a header, and one for images.
const MAPPINGS: [&str; 3] = [
    r#"{"repository":"/repository/clone_url","ref":"/ref","commit":"/after","before":"/before",
        "proof":{"scheme":"standard_webhooks"}}"#,
    r#"{"repository":"/repository/clone_url","ref":"/ref","commit":"/after","before":"/before",
        "proof":{"scheme":"header","name":"X-Signature","prefix":"sha256="}}"#,
    r#"{"image":"/repository/repo_name","tag":"/push_data/tag","digest":"/digest",
        "proof":{"scheme":"standard_webhooks"}}"#,
];

/// Every sender: every provider of the table, those without a format of their own with each of the mappings.
pub(in crate::hooks) fn senders() -> Vec<Sender> {
    let of = |provider: &Provider| match Sender::new(*provider, None) {
        Ok(sender) => vec![sender],
        Err(_) => MAPPINGS
            .map(|mapping| serde_json::from_str(mapping).unwrap())
            .map(|mapping| Sender::new(*provider, Some(mapping)).unwrap())
            .to_vec(),
    };
    Provider::ALL.iter().flat_map(of).collect()
}

/// Every way in which one of the senders proves that it knows a secret.
pub(in crate::hooks) fn schemes(senders: &[Sender]) -> Vec<Scheme<'_>> {
    let mut schemes = Vec::new();
    for sender in senders {
        for scheme in descriptor(sender.provider()).proofs_of(sender.mapping()) {
            if scheme != Scheme::Address && !schemes.contains(&scheme) {
                schemes.push(scheme);
            }
        }
    }
    schemes
}

#[test]
fn every_provider_has_its_descriptor() {
    for provider in Provider::ALL {
        assert_eq!(descriptor(*provider).name, *provider);
    }
}

#[tokio::test]
async fn the_runtime_is_free_while_a_long_body_is_read() {
    let body = Bytes::from(vec![b' '; READ_AT_ONCE + 1]);
    let hook = "h1".parse().unwrap();
    let envelope =
        Envelope { hook, mapping: None, home: None, kind: None, id: None, content_type: None };
    let mut turns = 0;
    let others = async {
        loop {
            turns += 1;
            tokio::task::yield_now().await;
        }
    };
    // A read on this runtime's only thread would finish before the other branch is polled once.
    tokio::select! {
        biased;
        read = read(&distribution::DESCRIPTOR, envelope, &body) => assert!(read.is_ok()),
        () = others => {}
    }
    assert!(turns > 0);
}

#[test]
fn bodies_made_to_cost_are_read_in_linear_time() {
    let most = 4 << 20;
    let fill = |before: &str, piece: &str, after: &str| {
        format!("{before}{}{after}", piece.repeat(most / piece.len()))
    };
    let began = Instant::now();
    for body in [
        fill("", "[", ""),
        fill("", r#"{"a":"#, ""),
        fill("{", r#""a":0,"#, r#""ref":1}"#),
        fill(r#"{"commits":["#, "{},", "0]}"),
        fill(r#"{"events":["#, "{},", "0]}"),
        fill(r#"{"ref":""#, r"\ud800", r#""}"#),
        fill(r#"{"ref":"refs/heads/"#, "a/", r#""}"#),
        fill("payload=", "%7B", ""),
        fill(r#"{"a":"#, "9", "}"),
    ] {
        for sender in senders() {
            let (verdict, events) = meaning(&sender, None, "push", body.as_bytes());
            let verdict = serde_json::to_string(&verdict).unwrap();
            assert!(events.len() <= MOST_EVENTS && verdict.len() < 8192, "{verdict}");
        }
    }
    // A quadratic parser would take hours.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

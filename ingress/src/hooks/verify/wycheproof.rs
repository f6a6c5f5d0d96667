//! Wycheproof's test vectors for HMAC-SHA256, through the code that verifies deliveries.

use actix_web::http::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::tests::NOW;
use super::*;
use crate::hooks::provider::tests::{schemes, senders};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    number_of_tests: usize,
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    /// In bits.
    tag_size: usize,
    tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    tc_id: u32,
    key: String,
    msg: String,
    tag: String,
    result: String,
}

/// The verdict on a tag of a message, from a sender with this scheme. `None` if it sends no tags.
fn verify(
    scheme: Scheme<'_>,
    key: &HookKey,
    message: &[u8],
    tag: &[u8],
) -> Option<Result<(), RejectedDelivery>> {
    let proofs = match scheme {
        Scheme::Signature { prefix, .. } => vec![format!("{prefix}{}", hex::encode(tag))],
        Scheme::AnySignature { prefix, .. } => vec![
            format!("{prefix}{}", hex::encode(tag)),
            format!("{prefix}{}", BASE64_STANDARD.encode(tag)),
        ],
        Scheme::StandardWebhooks => vec![format!("v1,{}", BASE64_STANDARD.encode(tag))],
        Scheme::Secret { .. } | Scheme::Password | Scheme::Address => return None,
    };
    let verdicts: Vec<_> = proofs.iter().map(|proof| judge(scheme, key, message, proof)).collect();
    assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{scheme:?}: {verdicts:?}");
    Some(verdicts[0])
}

fn judge(
    scheme: Scheme<'_>,
    key: &HookKey,
    message: &[u8],
    proof: &str,
) -> Result<(), RejectedDelivery> {
    let mut headers = HeaderMap::new();
    let (id, sent) = (HeaderValue::from_static("d-1"), HeaderValue::from_static("0"));
    headers.insert(HeaderName::from_static(ID), id);
    headers.insert(HeaderName::from_static(TIMESTAMP), sent);
    let name = HeaderName::try_from(scheme.header().unwrap()).unwrap();
    headers.insert(name, HeaderValue::try_from(proof).unwrap());
    let mut proof = Proof::new(&[scheme], &headers, std::slice::from_ref(key), NOW);
    if let (Scheme::StandardWebhooks, Check::Signature { macs, .. }) = (scheme, &mut proof.0) {
        // The vectors' messages do not begin with an id and a time.
        *macs = vec![key.standard.clone()];
    }
    for piece in message.chunks(7) {
        proof.update(piece);
    }
    proof.finish()
}

#[test]
fn all_174_vectors_are_judged_as_they_should_be_by_every_scheme_that_signs() {
    let senders = senders();
    let schemes = schemes(&senders);
    let signing = schemes.iter().filter(|scheme| scheme.signs_body());
    for scheme in signing.clone() {
        assert_eq!(judged(*scheme), Some((33, 54, 87)), "{scheme:?}");
    }
    assert!(signing.count() >= 4, "{schemes:?}");
    for scheme in schemes.iter().filter(|scheme| !scheme.signs_body()) {
        assert_eq!(judged(*scheme), None, "{scheme:?}");
    }
}

/// How many vectors were right, forged and truncated, all of which were judged so.
fn judged(scheme: Scheme<'_>) -> Option<(usize, usize, usize)> {
    let text = include_str!("../../../../tests/fixtures/wycheproof/hmac_sha256_test.json");
    let vectors: Vectors = serde_json::from_str(text).unwrap();
    let (mut right, mut forged, mut truncated, mut secrets) = (0, 0, 0, 0);
    for group in &vectors.test_groups {
        for case in &group.tests {
            let secret = hex::decode(&case.key).unwrap();
            let message = hex::decode(&case.msg).unwrap();
            let tag = hex::decode(&case.tag).unwrap();
            // A hook's secret must be text. Most of these keys are not, so they skip that check.
            let key = match str::from_utf8(&secret) {
                Ok(secret) => {
                    secrets += 1;
                    HookKey::new(&SecretString::from(secret))
                }
                Err(_) => HookKey::of_bytes(&secret),
            };
            let key = key.unwrap();
            let verdict = verify(scheme, &key, &message, &tag)?;
            let is_valid = case.result == "valid";
            match group.tag_size {
                256 if is_valid => {
                    assert_eq!(verdict, Ok(()), "{scheme:?}, case {}", case.tc_id);
                    right += 1;
                }
                256 => {
                    let refused = Err(RejectedDelivery::Mismatch);
                    assert_eq!(verdict, refused, "{scheme:?}, case {}", case.tc_id);
                    forged += 1;
                }
                // A truncated tag is refused even if it is a correct prefix: it would be easier to forge.
                _ => {
                    let refused = Err(RejectedDelivery::Malformed);
                    assert_eq!(verdict, refused, "{scheme:?}, case {}", case.tc_id);
                    let is_its_half = key.signature(&message).starts_with(&case.tag);
                    assert_eq!(is_its_half, is_valid, "case {}", case.tc_id);
                    truncated += 1;
                }
            }
        }
    }
    assert_eq!(right + forged + truncated, vectors.number_of_tests);
    assert_eq!(secrets, 108);
    Some((right, forged, truncated))
}

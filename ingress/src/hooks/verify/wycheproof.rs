//! Wycheproof's test vectors for HMAC-SHA256, through the code that verifies deliveries.

use actix_web::http::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::tests::{NOW, SIGNED};
use super::*;

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

fn verify(key: &HookKey, message: &[u8], tag: &str) -> Result<(), RejectedDelivery> {
    let mut headers = HeaderMap::new();
    let proof = HeaderValue::try_from(format!("sha256={tag}")).unwrap();
    headers.insert(HeaderName::from_static("x-hub-signature-256"), proof);
    let mut proof = Proof::new(&[SIGNED], &headers, std::slice::from_ref(key), NOW);
    for piece in message.chunks(7) {
        proof.update(piece);
    }
    proof.finish()
}

#[test]
fn all_174_vectors_are_judged_as_they_should_be() {
    let text = include_str!("../../../../tests/fixtures/wycheproof/hmac_sha256_test.json");
    let vectors: Vectors = serde_json::from_str(text).unwrap();
    let (mut right, mut forged, mut truncated, mut secrets) = (0, 0, 0, 0);
    for group in &vectors.test_groups {
        for case in &group.tests {
            let secret = hex::decode(&case.key).unwrap();
            let message = hex::decode(&case.msg).unwrap();
            // A hook's secret must be text. Most of these keys are not, so they skip that check.
            let key = match str::from_utf8(&secret) {
                Ok(secret) => {
                    secrets += 1;
                    HookKey::new(&SecretString::from(secret))
                }
                Err(_) => HookKey::of_bytes(&secret),
            };
            let key = key.unwrap();
            let verdict = verify(&key, &message, &case.tag);
            let is_valid = case.result == "valid";
            match group.tag_size {
                256 if is_valid => {
                    assert_eq!(verdict, Ok(()), "case {}", case.tc_id);
                    right += 1;
                }
                256 => {
                    assert_eq!(verdict, Err(RejectedDelivery::Mismatch), "case {}", case.tc_id);
                    forged += 1;
                }
                // A truncated tag is refused even if it is a correct prefix: it would be easier to forge.
                _ => {
                    assert_eq!(verdict, Err(RejectedDelivery::Malformed), "case {}", case.tc_id);
                    let is_its_half = key.signature(&message).starts_with(&case.tag);
                    assert_eq!(is_its_half, is_valid, "case {}", case.tc_id);
                    truncated += 1;
                }
            }
        }
    }
    assert_eq!(right + forged + truncated, vectors.number_of_tests);
    assert_eq!((right, forged, truncated, secrets), (33, 54, 87, 108));
}

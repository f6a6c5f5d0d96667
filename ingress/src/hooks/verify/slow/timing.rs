//! The time of a refusal reveals nothing about the secret.

use std::hint::black_box;
use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue};

use crate::hooks::provider::tests::{schemes, senders};
use crate::hooks::verify::tests::{NOW, SIGNED, prove};
use crate::hooks::verify::*;

#[path = "../../../../tests/ingress/slow/welch.rs"]
mod welch;

use welch::{TOLD_APART, can_be_told, timed, told};

const SAMPLES: usize = 8_000;

const BODY: &[u8] = br#"{"zen":"Keep it logically awesome."}"#;

/// As long as a tag.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn key(secret: &str) -> HookKey {
    HookKey::new(&SecretString::from(secret)).unwrap()
}

fn headers(proof: String) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let name = HeaderName::from_static("x-hub-signature-256");
    headers.insert(name, HeaderValue::try_from(proof).unwrap());
    headers
}

/// The right signature, changed from byte `place` on.
fn wrong_from(key: &HookKey, place: usize) -> String {
    let mut tag = hex::decode(key.signature(BODY)).unwrap();
    tag[place..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    format!("sha256={}", hex::encode(tag))
}

/// The time to check a proof against the keys. Parsing the header is not included: it depends only on what the sender
/// sent, and takes longer for some digits than for others.
fn refuse(headers: &HeaderMap, keys: &[HookKey]) -> Duration {
    let mut proof = Proof::new(&[SIGNED], headers, keys, NOW);
    timed(|| {
        proof.update(black_box(BODY));
        assert!(black_box(proof.finish()).is_err());
    })
}

/// A right proof of `SECRET`, changed from byte `place` of the tag or of the secret on.
fn forged(scheme: Scheme<'_>, place: usize) -> String {
    let wrong = |tag: Vec<u8>| {
        let wrong = |(at, byte): (usize, &u8)| if at < place { *byte } else { byte ^ 0x5a };
        tag.iter().enumerate().map(wrong).collect::<Vec<u8>>()
    };
    let (_, right) = prove(scheme, SECRET);
    match scheme {
        Scheme::Signature { prefix, .. } | Scheme::AnySignature { prefix, .. } => {
            let tag = hex::decode(&right[prefix.len()..]).unwrap();
            format!("{prefix}{}", hex::encode(wrong(tag)))
        }
        Scheme::StandardWebhooks => {
            let tag = BASE64_STANDARD.decode(&right["v1,".len()..]).unwrap();
            format!("v1,{}", BASE64_STANDARD.encode(wrong(tag)))
        }
        Scheme::Secret { .. } | Scheme::Password => {
            let secret = format!("{}{}", &SECRET[..place], "x".repeat(SECRET.len() - place));
            prove(scheme, &secret).1
        }
        Scheme::Address => unreachable!("it has no proof"),
    }
}

/// The time to refuse a forged proof.
fn refuse_forged(scheme: Scheme<'_>, proof: &str, keys: &[HookKey]) -> Duration {
    // A copy, so that both are at the same address.
    let shown = proof.to_owned();
    match scheme {
        Scheme::Signature { .. } | Scheme::AnySignature { .. } | Scheme::StandardWebhooks => {
            let mut headers = HeaderMap::new();
            let (id, sent) = (HeaderValue::from_static("d-1"), HeaderValue::from_static("0"));
            headers.insert(HeaderName::from_static(ID), id);
            headers.insert(HeaderName::from_static(TIMESTAMP), sent);
            let name = HeaderName::try_from(scheme.header().unwrap()).unwrap();
            headers.insert(name, HeaderValue::try_from(shown).unwrap());
            let mut proof = Proof::new(&[scheme], &headers, keys, NOW);
            timed(|| {
                proof.update(black_box(BODY));
                assert!(black_box(proof.finish()).is_err());
            })
        }
        Scheme::Secret { prefix, .. } => timed(|| {
            assert!(compare_secret(prefix, black_box(shown.as_bytes()), keys).is_err());
        }),
        Scheme::Password => {
            timed(|| assert!(compare_password(black_box(shown.as_bytes()), keys).is_err()))
        }
        Scheme::Address => unreachable!("it has no proof"),
    }
}

#[test]
fn timing_does_not_reveal_how_much_of_a_proof_is_right_in_any_scheme_of_any_sender() {
    let (senders, keys) = (senders(), [key(SECRET)]);
    for scheme in schemes(&senders) {
        let first = forged(scheme, 0);
        for place in [1, 16, 31] {
            let later = forged(scheme, place);
            let t = told(
                SAMPLES,
                || refuse_forged(scheme, &first, &keys),
                || refuse_forged(scheme, &later, &keys),
            );
            assert!(t < TOLD_APART, "{scheme:?}: wrong from byte 0 or {place}: |t| = {t:.1}");
        }
    }
}

#[test]
fn timing_does_not_reveal_for_which_of_two_secrets_a_signature_is_nearly_right() {
    let both = [key("newer"), key("older")];
    let (newer, older) = (headers(wrong_from(&both[0], 31)), headers(wrong_from(&both[1], 31)));
    let t = told(SAMPLES, || refuse(&newer, &both), || refuse(&older, &both));
    assert!(t < TOLD_APART, "nearly right for one secret or for the other: |t| = {t:.1}");
}

#[test]
fn timing_does_not_reveal_whether_a_hook_exists() {
    let known = [key("It's a Secret to Everybody")];
    let nobody = crate::hooks::HookDirectory::new().unwrap();
    let proof = headers(wrong_from(&known[0], 0));
    let t = told(SAMPLES, || refuse(&proof, &known), || refuse(&proof, nobody.nobody()));
    assert!(t < TOLD_APART, "a known hook or an unknown one: |t| = {t:.1}");
}

#[test]
fn a_comparison_that_stops_at_the_first_wrong_byte_would_be_found() {
    let key = key("It's a Secret to Everybody");
    let compare = |tag: &[u8; 32]| {
        let mut mac = key.mac.clone();
        mac.update(BODY);
        let right = mac.finalize().into_bytes();
        right.iter().zip(black_box(tag)).all(|(right, shown)| right == shown)
    };
    let decode = |place| read_signature("sha256=", wrong_from(&key, place).as_bytes()).unwrap();
    let (first, last) = (decode(0), decode(31));
    let found = can_be_told(
        SAMPLES,
        || timed(|| assert!(!compare(&first))),
        || timed(|| assert!(!compare(&last))),
    );
    assert!(found, "it was not found");
}

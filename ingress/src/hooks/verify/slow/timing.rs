//! The time of a refusal reveals nothing about the secret.

use std::hint::black_box;
use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue};

use crate::hooks::verify::tests::{NOW, SIGNED, prove};
use crate::hooks::verify::*;

#[path = "../../../../tests/ingress/slow/welch.rs"]
mod welch;

use welch::{TOLD_APART, can_be_told, timed, told};

const SAMPLES: usize = 8_000;

const BODY: &[u8] = br#"{"zen":"Keep it logically awesome."}"#;

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

#[test]
fn timing_does_not_reveal_how_much_of_a_signature_is_right() {
    let keys = [key("It's a Secret to Everybody")];
    let first = headers(wrong_from(&keys[0], 0));
    for place in [1, 8, 16, 24, 31] {
        let later = headers(wrong_from(&keys[0], place));
        let t = told(SAMPLES, || refuse(&first, &keys), || refuse(&later, &keys));
        assert!(t < TOLD_APART, "wrong from byte 0 or from byte {place}: |t| = {t:.1}");
    }
    let both = [key("newer"), key("older")];
    let (newer, older) = (headers(wrong_from(&both[0], 31)), headers(wrong_from(&both[1], 31)));
    let t = told(SAMPLES, || refuse(&newer, &both), || refuse(&older, &both));
    assert!(t < TOLD_APART, "nearly right for one secret or for the other: |t| = {t:.1}");
}

#[test]
fn timing_does_not_reveal_a_registrys_secret() {
    let keys = [key("0123456789abcdef0123456789abcdef")];
    let first = *b"Bearer x123456789abcdef0123456789abcdef";
    let last = *b"Bearer 0123456789abcdef0123456789abcdex";
    let refuse = |shown: &[u8; 39]| {
        // A copy, so that both are at the same address.
        let shown = *shown;
        timed(|| assert!(compare_secret("Bearer ", black_box(&shown), &keys).is_err()))
    };
    let t = told(SAMPLES, || refuse(&first), || refuse(&last));
    assert!(t < TOLD_APART, "wrong at the first or at the last byte: |t| = {t:.1}");
}

#[test]
fn timing_does_not_reveal_a_password() {
    let keys = [key("0123456789abcdef0123456789abcdef")];
    let proof = |secret: &str| prove(Scheme::Password, secret).1;
    let first = proof("x123456789abcdef0123456789abcdef");
    let last = proof("0123456789abcdef0123456789abcdex");
    let refuse = |shown: &str| {
        // A copy, so that both are at the same address.
        let shown = shown.to_owned();
        timed(|| assert!(compare_password(black_box(shown.as_bytes()), &keys).is_err()))
    };
    let t = told(SAMPLES, || refuse(&first), || refuse(&last));
    assert!(t < TOLD_APART, "wrong at the first or at the last byte: |t| = {t:.1}");
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

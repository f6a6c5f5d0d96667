//! What the time of a refusal tells: nothing, by Welch's t-test over samples that take turns at random.
//!
//! As in dudect, two kinds of input are timed in random order, the slow tail is cut off both at one limit, and |t| < 4.5 means
//! that they cannot be told apart. A difference makes t grow with the samples, so noise is answered by more of them. The same
//! test finds a comparison that stops at the first wrong byte, or it would prove nothing.

use std::hint::black_box;
use std::time::Instant;

use actix_web::http::header::{HeaderName, HeaderValue};

use super::*;

/// Beyond this two kinds of input are told apart.
const TOLD_APART: f64 = 4.5;

/// Samples of both kinds in the first round; each further round doubles them.
const SAMPLES: usize = 8_000;

const ROUNDS: u32 = 5;

/// The part of the samples that is kept: the rest was interrupted.
const KEPT: f64 = 0.9;

const BODY: &[u8] = br#"{"zen":"Keep it logically awesome."}"#;

/// |t| of one round.
fn round(samples: usize, kinds: &mut [&mut dyn FnMut(); 2]) -> f64 {
    let mut taken: Vec<(usize, f64)> = (0..samples)
        .map(|_| {
            let kind = usize::from(coin());
            let began = Instant::now();
            kinds[kind]();
            (kind, began.elapsed().as_nanos() as f64)
        })
        .collect();
    taken.sort_by(|a, b| a.1.total_cmp(&b.1));
    taken.truncate((taken.len() as f64 * KEPT) as usize);
    let of = |kind| taken.iter().filter(move |sample| sample.0 == kind).map(|sample| sample.1);
    welch(of(0), of(1)).abs()
}

/// A random bit, so that nothing periodic falls on one kind alone.
fn coin() -> bool {
    use std::hash::{BuildHasher as _, RandomState};
    thread_local!(static SEED: RandomState = RandomState::new());
    thread_local!(static DRAWN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
    DRAWN.with(|drawn| {
        drawn.set(drawn.get() + 1);
        SEED.with(|seed| seed.hash_one(drawn.get()) & 1 == 1)
    })
}

fn welch(a: impl Iterator<Item = f64> + Clone, b: impl Iterator<Item = f64> + Clone) -> f64 {
    let ((mean_a, share_a), (mean_b, share_b)) = (moments(a), moments(b));
    (mean_a - mean_b) / (share_a + share_b).sqrt()
}

/// The mean, and the variance of the mean.
fn moments(samples: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = samples.clone().count() as f64;
    let mean = samples.clone().sum::<f64>() / count;
    let variance = samples.map(|sample| (sample - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, variance / count)
}

/// |t| of the first round in which the two could not be told apart, or of the last.
fn told(mut a: impl FnMut(), mut b: impl FnMut()) -> f64 {
    let mut t = f64::INFINITY;
    for doubling in 0..ROUNDS {
        t = round(SAMPLES << doubling, &mut [&mut a, &mut b]);
        if t < TOLD_APART {
            break;
        }
    }
    t
}

fn key(secret: &str) -> HookKey {
    HookKey::new(&SecretString::from(secret)).unwrap()
}

fn headers(proof: String) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let name = HeaderName::from_static("x-hub-signature-256");
    headers.insert(name, HeaderValue::try_from(proof).unwrap());
    headers
}

/// The right signature but for its byte at `place`, and all after it.
fn wrong_from(key: &HookKey, place: usize) -> String {
    let right = key.github_signature(BODY);
    let digits = right.strip_prefix("sha256=").unwrap();
    let mut tag = hex::decode(digits).unwrap();
    tag[place..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    format!("sha256={}", hex::encode(tag))
}

fn refuse(headers: &HeaderMap, keys: &[HookKey]) {
    let mut proof = Proof::new(Provider::GitHub, black_box(headers), black_box(keys));
    proof.hear(BODY);
    assert!(black_box(proof.judge()).is_err());
}

#[test]
fn the_time_does_not_tell_how_much_of_a_signature_is_right() {
    let keys = [key("It's a Secret to Everybody")];
    let first = headers(wrong_from(&keys[0], 0));
    for place in [1, 8, 16, 24, 31] {
        let later = headers(wrong_from(&keys[0], place));
        let t = told(|| refuse(&first, &keys), || refuse(&later, &keys));
        assert!(t < TOLD_APART, "wrong from byte 0 or from byte {place}: |t| = {t:.1}");
    }
    let both = [key("newer"), key("older")];
    let (newer, older) = (headers(wrong_from(&both[0], 31)), headers(wrong_from(&both[1], 31)));
    let t = told(|| refuse(&newer, &both), || refuse(&older, &both));
    assert!(t < TOLD_APART, "nearly right for one secret or for the other: |t| = {t:.1}");
}

#[test]
fn the_time_does_not_tell_a_registrys_secret() {
    let keys = [key("0123456789abcdef0123456789abcdef")];
    let show = |secret: &str| {
        let mut headers = HeaderMap::new();
        let proof = HeaderValue::try_from(format!("Bearer {secret}")).unwrap();
        headers.insert(actix_web::http::header::AUTHORIZATION, proof);
        headers
    };
    let first = show("x123456789abcdef0123456789abcdef");
    let last = show("0123456789abcdef0123456789abcdex");
    let refuse = |headers: &HeaderMap| {
        let proof = Proof::new(Provider::Distribution, black_box(headers), black_box(&keys));
        assert!(black_box(proof.judge()).is_err());
    };
    let t = told(|| refuse(&first), || refuse(&last));
    assert!(t < TOLD_APART, "wrong at the first or at the last byte: |t| = {t:.1}");
}

#[test]
fn the_time_does_not_tell_an_unknown_hook_from_a_known_one() {
    let known = [key("It's a Secret to Everybody")];
    let nobody = crate::hooks::HookDirectory::new().unwrap();
    let proof = headers(wrong_from(&known[0], 0));
    let t = told(|| refuse(&proof, &known), || refuse(&proof, nobody.nobody()));
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
    let decode = |place| read_signature(Some(wrong_from(&key, place).as_bytes())).unwrap();
    let (first, last) = (decode(0), decode(31));
    let (mut a, mut b) = (|| assert!(!compare(&first)), || assert!(!compare(&last)));
    let mut rounds = (0..ROUNDS).map(|doubling| round(SAMPLES << doubling, &mut [&mut a, &mut b]));
    assert!(rounds.any(|t| t > TOLD_APART), "it was not found");
}

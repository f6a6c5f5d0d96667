//! Verifies that a delivery's sender knows its hook's secret.
//!
//! In: the header with the proof, and the raw bytes in pieces. Out: a verdict. Pure.

use std::time::{Duration, SystemTime};

use actix_web::http::header::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gantry_ops::secret::{ExposeSecret as _, SecretString};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Enough for a rotation or two. More would make each refusal slower, since every secret is tried.
pub(crate) const MOST_SECRETS: usize = 5;

/// A way in which a provider's senders prove that they know a secret of the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme<'a> {
    /// The header is `prefix`, then the HMAC-SHA256 of the raw body in lower-case hexadecimal digits.
    Signature { header: &'a str, prefix: &'a str },
    /// The header is `prefix`, then the HMAC-SHA256 of the raw body, in hexadecimal digits or in base64: their lengths
    /// differ.
    AnySignature { header: &'a str, prefix: &'a str },
    /// The header is `prefix` in any case, then the secret itself.
    Secret { header: &'a str, prefix: &'a str },
    /// HTTP basic authentication, with any user name and the secret as password.
    Password,
    /// Standard Webhooks: the HMAC-SHA256 of id, time and body in base64.
    StandardWebhooks,
    /// None: the sender can be told nothing but the hook's address, which is unguessable.
    Address,
}

impl<'a> Scheme<'a> {
    /// The header with the proof, if there is one.
    fn header(self) -> Option<&'a str> {
        match self {
            Self::Signature { header, .. }
            | Self::AnySignature { header, .. }
            | Self::Secret { header, .. } => Some(header),
            Self::Password => Some("authorization"),
            Self::StandardWebhooks => Some("webhook-signature"),
            Self::Address => None,
        }
    }

    /// Whether the proof covers the body.
    fn signs_body(self) -> bool {
        match self {
            Self::Signature { .. } | Self::AnySignature { .. } | Self::StandardWebhooks => true,
            Self::Secret { .. } | Self::Password | Self::Address => false,
        }
    }

    /// The headers of a sender that knows the secret, without that of the `id`. `None` if the secret is too long for a key.
    pub(crate) fn prove(
        self,
        secret: &SecretString,
        id: &str,
        now: SystemTime,
        body: &[u8],
    ) -> Option<Vec<(&'a str, String)>> {
        let mut headers = Vec::new();
        let proof = match self {
            Self::Signature { prefix, .. } | Self::AnySignature { prefix, .. } => {
                format!("{prefix}{}", HookKey::new(secret)?.signature(body))
            }
            Self::Secret { prefix, .. } => format!("{prefix}{}", secret.expose_secret()),
            Self::Password => {
                let login = format!("gantry:{}", secret.expose_secret());
                format!("{BASIC}{}", BASE64_STANDARD.encode(login))
            }
            Self::StandardWebhooks => {
                let sent = seconds(now).to_string();
                let mut mac = HookKey::new(secret)?.standard;
                mac.update(&signed_start(id.as_bytes(), sent.as_bytes()));
                mac.update(body);
                headers.push((TIMESTAMP, sent));
                format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
            }
            Self::Address => return Some(headers),
        };
        headers.extend(self.header().map(|header| (header, proof)));
        Some(headers)
    }
}

/// The headers of Standard Webhooks beside the signature.
const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";

/// How far the time in a delivery may be from the machine's, as the Standard Webhooks libraries allow by default.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The most signatures of one delivery that are compared. A sender that changes its secret sends two.
const MOST_SIGNATURES: usize = 5;

/// The prefix of a Standard Webhooks secret, before its bytes in base64.
const STANDARD_SECRET: &str = "whsec_";

/// The scheme's name in the header, in any case.
const BASIC: &str = "Basic ";

/// Checks a sender's proof against every active secret while the body arrives, so the body need not be kept for it.
pub(crate) struct Proof(Check);

enum Check {
    /// Decided by the header alone.
    Decided(Result<(), RejectedDelivery>),
    /// Decided by the body: one of the tags must be the HMAC under one of the secrets.
    ///
    /// What the header alone refuses is hashed and compared all the same, with `may_match` false: otherwise the time of a
    /// long body would tell whether a hook expects its signature in a header that was sent.
    Signature {
        tags: Vec<[u8; 32]>,
        macs: Vec<Hmac<Sha256>>,
        may_match: bool,
        /// The answer without a match.
        otherwise: RejectedDelivery,
    },
}

/// Why a delivery was rejected. The sender is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RejectedDelivery {
    #[error("it carries no signature or secret")]
    Unsigned,
    #[error("its signature or secret is not written as its provider writes it")]
    Malformed,
    #[error(
        "its time is more than five minutes from that of this machine: is one of the clocks wrong?"
    )]
    Stale,
    #[error("it does not match any active secret")]
    Mismatch,
}

/// A secret, prepared for comparisons.
#[derive(Clone)]
pub(crate) struct HookKey {
    mac: Hmac<Sha256>,
    /// For Standard Webhooks, where a secret in base64 stands for its bytes.
    standard: Hmac<Sha256>,
    hash: [u8; 32],
}

impl HookKey {
    pub(crate) fn new(secret: &SecretString) -> Option<Self> {
        Self::of_bytes(secret.expose_secret().as_bytes())
    }

    fn of_bytes(secret: &[u8]) -> Option<Self> {
        let decoded = secret
            .strip_prefix(STANDARD_SECRET.as_bytes())
            .and_then(|digits| BASE64_STANDARD.decode(digits).ok());
        Some(Self {
            mac: Hmac::new_from_slice(secret).ok()?,
            standard: Hmac::new_from_slice(decoded.as_deref().unwrap_or(secret)).ok()?,
            hash: Sha256::digest(secret).into(),
        })
    }

    /// The HMAC of the body, in hexadecimal digits.
    fn signature(&self, body: &[u8]) -> String {
        let mut mac = self.mac.clone();
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
    }
}

impl Proof {
    /// The first of the schemes whose header is present decides. An address needs none: its hook was found.
    pub(crate) fn new(
        schemes: &[Scheme<'_>],
        headers: &HeaderMap,
        keys: &[HookKey],
        now: SystemTime,
    ) -> Self {
        let shown = schemes.iter().find_map(|scheme| {
            let proof = match scheme.header() {
                Some(header) => headers.get(header)?.as_bytes(),
                None => &[],
            };
            Some((*scheme, proof))
        });
        let shown = shown.ok_or(RejectedDelivery::Unsigned);
        let check = shown.and_then(|(scheme, proof)| Check::new(scheme, proof, headers, keys, now));
        Self(check.unwrap_or_else(|why| match schemes.iter().any(|scheme| scheme.signs_body()) {
            true => Check::Signature {
                tags: vec![[0; 32]],
                macs: macs_of(keys),
                may_match: false,
                otherwise: why,
            },
            false => Check::Decided(Err(why)),
        }))
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        match &mut self.0 {
            Check::Decided(_) => {}
            Check::Signature { macs, .. } => macs.iter_mut().for_each(|mac| mac.update(piece)),
        }
    }

    /// Compares in constant time, after the last piece of the body.
    pub(crate) fn finish(self) -> Result<(), RejectedDelivery> {
        match self.0 {
            Check::Decided(verdict) => verdict,
            Check::Signature { tags, macs, may_match, otherwise } => {
                // Every key and tag is tried, so that the time does not reveal which one matched.
                let matches = macs.into_iter().fold(false, |matched, mac| {
                    let right: [u8; 32] = mac.finalize().into_bytes().into();
                    tags.iter().fold(matched, |matched, tag| bool::from(right.ct_eq(tag)) | matched)
                });
                (matches & may_match).then_some(()).ok_or(otherwise)
            }
        }
    }
}

fn macs_of(keys: &[HookKey]) -> Vec<Hmac<Sha256>> {
    keys.iter().map(|key| key.mac.clone()).collect()
}

impl Check {
    fn new(
        scheme: Scheme<'_>,
        proof: &[u8],
        headers: &HeaderMap,
        keys: &[HookKey],
        now: SystemTime,
    ) -> Result<Self, RejectedDelivery> {
        Ok(match scheme {
            Scheme::Signature { prefix, .. } => {
                let tags = vec![read_signature(prefix, proof)?];
                Self::signed(tags, macs_of(keys))
            }
            Scheme::AnySignature { prefix, .. } => {
                let tags = vec![read_any_signature(prefix, proof)?];
                Self::signed(tags, macs_of(keys))
            }
            Scheme::StandardWebhooks => {
                let (tags, start) = read_standard(proof, headers, now)?;
                let begun = |key: &HookKey| {
                    let mut mac = key.standard.clone();
                    mac.update(&start);
                    mac
                };
                Self::signed(tags, keys.iter().map(begun).collect())
            }
            Scheme::Secret { prefix, .. } => Self::Decided(compare_secret(prefix, proof, keys)),
            Scheme::Password => Self::Decided(compare_password(proof, keys)),
            Scheme::Address => Self::Decided(Ok(())),
        })
    }

    fn signed(tags: Vec<[u8; 32]>, macs: Vec<Hmac<Sha256>>) -> Self {
        Self::Signature { tags, macs, may_match: true, otherwise: RejectedDelivery::Mismatch }
    }
}

fn read_signature(prefix: &str, proof: &[u8]) -> Result<[u8; 32], RejectedDelivery> {
    let digits = proof.strip_prefix(prefix.as_bytes()).ok_or(RejectedDelivery::Malformed)?;
    // Providers write lower case. Accepting a second spelling would give one proof two forms.
    if digits.iter().any(u8::is_ascii_uppercase) {
        return Err(RejectedDelivery::Malformed);
    }
    let mut tag = [0_u8; 32];
    hex::decode_to_slice(digits, &mut tag).map_err(|_| RejectedDelivery::Malformed)?;
    Ok(tag)
}

/// A signature of a sender of which only the header is known: in hexadecimal digits of either case, or in base64.
fn read_any_signature(prefix: &str, proof: &[u8]) -> Result<[u8; 32], RejectedDelivery> {
    let text = proof.strip_prefix(prefix.as_bytes()).ok_or(RejectedDelivery::Malformed)?;
    let tag = match text.len() {
        64 => hex::decode(text).ok(),
        _ => BASE64_STANDARD.decode(text).ok(),
    };
    tag.and_then(|tag| tag.try_into().ok()).ok_or(RejectedDelivery::Malformed)
}

/// The signatures of Standard Webhooks, and what is signed before the body. Signatures of other versions are ignored.
fn read_standard(
    proof: &[u8],
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<(Vec<[u8; 32]>, Vec<u8>), RejectedDelivery> {
    let header = |name| headers.get(name).map(HeaderValue::as_bytes);
    let id = header(ID).ok_or(RejectedDelivery::Unsigned)?;
    let sent = header(TIMESTAMP).ok_or(RejectedDelivery::Unsigned)?;
    let at = std::str::from_utf8(sent).ok().and_then(|text| text.parse::<u64>().ok());
    let at = at.ok_or(RejectedDelivery::Malformed)?;
    // An old delivery may be one that somebody recorded.
    if seconds(now).abs_diff(at) > TOLERANCE.as_secs() {
        return Err(RejectedDelivery::Stale);
    }
    let tag = |signature: &[u8]| {
        let digits = signature.strip_prefix(b"v1,")?;
        <[u8; 32]>::try_from(BASE64_STANDARD.decode(digits).ok()?).ok()
    };
    let signatures = proof.split(|byte| *byte == b' ');
    let tags: Vec<_> = signatures.filter_map(tag).take(MOST_SIGNATURES).collect();
    match tags.is_empty() {
        true => Err(RejectedDelivery::Malformed),
        false => Ok((tags, signed_start(id, sent))),
    }
}

fn signed_start(id: &[u8], sent: &[u8]) -> Vec<u8> {
    [id, b".", sent, b"."].concat()
}

/// Since the Unix epoch; a clock before it counts as at it.
fn seconds(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn compare_secret(prefix: &str, proof: &[u8], keys: &[HookKey]) -> Result<(), RejectedDelivery> {
    compare(without_prefix(prefix, proof)?, keys)
}

fn compare_password(proof: &[u8], keys: &[HookKey]) -> Result<(), RejectedDelivery> {
    let login = BASE64_STANDARD
        .decode(without_prefix(BASIC, proof)?)
        .map_err(|_| RejectedDelivery::Malformed)?;
    // The user name ends at the first colon; a password may contain more of them.
    let colon = login.iter().position(|byte| *byte == b':').ok_or(RejectedDelivery::Malformed)?;
    compare(&login[colon + 1..], keys)
}

fn without_prefix<'a>(prefix: &str, proof: &'a [u8]) -> Result<&'a [u8], RejectedDelivery> {
    proof
        .split_at_checked(prefix.len())
        .filter(|(start, _)| start.eq_ignore_ascii_case(prefix.as_bytes()))
        .map(|(_, rest)| rest)
        .ok_or(RejectedDelivery::Malformed)
}

fn compare(secret: &[u8], keys: &[HookKey]) -> Result<(), RejectedDelivery> {
    // Comparing hashes hides the secrets' lengths.
    let shown: [u8; 32] = Sha256::digest(secret).into();
    let matches =
        keys.iter().fold(false, |matched, key| bool::from(key.hash.ct_eq(&shown)) | matched);
    matches.then_some(()).ok_or(RejectedDelivery::Mismatch)
}

#[cfg(test)]
mod slow {
    mod timing;
}
#[cfg(test)]
mod wycheproof;

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;
    use crate::hooks::provider::tests::{schemes, senders};

    pub(super) const SIGNED: Scheme<'_> =
        Scheme::Signature { header: "x-hub-signature-256", prefix: "sha256=" };
    const SHOWN: Scheme<'_> = Scheme::Secret { header: "authorization", prefix: "Bearer " };

    /// Only Standard Webhooks depend on the time.
    pub(super) const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    const SECRET: &str = "It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const DIGITS: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn key(secret: &str) -> HookKey {
        HookKey::new(&SecretString::from(secret)).unwrap()
    }

    fn verify(
        scheme: Scheme<'_>,
        header: &str,
        proof: &str,
        keys: &[HookKey],
    ) -> Result<(), RejectedDelivery> {
        let mut headers = HeaderMap::new();
        headers
            .insert(HeaderName::try_from(header).unwrap(), HeaderValue::from_str(proof).unwrap());
        let mut proof = Proof::new(&[scheme], &headers, keys, NOW);
        for piece in BODY.chunks(5) {
            proof.update(piece);
        }
        proof.finish()
    }

    /// The only header of a proof.
    pub(super) fn prove<'a>(scheme: Scheme<'a>, secret: &str) -> (&'a str, String) {
        let secret = SecretString::from(secret);
        scheme.prove(&secret, "d-1", NOW, BODY).unwrap().pop().unwrap()
    }

    fn verify_signed(proof: &str, keys: &[HookKey]) -> Result<(), RejectedDelivery> {
        verify(SIGNED, "x-hub-signature-256", proof, keys)
    }

    #[test]
    fn githubs_test_vector_verifies_with_any_active_secret() {
        let proof = format!("sha256={DIGITS}");
        assert_eq!(verify_signed(&proof, &[key(SECRET)]), Ok(()));
        assert_eq!(verify_signed(&proof, &[key("newer"), key(SECRET), key("older")]), Ok(()));
        assert_eq!(prove(SIGNED, SECRET), ("x-hub-signature-256", proof));
    }

    #[test]
    fn other_signatures_are_refused() {
        use RejectedDelivery::{Malformed, Mismatch, Unsigned};

        let keys = [key(SECRET)];
        let refused = |proof: &str| verify_signed(proof, &keys).unwrap_err();
        assert_eq!(refused(&format!("sha256={}", "0".repeat(64))), Mismatch);
        assert_eq!(refused(&format!("sha256={}", &DIGITS[..62])), Malformed);
        assert_eq!(refused(&format!("sha256={}", &DIGITS[..63])), Malformed);
        assert_eq!(refused(&format!("sha256={DIGITS}00")), Malformed);
        assert_eq!(refused(&format!("sha256={}", DIGITS.to_uppercase())), Malformed);
        assert_eq!(refused(&format!("SHA256={DIGITS}")), Malformed);
        assert_eq!(refused(DIGITS), Malformed);
        assert_eq!(refused("sha256="), Malformed);
        assert_eq!(refused(""), Malformed);
        assert_eq!(
            verify(SIGNED, "x-hub-signature", &format!("sha1={}", &DIGITS[..40]), &keys),
            Err(Unsigned)
        );
        assert_eq!(verify_signed(&format!("sha256={DIGITS}"), &[key("other")]), Err(Mismatch));
        assert_eq!(verify_signed(&format!("sha256={DIGITS}"), &[]), Err(Mismatch));
    }

    #[test]
    fn a_sender_of_any_kind_signs_in_hexadecimal_digits_of_either_case_or_in_base64() {
        use RejectedDelivery::{Malformed, Mismatch, Unsigned};

        let scheme = Scheme::AnySignature { header: "x-signature", prefix: "HMAC " };
        let keys = [key("newer"), key(SECRET)];
        let signed = |proof: &str| verify(scheme, "x-signature", &format!("HMAC {proof}"), &keys);
        let base64 = BASE64_STANDARD.encode(hex::decode(DIGITS).unwrap());
        for right in [DIGITS, &DIGITS.to_uppercase(), &base64] {
            assert_eq!(signed(right), Ok(()), "{right}");
        }
        for (wrong, why) in [
            (&"0".repeat(64), Mismatch),
            (&BASE64_STANDARD.encode([0; 32]), Mismatch),
            (&DIGITS[..62].to_owned(), Malformed),
            (&format!("{DIGITS}00"), Malformed),
            (&base64.replace('=', ""), Malformed),
            (&BASE64_STANDARD.encode([0; 31]), Malformed),
            (&String::new(), Malformed),
        ] {
            assert_eq!(signed(wrong), Err(why), "{wrong}");
        }
        assert_eq!(verify(scheme, "x-signature", DIGITS, &keys), Err(Malformed));
        assert_eq!(verify(scheme, "x-signature-256", DIGITS, &keys), Err(Unsigned));
        assert_eq!(prove(scheme, SECRET), ("x-signature", format!("HMAC {DIGITS}")));
    }

    #[test]
    fn a_body_is_hashed_even_if_the_expected_header_was_not_sent() {
        let (senders, keys) = (senders(), [key("newer"), key(SECRET)]);
        for scheme in schemes(&senders) {
            let proof = Proof::new(&[scheme], &HeaderMap::new(), &keys, NOW);
            let is_hashed = matches!(&proof.0, Check::Signature { macs, .. } if macs.len() == 2);
            assert_eq!(is_hashed, scheme.signs_body(), "{scheme:?}");
            assert_eq!(proof.finish(), Err(RejectedDelivery::Unsigned), "{scheme:?}");
        }
    }

    #[test]
    fn no_scheme_of_any_sender_accepts_a_damaged_proof() {
        let senders = senders();
        let keys = [key("newer"), key(SECRET)];
        for scheme in schemes(&senders) {
            let secret = SecretString::from(SECRET);
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(ID), HeaderValue::from_static("d-1"));
            for (name, value) in scheme.prove(&secret, "d-1", NOW, BODY).unwrap() {
                let name = HeaderName::try_from(name).unwrap();
                headers.insert(name, HeaderValue::try_from(value).unwrap());
            }
            let judge = |headers: &HeaderMap, body: &[u8], keys: &[HookKey]| {
                let mut proof = Proof::new(&[scheme], headers, keys, NOW);
                proof.update(body);
                proof.finish()
            };
            assert_eq!(judge(&headers, BODY, &keys), Ok(()), "{scheme:?}");
            assert!(judge(&headers, BODY, &keys[..1]).is_err(), "{scheme:?}: another secret");
            let altered = judge(&headers, b"Hello, World?", &keys);
            assert_eq!(altered.is_err(), scheme.signs_body(), "{scheme:?}: another body");

            let right = headers.get(scheme.header().unwrap()).unwrap().as_bytes().to_vec();
            // The name of the user is free.
            let first = if scheme == Scheme::Password { "Basic Z2FudHJ5Ok".len() } else { 0 };
            for place in first..right.len() {
                let flipped = (0..8).map(|bit| {
                    let mut wrong = right.clone();
                    wrong[place] ^= 1 << bit;
                    wrong
                });
                let cut = [right[..place].to_vec(), right[place + 1..].to_vec()];
                let grown = [[&right[..place], b"A", &right[place..]].concat()];
                for wrong in flipped.chain(cut).chain(grown) {
                    let Ok(value) = HeaderValue::from_bytes(&wrong) else { continue };
                    let mut headers = headers.clone();
                    headers.insert(HeaderName::try_from(scheme.header().unwrap()).unwrap(), value);
                    // The name of a scheme, and hexadecimal digits, may be in either case.
                    let is_same = wrong.eq_ignore_ascii_case(&right);
                    let verdict = judge(&headers, BODY, &keys);
                    assert!(verdict.is_err() || is_same, "{scheme:?}: {}", wrong.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn a_sent_secret_is_compared_with_each_active_one() {
        let keys = [key("s3cret"), key("old")];
        let shown = |proof: &str| verify(SHOWN, "authorization", proof, &keys);
        let (header, proof) = prove(SHOWN, "old");
        assert_eq!(verify(SHOWN, header, &proof, &keys), Ok(()));
        assert_eq!(shown("Bearer s3cret"), Ok(()));
        assert_eq!(shown("bearer old"), Ok(()));
        assert_eq!(shown("Bearer s3cre"), Err(RejectedDelivery::Mismatch));
        assert_eq!(shown("Bearer "), Err(RejectedDelivery::Mismatch));
        assert_eq!(shown("Basic s3cret"), Err(RejectedDelivery::Malformed));
        assert_eq!(shown("s3cret"), Err(RejectedDelivery::Malformed));
    }

    #[test]
    fn a_password_is_compared_with_each_active_secret_and_the_user_name_is_not() {
        let keys = [key("s3:cret"), key("old")];
        let login = |login: &str| {
            let proof = format!("Basic {}", BASE64_STANDARD.encode(login));
            verify(Scheme::Password, "authorization", &proof, &keys)
        };
        let (header, proof) = prove(Scheme::Password, "old");
        assert_eq!(verify(Scheme::Password, header, &proof, &keys), Ok(()));
        assert_eq!(login("vsts:s3:cret"), Ok(()));
        assert_eq!(login(":old"), Ok(()));
        assert_eq!(login("old:"), Err(RejectedDelivery::Mismatch));
        assert_eq!(login("old:old "), Err(RejectedDelivery::Mismatch));
        assert_eq!(login("old"), Err(RejectedDelivery::Malformed));
        for proof in ["Basic", "Basic ", "Basic ?", "Bearer old"] {
            let verdict = verify(Scheme::Password, "authorization", proof, &keys);
            assert_eq!(verdict, Err(RejectedDelivery::Malformed), "{proof}");
        }
    }

    #[test]
    fn the_first_scheme_whose_header_is_present_decides() {
        let schemes = [Scheme::Password, Scheme::Secret { header: "x-gantry-secret", prefix: "" }];
        let shown = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            Proof::new(&schemes, &map, &[key("s3cret")], NOW).finish()
        };
        let right = ("x-gantry-secret", "s3cret");
        assert_eq!(shown(&[right]), Ok(()));
        assert_eq!(
            shown(&[right, ("authorization", "Basic YTpi")]),
            Err(RejectedDelivery::Mismatch)
        );
        assert_eq!(shown(&[]), Err(RejectedDelivery::Unsigned));
    }

    #[test]
    fn a_sender_that_knows_only_the_address_needs_no_header() {
        let proof = Proof::new(&[Scheme::Address], &HeaderMap::new(), &[], NOW);
        assert_eq!(proof.finish(), Ok(()));
        let secret = SecretString::from(SECRET);
        assert_eq!(Scheme::Address.prove(&secret, "d-1", NOW, BODY), Some(Vec::new()));
    }

    const MESSAGE: &[u8] = br#"{"test": 2432232314}"#;
    /// The key and the message in the documentation of Standard Webhooks.
    const STANDARD_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SENT: u64 = 1_614_265_330;

    fn verify_standard(
        id: &str,
        signature: &str,
        keys: &[HookKey],
        seconds_later: i64,
    ) -> Result<(), RejectedDelivery> {
        let mut headers = HeaderMap::new();
        let sent = SENT.to_string();
        for (name, value) in [(ID, id), (TIMESTAMP, &sent), ("webhook-signature", signature)] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let now = NOW + Duration::from_secs(SENT.checked_add_signed(seconds_later).unwrap());
        let mut proof = Proof::new(&[Scheme::StandardWebhooks], &headers, keys, now);
        proof.update(MESSAGE);
        proof.finish()
    }

    #[test]
    fn the_documented_signature_of_standard_webhooks_verifies() {
        let (id, right) =
            ("msg_p5jXN8AQM9LWM0D4loKWxJek", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let keys = [key("older"), key(STANDARD_KEY)];
        let at = |signature: &str, later| verify_standard(id, signature, &keys, later);
        assert_eq!(at(right, 0), Ok(()));
        assert_eq!((at(right, 300), at(right, -300)), (Ok(()), Ok(())));
        for late in [301, -301] {
            assert_eq!(at(right, late), Err(RejectedDelivery::Stale));
        }
        // A sender that changes its key signs with both; other versions are ignored.
        let zeros = BASE64_STANDARD.encode([0; 32]);
        assert_eq!(at(&format!("v1a,AAAA v1,{zeros} {right}"), 0), Ok(()));
        assert_eq!(at(&format!("v1,{zeros}"), 0), Err(RejectedDelivery::Mismatch));
        for odd in ["", "v1,", "v1,AAAA", "v2,AAAA", &right[3..]] {
            assert_eq!(at(odd, 0), Err(RejectedDelivery::Malformed), "{odd}");
        }
        assert_eq!(verify_standard("other", right, &keys, 0), Err(RejectedDelivery::Mismatch));
    }
}

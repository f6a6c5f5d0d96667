//! Signs messages as Standard Webhooks 1.0 says: the HMAC-SHA256 of id, time and body.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gantry_domain::timestamp::Timestamp;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::SecretError;

/// The prefix of a secret, before its bytes in base64.
const PREFIX: &str = "whsec_";

/// A new secret of 32 random bytes.
///
/// # Errors
/// [`SecretError::NoEntropy`].
pub fn new_secret() -> Result<SecretString, SecretError> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|_| SecretError::NoEntropy)?;
    Ok(SecretString::from(format!("{PREFIX}{}", BASE64_STANDARD.encode(bytes.as_ref()))))
}

/// The headers of a message that is sent at `now`, signed with each of `secrets`. A receiver that knows one of them
/// accepts it, so secrets can be replaced one after the other.
#[must_use]
pub fn headers(
    secrets: &[SecretString],
    id: &str,
    now: Timestamp,
    body: &[u8],
) -> [(&'static str, String); 3] {
    let sent = (now.as_millis() / 1000).to_string();
    let signatures: Vec<String> =
        secrets.iter().map(|secret| signature(secret, id, &sent, body)).collect();
    [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", sent),
        ("webhook-signature", signatures.join(" ")),
    ]
}

fn signature(secret: &SecretString, id: &str, sent: &str, body: &[u8]) -> String {
    let text = secret.expose_secret();
    let decoded = text.strip_prefix(PREFIX).and_then(|digits| BASE64_STANDARD.decode(digits).ok());
    let key = Zeroizing::new(decoded.unwrap_or_else(|| text.as_bytes().to_vec()));
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else {
        unreachable!("HMAC takes a key of any length")
    };
    mac.update(format!("{id}.{sent}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key, the message and the signature in the documentation of Standard Webhooks.
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const RIGHT: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn signed(secrets: &[&str]) -> String {
        let secrets: Vec<_> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        let [_, (_, sent), (_, signatures)] =
            headers(&secrets, ID, Timestamp::from_millis(1_614_265_330_999), BODY);
        assert_eq!(sent, "1614265330");
        signatures
    }

    #[test]
    fn the_documented_signature_is_made() {
        assert_eq!(signed(&[KEY]), RIGHT);
    }

    #[test]
    fn while_a_secret_is_replaced_both_sign() {
        let other = new_secret().unwrap();
        let both = signed(&[other.expose_secret(), KEY]);
        let (first, second) = both.split_once(' ').unwrap();
        assert_eq!((first, second), (signed(&[other.expose_secret()]).as_str(), RIGHT));
    }

    #[test]
    fn a_new_secret_has_32_bytes() {
        let secret = new_secret().unwrap();
        let digits = secret.expose_secret().strip_prefix(PREFIX).unwrap();
        assert_eq!(BASE64_STANDARD.decode(digits).unwrap().len(), 32);
    }
}

//! Deploy keys: private keys that read one repository over ssh.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";

/// What the decoded text begins with.
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// The cipher of a key without a passphrase.
const NO_CIPHER: &[u8] = b"none";

/// A text is no deploy key. It is not repeated, because it may be another secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDeployKey {
    /// It is no private key.
    #[error(
        "it is no private key: give the whole file that `ssh-keygen -t ed25519 -N '' -f FILE` wrote, from its `-----BEGIN` to its \
         last line"
    )]
    NoKey,
    /// It is a public key.
    #[error(
        "it is a public key, which belongs to the host: give the private one, the file without `.pub`"
    )]
    Public,
    /// It is encrypted.
    #[error(
        "it has a passphrase, and nobody is there to type it: take a key without one, or remove it from a copy with \
         `ssh-keygen -p -N '' -f COPY`"
    )]
    Encrypted,
    /// It is a private key in another format.
    #[error(
        "it is not in the format of OpenSSH: convert a copy with `ssh-keygen -p -N '' -f COPY`"
    )]
    OtherFormat,
}

/// Checks that a text is a private key of OpenSSH without a passphrase, and returns it with the line breaks that ssh
/// reads.
///
/// # Errors
/// [`InvalidDeployKey`].
pub fn deploy_key(text: &str) -> Result<SecretString, InvalidDeployKey> {
    let lines: Vec<&str> = text.trim().lines().map(str::trim).collect();
    let body = match lines.as_slice() {
        [BEGIN, body @ .., END] => body,
        [first, ..] if first.starts_with("-----BEGIN") && first.contains("PRIVATE KEY") => {
            return Err(match *first == BEGIN {
                true => InvalidDeployKey::NoKey,
                false => InvalidDeployKey::OtherFormat,
            });
        }
        [first, ..] if ["ssh-", "ecdsa-"].iter().any(|start| first.starts_with(start)) => {
            return Err(InvalidDeployKey::Public);
        }
        _ => return Err(InvalidDeployKey::NoKey),
    };
    let joined = Zeroizing::new(body.concat());
    let decoded = STANDARD.decode(joined.as_bytes()).map(Zeroizing::new);
    let decoded = decoded.map_err(|_| InvalidDeployKey::NoKey)?;
    let cipher = decoded.strip_prefix(MAGIC).and_then(first_word).ok_or(InvalidDeployKey::NoKey)?;
    if cipher != NO_CIPHER {
        return Err(InvalidDeployKey::Encrypted);
    }
    let whole = Zeroizing::new(lines.join("\n"));
    Ok(SecretString::from(format!("{}\n", whole.as_str())))
}

/// A text behind its length, in four bytes.
fn first_word(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    /// The beginning of a key with this cipher; the rest is not looked at.
    fn key(cipher: &str) -> String {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(u32::try_from(cipher.len()).unwrap().to_be_bytes());
        bytes.extend(cipher.bytes());
        bytes.extend([0; 60]);
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(bytes))
    }

    #[test]
    fn a_key_is_taken_with_any_line_breaks() {
        let plain = key("none");
        for text in
            [plain.clone(), plain.replace('\n', "\r\n"), format!("\n  {}", plain.trim_end())]
        {
            assert_eq!(deploy_key(&text).unwrap().expose_secret(), plain);
        }
    }

    #[test]
    fn what_ssh_could_not_use_is_refused() {
        for (text, expected) in [
            (String::new(), InvalidDeployKey::NoKey),
            ("ghp_token".to_owned(), InvalidDeployKey::NoKey),
            ("ssh-ed25519 AAAA me@host".to_owned(), InvalidDeployKey::Public),
            (key("aes256-ctr"), InvalidDeployKey::Encrypted),
            (format!("{BEGIN}\nb3BlbnNzaC1rZXktdjEA\n{END}"), InvalidDeployKey::NoKey),
            (format!("{BEGIN}\n!\n{END}"), InvalidDeployKey::NoKey),
            (format!("{BEGIN}\n"), InvalidDeployKey::NoKey),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----".to_owned(),
                InvalidDeployKey::OtherFormat,
            ),
        ] {
            assert_eq!(deploy_key(&text).unwrap_err(), expected, "{text}");
        }
    }
}

//! Git repositories over ssh: their addresses, and the host keys that are pinned for them.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

use crate::InvalidText;
use crate::text::serde_as_text;

/// The usual port of ssh, which an address leaves out.
pub const PORT: u16 = 22;

/// Whether a text is an address of ssh, as a URL or as `user@host:path`.
pub(crate) fn is_address(text: &str) -> bool {
    text.starts_with("ssh://") || short_form(text).is_some()
}

/// The parts of `user@host:path`. As in git, a `:` before the first `/` ends the host.
fn short_form(text: &str) -> Option<(&str, &str)> {
    let (authority, path) = text.split_once(':')?;
    let is_host = authority.contains('@') && !authority.contains('/');
    (is_host && !path.starts_with("//")).then_some((authority, path))
}

/// Parses `ssh://user@host[:port]/path` or `user@host:path` into the URL of the first form, without the usual port.
///
/// No part can be taken for an option or mean anything to a shell: git passes user, host and path on.
pub(crate) fn parse_address(
    text: &str,
    refused: &dyn Fn(&'static str) -> InvalidText,
) -> Result<Url, InvalidText> {
    const RULE: &str = "`ssh://user@host:port/path` or `user@host:path`, with letters, digits and `._-` in the user and \
                        `._~%+@,=:-` in the path";
    let (authority, path) = match text.strip_prefix("ssh://") {
        Some(rest) => rest.split_once('/').ok_or_else(|| refused(RULE))?,
        None => short_form(text).ok_or_else(|| refused(RULE))?,
    };
    let Some((user, host)) = authority.rsplit_once('@') else {
        return Err(refused("name the user before the host, like `ssh://git@host/path`"));
    };
    if user.contains(':') {
        return Err(refused(
            "no password: ssh reads the repository with a deploy key (`--git-ssh-key`)",
        ));
    }
    let is_word = |word: &str, others: &str| {
        word.bytes().all(|it| it.is_ascii_alphanumeric() || others.as_bytes().contains(&it))
    };
    if !(1..=64).contains(&user.len()) || user.starts_with('-') || !is_word(user, "._-") {
        return Err(refused(RULE));
    }
    let (host, port) = split_port(host).ok_or_else(|| refused(RULE))?;
    if host.starts_with('-') || host.contains('%') {
        return Err(refused(RULE));
    }
    let host = Host::parse(host).map_err(|_| refused(RULE))?;
    let path = path.trim_matches('/');
    let is_path =
        !path.is_empty() && is_word(path, "/._~%+@,=:-") && path.split('/').all(is_segment);
    if !is_path {
        return Err(refused(RULE));
    }
    let port =
        port.filter(|port| *port != PORT).map_or_else(String::new, |port| format!(":{port}"));
    Url::parse(&format!("ssh://{user}@{host}{port}/{path}")).map_err(|_| refused(RULE))
}

/// The host and the port, if one is given. `None` if the port is no number, or 0.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    // The colons of an IPv6 address are inside of brackets.
    let end = text.rfind(']').map_or(0, |end| end + 1);
    match text[end..].rfind(':') {
        None => Some((text, None)),
        Some(colon) => {
            let port = text[end + colon + 1..].parse().ok().filter(|port| *port != 0)?;
            Some((&text[..end + colon], Some(port)))
        }
    }
}

/// Git decodes a path before it passes it on. No segment may name another folder or hide a control character.
fn is_segment(segment: &str) -> bool {
    let is_encoded = |rest: &str| {
        let digits = rest.get(..2).filter(|digits| digits.bytes().all(|it| it.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_some_and(|byte| !byte.is_ascii_control() && !b"%./".contains(&byte))
    };
    segment != "." && segment != ".." && segment.split('%').skip(1).all(is_encoded)
}

/// The public key of an ssh server: `ssh-ed25519 AAAA…`.
///
/// It is parsed from a line of `known_hosts` or of `ssh-keyscan`. The host's name before it and a comment behind it are
/// dropped: the key is valid for the address of its source, whatever name it was recorded under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostKey(String);

/// The algorithms, with the beginning of every key of each in Base64: it repeats the algorithm's name.
const ALGORITHMS: [(&str, &str); 5] = [
    ("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5"),
    ("ecdsa-sha2-nistp256", "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY"),
    ("ecdsa-sha2-nistp384", "AAAAE2VjZHNhLXNoYTItbmlzdHAzODQ"),
    ("ecdsa-sha2-nistp521", "AAAAE2VjZHNhLXNoYTItbmlzdHA1MjE"),
    ("ssh-rsa", "AAAAB3NzaC1yc2E"),
];

/// A key of RSA with 16384 bits is shorter.
const LONGEST: usize = 3000;

impl HostKey {
    /// The algorithm and the key in Base64.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostKey {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "a line of `ssh-keyscan HOST`, like `ssh-ed25519 AAAA…`; compare its fingerprint with what the host \
                            publishes";
        let refused = || InvalidText::new("host key", text, RULE);
        let is_line = !text.contains(['\n', '\r']) && !text.trim_start().starts_with(['@', '#']);
        let words: Vec<&str> = text.split_whitespace().take(3).collect();
        let (algorithm, key) = match *words {
            [algorithm, key, ..] if is_algorithm(algorithm) => (algorithm, key),
            [_, algorithm, key] if is_algorithm(algorithm) => (algorithm, key),
            _ => return Err(refused()),
        };
        let is_key = ALGORITHMS.iter().any(|(name, start)| {
            *name == algorithm && key.starts_with(start) && key.len() > start.len() + 32
        });
        let is_base64 = key
            .trim_end_matches('=')
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || b"+/".contains(&it));
        match is_line && is_key && is_base64 && key.len() <= LONGEST {
            true => Ok(Self(format!("{algorithm} {key}"))),
            false => Err(refused()),
        }
    }
}

fn is_algorithm(word: &str) -> bool {
    ALGORITHMS.iter().any(|(name, _)| *name == word)
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(HostKey);

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    #[test]
    fn a_host_key_is_read_from_every_usual_line() {
        for line in [
            format!("ssh-ed25519 {KEY}"),
            format!("github.com ssh-ed25519 {KEY}"),
            format!("[git.example]:2222,10.0.0.7 ssh-ed25519 {KEY} a comment"),
            format!(
                "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-ed25519 {KEY}"
            ),
        ] {
            let key: HostKey = line.parse().unwrap();
            assert_eq!(key.as_str(), format!("ssh-ed25519 {KEY}"), "{line}");
        }
    }

    #[test]
    fn what_is_no_host_key_is_refused() {
        for line in [
            String::new(),
            KEY.to_owned(),
            "ssh-ed25519".to_owned(),
            "ssh-ed25519 AAAA".to_owned(),
            format!("ssh-rsa {KEY}"),
            format!("ssh-dss {KEY}"),
            format!("ssh-ed25519 {KEY}!"),
            format!("ssh-ed25519 {KEY}\nother ssh-ed25519 {KEY}"),
            format!("@cert-authority * ssh-ed25519 {KEY}"),
            format!("@revoked * ssh-ed25519 {KEY}"),
            format!("# ssh-ed25519 {KEY}"),
            format!("ssh-ed25519 {}{}", KEY, "A".repeat(LONGEST)),
        ] {
            assert!(line.parse::<HostKey>().is_err(), "{line}");
        }
    }
}

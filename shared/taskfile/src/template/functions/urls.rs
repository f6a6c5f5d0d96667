//! URLs, as Go's `net/url` reads and writes them.

use std::collections::BTreeMap;

use super::super::error::TemplateErrorKind;
use super::super::value::{Data, Value};
use super::{Call, Function};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::whole("urlParse", 1, Some(1), url_parse),
    Function::whole("urlJoin", 1, Some(1), url_join),
];

type Result<T = Value> = std::result::Result<T, TemplateErrorKind>;

/// The characters that stand unescaped in each part, beside letters, digits and `-_.~`.
const IN_USER: &str = "$&+,;=";
const IN_HOST: &str = "!$&'()*+,;=:[]<>\"";
const IN_PATH: &str = "$&+,/:;=@";
const IN_FRAGMENT: &str = "$&+,/:;=?@!()*";

/// A map of the parts of a URL.
fn url_parse(call: &mut Call<'_>) -> Result {
    let parts = Parts::parse(call.text(0)?)
        .ok_or_else(|| call.fails("the text is not a URL: check its port and its `%` escapes"))?;
    let entries = [
        ("scheme", parts.scheme),
        ("opaque", parts.opaque),
        ("userinfo", parts.user),
        ("hostname", hostname(&parts.host).to_owned()),
        ("host", parts.host),
        ("path", parts.path),
        ("query", parts.query),
        ("fragment", parts.fragment),
    ];
    let entries = entries.map(|(name, part)| (name.to_owned(), Value::from(part)));
    Ok(BTreeMap::from(entries).into())
}

/// The URL that has the parts of a map.
fn url_join(call: &mut Call<'_>) -> Result {
    let entries = call.map(0)?;
    let part = |name: &str| match entries.get(name).map(|value| &value.data) {
        Some(Data::Text(text)) => Ok(text.to_string()),
        None => Ok(String::new()),
        Some(_) => Err(call.fails(format!("`{name}` is not text"))),
    };
    let user = part("userinfo")?;
    let user = user_info(&user).ok_or_else(|| call.fails("`userinfo` is malformed"))?;
    let parts = Parts {
        scheme: part("scheme")?,
        opaque: part("opaque")?,
        user,
        host: part("host")?,
        path: part("path")?,
        query: part("query")?,
        fragment: part("fragment")?,
    };
    Ok(parts.joined().into())
}

/// The parts of a URL; what is missing is empty. The path and the fragment are decoded, the others are as in the URL.
struct Parts {
    scheme: String,
    opaque: String,
    user: String,
    host: String,
    path: String,
    query: String,
    fragment: String,
}

impl Parts {
    fn parse(url: &str) -> Option<Self> {
        if url.chars().any(|letter| letter.is_ascii_control()) {
            return None;
        }
        let (url, fragment) = url.split_once('#').unwrap_or((url, ""));
        let fragment = unescaped(fragment)?;
        let (scheme, rest) = split_scheme(url)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, query) = (scheme.to_ascii_lowercase(), query.to_owned());
        let nothing = String::new;
        if !rest.starts_with('/') {
            if !scheme.is_empty() {
                let (opaque, path) = (rest.to_owned(), nothing());
                let (user, host) = (nothing(), nothing());
                return Some(Self { scheme, opaque, user, host, path, query, fragment });
            }
            // A colon in the first segment of a path would make it a scheme.
            if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return None;
            }
        }
        let authority = rest.strip_prefix("//");
        let authority = authority.filter(|rest| !scheme.is_empty() || !rest.starts_with('/'));
        let (authority, path) = match authority {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, host) = (user_info(user)?, checked_host(host)?);
        let path = unescaped(path)?;
        Some(Self { scheme, opaque: nothing(), user, host, path, query, fragment })
    }

    fn joined(&self) -> String {
        let mut url = String::new();
        if !self.scheme.is_empty() {
            url.extend([&self.scheme, ":"]);
        }
        if self.opaque.is_empty() {
            self.join_path(&mut url);
        } else {
            url.push_str(&self.opaque);
        }
        if !self.query.is_empty() {
            url.extend(["?", &self.query]);
        }
        if !self.fragment.is_empty() {
            url.extend(["#", &escaped(&self.fragment, IN_FRAGMENT)]);
        }
        url
    }

    fn join_path(&self, url: &mut String) {
        let has_authority = !self.host.is_empty() || !self.user.is_empty();
        if has_authority || !self.scheme.is_empty() && !self.path.is_empty() {
            url.push_str("//");
        }
        if !self.user.is_empty() {
            url.extend([&self.user, "@"]);
        }
        url.push_str(&escaped(&self.host, IN_HOST));
        let path = if self.path == "*" { "*".to_owned() } else { escaped(&self.path, IN_PATH) };
        if !self.host.is_empty() && !path.is_empty() && !path.starts_with('/') {
            url.push('/');
        }
        if url.is_empty() && path.split('/').next().is_some_and(|segment| segment.contains(':')) {
            url.push_str("./");
        }
        url.push_str(&path);
    }
}

/// Splits `scheme:` off; `None` if there is a colon and no scheme before it.
fn split_scheme(url: &str) -> Option<(&str, &str)> {
    let is_scheme = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
    match url.find(|letter| !is_scheme(letter)) {
        Some(0) if url.starts_with(':') => None,
        Some(end)
            if url[end..].starts_with(':')
                && url.starts_with(|c: char| c.is_ascii_alphabetic()) =>
        {
            Some((&url[..end], &url[end + 1..]))
        }
        _ => Some(("", url)),
    }
}

/// A user, and perhaps a password, escaped where they must be.
fn user_info(user: &str) -> Option<String> {
    let is_valid =
        |letter: char| letter.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(letter);
    if !user.chars().all(is_valid) {
        return None;
    }
    match user.split_once(':') {
        Some((user, password)) => {
            let user = escaped(&unescaped(user)?, IN_USER);
            Some(format!("{user}:{}", escaped(&unescaped(password)?, IN_USER)))
        }
        None => Some(escaped(&unescaped(user)?, IN_USER)),
    }
}

fn checked_host(host: &str) -> Option<String> {
    let port = match host.strip_prefix('[') {
        Some(address) => address.rsplit_once(']')?.1,
        None => host.rfind(':').map_or("", |colon| &host[colon..]),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port = (port.is_empty() || port.starts_with(':'))
        && digits.chars().all(|digit| digit.is_ascii_digit());
    if !is_port || host.contains([' ', '<', '>', '"']) && host.contains(' ') {
        return None;
    }
    unescaped(host)
}

/// A host without its port and brackets.
fn hostname(host: &str) -> &str {
    let port = host.rfind(':').filter(|colon| !host[colon + 1..].is_empty() || host.ends_with(':'));
    let is_port = |colon: &usize| host[colon + 1..].chars().all(|digit| digit.is_ascii_digit());
    let name = port.filter(is_port).map_or(host, |colon| &host[..colon]);
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

/// `None` if a `%` is not followed by two digits, or the bytes are no text.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2).filter(|two| two.chars().all(|c| c.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

fn escaped(text: &str, unescaped: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let letter = char::from(byte);
        if letter.is_ascii_alphanumeric() || "-_.~".contains(letter) || unescaped.contains(letter) {
            out.push(letter);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

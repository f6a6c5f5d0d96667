//! Mappings: where the JSON of a sender whose format gantry does not know has what makes a push, of a source or an image.

use serde::{Deserialize, Serialize};

use crate::text::text_type;

text_type!(
    /// An RFC 6901 pointer to a value below the root of a JSON document, like `/repository/url`.
    JsonPointer,
    "JSON pointer",
    "`/` before each of 1 to 16 names or array indexes, with `~1` for `/` and `~0` for `~` in a name, at most 256 bytes in all, like `/repository/url`",
    is_pointer
);

const LONGEST_POINTER: usize = 256;
const DEEPEST_POINTER: usize = 16;

fn is_pointer(text: &str) -> bool {
    text.len() <= LONGEST_POINTER
        && text.starts_with('/')
        && text.matches('/').count() <= DEEPEST_POINTER
        && !text.chars().any(char::is_control)
        && text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

text_type!(
    /// The name of a header in which a sender may put a signature. HTTP, proxies and gantry itself give it no meaning.
    HeaderName,
    "header for a signature",
    "1 to 64 letters, digits, `-` or `_`, and no name that HTTP, proxies or gantry use, like `Authorization`, `Content-…` or `Webhook-…`",
    |text| {
        let name = text.to_ascii_lowercase();
        (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !USED_NAMES.contains(&name.as_str())
            && !USED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    }
);

const USED_NAMES: &[&str] = &[
    "accept",
    "age",
    "allow",
    "authorization",
    "baggage",
    "cache-control",
    "connection",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "from",
    "host",
    "keep-alive",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "referer",
    "server",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "x-real-ip",
    "x-request-id",
];

const USED_PREFIXES: &[&str] = &[
    "accept-",
    "access-control-",
    "content-",
    "if-",
    "proxy-",
    "sec-",
    "set-cookie",
    "webhook-",
    "x-forwarded-",
];

text_type!(
    /// What a sender writes before a signature, like `sha256=`.
    SignaturePrefix,
    "prefix of a signature",
    "1 to 32 printable ASCII characters, the first of them no space",
    |text| (1..=32).contains(&text.len())
        && !text.starts_with(' ')
        && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
);

/// Where a sender's JSON has what makes a push, and how the sender signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// What is pushed, and where the JSON has it.
    #[serde(flatten)]
    pub push: MappedPush,
    /// How the sender signs.
    pub proof: MappedProof,
}

/// What a sender of mapped JSON reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MappedPush {
    /// Pushes of branches and tags.
    Source(MappedSource),
    /// Pushes of images.
    Image(MappedImage),
}

/// Where the JSON has a push of a branch or tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedSource {
    /// The repository's URL.
    pub repository: JsonPointer,
    /// What moved: `refs/heads/…`, `refs/tags/…`, or a branch's name.
    #[serde(rename = "ref")]
    pub reference: JsonPointer,
    /// The commit after; `null` or zeros if the branch or tag was deleted.
    pub commit: JsonPointer,
    /// The commit before; `null`, zeros or nothing if the branch or tag is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<JsonPointer>,
}

/// Where the JSON has a push of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedImage {
    /// The image's name, maybe with tag and digest. Without a host it belongs to the hook's registry.
    pub image: JsonPointer,
    /// The tag; without this pointer, or with `null` or nothing there, it is the one in the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<JsonPointer>,
    /// The digest; `null` or nothing if the sender does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<JsonPointer>,
}

/// How a sender of mapped JSON proves that it knows the hook's secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "scheme")]
pub enum MappedProof {
    /// As Standard Webhooks says.
    StandardWebhooks,
    /// By the HMAC-SHA256 of the body in a header.
    Header(SignatureHeader),
}

/// A header with a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureHeader {
    /// Its name.
    pub name: HeaderName,
    /// What stands before the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<SignaturePrefix>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_of_a_source_or_of_an_image() {
        let proof = r#""proof":{"scheme":"standard_webhooks"}"#;
        let read = |parts: &str| {
            let text = format!("{{{parts},{proof}}}");
            let mapping: Mapping = serde_json::from_str(&text).ok()?;
            assert_eq!(serde_json::to_string(&mapping).unwrap(), text);
            Some(matches!(mapping.push, MappedPush::Image(_)))
        };
        assert_eq!(read(r#""repository":"/url","ref":"/ref","commit":"/id""#), Some(false));
        assert_eq!(read(r#""image":"/image","tag":"/tag""#), Some(true));
        assert_eq!(read(r#""image":"/image""#), Some(true));
        assert_eq!(read(r#""repository":"/url","ref":"/ref""#), None);
        assert_eq!(read(r#""tag":"/tag""#), None);
    }

    #[test]
    fn a_pointer_is_one_of_rfc_6901_and_bounded() {
        for text in ["/ref", "/repository/url", "/commits/0/id", "/a~1b/m~0n", "/", "/ünter/wegs"]
        {
            assert_eq!(text.parse::<JsonPointer>().unwrap().as_str(), text);
        }
        let (long, deep) = (format!("/{}", "a".repeat(256)), "/a".repeat(17));
        for text in ["", "ref", "#/ref", "/a~", "/a~2", "/a~~0", "/a\n", &long, &deep] {
            assert!(text.parse::<JsonPointer>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_signature_is_in_a_header_without_another_meaning() {
        for name in ["X-Signature", "x-hub-signature-256", "X_Sig", "Linear-Signature"] {
            assert!(name.parse::<HeaderName>().is_ok(), "{name}");
        }
        let long = "x".repeat(65);
        for name in [
            "Authorization",
            "COOKIE",
            "Set-Cookie2",
            "Host",
            "Content-Type",
            "Transfer-Encoding",
            "X-Forwarded-For",
            "Webhook-Signature",
            "traceparent",
            "",
            "X Signature",
            "X-Signature:",
            "X-Signatür",
            &long,
        ] {
            assert!(name.parse::<HeaderName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_prefix_of_a_signature_is_short_and_printable() {
        let long = "x".repeat(33);
        for (prefix, is_one) in [
            ("sha256=", true),
            ("HMAC ", true),
            ("", false),
            (" a", false),
            ("a\t", false),
            ("ä", false),
            (&long, false),
        ] {
            assert_eq!(prefix.parse::<SignaturePrefix>().is_ok(), is_one, "{prefix}");
        }
    }
}

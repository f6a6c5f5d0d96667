//! Platforms of images.

use std::fmt;
use std::str::FromStr;

use crate::InvalidText;
use crate::id::PoolName;
use crate::text::serde_as_text;

/// The operating system, architecture and variant of an image, like `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// The operating system, `linux`.
    #[must_use]
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture, like `amd64`.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant, like `v8`, if there is one.
    #[must_use]
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// The pool of workers for this platform.
    #[must_use]
    pub fn pool(&self) -> PoolName {
        // Both parts are short words, which is what a pool's name consists of.
        match format!("{}-{}", self.os, self.architecture).parse() {
            Ok(pool) => pool,
            Err(_) => unreachable!("a platform's words are the words of a pool's name"),
        }
    }
}

impl Default for Platform {
    /// `linux/amd64`, like the original.
    fn default() -> Self {
        Self { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = InvalidText;

    /// Case-insensitive. The architecture defaults to `amd64`; `x86_64` and `aarch64` are accepted.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |rule| InvalidText::new("platform", text, rule);
        let lower = text.to_ascii_lowercase();
        let mut words = lower.split('/');
        let os = words.next().unwrap_or_default();
        if os != "linux" {
            return Err(refused("`linux[/architecture[/variant]]`: only linux is built"));
        }
        let architecture = match words.next().unwrap_or("amd64") {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            known @ ("amd64" | "arm64" | "arm" | "386" | "ppc64le" | "s390x" | "riscv64") => known,
            _ => {
                return Err(refused(
                    "the architecture is one of amd64, arm64, arm, 386, ppc64le, s390x, riscv64",
                ));
            }
        };
        let variant = match words.next() {
            None => None,
            Some(variant @ ("v5" | "v6" | "v7" | "v8" | "v2" | "v3" | "v4")) => {
                Some(variant.to_owned())
            }
            Some(_) => return Err(refused("the variant is one of v2 to v8")),
        };
        if words.next().is_some() {
            return Err(refused("`linux[/architecture[/variant]]`"));
        }
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }
}

serde_as_text!(Platform);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_parse_as_in_the_original() {
        for (text, read) in [
            ("linux", "linux/amd64"),
            ("Linux/AMD64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("linux/x86_64", "linux/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), read);
        }
        for refused in ["", "windows", "linux/mips", "linux/arm/v9", "linux/arm/v7/x"] {
            assert!(refused.parse::<Platform>().is_err(), "{refused}");
        }
        assert_eq!(Platform::default().pool().as_str(), "linux-amd64");
    }
}

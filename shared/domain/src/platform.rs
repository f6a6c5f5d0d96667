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
    /// The operating system, `linux` or `windows`.
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

impl Platform {
    /// The platform of a pool with a name like `linux-arm64`; `None` for other names.
    #[must_use]
    pub fn of_pool(pool: &PoolName) -> Option<Self> {
        let (os, architecture) = pool.as_str().split_once('-')?;
        let platform: Self = format!("{os}/{architecture}").parse().ok()?;
        (platform.pool() == *pool).then_some(platform)
    }

    /// Whether an engine with this platform builds for the other one. Variants are not compared: emulators have them all,
    /// and engines do not report all that they have.
    #[must_use]
    pub fn builds_for(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture
    }

    /// Whether it is the same platform, with its variant named or not.
    #[must_use]
    pub fn is_equal_to(&self, other: &Self) -> bool {
        self.fit(&other.os, &other.architecture, other.variant()) == Some(Fit(0))
    }

    /// Whether an emulator on another machine can execute its programs.
    #[must_use]
    pub fn can_be_emulated(&self) -> bool {
        self.os == "linux"
    }
}

/// How well an image suits a platform; the smallest is the best.
///
/// Processors run the code of older variants, so an image for `arm/v6` suits `arm/v7`, and one for `arm/v7` suits it
/// better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit(u8);

impl Platform {
    /// How well an image with this platform in its configuration, or in an index, suits this platform. `None` if it does
    /// not run here.
    ///
    /// The names are any that tools write, such as `aarch64`. Without a variant, `arm64` is `v8`, `arm` is `v7` and
    /// `amd64` is `v1`, as in containerd.
    #[must_use]
    pub fn fit(&self, os: &str, architecture: &str, variant: Option<&str>) -> Option<Fit> {
        let architecture = architecture.to_ascii_lowercase();
        let architecture = known_name(&architecture);
        if !os.eq_ignore_ascii_case(&self.os) || architecture != self.architecture {
            return None;
        }
        let wanted = level(architecture, self.variant())?;
        wanted.checked_sub(level(architecture, variant)?).map(Fit)
    }
}

/// The name of an architecture in gantry.
fn known_name(architecture: &str) -> &str {
    match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The number of a variant; `None` if it is none.
fn level(architecture: &str, variant: Option<&str>) -> Option<u8> {
    match variant.filter(|variant| !variant.is_empty()) {
        Some(variant) => variant.trim_start_matches(['v', 'V']).parse().ok(),
        None => Some(match architecture {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        }),
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
        let architecture = known_name(words.next().unwrap_or("amd64"));
        match (os, architecture) {
            ("linux", "amd64" | "arm64" | "arm" | "386" | "ppc64le" | "s390x" | "riscv64")
            | ("windows", "amd64") => {}
            ("linux", _) => {
                return Err(refused(
                    "the architecture is one of amd64, arm64, arm, 386, ppc64le, s390x, riscv64",
                ));
            }
            ("windows", _) => return Err(refused("windows is built for amd64 only")),
            _ => return Err(refused("`linux[/architecture[/variant]]` or `windows/amd64`")),
        }
        let variant = match words.next() {
            None => None,
            Some(_) if os == "windows" => return Err(refused("windows has no variants")),
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
            ("Windows", "windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), read);
        }
        for refused in [
            "",
            "plan9",
            "windows/arm64",
            "windows/amd64/v2",
            "linux/mips",
            "linux/arm/v9",
            "linux/arm/v7/x",
        ] {
            assert!(refused.parse::<Platform>().is_err(), "{refused}");
        }
    }

    #[test]
    fn a_platform_has_a_pool_and_the_pool_tells_the_platform() {
        assert_eq!(Platform::default().pool().as_str(), "linux-amd64");
        for (pool, platform) in [
            ("linux-arm64", Some("linux/arm64")),
            ("windows-amd64", Some("windows/amd64")),
            ("large", None),
            ("linux-large", None),
            ("linux-aarch64", None),
            ("Linux-arm64", None),
        ] {
            let found = Platform::of_pool(&pool.parse().unwrap());
            assert_eq!(found.map(|it| it.to_string()).as_deref(), platform, "{pool}");
        }
        let arm: Platform = "linux/arm".parse().unwrap();
        assert!(arm.builds_for(&"linux/arm/v6".parse().unwrap()));
        assert!(!arm.builds_for(&"linux/arm64".parse().unwrap()));
    }

    #[test]
    fn an_image_suits_its_platform_and_those_that_run_older_code() {
        let fit = |platform: &str, image: &str| {
            let mut words = image.split('/');
            let (os, architecture) = (words.next().unwrap(), words.next().unwrap());
            platform.parse::<Platform>().unwrap().fit(os, architecture, words.next())
        };
        for (platform, images) in [
            ("linux/amd64", &["linux/amd64", "Linux/x86_64", "linux/amd64/v1", "linux/amd64/"][..]),
            ("linux/arm64", &["linux/arm64", "linux/arm64/v8", "linux/aarch64/8"]),
            ("linux/arm64/v8", &["linux/arm64", "linux/arm64/v8"]),
            ("linux/arm", &["linux/arm/v7", "linux/arm"]),
            ("linux/386", &["linux/386"]),
            ("linux/s390x", &["linux/s390x"]),
        ] {
            for image in images {
                assert_eq!(fit(platform, image), Some(Fit(0)), "{image} on {platform}");
            }
        }
        assert!(fit("linux/arm/v7", "linux/arm/v7") < fit("linux/arm/v7", "linux/arm/v6"));
        assert!(fit("linux/amd64/v3", "linux/amd64/v2") < fit("linux/amd64/v3", "linux/amd64"));
        for (platform, image) in [
            ("linux/amd64", "linux/arm64"),
            ("linux/amd64", "windows/amd64"),
            ("linux/amd64", "unknown/unknown"),
            ("linux/amd64", "linux/amd64/v2"),
            ("linux/amd64", "linux/amd64/new"),
            ("linux/arm/v6", "linux/arm"),
            ("linux/arm64", "linux/arm64/v9"),
        ] {
            assert_eq!(fit(platform, image), None, "{image} on {platform}");
        }
    }
}

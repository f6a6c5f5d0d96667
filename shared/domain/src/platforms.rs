//! The platforms of one build.

use std::fmt;
use std::str::FromStr;

use crate::InvalidText;
use crate::id::PoolName;
use crate::platform::Platform;
use crate::text::serde_as_text;

/// How many platforms a build may have.
pub const MOST_PLATFORMS: usize = 8;

/// The platforms that an image is built for, as in `linux/amd64,linux/arm64`: at least one, at most [`MOST_PLATFORMS`], each
/// once, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platforms {
    first: Platform,
    others: Vec<Platform>,
}

impl Platforms {
    /// These platforms, in their order; `None` if there is none.
    #[must_use]
    pub fn of(platforms: impl IntoIterator<Item = Platform>) -> Option<Self> {
        let mut platforms = platforms.into_iter();
        Some(Self { first: platforms.next()?, others: platforms.collect() })
    }

    /// The first one. Its pool is where the run waits, and its names are those of the run's variables.
    #[must_use]
    pub fn first(&self) -> &Platform {
        &self.first
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Platform> + Clone {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Whether there is more than one, so that the image is an index.
    #[must_use]
    pub fn are_several(&self) -> bool {
        !self.others.is_empty()
    }

    /// The pool that a run waits for: that of the first platform.
    #[must_use]
    pub fn pool(&self) -> PoolName {
        self.first.pool()
    }
}

impl From<Platform> for Platforms {
    fn from(platform: Platform) -> Self {
        Self { first: platform, others: Vec::new() }
    }
}

impl Default for Platforms {
    fn default() -> Self {
        Platform::default().into()
    }
}

impl fmt::Display for Platforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.others.iter().try_for_each(|platform| write!(f, ",{platform}"))
    }
}

impl FromStr for Platforms {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |rule| InvalidText::new("list of platforms", text, rule);
        let mut words = text.split(',').map(str::trim);
        let mut platforms = Self::from(words.next().unwrap_or_default().parse::<Platform>()?);
        for word in words {
            let platform: Platform = word.parse()?;
            if platforms.iter().any(|other| other.is_equal_to(&platform)) {
                return Err(refused("each platform once: an index has one image for each"));
            }
            if platforms.others.len() + 1 == MOST_PLATFORMS {
                return Err(refused("at most 8 platforms"));
            }
            platforms.others.push(platform);
        }
        Ok(platforms)
    }
}

serde_as_text!(Platforms);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_each_platform_once_in_its_order() {
        for (text, read) in [
            ("linux", "linux/amd64"),
            ("linux/arm64, Linux/AMD64", "linux/arm64,linux/amd64"),
            ("linux/arm/v6,linux/arm/v7", "linux/arm/v6,linux/arm/v7"),
            ("linux/amd64,windows/amd64", "linux/amd64,windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platforms>().unwrap().to_string(), read);
        }
        for refused in [
            "",
            ",",
            "linux/amd64,",
            "linux/amd64,linux/amd64",
            "linux/arm64,linux/arm64/v8",
            "linux/arm,linux/arm/v7",
            "linux/386,linux/amd64,linux/amd64/v2,linux/amd64/v3,linux/amd64/v4,linux/arm64,linux/s390x,linux/riscv64,linux/ppc64le",
        ] {
            assert!(refused.parse::<Platforms>().is_err(), "{refused}");
        }
        let several: Platforms = "linux/arm64,linux/amd64".parse().unwrap();
        assert!(several.are_several() && several.pool().as_str() == "linux-arm64");
    }
}

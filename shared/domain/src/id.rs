//! Names and ids of records.

use std::fmt;
use std::str::FromStr;

use crate::InvalidText;
use crate::text::{serde_as_text, text_type};

pub(crate) fn is_name(text: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// An id made by gantry or a provider: without spaces and slashes, usable in a URL path and a log.
fn is_opaque(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

text_type!(
    /// The name of a registry in gantry. Not its host: see [`crate::registry::Registry`].
    RegistryName,
    "registry name",
    "2 to 50 letters, digits, `-` or `_`, beginning with a letter or digit",
    |text| is_name(text, 2, 50)
);

text_type!(
    /// The name of a task, unique in its registry.
    TaskName,
    "task name",
    "2 to 50 letters, digits, `-` or `_`, beginning with a letter or digit",
    |text| is_name(text, 2, 50)
);

text_type!(
    /// The name of a pool, the workers for one platform, like `linux-amd64`.
    PoolName,
    "pool name",
    "1 to 50 letters, digits, `-` or `_`, beginning with a letter or digit",
    |text| is_name(text, 1, 50)
);

text_type!(
    /// A concurrency group of a registry: of the tasks in it, one run is executed at a time.
    GroupName,
    "concurrency group",
    "1 to 50 letters, digits, `-` or `_`, beginning with a letter or digit",
    |text| is_name(text, 1, 50)
);

text_type!(
    /// The id of a step, which is also its alias and host name in the run's network.
    StepId,
    "step id",
    "1 to 63 letters, digits, `-` or `_`, beginning with a letter or digit",
    |text| is_name(text, 1, 63)
);

text_type!(
    /// The id of a hook, which cannot be guessed: for providers that cannot sign, the URL is half of the secret.
    HookId,
    "hook id",
    "1 to 128 letters, digits or `-_.:`",
    is_opaque
);

text_type!(
    /// A provider's id of a delivery. Redeliveries keep their id.
    DeliveryId,
    "delivery id",
    "1 to 128 letters, digits or `-_.:`",
    is_opaque
);

text_type!(
    /// The id of an event: a delivery and its position in it, or a request.
    EventId,
    "event id",
    "1 to 300 letters, digits or `-_.:/`",
    |text| (1..=300).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b))
);

/// How the ids of simulated events begin. No hook has this id.
const SIMULATED: &str = "simulate/";

impl EventId {
    /// The event at `place`, from 0, of what a delivery to a hook means.
    #[must_use]
    pub fn of_delivery(hook: &HookId, delivery: &DeliveryId, place: usize) -> Self {
        match format!("{hook}/{delivery}/{place}").parse() {
            Ok(id) => id,
            Err(_) => {
                unreachable!("two ids of at most 128 characters and a number are an event id")
            }
        }
    }

    /// The event at `place`, from 0, of a simulation. `number` is random.
    ///
    /// # Errors
    /// [`InvalidText`] if the number has other characters than an id.
    pub fn of_simulation(number: &str, place: usize) -> Result<Self, InvalidText> {
        format!("{SIMULATED}{number}/{place}").parse()
    }

    /// Whether the event is only simulated: it is decided like any other, but nothing comes of it.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.as_str().starts_with(SIMULATED)
    }

    /// The hook, the delivery and the place in it, if the id has the form that [`EventId::of_delivery`] gives.
    #[must_use]
    pub fn delivery(&self) -> Option<(HookId, DeliveryId, usize)> {
        let mut parts = self.as_str().splitn(3, '/');
        let (hook, delivery, place) = (parts.next()?, parts.next()?, parts.next()?);
        Some((hook.parse().ok()?, delivery.parse().ok()?, place.parse().ok()?))
    }
}

text_type!(
    /// The public part of an API token.
    TokenId,
    "token id",
    "1 to 128 letters, digits or `-_.:`",
    is_opaque
);

text_type!(
    /// The id of a worker, unique in the installation while the worker is listed.
    WorkerId,
    "worker id",
    "1 to 128 letters, digits or `-_.:`",
    is_opaque
);

text_type!(
    /// The id of an uploaded archive.
    UploadId,
    "upload id",
    "1 to 128 letters, digits or `-_.:`",
    is_opaque
);

text_type!(
    /// Distinguishes a lease of a run from all others: 128 random bits in hexadecimal.
    LeaseNonce,
    "lease nonce",
    "32 hexadecimal digits",
    |text| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
);

text_type!(
    /// Identifies a request, so that repeating it has no further effect.
    IdempotencyKey,
    "idempotency key",
    "1 to 128 letters, digits or `-_.:`",
    is_opaque
);

/// The letters that begin the run ids of one registry, like `ca`. No two registries of an installation ever have the
/// same prefix, so it also tells a registry from a deleted one of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunPrefix {
    /// Padded with zeros.
    letters: [u8; RunPrefix::MOST],
}

impl RunPrefix {
    const FEWEST: usize = 2;
    /// Enough for every `u32`.
    const MOST: usize = 7;

    /// The prefix of the `n`th registry of an installation, from 0: `ca`, `cb`, … `zz`, `aa`, … `bz`, then `aaa`, …
    #[must_use]
    pub fn nth(n: u32) -> Self {
        let (mut of_this_length, mut rest, mut length) = (26 * 26, u64::from(n), Self::FEWEST);
        while rest >= of_this_length {
            rest -= of_this_length;
            of_this_length *= 26;
            length += 1;
        }
        if length == Self::FEWEST {
            // Starts at `ca`, like the original.
            rest = (rest + 2 * 26) % of_this_length;
        }
        let mut letters = [0; Self::MOST];
        for letter in letters.iter_mut().take(length).rev() {
            *letter = b"abcdefghijklmnopqrstuvwxyz"[usize::try_from(rest % 26).unwrap_or(0)];
            rest /= 26;
        }
        Self { letters }
    }

    fn letters(&self) -> impl Iterator<Item = char> {
        self.letters.iter().take_while(|letter| **letter != 0).copied().map(char::from)
    }
}

impl fmt::Display for RunPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.letters().try_for_each(|letter| fmt::Write::write_char(f, letter))
    }
}

impl fmt::Debug for RunPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunPrefix({self})")
    }
}

impl FromStr for RunPrefix {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_prefix = (Self::FEWEST..=Self::MOST).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase());
        if !is_prefix {
            return Err(InvalidText::new("run prefix", text, "2 to 7 lower-case letters"));
        }
        let mut letters = [0; Self::MOST];
        letters.iter_mut().zip(text.bytes()).for_each(|(letter, byte)| *letter = byte);
        Ok(Self { letters })
    }
}

serde_as_text!(RunPrefix);

/// The id of a run, like `ca1`; of a hidden run, like `ca-1`. Unique in the installation, increasing per registry, valid
/// as an image tag.
///
/// A hidden run is gantry's own work, which nobody asked for. It is in no list that people see and counts against no
/// limit. Hidden runs are numbered separately, so the ids that people see have no gaps, and the id alone tells whether a
/// run is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId {
    prefix: RunPrefix,
    is_hidden: bool,
    number: u64,
}

impl RunId {
    /// The run with this number, from 1, of this prefix.
    #[must_use]
    pub fn new(prefix: RunPrefix, number: u64) -> Self {
        Self { prefix, is_hidden: false, number }
    }

    /// The hidden run with this number, from 1, of this prefix.
    #[must_use]
    pub fn hidden(prefix: RunPrefix, number: u64) -> Self {
        Self { prefix, is_hidden: true, number }
    }

    /// The registry's prefix.
    #[must_use]
    pub fn prefix(&self) -> RunPrefix {
        self.prefix
    }

    /// Whether it is the id of a hidden run.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.is_hidden
    }

    /// The run's number among the hidden runs, or among the others, of its prefix.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dash = if self.is_hidden { "-" } else { "" };
        write!(f, "{}{dash}{}", self.prefix, self.number)
    }
}

impl FromStr for RunId {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || InvalidText::new("run id", text, "letters and a number, like `ca1`");
        let end = text.find(|letter: char| letter.is_ascii_digit()).ok_or_else(refused)?;
        let (letters, digits) = text.split_at_checked(end).ok_or_else(refused)?;
        let hidden = letters.strip_suffix('-');
        let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        if !canonical {
            return Err(refused());
        }
        let prefix = hidden.unwrap_or(letters).parse().map_err(|_| refused())?;
        let number = digits.parse().map_err(|_| refused())?;
        Ok(Self { prefix, is_hidden: hidden.is_some(), number })
    }
}

serde_as_text!(RunId);

/// The id of a wave, like `ca-w1`: unique in the installation, increasing per registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaveId {
    prefix: RunPrefix,
    number: u64,
}

impl WaveId {
    /// The wave with this number, from 1, of this prefix.
    #[must_use]
    pub fn new(prefix: RunPrefix, number: u64) -> Self {
        Self { prefix, number }
    }

    /// The registry's prefix.
    #[must_use]
    pub fn prefix(&self) -> RunPrefix {
        self.prefix
    }

    /// The number: a registry's newer waves have greater ones.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl fmt::Display for WaveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-w{}", self.prefix, self.number)
    }
}

impl FromStr for WaveId {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || InvalidText::new("wave", text, "letters, `-w` and a number, like `ca-w1`");
        let (prefix, digits) = text.split_once("-w").ok_or_else(refused)?;
        let is_canonical =
            digits.bytes().all(|digit| digit.is_ascii_digit()) && !digits.starts_with('0');
        let number = digits.parse().ok().filter(|_| is_canonical).ok_or_else(refused)?;
        Ok(Self { prefix: prefix.parse().map_err(|_| refused())?, number })
    }
}

serde_as_text!(WaveId);

/// The id of a task: its registry and its name, written `registry/task`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The registry that the task belongs to.
    pub registry: RegistryName,
    /// The task's name in the registry.
    pub name: TaskName,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

impl FromStr for TaskId {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (registry, name) = text
            .split_once('/')
            .ok_or_else(|| InvalidText::new("task", text, "`registry/task`"))?;
        Ok(Self { registry: registry.parse()?, name: name.parse()? })
    }
}

serde_as_text!(TaskId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_round_trip_in_one_spelling() {
        let id = RunId::new(RunPrefix::nth(0), 17);
        assert_eq!(id.to_string(), "ca17");
        assert_eq!("ca17".parse(), Ok(id));
        let hidden = RunId::hidden(RunPrefix::nth(0), 17);
        assert_eq!(hidden.to_string(), "ca-17");
        assert_eq!("ca-17".parse(), Ok(hidden));
        assert!(hidden.is_hidden() && !id.is_hidden() && hidden != id);
        for refused in [
            "",
            "c",
            "ca",
            "ca0",
            "ca01",
            "CA1",
            "ca--1",
            "ca-",
            "-1",
            "ca-01",
            "ca1-",
            "ca1x",
            "é1",
            "ca99999999999999999999999",
        ] {
            assert!(refused.parse::<RunId>().is_err(), "{refused}");
        }
    }

    #[test]
    fn wave_ids_round_trip_in_one_spelling() {
        let id = WaveId::new(RunPrefix::nth(0), 17);
        assert_eq!((id.to_string().as_str(), "ca-w17".parse()), ("ca-w17", Ok(id)));
        for refused in ["", "ca17", "ca-17", "ca-w", "ca-w0", "ca-w01", "ca-w1x", "-w1", "ca-w+1"] {
            assert!(refused.parse::<WaveId>().is_err(), "{refused}");
        }
    }

    #[test]
    fn prefixes_are_unique() {
        for (n, prefix) in [
            (0, "ca"),
            (1, "cb"),
            (26, "da"),
            (623, "zz"),
            (624, "aa"),
            (675, "bz"),
            (676, "aaa"),
            (676 + 17_575, "zzz"),
            (676 + 17_576, "aaaa"),
            (u32::MAX, "mwlqkxv"),
        ] {
            assert_eq!(RunPrefix::nth(n).to_string(), prefix);
            assert_eq!(prefix.parse(), Ok(RunPrefix::nth(n)));
        }
        let all: std::collections::BTreeSet<_> = (0..20_000).map(RunPrefix::nth).collect();
        assert_eq!(all.len(), 20_000);
    }

    #[test]
    fn the_id_of_a_delivery_s_event_names_hook_delivery_and_place() {
        let (hook, delivery): (HookId, DeliveryId) =
            ("h1".parse().unwrap(), "72d3:1".parse().unwrap());
        let id = EventId::of_delivery(&hook, &delivery, 3);
        assert_eq!(id.as_str(), "h1/72d3:1/3");
        assert_eq!(id.delivery(), Some((hook, delivery, 3)));
        let commit = "1".repeat(40);
        for other in
            ["request/1f", "task:reg/web:1:2", "a/b/c", "a/b/-1", &format!("run/ca1/{commit}")]
        {
            assert_eq!(other.parse::<EventId>().unwrap().delivery(), None, "{other}");
        }
    }

    #[test]
    fn names_refuse_characters_unsafe_in_paths_and_logs() {
        for refused in ["", "a", "-ab", "a b", "a/b", "a\nb", "..", &"x".repeat(51)] {
            assert!(refused.parse::<TaskName>().is_err(), "{refused:?}");
        }
        assert_eq!(
            "x".parse::<TaskName>().unwrap_err().to_string(),
            "`x` is no task name: 2 to 50 letters, digits, `-` or `_`, beginning with a letter or digit"
        );
    }
}

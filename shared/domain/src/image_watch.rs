//! The watch of one tag: what was seen there, and what that means. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::RunPrefix;
use crate::image::{Digest, Tag};
use crate::timestamp::Timestamp;
use crate::tracked_image::TrackedImage;

/// How many of the latest observations a watch keeps.
const MOST_SEEN: usize = 16;

/// The longest that a change is collected.
const LONGEST_CHANGE: Duration = Duration::from_secs(600);

/// The pause after the first failed look; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause after a failed look.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The time in which the images of a registry become due after its pause, and the wait that puts an image first.
const RESUMING: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Which watch of a tag, or of a policy that chooses one: who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Watched {
    /// The tag, or the policy.
    pub image: TrackedImage,
    /// The registry of gantry whose credentials, or those of its tasks, are used; `None` if it is asked anonymously, for all registries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<RunPrefix>,
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            Some(prefix) => write!(f, "{prefix}/{}", self.image),
            None => write!(f, "-/{}", self.image),
        }
    }
}

/// A watched tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct ImageWatch {
    #[serde(flatten)]
    pub watched: Watched,
    /// When it is asked for next.
    pub due: Timestamp,
    /// When it was asked for last, successfully or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Timestamp>,
    /// What the tag had when it came to rest last; `None` before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The tag that the policy chose; `None` if the watch is of one tag, or no tag matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<ChosenTag>,
    /// When its content changed last, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Timestamp>,
    /// A change that may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Why it is not known what the tag has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// The latest observations, oldest first, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Seen>,
}

/// The tag that a policy chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenTag {
    /// The tag.
    pub tag: Tag,
    /// Since when it is the newest that matches.
    pub since: Timestamp,
}

/// A change that is collected until the tag comes to rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What the tag has now.
    pub digest: Digest,
    /// When the first change since the last rest was seen.
    pub first: Timestamp,
    /// When the last one was seen.
    pub last: Timestamp,
    /// How long the tag must rest, in milliseconds.
    pub quiet: u64,
}

/// Why an image cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What failed, on what, and the remedy.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// How often in a row.
    pub tries: u32,
}

/// An observation of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When.
    pub at: Timestamp,
    /// What the tag had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What that means.
    pub what: SeenAs,
}

/// What an observation means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum SeenAs {
    /// The first look.
    First,
    /// It changed, and may change again.
    Changed,
    /// It changed back before it came to rest: nothing follows.
    Returned,
    /// It came to rest, with the same content for every platform that tasks use: nothing follows.
    Same,
    /// It came to rest with other content.
    Moved,
}

/// What follows from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the tag is at rest.
    Rest,
    /// The tag has changed. How long it must rest depends on what it has now: say it to [`ImageWatch::changed`].
    Changed,
    /// The tag has changed and may change again.
    Wait,
    /// The tag has come to rest: what it has is to be compared, then [`ImageWatch::rested`].
    Compare,
}

impl ImageWatch {
    /// A watch that is due at once.
    #[must_use]
    pub fn new(watched: Watched, now: Timestamp) -> Self {
        Self {
            watched,
            due: now,
            asked: None,
            digest: None,
            chosen: None,
            moved: None,
            pending: None,
            problem: None,
            seen: Vec::new(),
        }
    }

    /// What the tag had when it was asked for last, if it was at rest then.
    #[must_use]
    pub fn digest_at_rest(&self) -> Option<&Digest> {
        let is_at_rest = self.pending.is_none() && self.problem.is_none();
        self.digest.as_ref().filter(|_| is_at_rest)
    }

    /// Takes in what the tag has now.
    pub fn look(&mut self, now: Timestamp, digest: &Digest, interval: Duration) -> Next {
        self.asked = Some(now);
        self.problem = None;
        if self.digest.as_ref() == Some(digest) {
            if self.pending.take().is_some() {
                self.note(now, Some(digest.clone()), SeenAs::Returned);
            }
            self.due = now.after(self.pause(now, interval));
            return Next::Rest;
        }
        match &self.pending {
            Some(pending) if pending.digest == *digest && pending.rests_at() <= now => {
                Next::Compare
            }
            Some(pending) if pending.digest == *digest => {
                self.due = pending.rests_at();
                Next::Wait
            }
            // What it has first is compared at once: there is nothing that it could return to.
            None if self.digest.is_none() => Next::Compare,
            Some(_) | None => Next::Changed,
        }
    }

    /// The tag has changed, and must rest for `quiet` from now on: each further change begins that anew, for ten minutes
    /// in all.
    pub fn changed(&mut self, now: Timestamp, digest: &Digest, quiet: Duration) -> Next {
        let first = self.pending.as_ref().map_or(now, |pending| pending.first);
        let quiet = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        let pending = Pending { digest: digest.clone(), first, last: now, quiet };
        let rests_at = pending.rests_at();
        self.pending = Some(pending);
        if rests_at <= now {
            return Next::Compare;
        }
        self.note(now, Some(digest.clone()), SeenAs::Changed);
        self.due = rests_at;
        Next::Wait
    }

    /// The tag has come to rest at `digest`. `has_moved` tells whether tasks get other content than before.
    pub fn rested(&mut self, now: Timestamp, digest: &Digest, has_moved: bool, interval: Duration) {
        let what = match (&self.digest, has_moved) {
            (_, true) => SeenAs::Moved,
            (None, false) => SeenAs::First,
            (Some(_), false) => SeenAs::Same,
        };
        if has_moved {
            self.moved = Some(now);
        }
        self.note(now, Some(digest.clone()), what);
        self.digest = Some(digest.clone());
        self.pending = None;
        self.due = now.after(self.pause(now, interval));
    }

    /// The tag that a policy has chosen has come to rest; `None` if no tag matches.
    pub fn choose(&mut self, now: Timestamp, tag: Option<Tag>) {
        if self.chosen.as_ref().map(|chosen| &chosen.tag) != tag.as_ref() {
            self.chosen = tag.map(|tag| ChosenTag { tag, since: now });
        }
    }

    /// It could not be found out what the tag has. It is asked for again after `pause`, or after one that grows with each
    /// failure.
    pub fn failed(&mut self, now: Timestamp, message: String, pause: Option<Duration>) {
        self.asked = Some(now);
        let (since, tries) = match &self.problem {
            Some(problem) => (problem.since, problem.tries.saturating_add(1)),
            None => (now, 1),
        };
        let growing = FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(10));
        self.due = now.after(pause.unwrap_or(growing.min(LONGEST_PAUSE)));
        self.problem = Some(Problem { message, since, tries });
    }

    /// When it is looked at after a pause of its registry: the longer ago it was asked for, the sooner. So all images have
    /// their turn, however few requests the registry allows between two pauses.
    #[must_use]
    pub fn resumed(&self, now: Timestamp, until: Timestamp) -> Timestamp {
        let waited = self.asked.map_or(LONGEST_WAIT, |asked| now.since(asked).min(LONGEST_WAIT));
        let left = 1.0 - waited.as_secs_f64() / LONGEST_WAIT.as_secs_f64();
        until.after(RESUMING.mul_f64(left))
    }

    /// The pause before the next look: longer for tags that have not changed for weeks, and a little different for each,
    /// so that they are not all asked for at once.
    fn pause(&self, now: Timestamp, interval: Duration) -> Duration {
        let rests = self.seen.first().map(|first| now.since(self.moved.unwrap_or(first.at)));
        let factor = match rests.unwrap_or_default() {
            rests if rests > 30 * DAY => 4,
            rests if rests > 7 * DAY => 2,
            _ => 1,
        };
        // 95 % to 105 %.
        (interval * factor).mul_f64(0.95 + f64::from(self.spread()) / 10_000.0)
    }

    /// A number below 1000 that differs between images.
    fn spread(&self) -> u32 {
        let name = self.watched.image.to_string();
        let sum = name
            .bytes()
            .fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        sum % 1000
    }

    fn note(&mut self, at: Timestamp, digest: Option<Digest>, what: SeenAs) {
        self.seen.push(Seen { at, digest, what });
        let surplus = self.seen.len().saturating_sub(MOST_SEEN);
        self.seen.drain(..surplus);
    }
}

impl Pending {
    /// When the tag has rested for long enough, if it does not change again.
    #[must_use]
    pub fn rests_at(&self) -> Timestamp {
        let quiet = self.last.after(Duration::from_millis(self.quiet));
        quiet.min(self.first.after(LONGEST_CHANGE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const INTERVAL: Duration = Duration::from_secs(300);

    fn digest(letter: char) -> Digest {
        format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().after(Duration::from_secs(seconds))
    }

    /// A watch that rests at `a`.
    fn resting() -> ImageWatch {
        let watched = Watched { image: "node:20".parse().unwrap(), by: None };
        let mut watch = ImageWatch::new(watched, at(0));
        assert_eq!(watch.look(at(0), &digest('a'), INTERVAL), Next::Compare);
        watch.rested(at(0), &digest('a'), false, INTERVAL);
        watch
    }

    fn look(watch: &mut ImageWatch, seconds: u64, letter: char) -> Next {
        match watch.look(at(seconds), &digest(letter), INTERVAL) {
            Next::Changed => watch.changed(at(seconds), &digest(letter), MINUTE),
            next @ (Next::Rest | Next::Wait | Next::Compare) => next,
        }
    }

    fn seen(watch: &ImageWatch) -> Vec<&SeenAs> {
        watch.seen.iter().map(|seen| &seen.what).collect()
    }

    #[test]
    fn a_change_counts_once_the_tag_has_rested() {
        let mut watch = resting();
        assert_eq!(look(&mut watch, 300, 'a'), Next::Rest);
        assert_eq!(look(&mut watch, 600, 'b'), Next::Wait);
        assert_eq!(watch.due, at(660));
        assert_eq!(look(&mut watch, 630, 'c'), Next::Wait, "each change begins the rest anew");
        assert_eq!(look(&mut watch, 660, 'c'), Next::Wait);
        assert_eq!(look(&mut watch, 690, 'c'), Next::Compare);
        watch.rested(at(690), &digest('c'), true, INTERVAL);
        assert_eq!((watch.digest.clone(), watch.moved), (Some(digest('c')), Some(at(690))));
        assert_eq!(look(&mut watch, 990, 'c'), Next::Rest);
    }

    #[test]
    fn a_change_back_before_the_tag_rests_is_nothing_and_the_watch_says_so() {
        let mut watch = resting();
        assert_eq!(look(&mut watch, 600, 'b'), Next::Wait);
        assert_eq!(look(&mut watch, 659, 'a'), Next::Rest);
        assert_eq!(seen(&watch), [&SeenAs::First, &SeenAs::Changed, &SeenAs::Returned]);
        assert_eq!((watch.pending.clone(), watch.moved), (None, None));
    }

    #[test]
    fn a_tag_that_never_rests_counts_after_ten_minutes() {
        let mut watch = resting();
        for minute in 0..10 {
            let letter = if minute % 2 == 0 { 'b' } else { 'c' };
            assert_eq!(look(&mut watch, 600 + minute * 59, letter), Next::Wait, "{minute}");
        }
        assert_eq!(look(&mut watch, 1200, 'b'), Next::Compare);
    }

    #[test]
    fn a_single_manifest_counts_at_once() {
        let mut watch = resting();
        assert_eq!(watch.look(at(9), &digest('b'), INTERVAL), Next::Changed);
        assert_eq!(watch.changed(at(9), &digest('b'), Duration::ZERO), Next::Compare);
    }

    #[test]
    fn failures_are_told_and_asked_again_ever_later() {
        let mut watch = resting();
        for (tries, pause) in [(1, 30), (2, 60), (3, 120), (4, 240)] {
            watch.failed(at(600), "it is away".to_owned(), None);
            assert_eq!(watch.due, at(600 + pause));
            assert_eq!(watch.problem.as_ref().unwrap().tries, tries);
        }
        (0..20).for_each(|_| watch.failed(at(600), "it is away".to_owned(), None));
        assert_eq!(watch.due, at(600 + 3600));
        watch.failed(at(600), "wait".to_owned(), Some(MINUTE));
        assert_eq!(watch.due, at(660));
        assert_eq!(look(&mut watch, 700, 'a'), Next::Rest);
        assert_eq!(watch.problem, None);
    }

    #[test]
    fn after_a_pause_the_image_that_was_asked_for_longest_ago_comes_first() {
        let hour = 3600;
        let due = |asked: Option<u64>| {
            let mut watch = resting();
            watch.asked = asked.map(at);
            watch.resumed(at(2000 * hour), at(2001 * hour))
        };
        let order = [None, Some(hour), Some(1300 * hour), Some(1999 * hour), Some(2000 * hour)];
        let order: Vec<Timestamp> = order.into_iter().map(due).collect();
        assert!(
            order.is_sorted() && order[1] < order[2] && order[2] < order[3] && order[3] < order[4]
        );
        assert_eq!((order[0], order[4]), (at(2001 * hour), at(2001 * hour + 10)));
    }

    #[test]
    fn a_tag_that_has_not_changed_for_weeks_is_asked_for_less_often() {
        let mut watch = resting();
        let day = 24 * 3600;
        for (days, factor) in [(1, 1.0), (8, 2.0), (31, 4.0)] {
            assert_eq!(look(&mut watch, days * day, 'a'), Next::Rest);
            let pause = watch.due.since(at(days * day)).as_secs_f64() / INTERVAL.as_secs_f64();
            assert!((0.94 * factor..1.06 * factor).contains(&pause), "{days} days: {pause}");
        }
    }
}

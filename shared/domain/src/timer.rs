//! Timers: the schedules by which a task starts, and what happens to runs that are late or overlap.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::schedule::{Schedule, Zone};
use crate::task::Status;
use crate::text::{text_type, words};
use crate::timestamp::Timestamp;

/// The most timers of one task.
const MOST_TIMERS: usize = 20;

/// How late a timer may fire without having missed its instant. Schedules count in minutes.
const ON_TIME: Duration = Duration::from_secs(60);

/// The most instants that a timer catches up with at once.
const MOST_AT_ONCE: usize = 100;

text_type!(
    /// The name of a timer, unique in its task.
    TimerName,
    "timer name",
    "1 to 50 letters, digits, `-` or `_`, beginning with a letter or digit",
    |text| crate::id::is_name(text, 1, 50)
);

/// Starts runs by the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Its name.
    pub name: TimerName,
    /// When it is due.
    pub schedule: Schedule,
    /// The time zone of the schedule.
    #[serde(default, skip_serializing_if = "Zone::is_utc")]
    pub timezone: Zone,
    /// Whether it starts runs.
    #[serde(default)]
    pub status: Status,
    /// What happens to instants at which no scheduler ran.
    #[serde(default)]
    pub misfire: Misfire,
    /// How long ago a missed instant may be.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// What happens if earlier runs of the timer have not ended.
    #[serde(default)]
    pub overlap: Overlap,
}

words!(
    /// What happens to the instants that a timer has missed.
    #[derive(Default)]
    Misfire, "choice for missed instants", "`skip`, `once` or `all`", {
    /// They start nothing.
    Skip = "skip",
    /// They start one run: the latest of them, unless the timer is on time again.
    #[default]
    Once = "once",
    /// Each starts its run, at most 100.
    All = "all",
});

words!(
    /// What happens if earlier runs of a timer have not ended.
    #[derive(Default)]
    Overlap, "choice for overlapping runs", "`allow`, `skip`, `queue` or `cancel`", {
    /// Both run.
    #[default]
    Allow = "allow",
    /// No other run starts.
    Skip = "skip",
    /// The next run waits until the earlier ones end.
    Queue = "queue",
    /// The earlier runs are cancelled.
    Cancel = "cancel",
});

/// How long ago a missed instant may be, so that it still starts a run: one minute to one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct CatchUp(u32);

impl CatchUp {
    /// In seconds.
    #[must_use]
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl Default for CatchUp {
    fn default() -> Self {
        Self(3600)
    }
}

impl TryFrom<u32> for CatchUp {
    type Error = InvalidText;

    fn try_from(seconds: u32) -> Result<Self, Self::Error> {
        match seconds {
            60..=86_400 => Ok(Self(seconds)),
            _ => Err(InvalidText::new(
                "window for missed instants",
                &format!("{seconds} s"),
                "60 to 86400 seconds",
            )),
        }
    }
}

impl From<CatchUp> for u32 {
    fn from(window: CatchUp) -> Self {
        window.0
    }
}

/// The instants of a timer up to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueInstants {
    /// Those that start a run, in order.
    pub fire: Vec<Timestamp>,
    /// How many of these were missed, so that their runs are late.
    pub late: usize,
    /// How many start nothing. All that are older than the window for missed instants count as one.
    pub dropped: usize,
    /// The first instant after now; `None` if there is none within five years.
    pub next: Option<Timestamp>,
}

impl Timer {
    /// The first due instant after `instant`; `None` if there is none within five years.
    #[must_use]
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        self.schedule.next_after(&self.timezone, instant)
    }

    /// The instants from `due`, which is one, until `now`, and what becomes of them.
    #[must_use]
    pub fn due(&self, due: Timestamp, now: Timestamp) -> DueInstants {
        let window = now.before(Duration::from_secs(self.catch_up.0.into()));
        let mut dropped = 0;
        let mut next = Some(due);
        if due < window {
            dropped += 1;
            next = self.next_after(window.before(Duration::from_millis(1)));
        }
        let (mut missed, mut on_time) = (Vec::new(), Vec::new());
        while let Some(instant) = next.filter(|instant| *instant <= now) {
            if now.since(instant) > ON_TIME {
                missed.push(instant);
            } else {
                on_time.push(instant);
            }
            next = self.next_after(instant);
        }
        let wanted = match self.misfire {
            Misfire::Skip => 0,
            Misfire::Once => usize::from(on_time.is_empty()),
            Misfire::All => MOST_AT_ONCE - on_time.len(),
        };
        let late = wanted.min(missed.len());
        let first = missed.len() - late;
        dropped += first;
        let fire = missed.split_off(first).into_iter().chain(on_time).collect();
        DueInstants { fire, late, dropped, next }
    }
}

/// The timers of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Timer>", into = "Vec<Timer>")]
pub struct Timers(Vec<Timer>);

impl Timers {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The timers, in the order in which they were given.
    #[must_use]
    pub fn as_slice(&self) -> &[Timer] {
        &self.0
    }

    /// The timer of this name.
    #[must_use]
    pub fn find(&self, name: &TimerName) -> Option<&Timer> {
        self.0.iter().find(|timer| timer.name == *name)
    }
}

impl TryFrom<Vec<Timer>> for Timers {
    type Error = InvalidText;

    fn try_from(timers: Vec<Timer>) -> Result<Self, Self::Error> {
        if timers.len() > MOST_TIMERS {
            let count = format!("{} timers", timers.len());
            return Err(InvalidText::new("list of timers", &count, "at most 20 timers"));
        }
        for (place, timer) in timers.iter().enumerate() {
            if timers.iter().take(place).any(|other| other.name == timer.name) {
                let rule = "the name of another timer of the task: give each its own";
                return Err(InvalidText::new("list of timers", timer.name.as_str(), rule));
            }
        }
        Ok(Self(timers))
    }
}

impl From<Timers> for Vec<Timer> {
    fn from(timers: Timers) -> Self {
        timers.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2023-11-14T22:00:00Z.
    const TEN: i64 = 1_699_999_200_000;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_millis(TEN + minutes * 60_000)
    }

    fn timer(misfire: Misfire) -> Timer {
        Timer {
            name: "t".parse().unwrap(),
            schedule: "*/10 * * * *".parse().unwrap(),
            timezone: Zone::default(),
            status: Status::default(),
            misfire,
            catch_up: CatchUp::default(),
            overlap: Overlap::default(),
        }
    }

    fn minutes(due: &DueInstants) -> Vec<i64> {
        due.fire.iter().map(|due| (due.as_millis() - TEN) / 60_000).collect()
    }

    #[test]
    fn missed_instants_fire_by_the_policy_and_on_time_ones_always() {
        for (misfire, now, fire, late, dropped) in [
            (Misfire::Skip, 30, &[30][..], 0, 3),
            (Misfire::Skip, 35, &[], 0, 4),
            (Misfire::Once, 30, &[30], 0, 3),
            (Misfire::Once, 35, &[30], 1, 3),
            (Misfire::All, 30, &[0, 10, 20, 30], 3, 0),
            (Misfire::All, 35, &[0, 10, 20, 30], 4, 0),
            (Misfire::All, 1, &[0], 0, 0),
            // Only the last hour counts.
            (Misfire::All, 100, &[40, 50, 60, 70, 80, 90, 100], 6, 1),
            (Misfire::Once, 10_001, &[10_000], 0, 6),
        ] {
            let due = timer(misfire).due(at(0), at(now));
            let found = (minutes(&due), due.late, due.dropped);
            assert_eq!(found, (fire.to_vec(), late, dropped), "{misfire} at {now}");
            assert_eq!(due.next, Some(at(now / 10 * 10 + 10)), "{misfire} at {now}");
        }
    }

    #[test]
    fn at_most_a_hundred_instants_are_caught_up_with() {
        let mut often = timer(Misfire::All);
        often.schedule = "* * * * *".parse().unwrap();
        often.catch_up = CatchUp::try_from(86_400).unwrap();
        let due = often.due(at(0), at(1000));
        let until_now: Vec<i64> = (901..=1000).collect();
        assert_eq!(minutes(&due), until_now);
        assert_eq!(due.dropped, 901);
    }

    #[test]
    fn names_of_timers_differ_and_there_are_twenty_at_most() {
        let named = |name: String| Timer { name: name.parse().unwrap(), ..timer(Misfire::Skip) };
        let many: Vec<Timer> = (0..21).map(|number| named(format!("t{number}"))).collect();
        Timers::try_from(many.clone()).expect_err("too many");
        Timers::try_from(vec![many[0].clone(), many[0].clone()]).expect_err("the same name");
        let timers = Timers::try_from(many[..20].to_vec()).unwrap();
        let json = serde_json::to_string(&timers).unwrap();
        assert_eq!(serde_json::from_str::<Timers>(&json).unwrap(), timers);
    }

    proptest! {
        #[test]
        fn whenever_schedulers_look_no_instant_is_missed_or_doubled(
            step in 1_u8..60, looks in prop::collection::vec(1_i64..3_500, 1..60),
        ) {
            let mut timer = timer(Misfire::All);
            timer.schedule = format!("*/{step} * * * *").parse().unwrap();
            let first = timer.next_after(at(0)).unwrap();
            let (mut now, mut next, mut fired) = (at(0), first, Vec::new());
            for seconds in looks {
                now = now.after(Duration::from_secs(seconds.unsigned_abs()));
                if next <= now {
                    let due = timer.due(next, now);
                    fired.extend(due.fire);
                    next = due.next.unwrap();
                }
            }
            let all = std::iter::successors(Some(first), |last| timer.next_after(*last));
            let until_now: Vec<Timestamp> = all.take_while(|due| *due <= now).collect();
            prop_assert_eq!(fired, until_now);
        }
    }
}

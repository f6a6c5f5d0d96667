//! Schedules: crontab lines of five fields, evaluated in a time zone.
//!
//! In: `0 9 * * 1-5` and a time zone. Out: the instants at which it is due. Fields, weekday numbers and time zones are
//! translated here; the search for the next date and time is the `cron` crate's, which sees a calendar without zones.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use chrono::DateTime;
use jiff::tz::TimeZoneDatabase;

use crate::InvalidText;
use crate::text::{serde_as_text, words};
use crate::timestamp::Timestamp;

/// A schedule without a due instant in this period has none: leap days are at most this far away, but for the years
/// around 2100.
const HORIZON_SECONDS: i64 = 5 * 366 * 24 * 3600;

/// No valid schedule is longer: it names each value once at most.
const LONGEST: usize = 400;

/// The time zones.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// When something is due: minute, hour, day of the month, month and day of the week, all of which must match.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    times: cron::Schedule,
    /// Whether the hours are `*` or `*/n`: it then follows the passage of time, not the hands of a clock.
    is_by_interval: bool,
}

words!(
    /// What is special about a local time.
    LocalTime, "kind of local time", "`after-skipped`, `first-of-two` or `second-of-two`", {
    /// Clocks were put forward at this moment, and something was due at a local time that they skip.
    AfterSkipped = "after-skipped",
    /// Clocks show it again later.
    FirstOfTwo = "first-of-two",
    /// Clocks have shown it before.
    SecondOfTwo = "second-of-two",
});

/// A text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields explain themselves")]
pub enum InvalidSchedule {
    /// It has too few or too many fields.
    #[error(
        "`{text}` is no schedule: it has {count} fields, and five are needed: minute, hour, day of the month, month, day of the week"
    )]
    Fields { text: String, count: usize },
    /// One field is wrong.
    #[error("`{part}` is no {field}: {rule}")]
    Field { field: &'static str, part: String, rule: String },
}

/// One of the five fields.
struct Field {
    what: &'static str,
    least: u8,
    most: u8,
    /// The names of its values, from `least` on.
    names: &'static [&'static str],
}

const MINUTE: Field = Field { what: "minute", least: 0, most: 59, names: &[] };
const HOUR: Field = Field { what: "hour", least: 0, most: 23, names: &[] };
const DAY: Field = Field { what: "day of the month", least: 1, most: 31, names: &[] };
const MONTH: Field = Field {
    what: "month",
    least: 1,
    most: 12,
    names: &[
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ],
};
/// Sunday is 0, and 7 too, as in other crontabs.
const WEEKDAY: Field = Field {
    what: "day of the week",
    least: 0,
    most: 7,
    names: &["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"],
};

impl Schedule {
    /// The first due instant after `instant`, by the clocks of `zone`; `None` if there is none within five years.
    ///
    /// Clocks that are put forward skip local times: what is due then is due once, at the moment after. Clocks that are
    /// put back show local times twice: fixed hours are due the first time only, `*` and `*/n` both times.
    #[must_use]
    pub fn next_after(&self, zone: &Zone, instant: Timestamp) -> Option<Timestamp> {
        let mut after = instant.as_millis().div_euclid(1000);
        let limit = after.saturating_add(HORIZON_SECONDS);
        let mut period = zone.period_at(after)?;
        loop {
            let mut local_after = after + period.offset;
            if let Some((at, before)) = period.began.filter(|_| !self.is_by_interval) {
                // Local times before that were shown, and due, in the period before.
                local_after = local_after.max(at + before - 1);
            }
            let local = self.next_local(local_after)?;
            let due = local - period.offset;
            match period.ends {
                Some((end, next_offset)) if due >= end => {
                    if end > limit {
                        return None;
                    }
                    if local < end + next_offset {
                        return Some(Timestamp::from_millis(end * 1000));
                    }
                    after = end - 1;
                    period = zone.period_at(end)?;
                }
                Some(_) | None => {
                    return (due <= limit).then(|| Timestamp::from_millis(due * 1000));
                }
            }
        }
    }

    /// The next time after `local`, both in seconds as if the local time were UTC.
    fn next_local(&self, local: i64) -> Option<i64> {
        let after = DateTime::from_timestamp(local, 0)?;
        self.times.after(&after).next().map(|next| next.timestamp())
    }

    /// What is special about the local time of a due instant.
    #[must_use]
    pub fn note(&self, zone: &Zone, due: Timestamp) -> Option<LocalTime> {
        let due = due.as_millis().div_euclid(1000);
        let period = zone.period_at(due)?;
        let local = due + period.offset;
        if let Some((at, before)) = period.began {
            if local < at + before {
                return Some(LocalTime::SecondOfTwo);
            }
            let is_skipped = |local| (at + before..at + period.offset).contains(&local);
            if at == due && self.next_local(at + before - 1).is_some_and(is_skipped) {
                return Some(LocalTime::AfterSkipped);
            }
        }
        let (at, after) = period.ends?;
        (local >= at + after).then_some(LocalTime::FirstOfTwo)
    }

    /// The text that it was parsed from, with single spaces.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Schedule {
    type Err = InvalidSchedule;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        let short = || given.chars().take(120).collect::<String>();
        let fields: Vec<&str> = given.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(InvalidSchedule::Fields { text: short(), count: fields.len() });
        };
        let text = fields.join(" ");
        if text.len() > LONGEST {
            let rule = format!("at most {LONGEST} characters");
            return Err(InvalidSchedule::Field { field: "schedule", part: short(), rule });
        }
        let [minutes, hours, days, months] =
            [(MINUTE, minute), (HOUR, hour), (DAY, day), (MONTH, month)]
                .map(|(field, text)| field.parse(text).map(|values| listed(&values)));
        // The crate counts from 1 for Sunday.
        let weekdays = WEEKDAY.parse(weekday)?.iter().map(|day| day % 7 + 1).collect();
        let (minutes, hours, days, months, weekdays) =
            (minutes?, hours?, days?, months?, listed(&weekdays));
        let line = format!("0 {minutes} {hours} {days} {months} {weekdays} *");
        let times = line.parse().map_err(|error: cron::error::Error| InvalidSchedule::Field {
            field: "schedule",
            part: short(),
            rule: error.to_string(),
        })?;
        Ok(Self { text, times, is_by_interval: hour.starts_with('*') })
    }
}

/// The values as ranges. The crate takes microseconds for each part of a list, and every record with a timer is parsed.
fn listed(values: &BTreeSet<u8>) -> String {
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    for value in values {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *value => *last = *value,
            Some(_) | None => ranges.push((*value, *value)),
        }
    }
    let part = |(first, last): &(u8, u8)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(part).collect::<Vec<_>>().join(",")
}

impl Field {
    fn parse(&self, text: &str) -> Result<BTreeSet<u8>, InvalidSchedule> {
        let mut values = BTreeSet::new();
        for part in text.split(',') {
            let wrong = |rule: String| InvalidSchedule::Field {
                field: self.what,
                part: part.chars().take(40).collect(),
                rule,
            };
            values.extend(self.parse_part(part).map_err(wrong)?);
        }
        Ok(values)
    }

    /// Parses `*`, `5`, `1-5` or one of them with a step, like `*/2`.
    fn parse_part(&self, part: &str) -> Result<impl Iterator<Item = u8>, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (part, None),
        };
        let last = self.last();
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.least, last),
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            None => {
                let first = self.value(range)?;
                (first, if step.is_some() { last.max(first) } else { first })
            }
        };
        if first > last {
            return Err(format!(
                "its end is before its start: write two ranges, like `{first}-{},{}-{last}`",
                self.last(),
                self.least
            ));
        }
        Ok((first..=last).step_by(step.unwrap_or(1).into()))
    }

    /// The greatest of different values: 7 is Sunday again.
    fn last(&self) -> u8 {
        if self.least == WEEKDAY.least && self.most == WEEKDAY.most { 6 } else { self.most }
    }

    fn step(&self, text: &str) -> Result<u8, String> {
        let most = self.last();
        let steps = number(text).filter(|step| (1..=most).contains(step));
        steps.ok_or_else(|| format!("a step is 1 to {most}"))
    }

    fn value(&self, text: &str) -> Result<u8, String> {
        if let Some(value) = number(text).filter(|value| (self.least..=self.most).contains(value)) {
            return Ok(value);
        }
        let name = text.to_ascii_lowercase();
        let is_named = |full: &&str| **full == name || full.get(..3) == Some(name.as_str());
        if let Some(place) = self.names.iter().position(is_named) {
            return Ok(self.least.saturating_add(u8::try_from(place).unwrap_or(u8::MAX)));
        }
        let (least, most) = (self.least, self.most);
        let names = match self.names {
            [] => String::new(),
            names => {
                let short: Vec<&str> = names.iter().filter_map(|name| name.get(..3)).collect();
                format!(" or {}", short.join(", "))
            }
        };
        Err(format!(
            "use {least} to {most}{names}, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them"
        ))
    }
}

fn number(text: &str) -> Option<u8> {
    let is_plain = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

serde_as_text!(Schedule);

/// A time zone of the IANA database, which is compiled in: all processes of one version compute the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    zone: jiff::tz::TimeZone,
}

/// A period in which the clocks of a zone are not changed.
struct Period {
    /// Local time minus UTC, in seconds.
    offset: i64,
    /// When it began, and the offset before; `None` if it has no beginning.
    began: Option<(i64, i64)>,
    /// When it ends, and the offset after; `None` if it has no end.
    ends: Option<(i64, i64)>,
}

impl Zone {
    /// The zone's canonical name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether this is UTC, the default.
    #[must_use]
    pub fn is_utc(&self) -> bool {
        *self == Self::default()
    }

    /// An instant as the zone's clocks show it, with the offset, like `2026-03-29T03:00:00+02:00`.
    #[must_use]
    pub fn show(&self, instant: Timestamp) -> String {
        let seconds = instant.as_millis().div_euclid(1000);
        let offset = self.offset_at(seconds).unwrap_or_default();
        let local = Timestamp::from_millis(seconds.saturating_add(offset).saturating_mul(1000));
        let local = local.to_string();
        let local = local.strip_suffix(".000Z").unwrap_or(&local).to_owned();
        let (sign, offset) = (if offset < 0 { '-' } else { '+' }, offset.abs());
        format!("{local}{sign}{:02}:{:02}", offset / 3600, offset % 3600 / 60)
    }

    /// Parses an instant: RFC 3339, or a date and time, or a date, by the zone's clocks.
    ///
    /// # Errors
    /// [`InvalidText`].
    pub fn instant(&self, text: &str) -> Result<Timestamp, InvalidText> {
        let absolute = text.parse::<jiff::Timestamp>();
        let instant = absolute.or_else(|_| {
            let local = text.parse::<jiff::civil::DateTime>()?;
            local.to_zoned(self.zone.clone()).map(|zoned| zoned.timestamp())
        });
        let instant = instant.map_err(|_| {
            let rule = "like `2026-03-29T01:00:00Z`, or `2026-03-29T02:00` or `2026-03-29` in the time zone";
            InvalidText::new("instant", text, rule)
        })?;
        Ok(Timestamp::from_millis(instant.as_millisecond()))
    }

    fn offset_at(&self, seconds: i64) -> Option<i64> {
        let at = jiff::Timestamp::from_second(seconds).ok()?;
        Some(self.zone.to_offset(at).seconds().into())
    }

    fn period_at(&self, seconds: i64) -> Option<Period> {
        let at = jiff::Timestamp::from_second(seconds).ok()?;
        let after = jiff::Timestamp::from_second(seconds.checked_add(1)?).ok()?;
        // What begins at this very second is the period itself, so it is looked for before the next second.
        let began = self.zone.preceding(after).next().map(|change| change.timestamp().as_second());
        let ends = self.zone.following(at).next();
        Some(Period {
            offset: self.offset_at(seconds)?,
            began: began.and_then(|at| Some((at, self.offset_at(at - 1)?))),
            ends: ends
                .map(|change| (change.timestamp().as_second(), change.offset().seconds().into())),
        })
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), zone: jiff::tz::TimeZone::UTC }
    }
}

impl FromStr for Zone {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("utc") {
            return Ok(Self::default());
        }
        let refused =
            || InvalidText::new("time zone", text, "a name like `UTC` or `Europe/Berlin`");
        let zone = ZONES.get(text).map_err(|_| refused())?;
        let name = zone.iana_name().ok_or_else(refused)?.to_owned();
        Ok(Self { name, zone })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

serde_as_text!(Zone);

#[cfg(test)]
mod tests;

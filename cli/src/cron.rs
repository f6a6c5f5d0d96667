//! `gantry cron`: shows when schedules are due, without a server.

use anyhow::Result;
use clap::Subcommand;
use gantry_domain::schedule::{LocalTime, Schedule, Zone};
use gantry_domain::timestamp::Timestamp;
use serde::Serialize;

use crate::client::output::Output;
use crate::client::table::Table;
use crate::exit::{Exit, UsageError};

/// The most due times that are shown.
const MOST: i64 = 1000;

/// Show when schedules are due
#[derive(Debug, Subcommand)]
pub(crate) enum Cron {
    /// Show the next due times of a schedule; needs no server
    #[command(after_long_help = "\
A schedule has five fields: minute, hour, day of the month, month, day of the week (0 is Sunday). All of them must match. \
A field is `*`, or a list of values, ranges `a-b` and steps `*/n`.

Local times that clocks skip are due once, at the moment after. Local times that clocks show twice are due the first time; \
if the hour is `*` or `*/n`, both times.

Examples:
  gantry cron explain '0 9 * * 1-5'
  gantry cron explain '30 2 * * *' --timezone Europe/Berlin --from 2027-03-26 --next 5
  gantry cron explain '*/20 * * * *' --timezone America/New_York -o json")]
    Explain(Explain),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The schedule, like '0 9 * * 1-5'
    schedule: String,
    /// The time zone of the schedule
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// Where to begin: an instant like 2026-03-29T01:00:00Z, or a date or time in the time zone [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// How many due times
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=MOST))]
    next: i64,
}

/// The next due times of a schedule.
#[derive(Debug, Serialize)]
struct Explained {
    schedule: String,
    timezone: String,
    from: String,
    due: Vec<Due>,
}

#[derive(Debug, Serialize)]
struct Due {
    /// In UTC.
    at: String,
    /// As clocks of the time zone show it.
    local: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<LocalTime>,
}

impl Cron {
    /// Runs at `now`.
    pub(crate) fn run(self, output: Output, now: Timestamp) -> Result<Exit> {
        let Self::Explain(explain) = self;
        let explained = explain.explained(now)?;
        output.print(&explained, table(&explained))?;
        Ok(Exit::Ok)
    }
}

impl Explain {
    fn explained(&self, now: Timestamp) -> Result<Explained> {
        let schedule: Schedule = self.schedule.parse().map_err(|error| usage(&error))?;
        let zone: Zone = self.timezone.parse().map_err(|error| usage(&error))?;
        let from = match &self.from {
            Some(from) => zone.instant(from).map_err(|error| usage(&error))?,
            None => now,
        };
        // What is due at `from` itself is included.
        let first = schedule.next_after(&zone, Timestamp::from_millis(from.as_millis() - 1));
        let due = std::iter::successors(first, |last| schedule.next_after(&zone, *last));
        let due: Vec<Due> = due
            .take(usize::try_from(self.next).unwrap_or_default())
            .map(|due| Due {
                at: to_the_second(due),
                local: zone.show(due),
                note: schedule.note(&zone, due),
            })
            .collect();
        if due.is_empty() {
            let message = format!(
                "`{schedule}` is never due within five years: the day of the month and the day of the week must both match"
            );
            return Err(UsageError(message).into());
        }
        Ok(Explained {
            schedule: schedule.to_string(),
            timezone: zone.to_string(),
            from: to_the_second(from),
            due,
        })
    }
}

fn usage(error: &impl std::fmt::Display) -> UsageError {
    UsageError(error.to_string())
}

fn to_the_second(at: Timestamp) -> String {
    crate::client::table::instant(&at.to_string())
}

fn table(explained: &Explained) -> Table<3> {
    let mut table = Table::new(["DUE", "LOCAL TIME", "NOTE"], "");
    for due in &explained.due {
        let note = match due.note {
            Some(LocalTime::AfterSkipped) => "clocks skip the local time, so it is due right after",
            Some(LocalTime::FirstOfTwo) => "clocks show this local time twice: the first time",
            Some(LocalTime::SecondOfTwo) => "clocks show this local time twice: the second time",
            None => "",
        };
        table.row([due.at.clone(), due.local.clone(), note.to_owned()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(schedule: &str, timezone: &str, from: &str, next: i64) -> Result<Explained> {
        let explain = Explain {
            schedule: schedule.to_owned(),
            timezone: timezone.to_owned(),
            from: Some(from.to_owned()),
            next,
        };
        explain.explained(Timestamp::default())
    }

    #[test]
    fn skipped_and_doubled_local_times_are_marked() {
        let spring = explain("30 2 * * *", "Europe/Berlin", "2027-03-27", 3).unwrap();
        insta::assert_snapshot!(table(&spring), @r"
        DUE                   LOCAL TIME                 NOTE
        2027-03-27T01:30:00Z  2027-03-27T02:30:00+01:00
        2027-03-28T01:00:00Z  2027-03-28T03:00:00+02:00  clocks skip the local time, so it is due right after
        2027-03-29T00:30:00Z  2027-03-29T02:30:00+02:00
        ");
        let autumn = explain("*/30 * * * *", "America/New_York", "2027-11-07T01:00", 5).unwrap();
        insta::assert_snapshot!(table(&autumn), @r"
        DUE                   LOCAL TIME                 NOTE
        2027-11-07T05:00:00Z  2027-11-07T01:00:00-04:00  clocks show this local time twice: the first time
        2027-11-07T05:30:00Z  2027-11-07T01:30:00-04:00  clocks show this local time twice: the first time
        2027-11-07T06:00:00Z  2027-11-07T01:00:00-05:00  clocks show this local time twice: the second time
        2027-11-07T06:30:00Z  2027-11-07T01:30:00-05:00  clocks show this local time twice: the second time
        2027-11-07T07:00:00Z  2027-11-07T02:00:00-05:00
        ");
        let json = serde_json::to_string(&spring.due[1]).unwrap();
        assert_eq!(
            json,
            r#"{"at":"2027-03-28T01:00:00Z","local":"2027-03-28T03:00:00+02:00","note":"after-skipped"}"#
        );
    }

    #[test]
    fn what_cannot_be_explained_is_refused_with_the_remedy() {
        for (schedule, timezone, from, remedy) in [
            ("0 9 * *", "UTC", "2027-01-01", "five are needed"),
            ("0 9 * * *", "Berlin", "2027-01-01", "`Europe/Berlin`"),
            ("0 9 * * *", "UTC", "tomorrow", "`2026-03-29`"),
            ("0 0 30 2 *", "UTC", "2027-01-01", "never due"),
        ] {
            let refused = explain(schedule, timezone, from, 1).unwrap_err().to_string();
            assert!(refused.contains(remedy), "{refused}");
        }
    }
}

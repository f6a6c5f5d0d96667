//! `gantry task timer`: the timers of a task.

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{Task, TaskUpdate, Timer};

use super::OneTask;
use crate::client::Client;
use crate::client::arguments::{duration_in_seconds, yes_or_no};
use crate::client::table::{Table, instant};
use crate::exit::{Exit, UsageError};

/// Start a task by the clock
#[derive(Debug, Subcommand)]
pub(crate) enum TimerCommand {
    /// Add a timer to a task
    #[command(after_long_help = "\
A schedule has five fields: minute, hour, day of the month, month, day of the week (0 is Sunday). All of them must match. \
`gantry cron explain` shows when a schedule is due.

Examples:
  gantry task timer add -n web --timer-name nightly --schedule '0 3 * * *'
  gantry task timer add -n web --timer-name work --schedule '*/30 8-18 * * mon-fri' \\
    --timezone America/New_York --overlap skip")]
    Add(Add),
    /// Change a timer of a task; omitted options keep their values
    #[command(after_long_help = "Examples:
  gantry task timer update -n web --timer-name nightly --enabled false
  gantry task timer update -n web --timer-name nightly --schedule '30 2 * * *'")]
    Update(Update),
    /// Remove a timer from a task
    Remove(OneTimer),
    /// List the timers of a task, with their next due times
    #[command(visible_alias = "ls")]
    List(OneTask),
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneTimer {
    #[command(flatten)]
    task: OneTask,
    /// The timer's name
    #[arg(short, long, value_name = "NAME")]
    timer_name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    #[command(flatten)]
    timer: OneTimer,
    /// When it is due, like '0 9 * * 1-5'
    #[arg(long)]
    schedule: String,
    /// Whether it starts runs; it does, unless told otherwise
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    enabled: Option<bool>,
    #[command(flatten)]
    choices: Choices,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Update {
    #[command(flatten)]
    timer: OneTimer,
    /// When it is due, like '0 9 * * 1-5'
    #[arg(long)]
    schedule: Option<String>,
    /// Whether it starts runs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    enabled: Option<bool>,
    #[command(flatten)]
    choices: Choices,
}

/// The choices for a timer beside its schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Timers")]
pub(crate) struct Choices {
    /// The time zone of schedules, like Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Due times that were missed: skip, once (one run for all of them) or all [default: once]
    #[arg(long, value_name = "CHOICE")]
    misfire: Option<String>,
    /// How long ago a missed due time may be, like 1h [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = duration_in_seconds)]
    catch_up: Option<u32>,
    /// If an earlier run of the timer has not ended: allow both, skip the new one, queue it, or cancel the earlier one
    /// [default: allow]
    #[arg(long, value_name = "CHOICE")]
    overlap: Option<String>,
}

impl Choices {
    fn apply(&self, timer: Timer) -> Timer {
        let Self { timezone, misfire, catch_up, overlap } = self.clone();
        Timer {
            timezone: timezone.unwrap_or(timer.timezone),
            misfire: misfire.unwrap_or(timer.misfire),
            catch_up: catch_up.unwrap_or(timer.catch_up),
            overlap: overlap.unwrap_or(timer.overlap),
            ..timer
        }
    }
}

/// The timers of `--schedule` options. Those without a name are called `t1`, `t2` and so on, as the original calls them.
pub(super) fn named(schedules: &[String], choices: &Choices) -> Result<Vec<Timer>> {
    if schedules.is_empty() && *choices != Choices::default() {
        let message = "these options are about schedules: give `--schedule` too, or change one timer with `gantry task timer update`";
        return Err(UsageError(message.to_owned()).into());
    }
    let timers = schedules.iter().enumerate().map(|(place, given)| {
        let (name, schedule) = match given.split_once(':') {
            Some((name, schedule)) => (name.to_owned(), schedule),
            None => (format!("t{}", place + 1), given.as_str()),
        };
        choices.apply(Timer::new(&name, schedule))
    });
    Ok(timers.collect())
}

impl TimerCommand {
    pub(super) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::Add(add) => {
                let name = &add.timer.timer_name;
                let timer = add.choices.apply(Timer::new(name, &add.schedule));
                let timer = with_status(timer, add.enabled);
                change(client, &add.timer, |timers, at| match at {
                    Some(_) => Err("is there already: change it with `gantry task timer update`"),
                    None => {
                        timers.push(timer);
                        Ok(())
                    }
                })
                .await
            }
            Self::Update(update) => {
                if update.schedule.is_none()
                    && update.enabled.is_none()
                    && update.choices == Choices::default()
                {
                    let message =
                        "nothing to change was named: see `gantry task timer update --help`";
                    return Err(UsageError(message.to_owned()).into());
                }
                change(client, &update.timer, |timers, at| {
                    let timer = at.and_then(|at| timers.get_mut(at)).ok_or(ABSENT)?;
                    let mut changed = update.choices.apply(timer.clone());
                    if let Some(schedule) = &update.schedule {
                        changed.schedule.clone_from(schedule);
                    }
                    *timer = with_status(changed, update.enabled);
                    Ok(())
                })
                .await
            }
            Self::Remove(timer) => {
                change(client, &timer, |timers, at| {
                    timers.remove(at.ok_or(ABSENT)?);
                    Ok(())
                })
                .await
            }
            Self::List(task) => {
                let registry = client.registry(&task.registry).await?;
                let task: Task =
                    client.api.get(&["registries", &registry, "tasks", &task.name]).await?;
                client.output.print(&task.timers, table(&task.timers))?;
                Ok(Exit::Ok)
            }
        }
    }
}

const ABSENT: &str = "is not there: `gantry task timer list` lists those that are";

fn with_status(timer: Timer, enabled: Option<bool>) -> Timer {
    let status = match enabled {
        Some(true) => "Enabled".to_owned(),
        Some(false) => "Disabled".to_owned(),
        None => timer.status,
    };
    Timer { status, ..timer }
}

/// Changes the timers of a task. `change` gets them with the place of the named one.
async fn change(
    client: &Client,
    timer: &OneTimer,
    change: impl FnOnce(&mut Vec<Timer>, Option<usize>) -> Result<(), &'static str>,
) -> Result<Exit> {
    let registry = client.registry(&timer.task.registry).await?;
    let path = ["registries", &registry, "tasks", &timer.task.name];
    let task: Task = client.api.get(&path).await?;
    let mut timers = task.timers;
    let at = timers.iter().position(|known| known.name == timer.timer_name);
    if let Err(why) = change(&mut timers, at) {
        let (name, task) = (&timer.timer_name, &timer.task.name);
        return Err(UsageError(format!("timer `{name}` of task {task} {why}")).into());
    }
    let change = TaskUpdate { timers: Some(timers), ..TaskUpdate::default() };
    let task: Task = client.api.patch(&path, &change).await?;
    client.output.print(&task.timers, table(&task.timers))?;
    Ok(Exit::Ok)
}

fn table(timers: &[Timer]) -> Table<7> {
    let mut table = Table::new(
        ["NAME", "SCHEDULE", "TIME ZONE", "STATUS", "MISFIRE", "OVERLAP", "NEXT"],
        "no timers: `gantry task timer add --help` shows how to make one",
    );
    for timer in timers {
        table.row([
            timer.name.clone(),
            timer.schedule.clone(),
            timer.timezone.clone(),
            timer.status.clone(),
            timer.misfire.clone(),
            timer.overlap.clone(),
            timer.next.as_deref().map(instant).unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_without_a_name_are_numbered() {
        let given = ["0 9 * * *", "nightly:0 3 * * *", "30 9 * * 1-5"].map(str::to_owned);
        let choices = Choices { overlap: Some("skip".to_owned()), ..Choices::default() };
        let timers = named(&given, &choices).unwrap();
        let names: Vec<&str> = timers.iter().map(|timer| timer.name.as_str()).collect();
        assert_eq!(names, ["t1", "nightly", "t3"]);
        assert!(timers.iter().all(|timer| timer.overlap == "skip" && timer.misfire == "once"));
        assert_eq!(timers[1].schedule, "0 3 * * *");
        named(&[], &choices).expect_err("there is no schedule");
        assert_eq!(named(&[], &Choices::default()).unwrap(), []);
    }
}

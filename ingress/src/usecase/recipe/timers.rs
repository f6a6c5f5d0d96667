//! Checks the timers of a task.

use gantry_api as types;
use gantry_domain::schedule::Schedule;
use gantry_domain::timer::{CatchUp, Timer, Timers};
use gantry_domain::timestamp::Timestamp;

use super::Checker;

impl Checker<'_> {
    /// The timers, each of which must be due within five years of `now`.
    pub(crate) fn timers(&mut self, given: &[types::Timer], now: Timestamp) -> Option<Timers> {
        let timers: Vec<Option<Timer>> = given.iter().map(|timer| self.timer(timer, now)).collect();
        let timers = timers.into_iter().collect::<Option<Vec<Timer>>>()?;
        self.mistakes.check("timers", Timers::try_from(timers))
    }

    fn timer(&mut self, given: &types::Timer, now: Timestamp) -> Option<Timer> {
        let name = self.mistakes.parse("timers.name", &given.name);
        let schedule = self.mistakes.check("timers.schedule", given.schedule.parse::<Schedule>());
        let timezone = self.mistakes.parse("timers.timezone", &given.timezone);
        let status = self.status("timers.status", &given.status);
        let misfire = self.mistakes.parse("timers.misfire", &given.misfire);
        let catch_up = self.mistakes.check("timers.catch_up", CatchUp::try_from(given.catch_up));
        let overlap = self.mistakes.parse("timers.overlap", &given.overlap);
        let timer = Timer {
            name: name?,
            schedule: schedule?,
            timezone: timezone?,
            status: status?,
            misfire: misfire?,
            catch_up: catch_up?,
            overlap: overlap?,
        };
        if timer.next_after(now).is_none() {
            let message = format!(
                "`{}` is never due within five years: the day of the month and the day of the week must both match",
                timer.schedule
            );
            self.mistakes.add("timers.schedule", message);
            return None;
        }
        Some(timer)
    }
}

"""Records what other programs say about schedules, for the tests of `Schedule`.

    pip install croniter tzdata && PYTHONTZPATH= python3 record.py

fields.txt: the next instants of schedules in UTC, by croniter, with the day of the month AND the day of the week.
zones.txt: what is due around every change of the clocks in 2027, in all time zones, by going through all minutes with
zoneinfo. A local time that is skipped is due when the gap ends; one that is shown twice is due the first time, or both
times if the hours are `*` or `*/n`.
"""

from datetime import datetime, timedelta, timezone
from itertools import groupby
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter

HERE = Path(__file__).parent
UTC = timezone.utc

MINUTES = ["*", "0", "59", "*/7", "*/59", "5-9", "10-40/15", "50-59/3", "7/20", "1,2,3", "0,30", "0-5,55-59", "*/20,7"]
HOURS = ["*", "0", "23", "*/5", "8-17", "9-17/4", "6/8", "0,12", "22-23,0-2", "*/23"]
DAYS = ["*", "1", "31", "*/10", "10-20", "1-31/6", "25/3", "1,15", "29-31", "30"]
MONTHS = ["*", "1", "12", "*/5", "3-9", "2-11/4", "5/3", "1,7", "jan", "DEC", "Feb-Apr", "jun,sep", "2"]
WEEKDAYS = ["*", "0", "6", "7", "1-5", "*/2", "1-5/2", "0,6", "5-7", "sun", "MON", "Mon-Fri", "sat,sun", "3/2"]
TOGETHER = [
    "0 9 * * 1-5", "30 2 29 2 *", "0 0 13 * 5", "0 12 1-7 * mon", "*/15 9-17 * * 1-5", "0 0 31 * *", "15 3 1 1 *",
    "0 0 1 */3 *", "5 4 * * sun", "0 22 * * 1-5", "23 0-20/2 * * *", "59 23 31 12 *", "0 0 25-31 * fri", "0 6 8-14 * 2",
    "*/5 */6 1,15 1-6 *", "0 0 29 2 *", "17 4 30 4,6,9,11 *",
]
FROM = ["2026-12-30T23:58:30", "2027-02-27T12:00:00", "2028-02-28T23:59:59"]

SCHEDULES = [
    "30 2 * * *", "0 3 * * *", "15 1 * * *", "0 0 * * *", "45 0-3 * * *", "*/25 * * * *", "10 */2 * * *", "30 0,23 * * *",
]


def instants(schedule, start, count):
    times = croniter(schedule, start, day_or=False, max_years_between_matches=6)
    return [int(times.get_next(float)) for _ in range(count)]


def record_fields():
    schedules = [f"{field} 3 * * *" for field in MINUTES] + [f"11 {field} * * *" for field in HOURS]
    schedules += [f"11 3 {field} * *" for field in DAYS] + [f"11 3 5 {field} *" for field in MONTHS]
    schedules += [f"11 3 * * {field}" for field in WEEKDAYS] + TOGETHER
    lines = []
    for schedule in schedules:
        for start in FROM:
            start = datetime.fromisoformat(start).replace(tzinfo=UTC)
            found = " ".join(map(str, instants(schedule, start, 3)))
            lines.append(f"{schedule}\t{int(start.timestamp())}\t{found}")
    (HERE / "fields.txt").write_text("\n".join(lines) + "\n")


def offset(zone, instant):
    return int(datetime.fromtimestamp(instant, zone).utcoffset().total_seconds())


def changes(zone, start, end):
    """The instants at which the offset changes, found hour by hour and then minute by minute."""
    for hour in range(start, end, 3600):
        if offset(zone, hour) != offset(zone, hour + 3600):
            for minute in range(hour + 60, hour + 3601, 60):
                if offset(zone, minute) != offset(zone, minute - 60):
                    yield minute, offset(zone, minute - 60), offset(zone, minute)


def due_around(schedule, zone, change, before, after):
    def matches(wall):
        return croniter.match(schedule, wall, day_or=False)

    is_by_interval = schedule.split()[1].startswith("*")
    found = []
    hours = 4 * 3600 + abs(after - before)
    for minute in range(change - hours, change + hours, 60):
        local = datetime.fromtimestamp(minute, zone)
        wall = local.replace(tzinfo=None, fold=0)
        is_due = matches(wall) and (local.fold == 0 or is_by_interval)
        if minute == change and after > before:
            skipped = range(1, (after - before) // 60 + 1)
            is_due = is_due or any(matches(wall - timedelta(minutes=back)) for back in skipped)
        if is_due:
            found.append(minute)
    return found


def record_zones():
    start, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2027, 2028))
    middle = int(datetime(2027, 7, 1, tzinfo=UTC).timestamp())
    found, steady = [], []
    for name in sorted(available_timezones() - {"localtime", "posixrules", "Factory"}):
        zone = ZoneInfo(name)
        of_zone = list(changes(zone, start, end))
        found += [(change, name) for change in of_zone]
        if not of_zone:
            steady.append((offset(zone, middle), name))
    # A day that was skipped.
    apia = ZoneInfo("Pacific/Apia")
    december = int(datetime(2011, 12, 1, tzinfo=UTC).timestamp())
    found += [(change, "Pacific/Apia") for change in changes(apia, december, december + 31 * 86400)]
    lines = []
    for seconds, names in groupby(sorted(steady), key=lambda it: it[0]):
        lines.append(f"steady\t{seconds}\t{' '.join(name for _, name in names)}")
    for change, group in groupby(sorted(found), key=lambda it: it[0]):
        names = [name for _, name in group]
        at, before, after = change
        lines.append(f"change\t{at} {before} {after}\t{' '.join(names)}")
        for schedule in SCHEDULES:
            due = due_around(schedule, ZoneInfo(names[0]), *change)
            lines.append(f"{schedule}\t{4 * 3600 + abs(after - before)}\t{' '.join(str(it - at) for it in due)}")
    (HERE / "zones.txt").write_text("\n".join(lines) + "\n")


record_fields()
record_zones()

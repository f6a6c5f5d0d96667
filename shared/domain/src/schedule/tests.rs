//! Schedules compared with what other programs say: see `record.py`.

use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn numbers(text: &str) -> Vec<i64> {
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// The instants after `from` and before `until`.
fn due_between(schedule: &str, zone: &str, from: i64, until: i64) -> Vec<i64> {
    let (schedule, zone): (Schedule, Zone) = (schedule.parse().unwrap(), zone.parse().unwrap());
    let first = schedule.next_after(&zone, at(from));
    let due = std::iter::successors(first, |last| schedule.next_after(&zone, *last));
    due.map(|due| due.as_millis() / 1000).take_while(|due| *due < until).collect()
}

#[test]
fn every_form_of_a_field_means_what_croniter_says() {
    for line in include_str!("fields.txt").lines() {
        let [schedule, from, due] = line.split('\t').collect::<Vec<_>>()[..] else { panic!() };
        let (from, due) = (from.parse().unwrap(), numbers(due));
        let until = due.last().unwrap() + 1;
        assert_eq!(due_between(schedule, "UTC", from, until), due, "{schedule} from {from}");
    }
}

#[test]
fn in_every_time_zone_what_is_due_around_a_change_of_the_clocks_is_due_once() {
    let mut change: (i64, Vec<&str>) = (0, Vec::new());
    let mut zones = 0;
    for line in include_str!("zones.txt").lines() {
        let [schedule, range, due] = line.split('\t').collect::<Vec<_>>()[..] else { panic!() };
        match schedule {
            "steady" => {
                let midnight = 1_814_400_000 - range.parse::<i64>().unwrap();
                for zone in due.split(' ') {
                    zones += 1;
                    let found = due_between("0 0 * * *", zone, midnight - 1, midnight + 1);
                    assert_eq!(found, [midnight], "{zone}");
                }
            }
            "change" => {
                change = (numbers(range)[0], due.split(' ').collect());
                zones += change.1.len();
            }
            schedule => {
                let (at, range) = (change.0, range.parse::<i64>().unwrap());
                let due: Vec<i64> = numbers(due).iter().map(|due| due + at).collect();
                for zone in &change.1 {
                    let found = due_between(schedule, zone, at - range - 1, at + range);
                    assert_eq!(found, due, "{schedule} in {zone} around {at}");
                }
            }
        }
    }
    assert!(zones > 700, "{zones} time zones and changes are recorded");
}

#[test]
fn a_schedule_that_never_comes_has_no_next_instant() {
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 29 2 1"] {
        let schedule: Schedule = never.parse().unwrap();
        assert_eq!(schedule.next_after(&Zone::default(), at(1_800_000_000)), None, "{never}");
    }
}

#[test]
fn names_of_months_and_days_may_be_written_out() {
    let (from, until) = (1_800_000_000, 1_840_000_000);
    for (long, short) in
        [("0 0 * February,october *", "0 0 * 2,10 *"), ("0 0 * * Monday-FRIDAY", "0 0 * * 1-5")]
    {
        let due = due_between(long, "UTC", from, until);
        assert_eq!(due, due_between(short, "UTC", from, until), "{long}");
    }
}

#[test]
fn what_is_no_schedule_is_refused_with_the_remedy() {
    let refused: Vec<String> = [
        "",
        "* * * *",
        "0 * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "*/90 * * * *",
        "5-1 * * * *",
        "1- * * * *",
        "+1 * * * *",
        "1,,2 * * * *",
        "* * L * *",
        "* * 15W * *",
        "* * * * 5#2",
        "* * ? * *",
        "@daily",
        "* * * * mo",
        "* * * foo *",
        "0x1 * * * *",
    ]
    .iter()
    .map(|text| text.parse::<Schedule>().expect_err(text).to_string())
    .collect();
    insta::assert_snapshot!(refused.join("\n"), @r"
    `` is no schedule: it has 0 fields, and five are needed: minute, hour, day of the month, month, day of the week
    `* * * *` is no schedule: it has 4 fields, and five are needed: minute, hour, day of the month, month, day of the week
    `0 * * * * *` is no schedule: it has 6 fields, and five are needed: minute, hour, day of the month, month, day of the week
    `60` is no minute: use 0 to 59, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `24` is no hour: use 0 to 23, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `0` is no day of the month: use 1 to 31, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `13` is no month: use 1 to 12 or jan, feb, mar, apr, may, jun, jul, aug, sep, oct, nov, dec, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `8` is no day of the week: use 0 to 7 or sun, mon, tue, wed, thu, fri, sat, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `*/0` is no minute: a step is 1 to 59
    `*/90` is no minute: a step is 1 to 59
    `5-1` is no minute: its end is before its start: write two ranges, like `5-59,0-1`
    `1-` is no minute: use 0 to 59, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `+1` is no minute: use 0 to 59, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `` is no minute: use 0 to 59, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `L` is no day of the month: use 1 to 31, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `15W` is no day of the month: use 1 to 31, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `5#2` is no day of the week: use 0 to 7 or sun, mon, tue, wed, thu, fri, sat, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `?` is no day of the month: use 1 to 31, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `@daily` is no schedule: it has 1 fields, and five are needed: minute, hour, day of the month, month, day of the week
    `mo` is no day of the week: use 0 to 7 or sun, mon, tue, wed, thu, fri, sat, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `foo` is no month: use 1 to 12 or jan, feb, mar, apr, may, jun, jul, aug, sep, oct, nov, dec, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    `0x1` is no minute: use 0 to 59, and `*`, lists `a,b`, ranges `a-b` and steps `*/n` of them
    ");
}

#[test]
fn time_zones_are_found_in_any_case_and_shown_with_their_offset() {
    let zone: Zone = "europe/berlin".parse().unwrap();
    assert_eq!(zone.to_string(), "Europe/Berlin");
    assert_eq!(zone.show(at(1_806_195_600)), "2027-03-28T03:00:00+02:00");
    let kolkata: Zone = "Asia/Kolkata".parse().unwrap();
    assert_eq!(kolkata.show(at(0)), "1970-01-01T05:30:00+05:30");
    assert!("utc".parse::<Zone>().unwrap().is_utc());
    for text in ["", "Mars/Olympus", "../etc/passwd", "+02:00"] {
        text.parse::<Zone>().expect_err(text);
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[-0-9*/,a-zA-Z #?]{0,40}") {
        let _refused_or_not = text.parse::<Schedule>();
    }

    #[test]
    fn the_next_instant_is_the_same_from_anywhere_before_it(
        minute in 0_u8..60, hour in prop_oneof![Just("*".to_owned()), Just("*/3".to_owned()), (0_u8..24).prop_map(|it| it.to_string())],
        from in 1_790_000_000_i64..1_830_000_000, share in 0.0_f64..1.0,
        zone in prop_oneof![Just("Europe/Berlin"), Just("America/New_York"), Just("Australia/Lord_Howe"), Just("Antarctica/Troll")],
    ) {
        let schedule: Schedule = format!("{minute} {hour} * * *").parse().unwrap();
        let zone: Zone = zone.parse().unwrap();
        let next = schedule.next_after(&zone, at(from)).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any instant in between will do")]
        let between = from + ((next.as_millis() / 1000 - from - 1) as f64 * share) as i64;
        prop_assert!(next > at(from));
        prop_assert_eq!(schedule.next_after(&zone, at(between)), Some(next));
    }
}

//! The cost of refusing a forged webhook: time and memory.

use std::time::Duration;

use anyhow::Result;

use crate::Effort;
use crate::accept;
use crate::github;
use crate::load::{self, Answers, Volley, Webhook};
use crate::process::{self, Memory, Server};
use crate::report::{Details, Report, Row, say};
use crate::role::Role;
use crate::samples::Samples;

const CONNECTIONS: [u64; 3] = [1, 16, 64];

const SMALL: usize = 8 * 1024;

/// The largest body that GitHub sends.
const LARGE: usize = 25 << 20;

/// The number of concurrent large bodies.
const LARGE_AT_ONCE: u64 = 4;

/// The limit for changes of memory, in MiB.
const FLAT: f64 = 16.0;

/// Measures forged webhooks, compared with a route that accepts everything and one that only checks the signature.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    rates(effort, report)?;
    let small = memory(effort, report, SMALL, 64)?;
    let large = memory(effort, report, LARGE, LARGE_AT_ONCE)?;
    let moved = |(before, after): (Memory, Memory)| {
        (after.resident - before.resident, after.peak - before.resident)
    };
    let ((small_after, small_peak), (large_after, large_peak)) = (moved(small), moved(large));
    report.row(Row {
        what: "memory after refusing forged hooks, 8 KiB × 64 and 25 MiB × 4 at once".to_owned(),
        reach: "flat (± 16 MiB)",
        measured: format!("8 KiB: {small_after:+.0} MiB, at most {small_peak:+.0} · 25 MiB: {large_after:+.0} MiB, at most {large_peak:+.0}"),
        reached: [small_after, small_peak, large_after, large_peak].iter().all(|mebibytes| mebibytes.abs() <= FLAT),
    });
    Ok(())
}

/// A push of this size with a wrong signature.
fn forged_push(bytes: usize) -> Result<Webhook> {
    let body = github::push_of(bytes)?;
    Ok(Webhook::push(&accept::path(), &github::signature(b"something else")?, &body))
}

fn rates(effort: Effort, report: &mut Report) -> Result<()> {
    let hook = forged_push(SMALL)?;
    let (mut ratios, mut rows) = (Vec::new(), Vec::new());
    for connections in CONNECTIONS {
        let (mut ours, mut signed, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            let fire = |role: Role, expected| {
                refuse(&role.start()?, &hook, connections, effort.seconds, expected)
            };
            ours.push(fire(Role::Ingress, 401)?);
            signed.push(fire(Role::Signed, 401)?);
            bare.push(fire(Role::Bare, 202)?);
        }
        let of_bare = |rounds: &[Answers]| {
            Samples::of(rounds.iter().zip(&bare).map(|(one, other)| one.rate / other.rate))
        };
        let (ratio, most) = (of_bare(&ours), of_bare(&signed));
        say(format_args!("  forged, {connections} connections: {} × bare", ratio.show(2)));
        let all = |rounds: &[Answers], of: fn(&Answers) -> f64| Samples::of(rounds.iter().map(of));
        let rate = |rounds: &[Answers]| all(rounds, |one| one.rate).show(0);
        let cost = |rounds: &[Answers]| all(rounds, |one| one.processor_us[0]).show(0);
        rows.extend([
            vec![
                connections.to_string(),
                "gantry".to_owned(),
                rate(&ours),
                ratio.show(2),
                cost(&ours),
            ],
            vec![
                connections.to_string(),
                "bare route: HMAC".to_owned(),
                rate(&signed),
                most.show(2),
                cost(&signed),
            ],
            vec![
                connections.to_string(),
                "bare route".to_owned(),
                rate(&bare),
                "1".to_owned(),
                cost(&bare),
            ],
        ]);
        ratios.push((connections, ratio, most));
    }
    let shown = ratios.iter().map(|(connections, ratio, most)| {
        format!("{connections}: {}, HMAC alone {}", ratio.show(2), most.show(2))
    });
    report.row(Row {
        what: "refuse a forged hook of 8 KiB".to_owned(),
        reach: "≥ 0.85 × a bare actix POST",
        measured: shown.collect::<Vec<_>>().join(" · "),
        reached: ratios.iter().all(|(_, ratio, _)| ratio.median() >= 0.85),
    });
    let columns = ["connections", "who", "answers a second", "× bare route", "µs of processor"];
    report.details(Details {
        title: "forged: 8 KiB".to_owned(),
        columns: columns.map(str::to_owned).into(),
        rows,
    });
    Ok(())
}

fn refuse(
    server: &Server,
    hook: &Webhook,
    connections: u64,
    seconds: f64,
    expected: u16,
) -> Result<Answers> {
    load::fire(server.address, &[server.pid()], hook, Volley { connections, seconds, expected })
}

/// gantry's memory before and after it refused bodies of this size, with so many connections at once.
fn memory(
    effort: Effort,
    report: &mut Report,
    bytes: usize,
    connections: u64,
) -> Result<(Memory, Memory)> {
    let hook = forged_push(bytes)?;
    let server = Role::Ingress.start()?;
    // A server's first connections take memory that is unrelated to large bodies.
    refuse(&server, &forged_push(SMALL)?, 64, effort.seconds, 401)?;
    std::thread::sleep(Duration::from_millis(500));
    process::forget_peak(server.pid())?;
    let before = process::memory(server.pid())?;
    let answers = refuse(&server, &hook, connections, effort.seconds * 3.0, 401)?;
    std::thread::sleep(Duration::from_millis(500));
    let after = process::memory(server.pid())?;
    let row = vec![
        format!("{} KiB × {connections}", bytes / 1024),
        format!("{:.1}", answers.rate),
        format!("{:.1}", before.resident),
        format!("{:.1}", after.peak),
        format!("{:.1}", after.resident),
    ];
    let columns = ["bodies at once", "refused a second", "MiB before", "MiB at most", "MiB after"];
    report.details(Details {
        title: format!("forged: memory, {}", row[0]),
        columns: columns.map(str::to_owned).into(),
        rows: vec![row],
    });
    Ok((before, after))
}

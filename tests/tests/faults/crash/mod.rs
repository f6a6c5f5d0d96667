//! A process dies at each boundary that the design names, in both modes, and whoever comes after it heals what is left.
//!
//! The table is the specification: what dies, which row of ARCHITECTURE.md says what heals it, and what has to happen so that
//! a process comes by the point. `GANTRY_CRASH_POINT=run.taken` plays that row alone.

mod embedded;
mod scaled;
mod site;
mod story;

use std::time::Instant;

use futures_util::StreamExt as _;
use gantry_tests::crash::CrashPoint::{self, *};
use gantry_tests::git_server::GitServer;

use self::site::Mode;
use Part::{Ingress, Scheduler, Worker};
use Story::{Cancel, Forget, Push, PushToMany, Request};

/// What of gantry does it: in the scaled mode a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Ingress,
    Scheduler,
    Worker,
}

/// What happens, so that a process comes by its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    /// A push to a branch that two tasks watch.
    Push,
    /// A push to a branch, with more candidates than fit one commit, of which the first and the last watch it.
    PushToMany,
    /// A push whose build never ends, until it is cancelled.
    Cancel,
    /// A quick build.
    Request,
    /// A push; and when all is done, what it left is old.
    Forget(Old),
}

/// What is not kept any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Old {
    Bodies,
    Runs,
}

/// Who dies where, one after another.
type Deaths = &'static [(Part, CrashPoint)];

/// What dies, by the first column of the table in ARCHITECTURE.md.
struct Row(&'static str, Deaths, Story);

const TABLE: [Row; 22] = [
    Row("request read and commit", &[(Ingress, BeforeAccept)], Push),
    Row("commit and answer", &[(Ingress, Accepted)], Push),
    Row("commit and answer", &[(Ingress, Requested)], Request),
    Row("commit and doorbell", &[(Ingress, AcceptedUnrung)], Push),
    Row("event and decision", &[(Scheduler, BeforeDecision)], Push),
    Row("event and decision", &[(Scheduler, HalfDecided)], PushToMany),
    Row("run created and doorbell", &[(Scheduler, Created)], Push),
    Row("run created and doorbell", &[(Scheduler, Ready)], Push),
    Row("take and anything later", &[(Worker, Taken)], Push),
    Row("take and anything later", &[(Worker, Began)], Push),
    Row("take and anything later", &[(Worker, Building)], Push),
    Row("take and anything later", &[(Worker, Pushed)], Push),
    Row("take and anything later", &[(Worker, Tagging)], Push),
    Row("take and anything later", &[(Worker, HalfTagged)], Push),
    Row("take and anything later", &[(Worker, Tagged)], Push),
    Row("take and anything later", &[(Worker, Taken), (Scheduler, Lapsed)], Push),
    Row("outcome written and doorbell", &[(Worker, Finished)], Push),
    Row("cancel asked and doorbell", &[(Ingress, CancelAsked)], Cancel),
    Row("worker lost, its log in the store", &[(Worker, SegmentPut)], Push),
    Row("worker lost, its log in the store", &[(Worker, BeforeSeal)], Push),
    Row("half of what is forgotten", &[(Scheduler, BodyPut)], Forget(Old::Bodies)),
    Row("half of what is forgotten", &[(Scheduler, LogsForgotten)], Forget(Old::Runs)),
];

impl Row {
    /// The point that the row is for.
    fn point(&self) -> CrashPoint {
        self.1.last().unwrap().1
    }
}

#[test]
fn every_crash_point_is_in_the_table_and_every_row_in_the_architecture() {
    let mut points: Vec<CrashPoint> = TABLE.iter().map(Row::point).collect();
    points.sort_unstable();
    assert_eq!(points, CrashPoint::ALL);
    let architecture = include_str!("../../../../ARCHITECTURE.md");
    for Row(dies, ..) in &TABLE {
        assert!(architecture.contains(&format!("| {dies} |")), "`{dies}` is no row there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_at_any_crash_point_of_the_embedded_mode_leaves_nothing_undone() {
    play_all(Mode::Embedded, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_at_any_crash_point_of_the_scaled_mode_leaves_nothing_undone() {
    play_all(Mode::Scaled, 6).await;
}

/// Plays the table, so many rows at once.
async fn play_all(mode: Mode, at_once: usize) {
    let git = GitServer::start().await.unwrap();
    let asked = asked();
    let rows = TABLE.iter().filter(|row| asked.is_none_or(|point| row.point() == point));
    let playing = rows.map(|row| {
        let git = &git;
        async move {
            let began = Instant::now();
            let healed = story::play(row, mode, git).await;
            let took = began.elapsed().as_secs_f64();
            let (mode, point) = (mode.as_str(), row.point().as_str());
            let verdict = match &healed {
                Ok(()) => "healed".to_owned(),
                Err(wrong) => format!("WRONG, again with GANTRY_CRASH_POINT={point}: {wrong:#}"),
            };
            println!("{mode:8} {point:24} {took:4.1} s  {verdict}");
            healed.is_err().then_some(point)
        }
    });
    let wrong: Vec<&str> = futures_util::stream::iter(playing)
        .buffer_unordered(at_once)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(wrong.is_empty(), "wrong, as said above: {wrong:?}");
}

#[allow(clippy::disallowed_methods, reason = "a test has no settings but these")]
fn asked() -> Option<CrashPoint> {
    std::env::var("GANTRY_CRASH_POINT").ok().map(|name| name.parse().unwrap())
}

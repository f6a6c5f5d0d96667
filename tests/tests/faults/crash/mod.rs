//! A process crashes at each crash point, in both modes, and its successor recovers.
//!
//! The table is the specification. Several crashes are in one story, so that a test run has time for all of them in
//! both modes; `GANTRY_CRASH_POINT=run.taken` plays only the story with that point.

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
use Story::{Cancel, Forget, LargePush, Push, PushToMany, Rebuild, Request, Upload, Wait};

/// The part of gantry that crashes; a separate process in the scaled mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Ingress,
    Scheduler,
    Worker,
}

/// What happens so that a process reaches its crash point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    /// A push to a branch that two tasks watch.
    Push,
    /// A push with a large body, which is not sent again and then expires.
    LargePush,
    /// A push with more candidates than fit one commit, of which only the first and the last watch the branch.
    PushToMany,
    /// A push whose build never ends, until it is cancelled.
    Cancel,
    /// A quick build.
    Request,
    /// A timer that is due at the next minute.
    Wait,
    /// A push to a task whose image another task is built on.
    Rebuild,
    /// An upload, which is not sent again and then expires.
    Upload,
    /// A push; at the end, what it left expires.
    Forget(Old),
}

/// What expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Old {
    Bodies,
    Runs,
    /// Uploads that no run used, and bodies whose delivery was not accepted.
    Unused,
}

/// Which part crashes at which point, in the order in which a run reaches the points.
type Crashes = &'static [(Part, CrashPoint)];

/// The points, with the first column of the row in ARCHITECTURE.md that describes the recovery.
const TABLE: [(CrashPoint, &str); 34] = [
    (BeforeAccept, "request read and commit"),
    (LargeBodyPut, "large body stored and commit"),
    (Accepted, "commit and answer"),
    (Requested, "commit and answer"),
    (AcceptedUnrung, "commit and doorbell"),
    (BeforeFiring, "event and decision"),
    (Fired, "event and decision"),
    (ImageMoved, "event and decision"),
    (BeforeDecision, "event and decision"),
    (HalfDecided, "event and decision"),
    (Created, "run created and doorbell"),
    (WaveStarted, "run created and doorbell"),
    (Ready, "run created and doorbell"),
    (Taken, "take and anything later"),
    (Began, "take and anything later"),
    (Building, "take and anything later"),
    (Pushed, "take and anything later"),
    (Tagging, "take and anything later"),
    (HalfTagged, "take and anything later"),
    (Tagged, "take and anything later"),
    (LineageWritten, "take and anything later"),
    (Lapsed, "take and anything later"),
    (Finished, "outcome written and doorbell; one step of a wave and the next"),
    (BeforeSettle, "outcome written and doorbell; one step of a wave and the next"),
    (WaveReached, "outcome written and doorbell; one step of a wave and the next"),
    (WavePlanned, "outcome written and doorbell; one step of a wave and the next"),
    (WaveEnded, "outcome written and doorbell; one step of a wave and the next"),
    (ReportQueued, "run moved and report, report sent and recorded; code host away"),
    (CancelAsked, "cancel asked and doorbell"),
    (SegmentPut, "worker lost, its log in the store"),
    (BeforeSeal, "worker lost, its log in the store"),
    (UploadPut, "upload stored and recorded"),
    (BodyPut, "half of what is forgotten"),
    (LogsForgotten, "half of what is forgotten"),
];

/// The stories with their crashes. A run survives the loss of two workers, but not of three.
const PLAYS: [(Story, Crashes); 15] = [
    // First, because it waits for the clock.
    (Wait, &[(Scheduler, BeforeFiring), (Scheduler, Fired)]),
    (
        Rebuild,
        &[
            (Scheduler, BeforeSettle),
            (Scheduler, ImageMoved),
            (Scheduler, WaveReached),
            (Scheduler, WavePlanned),
            (Scheduler, WaveStarted),
            (Scheduler, WaveEnded),
        ],
    ),
    (
        Push,
        &[
            (Ingress, BeforeAccept),
            (Ingress, Accepted),
            (Scheduler, BeforeDecision),
            (Scheduler, Created),
            (Worker, Taken),
            (Worker, Began),
        ],
    ),
    (Push, &[(Ingress, AcceptedUnrung), (Scheduler, Ready), (Worker, Building), (Worker, Pushed)]),
    (Push, &[(Worker, Tagging), (Scheduler, Lapsed), (Worker, HalfTagged)]),
    (Push, &[(Worker, Tagged), (Worker, LineageWritten), (Worker, Finished)]),
    (Push, &[(Worker, SegmentPut), (Scheduler, BeforeSeal)]),
    (Push, &[(Scheduler, ReportQueued)]),
    (PushToMany, &[(Scheduler, HalfDecided)]),
    (Cancel, &[(Ingress, CancelAsked)]),
    (Request, &[(Ingress, Requested)]),
    (LargePush, &[(Ingress, LargeBodyPut)]),
    (Upload, &[(Ingress, UploadPut)]),
    (Forget(Old::Bodies), &[(Scheduler, BodyPut)]),
    (Forget(Old::Runs), &[(Scheduler, LogsForgotten)]),
];

#[test]
fn every_crash_point_is_in_one_story_and_in_the_architecture() {
    let table: Vec<CrashPoint> = sorted(TABLE.iter().map(|(point, _)| *point));
    let played =
        sorted(PLAYS.iter().flat_map(|(_, crashes)| crashes.iter().map(|(_, point)| *point)));
    assert_eq!(table, CrashPoint::ALL);
    assert_eq!(played, CrashPoint::ALL);
    let architecture = include_str!("../../../../ARCHITECTURE.md");
    for (point, between) in &TABLE {
        let row = architecture.lines().find(|line| line.starts_with(&format!("| {between} |")));
        let names_it = row.is_some_and(|row| row.contains(&format!("`{}`", point.as_str())));
        assert!(names_it, "{point:?} does not stand in the row `{between}`");
    }
}

fn sorted(points: impl Iterator<Item = CrashPoint>) -> Vec<CrashPoint> {
    let mut points: Vec<CrashPoint> = points.collect();
    points.sort_unstable();
    points
}

#[tokio::test(flavor = "multi_thread")]
async fn every_crash_point_of_the_embedded_mode_recovers() {
    play_all(Mode::Embedded, 6).await;
}

mod slow {
    use super::{Mode, play_all};

    #[tokio::test(flavor = "multi_thread")]
    async fn every_crash_point_of_the_scaled_mode_recovers() {
        play_all(Mode::Scaled, 6).await;
    }
}

/// Plays all stories, `at_once` of them concurrently.
async fn play_all(mode: Mode, at_once: usize) {
    let git = GitServer::start().await.unwrap();
    let asked = asked();
    let has_it = |crashes: Crashes| crashes.iter().any(|(_, point)| Some(*point) == asked);
    let plays = PLAYS.iter().filter(|(_, crashes)| asked.is_none() || has_it(crashes));
    let playing = plays.map(|(story, crashes)| {
        let git = &git;
        async move {
            let began = Instant::now();
            let healed = story::play(*story, crashes, mode, git).await;
            let took = began.elapsed().as_secs_f64();
            let points: Vec<&str> = crashes.iter().map(|(_, point)| point.as_str()).collect();
            let verdict = match &healed {
                Ok(()) => "healed".to_owned(),
                Err(wrong) => {
                    format!("WRONG, repeat with GANTRY_CRASH_POINT={}: {wrong:#}", points[0])
                }
            };
            println!("{} {took:.1} s, {}: {verdict}", mode.as_str(), points.join(", "));
            healed.is_err().then_some(points)
        }
    });
    let wrong: Vec<_> = futures_util::stream::iter(playing)
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

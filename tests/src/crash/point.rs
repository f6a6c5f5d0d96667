//! The crash points, and when a process reaches them.
//!
//! Operations are recognized by what they write: record kinds and run states are the store's own format. Scans do not
//! count: they are under way before anything is delivered.

use std::str::FromStr;

use anyhow::{Context as _, Result};
use gantry_domain::id::RunId;
use gantry_seams::logs::LogId;
use gantry_seams::store::{Batch, Expect, Kind};
use serde_json::Value;

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// A boundary at which a process may crash.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum CrashPoint {
            $($(#[$doc])* $name,)*
        }

        impl CrashPoint {
            /// All crash points.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

points! {
    /// A delivery is verified but not stored.
    BeforeAccept = "accept.before-commit",
    /// A large body is in the object store, but its delivery is not stored.
    LargeBodyPut = "accept.body-put",
    /// A delivery is stored but not answered.
    Accepted = "accept.committed",
    /// A delivery is stored, but the doorbell of its event was not rung.
    AcceptedUnrung = "accept.before-doorbell",
    /// A request for a run is stored and decided, but not answered.
    Requested = "request.committed",
    /// The event of a due timer is known but not written.
    BeforeFiring = "timer.before-commit",
    /// The event of a due timer is written, but no doorbell was rung.
    Fired = "timer.fired",
    /// A tag has other content: that is written with its event, but no doorbell was rung.
    ImageMoved = "image.moved",
    /// The decision on an event is known but not written.
    BeforeDecision = "decision.before-commit",
    /// The first candidates of an event are decided.
    HalfDecided = "decision.half",
    /// A run is created, but no doorbell was rung.
    Created = "run.created",
    /// A run is ready, but no doorbell was rung.
    Ready = "run.ready",
    /// A run is leased.
    Taken = "run.taken",
    /// A run's step begins.
    Began = "run.began",
    /// A run's image is being built.
    Building = "run.building",
    /// A run's image is pushed, but no tag may be moved yet.
    Pushed = "run.pushed",
    /// A run's tags may be moved, but none is yet.
    Tagging = "run.tagging",
    /// One of a run's tags is moved.
    HalfTagged = "run.half-tagged",
    /// A run's tags are moved, but its lineage is not written.
    Tagged = "run.tagged",
    /// A run's lineage is written, but its outcome is not.
    LineageWritten = "run.lineage-written",
    /// A run's outcome is written, but no doorbell was rung.
    Finished = "run.finished",
    /// What an ended run used and made is known but not written.
    BeforeSettle = "run.before-settle",
    /// A wave is decided and reaches its first tasks, but is not planned.
    WaveReached = "wave.reached",
    /// A wave is planned, but none of its nodes was looked at.
    WavePlanned = "wave.planned",
    /// A node has started a run, but no doorbell was rung.
    WaveStarted = "wave.started",
    /// A node has ended, but those after it were not looked at.
    WaveEnded = "wave.ended",
    /// The state of a run is in the outbox, but not sent.
    ReportQueued = "report.queued",
    /// A lost worker's run waits for another worker, but no doorbell was rung.
    Lapsed = "run.lapsed",
    /// A run's cancellation is stored, but its worker was not notified.
    CancelAsked = "cancel.committed",
    /// A segment of a log is in the object store, but not in the log's index.
    SegmentPut = "log.segment-put",
    /// A log is packed but still open.
    BeforeSeal = "log.before-seal",
    /// An upload is in the object store, but not recorded.
    UploadPut = "upload.put",
    /// An old body is in both the object store and the store.
    BodyPut = "retention.body-put",
    /// An expired run's logs are deleted, but the run is not.
    LogsForgotten = "retention.logs-forgotten",
}

/// When a process has reached a crash point.
#[derive(Clone, Copy)]
pub(super) enum When {
    /// A matching batch is about to be committed.
    BeforeCommit(fn(&Batch) -> bool),
    /// A matching batch was committed.
    AfterCommit(fn(&Batch) -> bool),
    /// The doorbell of a delivery's event is about to be rung.
    EventDoorbell,
    /// A build is running.
    InBuild,
    /// A tag was written.
    TagPut,
}

impl CrashPoint {
    pub(super) fn when(self) -> When {
        use When::{AfterCommit, BeforeCommit, EventDoorbell, InBuild, TagPut};
        match self {
            Self::BeforeAccept => BeforeCommit(|batch| creates(batch, Kind::Delivery)),
            Self::LargeBodyPut => {
                BeforeCommit(|batch| creates(batch, Kind::Delivery) && !has_body(batch))
            }
            Self::Accepted => AfterCommit(|batch| creates(batch, Kind::Delivery)),
            Self::AcceptedUnrung => EventDoorbell,
            Self::Requested => {
                AfterCommit(|batch| creates_run(batch) && creates(batch, Kind::Event))
            }
            Self::BeforeFiring => BeforeCommit(|batch| observes(batch, "timer:")),
            Self::Fired => AfterCommit(|batch| observes(batch, "timer:")),
            Self::ImageMoved => AfterCommit(|batch| observes(batch, "image:")),
            Self::BeforeDecision => BeforeCommit(|batch| decides(batch).is_some()),
            Self::HalfDecided => {
                AfterCommit(|batch| decides(batch).is_some_and(|it| it["is_final"] == false))
            }
            Self::Created => AfterCommit(creates_run),
            Self::Ready => AfterCommit(|batch| brings_run_to(batch, "ready")),
            Self::Taken => AfterCommit(|batch| brings_run_to(batch, "started")),
            Self::Began => AfterCommit(|batch| brings_run_to(batch, "running")),
            Self::Building => InBuild,
            Self::Pushed => BeforeCommit(claims_tags),
            Self::Tagging => AfterCommit(claims_tags),
            Self::HalfTagged => TagPut,
            Self::Tagged => BeforeCommit(|batch| puts(batch, Kind::Lineage)),
            Self::LineageWritten => AfterCommit(|batch| puts(batch, Kind::Lineage)),
            Self::Finished => AfterCommit(|batch| brings_run_to(batch, "done")),
            Self::BeforeSettle => BeforeCommit(|batch| puts(batch, Kind::LastBuild)),
            Self::WaveReached => {
                AfterCommit(|batch| creates(batch, Kind::Node) && puts(batch, Kind::Decision))
            }
            Self::WavePlanned => AfterCommit(|batch| {
                batch.unindex.iter().any(|(index, _)| index.as_str() == "waves/planning")
            }),
            Self::WaveStarted => AfterCommit(|batch| creates_run(batch) && puts(batch, Kind::Node)),
            Self::WaveEnded => AfterCommit(|batch| deletes(batch, Kind::Node)),
            Self::ReportQueued => AfterCommit(|batch| puts(batch, Kind::Outbox)),
            Self::Lapsed => AfterCommit(|batch| {
                runs(batch).any(|run| run["state"]["reason"]["for"] == "worker_lost")
            }),
            Self::CancelAsked => AfterCommit(|batch| {
                runs(batch).any(|run| run["cancel"].is_object() && run["state"]["state"] != "done")
            }),
            Self::SegmentPut => BeforeCommit(|batch| {
                batch.index.iter().any(|(index, entry)| {
                    entry.member.starts_with("packed:") && is_log_of_shown(index.as_str())
                })
            }),
            Self::BeforeSeal => BeforeCommit(|batch| {
                batch
                    .unindex
                    .iter()
                    .any(|(index, log)| index.as_str() == "log/open" && is_log_of_shown(log))
            }),
            Self::UploadPut => BeforeCommit(|batch| creates(batch, Kind::Upload)),
            Self::BodyPut => BeforeCommit(|batch| deletes(batch, Kind::DeliveryBody)),
            Self::LogsForgotten => BeforeCommit(|batch| {
                batch.delete.iter().any(|key| key.kind == Kind::Run && is_shown(&key.id))
            }),
        }
    }
}

impl FromStr for CrashPoint {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().copied().find(|point| point.as_str() == name);
        found.with_context(|| format!("there is no point `{name}`"))
    }
}

/// Writes a record that did not exist. That alone may be a precondition of other writes, too.
fn creates(batch: &Batch, kind: Kind) -> bool {
    let is_new = |written| {
        let mut expected = batch.expect.iter();
        expected.any(|(key, expect)| key == written && *expect == Expect::Absent)
    };
    batch.put.iter().any(|(key, _)| key.kind == kind && is_new(key))
}

fn creates_run(batch: &Batch) -> bool {
    creates(batch, Kind::Run) && runs(batch).next().is_some()
}

/// Whether this is the id of a run that is not hidden.
fn is_shown(id: &str) -> bool {
    id.parse::<RunId>().is_ok_and(|run| !run.is_hidden())
}

/// Whether this ends in the id of a log of such a run.
fn is_log_of_shown(path: &str) -> bool {
    let log = path.rsplit('/').next().unwrap_or_default().parse::<LogId>();
    log.is_ok_and(|log| !log.run.is_hidden())
}

fn puts(batch: &Batch, kind: Kind) -> bool {
    batch.put.iter().any(|(key, _)| key.kind == kind)
}

fn deletes(batch: &Batch, kind: Kind) -> bool {
    batch.delete.iter().any(|key| key.kind == kind)
}

fn brings_run_to(batch: &Batch, state: &str) -> bool {
    runs(batch).any(|run| run["state"]["state"] == state)
}

/// A run is permitted to move its tags: the claims and its lease are in one commit.
fn claims_tags(batch: &Batch) -> bool {
    puts(batch, Kind::Tag) && puts(batch, Kind::Run)
}

fn runs(batch: &Batch) -> impl Iterator<Item = Value> {
    let runs = batch.put.iter().filter(|(key, _)| key.kind == Kind::Run && is_shown(&key.id));
    runs.filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok())
}

/// Records an event whose id begins like this: gantry itself has observed it.
fn observes(batch: &Batch, begins: &str) -> bool {
    batch.put.iter().any(|(key, _)| key.kind == Kind::Event && key.id.starts_with(begins))
}

/// The body follows the first line of its delivery's record.
fn has_body(batch: &Batch) -> bool {
    batch.put.iter().any(|(key, bytes)| key.kind == Kind::Delivery && bytes.contains(&b'\n'))
}

/// The decision about a delivery's event, if the batch has one. An event that is postponed has none yet.
fn decides(batch: &Batch) -> Option<Value> {
    let mut decisions = batch
        .put
        .iter()
        .filter(|(key, _)| key.kind == Kind::Decision && is_delivered(&key.id))
        .filter_map(|(_, bytes)| serde_json::from_slice::<Value>(bytes).ok());
    decisions.find(|it| it["is_final"] == true || it["candidates"] != Value::Array(Vec::new()))
}

/// Events of saved tasks also occur, before anything is delivered.
pub(super) fn is_delivered(event: &str) -> bool {
    !event.starts_with("task:")
}

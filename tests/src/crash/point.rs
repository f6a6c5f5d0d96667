//! The points, and what a process does when it comes by one.
//!
//! An operation is known by what it writes: kinds of records and the state of a run are the store's own format.

use std::str::FromStr;

use anyhow::{Context as _, Result};
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
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
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
    /// A delivery is verified and not stored.
    BeforeAccept = "accept.before-commit",
    /// A large body is in the object store, and its delivery is not stored.
    LargeBodyPut = "accept.body-put",
    /// A delivery is stored and not answered.
    Accepted = "accept.committed",
    /// A delivery is stored, and nobody was told of its event.
    AcceptedUnrung = "accept.before-doorbell",
    /// A request for a run is stored, decided and not answered.
    Requested = "request.committed",
    /// What an event means is known and not written.
    BeforeDecision = "decision.before-commit",
    /// The first candidates of an event are decided.
    HalfDecided = "decision.half",
    /// A run is there, and nobody was told.
    Created = "run.created",
    /// A run is ready, and no worker was told.
    Ready = "run.ready",
    /// A run is leased.
    Taken = "run.taken",
    /// A run's step begins.
    Began = "run.began",
    /// A run's image is being built.
    Building = "run.building",
    /// A run's image is pushed, and no tag may be moved yet.
    Pushed = "run.pushed",
    /// A run's tags may be moved, and none is.
    Tagging = "run.tagging",
    /// One of a run's tags is moved.
    HalfTagged = "run.half-tagged",
    /// A run's tags are moved, and nobody has written where its image comes from.
    Tagged = "run.tagged",
    /// It is written where a run's image comes from, and its outcome is not.
    LineageWritten = "run.lineage-written",
    /// A run's outcome is written, and nobody was told.
    Finished = "run.finished",
    /// A lost worker's run waits for another one, and nobody was told.
    Lapsed = "run.lapsed",
    /// A worker is to cancel its run, and was not told.
    CancelAsked = "cancel.committed",
    /// A segment of a log is in the object store, and no reader is told.
    SegmentPut = "log.segment-put",
    /// A log is packed, and still open.
    BeforeSeal = "log.before-seal",
    /// An upload is in the object store, and nobody wrote down that it is.
    UploadPut = "upload.put",
    /// An old body is in the object store and in the store.
    BodyPut = "retention.body-put",
    /// An old run has lost its logs.
    LogsForgotten = "retention.logs-forgotten",
}

/// When a process has reached a crash point.
#[derive(Clone, Copy)]
pub(super) enum When {
    /// Such a batch is about to be committed.
    BeforeCommit(fn(&Batch) -> bool),
    /// Such a batch is committed.
    AfterCommit(fn(&Batch) -> bool),
    /// The doorbell of a delivery's event is about to be rung.
    EventDoorbell,
    /// A build has begun and not ended.
    InBuild,
    /// A tag is put.
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
                AfterCommit(|batch| creates(batch, Kind::Run) && creates(batch, Kind::Event))
            }
            Self::BeforeDecision => BeforeCommit(|batch| decides(batch).is_some()),
            Self::HalfDecided => {
                AfterCommit(|batch| decides(batch).is_some_and(|it| it["is_final"] == false))
            }
            Self::Created => AfterCommit(|batch| creates(batch, Kind::Run)),
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
            Self::Lapsed => AfterCommit(|batch| {
                runs(batch).any(|run| run["state"]["reason"]["for"] == "worker_lost")
            }),
            Self::CancelAsked => AfterCommit(|batch| {
                runs(batch).any(|run| run["cancel"].is_object() && run["state"]["state"] != "done")
            }),
            Self::SegmentPut => BeforeCommit(|batch| {
                batch.index.iter().any(|(_, entry)| entry.member.starts_with("packed:"))
            }),
            Self::BeforeSeal => BeforeCommit(|batch| {
                batch.unindex.iter().any(|(index, _)| index.as_str() == "log/open")
            }),
            Self::UploadPut => BeforeCommit(|batch| creates(batch, Kind::Upload)),
            Self::BodyPut => BeforeCommit(|batch| deletes(batch, Kind::DeliveryBody)),
            Self::LogsForgotten => BeforeCommit(|batch| deletes(batch, Kind::Run)),
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

fn creates(batch: &Batch, kind: Kind) -> bool {
    batch.expect.iter().any(|(key, expect)| key.kind == kind && *expect == Expect::Absent)
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

/// A run is let in to move its tags: the claims and its lease are one commit.
fn claims_tags(batch: &Batch) -> bool {
    puts(batch, Kind::Tag) && puts(batch, Kind::Run)
}

fn runs(batch: &Batch) -> impl Iterator<Item = Value> {
    let runs = batch.put.iter().filter(|(key, _)| key.kind == Kind::Run);
    runs.filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok())
}

/// A body stands in its delivery's record, behind the line that says what it is.
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

/// Events of saved tasks come by as well, before anything is delivered.
pub(super) fn is_delivered(event: &str) -> bool {
    !event.starts_with("task:")
}

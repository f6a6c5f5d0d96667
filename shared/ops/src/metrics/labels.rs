//! Labels whose values are closed sets: a metric has as many series as its labels have values, however long it is kept.

use gantry_domain::decide::{Choice, Rule};
use gantry_domain::hook::Provider;
use gantry_domain::run::{RunStatus, RunType, WaitReason};

/// One label.
pub trait Label: Copy + PartialEq + 'static {
    /// Its name.
    const NAME: &'static str;
    /// Every value that it may have.
    const ALL: &'static [Self];

    /// The value's word.
    fn word(self) -> &'static str;
}

/// The labels of one metric, together.
pub trait Labels: Copy {
    /// Their names.
    fn names() -> Vec<&'static str>;

    /// The words of every combination.
    fn all() -> Vec<Vec<&'static str>>;

    /// Which of [`Labels::all`] this is.
    fn place(self) -> usize;
}

/// No label.
impl Labels for () {
    fn names() -> Vec<&'static str> {
        Vec::new()
    }

    fn all() -> Vec<Vec<&'static str>> {
        vec![Vec::new()]
    }

    fn place(self) -> usize {
        0
    }
}

impl<A: Label> Labels for A {
    fn names() -> Vec<&'static str> {
        vec![A::NAME]
    }

    fn all() -> Vec<Vec<&'static str>> {
        A::ALL.iter().map(|value| vec![value.word()]).collect()
    }

    fn place(self) -> usize {
        place_of(self)
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    fn names() -> Vec<&'static str> {
        vec![A::NAME, B::NAME]
    }

    fn all() -> Vec<Vec<&'static str>> {
        let of_one = |a: &A| {
            let a = a.word();
            B::ALL.iter().map(move |b| vec![a, b.word()])
        };
        A::ALL.iter().flat_map(of_one).collect()
    }

    fn place(self) -> usize {
        place_of(self.0) * B::ALL.len() + place_of(self.1)
    }
}

/// A value that stands not among all of them has no series, and is not counted: the tests see to it that there is none.
fn place_of<L: Label>(value: L) -> usize {
    L::ALL.iter().position(|other| *other == value).unwrap_or(usize::MAX / 1024)
}

/// Declares labels: each value once, with its word.
macro_rules! labels {
    ($($(#[$doc:meta])* $type:ident = $name:literal { $($(#[$of:meta])* $value:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type { $($(#[$of])* $value,)+ }

        impl Label for $type {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            fn word(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }
        }
    )+};
}

labels! {
    /// What became of a request to a hook.
    HookVerdict = "verdict" {
        /// Stored now, with its events.
        Accepted = "accepted",
        /// Stored now: nothing that gantry acts on.
        NoInterest = "no_interest",
        /// Stored now: its body cannot be read.
        Unreadable = "unreadable",
        /// Not stored: of a type that can never matter.
        Dropped = "dropped",
        /// Stored before.
        Repeat = "repeat",
        /// Another body was stored under its id before.
        Conflict = "conflict",
        /// No such hook, or a signature that does not match.
        Refused = "refused",
        /// The body is too large.
        TooLarge = "too_large",
        /// The body is of another type, came too slowly, or broke off.
        Malformed = "malformed",
        /// Answered 503: the store did not take it in time, or is full, or too much was at once.
        Unavailable = "unavailable",
    }

    /// How an API request was answered.
    Answer = "status" {
        /// As asked.
        Done = "2xx",
        /// It is somewhere else, or unchanged.
        Elsewhere = "3xx",
        /// Refused: the caller's affair.
        Refused = "4xx",
        /// Not done: gantry's.
        Failed = "5xx",
    }

    /// What was decided for one candidate of an event, or for an event without any.
    Decided = "outcome" {
        /// A run was started.
        Run = "run",
        /// [`Rule::NoRegistry`].
        NoRegistry = "no_registry",
        /// [`Rule::NoTask`].
        NoTask = "no_task",
        /// [`Rule::HookNotForRepository`].
        HookNotForRepository = "hook_not_for_repository",
        /// [`Rule::RecordedOnly`].
        RecordedOnly = "recorded_only",
        /// [`Rule::TaskDisabled`].
        TaskDisabled = "task_disabled",
        /// [`Rule::TriggerDisabled`].
        TriggerDisabled = "trigger_disabled",
        /// [`Rule::NotABranch`].
        NotABranch = "not_a_branch",
        /// [`Rule::OtherBranch`].
        OtherBranch = "other_branch",
        /// [`Rule::DefaultBranchUnknown`].
        DefaultBranchUnknown = "default_branch_unknown",
        /// [`Rule::BranchDeleted`].
        BranchDeleted = "branch_deleted",
        /// [`Rule::Superseded`].
        Superseded = "superseded",
        /// [`Rule::BranchExists`].
        BranchExists = "branch_exists",
        /// [`Rule::AlreadyStarted`].
        AlreadyStarted = "already_started",
        /// [`Rule::HeadUnknown`].
        HeadUnknown = "head_unknown",
    }

    /// What a waiting run waits for.
    Waiting = "reason" {
        /// To be looked at.
        Admission = "admission",
        /// A place among the runs of its registry.
        RegistryLimit = "registry_limit",
        /// A place among the runs of its task.
        TaskLimit = "task_limit",
        /// The pause before another attempt.
        Backoff = "backoff",
        /// Something that is away.
        Unavailable = "unavailable",
        /// To be looked at: its last worker was lost.
        WorkerLost = "worker_lost",
        /// To be looked at: its last worker shut down.
        HandedBack = "handed_back",
    }

    /// What the sweeper put right.
    Repair = "kind" {
        /// An event was found undecided some seconds after it came.
        EventDecided = "event_decided",
        /// A run was looked at first some seconds after it was created.
        RunAdmitted = "run_admitted",
        /// A run had waited too long in a pool without workers.
        RunStranded = "run_stranded",
        /// A worker had not been seen.
        WorkerForgotten = "worker_forgotten",
    }

    /// What is asked of the store.
    StoreOperation = "operation" {
        /// Records by key.
        Load = "load",
        /// Entries of an index.
        Range = "range",
        /// A batch.
        Commit = "commit",
        /// Its clock.
        Now = "now",
        /// How full it is.
        Room = "room",
    }

    /// Why the store did not do as asked.
    StoreFailure = "kind" {
        /// Someone else came first: tried again, and no harm done.
        Conflict = "conflict",
        /// It is away or too slow.
        Unavailable = "unavailable",
        /// It has no room.
        Full = "full",
        /// A record does not decode.
        Undecodable = "undecodable",
    }

    /// The doorbells.
    Doorbell = "queue" {
        /// Events to decide.
        Events = "events",
        /// Runs that moved.
        Runs = "runs",
        /// A pool has work.
        Jobs = "jobs",
        /// A run was asked to cancel.
        Control = "control",
    }

    /// What is asked of the queue and timed. To claim a doorbell takes as long as none rings.
    QueueOperation = "operation" {
        /// Rings a doorbell.
        Publish = "publish",
        /// Is done with one.
        Acknowledge = "acknowledge",
    }

    /// What the queue did not do as asked.
    QueueFailure = "operation" {
        /// Ring a doorbell.
        Publish = "publish",
        /// Claim one.
        Claim = "claim",
        /// Be done with one.
        Acknowledge = "acknowledge",
    }

    /// What is asked of the container engine.
    EngineOperation = "operation" {
        /// What it is.
        Info = "info",
        /// Builds an image.
        Build = "build",
        /// Names an image.
        Tag = "tag",
        /// Pushes an image.
        Push = "push",
        /// Removes an image.
        RemoveImage = "remove_image",
        /// Lists what dead attempts left.
        Leftovers = "leftovers",
        /// Removes one of it.
        Remove = "remove",
        /// Shrinks the build cache.
        PruneCache = "prune_cache",
    }

    /// How a build ended on the engine.
    BuildEnd = "result" {
        /// With an image.
        Built = "built",
        /// A step failed, or the engine refused it: the user's affair.
        Failed = "failed",
        /// The infrastructure failed.
        Unavailable = "unavailable",
        /// It was stopped: cancelled, out of time, or its lease was lost.
        Stopped = "stopped",
    }

    /// A part of an attempt.
    Stage = "stage" {
        /// Fetches the source.
        Fetch = "fetch",
        /// Resolves the bases.
        Bases = "bases",
        /// Builds.
        Build = "build",
        /// Pushes, final tags excepted.
        Push = "push",
        /// Moves the final tags.
        Tag = "tag",
    }

    /// A slot of a worker.
    Slot = "state" {
        /// A run is in it.
        Busy = "busy",
        /// None is.
        Free = "free",
    }
}

impl Label for Provider {
    const NAME: &'static str = "provider";
    const ALL: &'static [Self] = Self::ALL;

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Label for RunType {
    const NAME: &'static str = "type";
    const ALL: &'static [Self] = &[Self::QuickBuild, Self::AutoBuild];

    fn word(self) -> &'static str {
        match self {
            Self::QuickBuild => "quick_build",
            Self::AutoBuild => "auto_build",
        }
    }
}

/// The terminal ones.
impl Label for RunStatus {
    const NAME: &'static str = "status";
    const ALL: &'static [Self] =
        &[Self::Succeeded, Self::Failed, Self::Canceled, Self::Error, Self::Timeout];

    fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Started => "started",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }
}

impl Answer {
    /// Of an HTTP status.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            0..300 => Self::Done,
            300..400 => Self::Elsewhere,
            400..500 => Self::Refused,
            500.. => Self::Failed,
        }
    }
}

impl From<QueueOperation> for QueueFailure {
    fn from(operation: QueueOperation) -> Self {
        match operation {
            QueueOperation::Publish => Self::Publish,
            QueueOperation::Acknowledge => Self::Acknowledge,
        }
    }
}

impl From<&Choice> for Decided {
    fn from(choice: &Choice) -> Self {
        match choice {
            Choice::Run { .. } => Self::Run,
            Choice::No { rule } => rule.into(),
        }
    }
}

impl From<&Rule> for Decided {
    fn from(rule: &Rule) -> Self {
        match rule {
            Rule::NoRegistry { .. } => Self::NoRegistry,
            Rule::NoTask { .. } => Self::NoTask,
            Rule::HookNotForRepository { .. } => Self::HookNotForRepository,
            Rule::RecordedOnly { .. } => Self::RecordedOnly,
            Rule::TaskDisabled => Self::TaskDisabled,
            Rule::TriggerDisabled => Self::TriggerDisabled,
            Rule::NotABranch { .. } => Self::NotABranch,
            Rule::OtherBranch { .. } => Self::OtherBranch,
            Rule::DefaultBranchUnknown { .. } => Self::DefaultBranchUnknown,
            Rule::BranchDeleted { .. } => Self::BranchDeleted,
            Rule::Superseded { .. } => Self::Superseded,
            Rule::BranchExists { .. } => Self::BranchExists,
            Rule::AlreadyStarted { .. } => Self::AlreadyStarted,
            Rule::HeadUnknown { .. } => Self::HeadUnknown,
        }
    }
}

impl From<&WaitReason> for Waiting {
    fn from(reason: &WaitReason) -> Self {
        match reason {
            WaitReason::Admission => Self::Admission,
            WaitReason::RegistryLimit { .. } => Self::RegistryLimit,
            WaitReason::TaskLimit { .. } => Self::TaskLimit,
            WaitReason::Backoff { .. } => Self::Backoff,
            WaitReason::Unavailable { .. } => Self::Unavailable,
            WaitReason::WorkerLost { .. } => Self::WorkerLost,
            WaitReason::HandedBack => Self::HandedBack,
        }
    }
}

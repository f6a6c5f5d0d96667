//! Labels with fixed sets of values, so that the number of a metric's series is bounded.

use gantry_domain::decide::{Choice, Rule};
use gantry_domain::hook::Provider;
use gantry_domain::run::{RunStatus, RunType, WaitReason};

/// A label.
pub trait Label: Copy + PartialEq + 'static {
    /// The name of the label.
    const NAME: &'static str;
    /// All values.
    const ALL: &'static [Self];

    /// The text of the value.
    fn word(self) -> &'static str;
}

/// The combined labels of one metric.
pub trait Labels: Copy {
    /// The names of the labels.
    fn names() -> Vec<&'static str>;

    /// The texts of all combinations.
    fn all() -> Vec<Vec<&'static str>>;

    /// The index of this combination in [`Labels::all`].
    fn place(self) -> usize;
}

/// No labels.
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

/// A value missing from `ALL` has no series and is not counted. Tests ensure that there is none.
fn place_of<L: Label>(value: L) -> usize {
    L::ALL.iter().position(|other| *other == value).unwrap_or(usize::MAX / 1024)
}

/// Declares labels, with each value and its text only once.
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
    /// The result of a request to a hook.
    HookVerdict = "verdict" {
        /// Recorded now, with its events.
        Accepted = "accepted",
        /// Recorded now; nothing that gantry acts on.
        NoInterest = "no_interest",
        /// Recorded now; its body cannot be read.
        Unreadable = "unreadable",
        /// Not recorded, because its type can never matter.
        Dropped = "dropped",
        /// Recorded before.
        Repeat = "repeat",
        /// Recorded before with another body.
        Conflict = "conflict",
        /// There is no such hook, or the signature does not match.
        Refused = "refused",
        /// The body is too large.
        TooLarge = "too_large",
        /// The body has another type, arrived too slowly, or was cut off.
        Malformed = "malformed",
        /// Answered 503: the store was too slow or full, or there were too many requests.
        Unavailable = "unavailable",
    }

    /// The status class of an API response.
    Answer = "status" {
        /// Success.
        Done = "2xx",
        /// A redirect, or not modified.
        Elsewhere = "3xx",
        /// An error of the caller.
        Refused = "4xx",
        /// An error of gantry.
        Failed = "5xx",
    }

    /// The decision on one candidate of an event, or on an event without candidates.
    Decided = "outcome" {
        /// A run was started.
        Run = "run",
        /// A wave has reached the task.
        Wave = "wave",
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
        /// [`Rule::PullRequestsDisabled`].
        PullRequestsDisabled = "pull_requests_disabled",
        /// The timer is disabled.
        TimerDisabled = "timer_disabled",
        /// An earlier run of the timer has not ended.
        Overlaps = "overlaps",
        /// Too many runs of the timer have not ended.
        QueueFull = "queue_full",
        /// [`Rule::BaseImagesOff`].
        BaseImagesOff = "base_images_off",
        /// [`Rule::PinnedImage`].
        PinnedImage = "pinned_image",
        /// [`Rule::OnlyBuildtime`].
        OnlyBuildtime = "only_buildtime",
        /// [`Rule::OtherImage`].
        OtherImage = "other_image",
        /// [`Rule::OtherTag`].
        OtherTag = "other_tag",
        /// [`Rule::OtherBranch`].
        OtherBranch = "other_branch",
        /// [`Rule::DefaultBranchUnknown`].
        DefaultBranchUnknown = "default_branch_unknown",
        /// [`Rule::OtherBase`].
        OtherBase = "other_base",
        /// [`Rule::Draft`].
        Draft = "draft",
        /// [`Rule::NoLabel`].
        NoLabel = "no_label",
        /// [`Rule::Author`].
        Author = "author",
        /// [`Rule::FromFork`].
        FromFork = "from_fork",
        /// [`Rule::OtherAction`].
        OtherAction = "other_action",
        /// [`Rule::AskedToSkip`].
        AskedToSkip = "asked_to_skip",
        /// [`Rule::CommentsIgnored`].
        CommentsIgnored = "comments_ignored",
        /// [`Rule::MayNotCommand`].
        MayNotCommand = "may_not_command",
        /// [`Rule::Obeyed`].
        Obeyed = "obeyed",
        /// [`Rule::ReferenceDeleted`].
        ReferenceDeleted = "reference_deleted",
        /// [`Rule::Superseded`].
        Superseded = "superseded",
        /// [`Rule::ReferenceExists`].
        ReferenceExists = "reference_exists",
        /// [`Rule::PullRequestClosed`].
        PullRequestClosed = "pull_request_closed",
        /// [`Rule::PullRequestOpen`].
        PullRequestOpen = "pull_request_open",
        /// [`Rule::AlreadyStarted`].
        AlreadyStarted = "already_started",
        /// [`Rule::NoPath`].
        NoPath = "no_path",
        /// [`Rule::RegistryAsked`].
        RegistryAsked = "registry_asked",
        /// [`Rule::NoUser`].
        NoUser = "no_user",
        /// [`Rule::WaveDropped`].
        WaveDropped = "wave_dropped",
        /// [`Rule::OwnImage`].
        OwnImage = "own_image",
        /// [`Rule::UpToDate`].
        UpToDate = "up_to_date",
        /// [`Rule::HeadUnknown`].
        HeadUnknown = "head_unknown",
    }

    /// The reason why a run waits.
    Waiting = "reason" {
        /// It is new.
        Admission = "admission",
        /// Somebody to approve it.
        Approval = "approval",
        /// Images that a wave is building.
        Bases = "bases",
        /// The runs for each of its platforms.
        Legs = "legs",
        /// A place among the runs of its registry.
        RegistryLimit = "registry_limit",
        /// A place among the runs of its task.
        TaskLimit = "task_limit",
        /// An earlier run of its timer.
        EarlierRun = "earlier_run",
        /// Another run of its concurrency group.
        Group = "group",
        /// The pause before another attempt.
        Backoff = "backoff",
        /// Something is unavailable.
        Unavailable = "unavailable",
        /// The values of its secrets.
        Secrets = "secrets",
        /// Its last worker was lost.
        WorkerLost = "worker_lost",
        /// Its last worker shut down.
        HandedBack = "handed_back",
    }

    /// What the sweeper repaired.
    Repair = "kind" {
        /// An event was still undecided some seconds after it was received.
        EventDecided = "event_decided",
        /// A run was first tried some seconds after it was created.
        RunAdmitted = "run_admitted",
        /// A run waited too long in a pool without workers.
        RunStranded = "run_stranded",
        /// A worker stopped reporting.
        WorkerForgotten = "worker_forgotten",
    }

    /// What became of an instant that a timer missed.
    Misfired = "outcome" {
        /// It started a run, late.
        Fired = "fired",
        /// It started nothing.
        Dropped = "dropped",
    }

    /// The operations of the store.
    StoreOperation = "operation" {
        /// Records by key.
        Load = "load",
        /// Entries of an index.
        Range = "range",
        /// A batch.
        Commit = "commit",
        /// The store's clock.
        Now = "now",
        /// How full it is.
        Room = "room",
    }

    /// The reason why an operation of the store failed.
    StoreFailure = "kind" {
        /// Another writer was first; the operation is retried without harm.
        Conflict = "conflict",
        /// The store does not answer, or too slowly.
        Unavailable = "unavailable",
        /// The store is full.
        Full = "full",
        /// A record does not decode.
        Undecodable = "undecodable",
    }

    /// The queues.
    Doorbell = "queue" {
        /// Events to decide.
        Events = "events",
        /// Runs to admit.
        Runs = "runs",
        /// Pools that have ready runs.
        Jobs = "jobs",
        /// Runs to cancel.
        Control = "control",
    }

    /// The timed operations of the queue. Claiming is not timed: it waits for a doorbell.
    QueueOperation = "operation" {
        /// Publishing a message.
        Publish = "publish",
        /// Acknowledging a message.
        Acknowledge = "acknowledge",
    }

    /// The operations of the queue that may fail.
    QueueFailure = "operation" {
        /// Publishing a message.
        Publish = "publish",
        /// Claiming a message.
        Claim = "claim",
        /// Acknowledging a message.
        Acknowledge = "acknowledge",
    }

    /// The operations of the container engine.
    EngineOperation = "operation" {
        /// Asking whether it is there.
        Ping = "ping",
        /// Asking for its name and state.
        Info = "info",
        /// Asking for the platforms that it builds for.
        Platforms = "platforms",
        /// Building an image.
        Build = "build",
        /// Tagging an image.
        Tag = "tag",
        /// Pushing an image.
        Push = "push",
        /// Removing an image.
        RemoveImage = "remove_image",
        /// Listing what dead attempts left.
        Leftovers = "leftovers",
        /// Removing a leftover.
        Remove = "remove",
        /// Shrinking the build cache.
        PruneCache = "prune_cache",
        /// Creating the networks and volumes of an attempt.
        Prepare = "prepare",
        /// Writing files into a volume.
        Fill = "fill",
        /// Reading files from a volume, up to the first of them.
        Read = "read",
        /// Looking for an image.
        ImageId = "image_id",
        /// Pulling an image.
        Pull = "pull",
        /// Creating and starting a container.
        Start = "start",
        /// Running a container from its creation to its end, which is how long its step takes.
        Run = "run",
        /// Stopping all containers of an attempt.
        StopAll = "stop_all",
        /// Removing all containers, networks and volumes of an attempt.
        RemoveAll = "remove_all",
    }

    /// The result of a build on the engine.
    BuildEnd = "result" {
        /// An image was built.
        Built = "built",
        /// A step failed, or the engine refused the build, because of the user's input.
        Failed = "failed",
        /// The infrastructure failed.
        Unavailable = "unavailable",
        /// It was stopped: cancelled, out of time, or its lease was lost.
        Stopped = "stopped",
    }

    /// The stages of an attempt.
    Stage = "stage" {
        /// Fetching the source.
        Fetch = "fetch",
        /// Resolving the bases.
        Bases = "bases",
        /// Building.
        Build = "build",
        /// Pushing, without the final tags.
        Push = "push",
        /// Moving the final tags.
        Tag = "tag",
    }

    /// The state of a worker's slot.
    Slot = "state" {
        /// It has a run.
        Busy = "busy",
        /// It has none.
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
    const ALL: &'static [Self] =
        &[Self::QuickBuild, Self::AutoBuild, Self::QuickRun, Self::AutoRun];

    fn word(self) -> &'static str {
        match self {
            Self::QuickBuild => "quick_build",
            Self::AutoBuild => "auto_build",
            Self::QuickRun => "quick_run",
            Self::AutoRun => "auto_run",
        }
    }
}

/// Only the final statuses.
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
    /// The class of an HTTP status.
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
            Choice::Run { .. } | Choice::WouldRun => Self::Run,
            Choice::Wave { .. } => Self::Wave,
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
            Rule::PullRequestsDisabled => Self::PullRequestsDisabled,
            Rule::TimerDisabled { .. } => Self::TimerDisabled,
            Rule::Overlaps { .. } => Self::Overlaps,
            Rule::QueueFull { .. } => Self::QueueFull,
            Rule::BaseImagesOff => Self::BaseImagesOff,
            Rule::PinnedImage => Self::PinnedImage,
            Rule::OnlyBuildtime => Self::OnlyBuildtime,
            Rule::OtherImage { .. } => Self::OtherImage,
            Rule::OtherTag { .. } => Self::OtherTag,
            Rule::OtherBranch { .. } => Self::OtherBranch,
            Rule::DefaultBranchUnknown { .. } => Self::DefaultBranchUnknown,
            Rule::OtherBase { .. } => Self::OtherBase,
            Rule::Draft => Self::Draft,
            Rule::NoLabel { .. } => Self::NoLabel,
            Rule::Author { .. } => Self::Author,
            Rule::FromFork => Self::FromFork,
            Rule::OtherAction { .. } => Self::OtherAction,
            Rule::AskedToSkip => Self::AskedToSkip,
            Rule::CommentsIgnored => Self::CommentsIgnored,
            Rule::MayNotCommand { .. } => Self::MayNotCommand,
            Rule::Obeyed { .. } => Self::Obeyed,
            Rule::ReferenceDeleted { .. } => Self::ReferenceDeleted,
            Rule::Superseded { .. } => Self::Superseded,
            Rule::ReferenceExists { .. } => Self::ReferenceExists,
            Rule::PullRequestClosed { .. } => Self::PullRequestClosed,
            Rule::PullRequestOpen { .. } => Self::PullRequestOpen,
            Rule::AlreadyStarted { .. } => Self::AlreadyStarted,
            Rule::NoPath { .. } => Self::NoPath,
            Rule::RegistryAsked { .. } => Self::RegistryAsked,
            Rule::NoUser { .. } => Self::NoUser,
            Rule::WaveDropped { .. } => Self::WaveDropped,
            Rule::OwnImage => Self::OwnImage,
            Rule::UpToDate { .. } => Self::UpToDate,
            Rule::HeadUnknown { .. } => Self::HeadUnknown,
        }
    }
}

impl From<&WaitReason> for Waiting {
    fn from(reason: &WaitReason) -> Self {
        match reason {
            WaitReason::Admission => Self::Admission,
            WaitReason::Approval => Self::Approval,
            WaitReason::Bases { .. } => Self::Bases,
            WaitReason::Legs => Self::Legs,
            WaitReason::RegistryLimit { .. } => Self::RegistryLimit,
            WaitReason::TaskLimit { .. } => Self::TaskLimit,
            WaitReason::EarlierRun => Self::EarlierRun,
            WaitReason::Group { .. } => Self::Group,
            WaitReason::Backoff { .. } => Self::Backoff,
            WaitReason::Unavailable { .. } => Self::Unavailable,
            WaitReason::Secrets | WaitReason::VaultAway { .. } => Self::Secrets,
            WaitReason::WorkerLost { .. } => Self::WorkerLost,
            WaitReason::HandedBack => Self::HandedBack,
        }
    }
}

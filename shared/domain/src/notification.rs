//! Notifications: which runs a registry tells whom of, and in which format.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::id::{RegistryName, RunId, RunPrefix};
use crate::pattern::Patterns;
use crate::run::{Outcome, Run, RunState, RunStatus};
use crate::sealed::Sealed;
use crate::text::{text_type, words};
use crate::timestamp::Timestamp;

mod body;
mod message;
mod news;
mod slack;
mod teams;

pub use body::Body;
pub use message::{Answer, Message, Sending};
pub use news::{Failure, Image, News};

/// How many notifications a registry has at most. Each end of a run may become one message for each of them.
pub const MOST: usize = 20;

/// How many signing secrets a notification has at most: the current one, and the former one while it is replaced.
pub const MOST_SECRETS: usize = 2;

text_type!(
    /// The name of a notification, unique in its registry.
    NotificationName,
    "name of a notification",
    "1 to 50 letters, digits, `-` or `_`, beginning with a letter or digit",
    |text| (1..=50).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
);

text_type!(
    /// Distinguishes a notification from a former one of the same name: 128 random bits in hexadecimal.
    NotificationId,
    "id of a notification",
    "32 hexadecimal digits",
    |text| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
);

text_type!(
    /// The id of a message, the same in each attempt to send it. Without `.`, which separates it from what else is signed.
    MessageId,
    "id of a message",
    "`msg_`, then the run, the event and the id of the notification",
    |text| text.len() <= 128
        && text.starts_with("msg_")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
);

impl MessageId {
    /// The message by which a notification tells of an event. There is one at most.
    #[must_use]
    pub fn of(run: RunId, event: RunEvent, notification: &NotificationId) -> Self {
        Self(format!("msg_{run}_{event}_{notification}"))
    }

    /// The message that tries a notification. `random` distinguishes it from others.
    #[must_use]
    pub fn of_test(random: &NotificationId) -> Self {
        Self(format!("msg_test_{random}"))
    }
}

words!(
    /// The format of a notification's messages.
    Format,
    "format",
    "`standard`, `cloudevents`, `slack` or `teams`",
    {
        /// Standard Webhooks, signed.
        Standard = "standard",
        /// A CloudEvent in structured JSON, signed like the former.
        CloudEvents = "cloudevents",
        /// A message for an incoming webhook of Slack.
        Slack = "slack",
        /// An adaptive card for a workflow of Microsoft Teams.
        Teams = "teams",
    }
);

impl Format {
    /// Whether its messages are signed. The addresses of chats are secrets themselves, and chats check no signature.
    #[must_use]
    pub fn is_signed(self) -> bool {
        match self {
            Self::Standard | Self::CloudEvents => true,
            Self::Slack | Self::Teams => false,
        }
    }
}

words!(
    /// What happened to a run, as far as notifications tell of it.
    RunEvent,
    "event of a run",
    "`held`, `started`, `succeeded`, `failed`, `error`, `timeout` or `canceled`",
    {
        /// It waits for an approval.
        Held = "held",
        /// A worker has it, for the first time.
        Started = "started",
        /// It succeeded.
        Succeeded = "succeeded",
        /// A step failed.
        Failed = "failed",
        /// gantry, or something that it needs, failed.
        Error = "error",
        /// It took too long.
        Timeout = "timeout",
        /// It was cancelled.
        Canceled = "canceled",
    }
);

impl RunEvent {
    /// All ends of a run, which notifications tell of by default.
    pub const ENDS: [Self; 5] =
        [Self::Succeeded, Self::Failed, Self::Error, Self::Timeout, Self::Canceled];

    /// What happened last to a run; `None` if that is nothing to tell of. Hidden runs notify nobody.
    #[must_use]
    pub fn of(run: &Run) -> Option<Self> {
        if run.is_hidden() {
            return None;
        }
        match &run.state {
            state if state.is_held() => Some(Self::Held),
            RunState::Waiting { .. } | RunState::Ready { .. } => None,
            RunState::Started { .. } | RunState::Running { .. } => Some(Self::Started),
            RunState::Done(done) => Some(match done.outcome {
                Outcome::Succeeded(_) => Self::Succeeded,
                Outcome::Failed { .. } => Self::Failed,
                Outcome::Canceled { .. } => Self::Canceled,
                Outcome::Error { .. } => Self::Error,
                Outcome::Timeout { .. } => Self::Timeout,
            }),
        }
    }

    /// The status of a run to which this happened last.
    #[must_use]
    pub fn status(self) -> RunStatus {
        match self {
            Self::Held => RunStatus::Queued,
            Self::Started => RunStatus::Started,
            Self::Succeeded => RunStatus::Succeeded,
            Self::Failed => RunStatus::Failed,
            Self::Error => RunStatus::Error,
            Self::Timeout => RunStatus::Timeout,
            Self::Canceled => RunStatus::Canceled,
        }
    }

    /// Whether the run is well; `None` if this says neither.
    fn is_success(self) -> Option<bool> {
        match self {
            Self::Succeeded => Some(true),
            Self::Failed | Self::Error | Self::Timeout => Some(false),
            Self::Held | Self::Started | Self::Canceled => None,
        }
    }
}

/// Where messages are sent. The address of a chat's webhook is a secret as a whole, so only its origin is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// Most servers take no longer ones.
    const LONGEST: usize = 2048;

    /// The URL, which is a secret.
    #[must_use]
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The part that may be shown: `https://host:port`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({}/..)", self.origin())
    }
}

/// A text is no address. The text may be a secret, so it is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no address to send to: a URL of at most 2048 characters that begins with `https://`"
)]
pub struct InvalidAddress;

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > Self::LONGEST {
            return Err(InvalidAddress);
        }
        let mut url: Url = text.trim().parse().map_err(|_| InvalidAddress)?;
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
            return Err(InvalidAddress);
        }
        url.set_fragment(None);
        Ok(Self(url))
    }
}

/// A notification: it tells somebody of some runs of its registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Distinguishes it from a former one of the same name.
    pub id: NotificationId,
    /// The registry.
    pub registry: RegistryName,
    /// The registry's prefix, which distinguishes it from others of the same name.
    pub prefix: RunPrefix,
    /// Its name there.
    pub name: NotificationName,
    /// The format of its messages.
    pub format: Format,
    /// Where they are sent, sealed for [`Self::seals_for`].
    pub address: Sealed,
    /// The part of the address that may be shown.
    pub origin: String,
    /// The signing secrets, the newest first; a message is signed with each of them. Empty if the format is not signed.
    pub secrets: Vec<SigningSecret>,
    /// What it tells of.
    pub filter: Filter,
    /// Why nothing is sent, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// When it was created.
    pub created: Timestamp,
}

/// A secret that messages are signed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningSecret {
    /// The secret, sealed for [`Notification::seals_for`].
    pub sealed: Sealed,
    /// When it was made.
    pub created: Timestamp,
}

/// Why a notification sends nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Disabled {
    /// Somebody turned it off.
    Person,
    /// Its receiver answered 410 Gone.
    Receiver {
        /// When.
        at: Timestamp,
    },
}

impl std::fmt::Display for Disabled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Person => f.write_str("turned off"),
            Self::Receiver { at } => write!(
                f,
                "its receiver answered 410 Gone at {at}: give it another address, and enable it again"
            ),
        }
    }
}

impl Notification {
    /// What the address and the secrets are sealed for.
    #[must_use]
    pub fn seals_for(&self) -> String {
        format!("notification/{}", self.id)
    }
}

/// The runs and events that a notification tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The events.
    pub on: BTreeSet<RunEvent>,
    /// Patterns of the names of tasks. Without any, it tells of all tasks, and of runs without one.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub tasks: Patterns,
    /// Patterns of branches. Without any, it tells of all branches, and of runs without one.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub branches: Patterns,
    /// Whether it tells of a run only if the one before it ended otherwise: see [`is_change`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_changes: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            on: RunEvent::ENDS.into(),
            tasks: Patterns::default(),
            branches: Patterns::default(),
            only_changes: false,
        }
    }
}

impl Filter {
    /// Whether it lets an event of a run through, apart from [`Self::only_changes`].
    #[must_use]
    pub fn selects(&self, event: RunEvent, run: &Run) -> bool {
        let chosen = |patterns: &Patterns, name: Option<&str>| {
            patterns.is_empty() || name.is_some_and(|name| patterns.choose(name))
        };
        self.on.contains(&event)
            && chosen(&self.tasks, run.task.as_ref().map(|task| task.name.as_str()))
            && chosen(&self.branches, run.branch().map(|branch| branch.as_str()))
    }
}

/// Whether a run broke or repaired its task, compared with `others`, runs of the same task: the one before it, on the same
/// branch or pull request, ended otherwise, and none after it has ended yet. Cancelled runs say nothing, and the first
/// run of all is a change if it did not succeed.
#[must_use]
pub fn is_change(run: &Run, others: &[Run]) -> bool {
    let result = |run: &Run| RunEvent::of(run).and_then(RunEvent::is_success);
    let Some(now) = result(run) else { return false };
    let line = |run: &Run| {
        let pull_request = run.recipe.pull_request.as_ref().map(|of| of.number);
        let task = run.task.as_ref().map(|task| (task.name.clone(), task.created));
        (task, run.branch().cloned(), pull_request)
    };
    let of_line = line(run);
    let ended: Vec<(u64, bool)> = others
        .iter()
        .filter(|other| other.id != run.id && line(other) == of_line)
        .filter_map(|other| Some((other.id.number(), result(other)?)))
        .collect();
    if ended.iter().any(|(number, _)| *number > run.id.number()) {
        return false;
    }
    let before = ended.into_iter().max().is_none_or(|(_, before)| before);
    now != before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::planner;
    use crate::decide::samples::task;
    use crate::run::{Done, ErrorCode, Product, RunError};

    /// Run `number` of a branch, with its result: whether it succeeded, `None` while it waits.
    fn run(number: u64, branch: &str, result: Option<bool>) -> Run {
        let task = task();
        let (event, by) = ("request/r1".parse().unwrap(), "t1".parse().unwrap());
        let draft = planner::for_task_request(&task, task.recipe.clone(), event, by);
        let mut run = draft.create(RunId::new(RunPrefix::nth(0), number), Timestamp::default());
        run.read = Some(crate::built_on::SourceRead {
            repository: "git.test/octo/web".parse().unwrap(),
            branch: Some(branch.parse().unwrap()),
            commit: "a".repeat(40).parse().unwrap(),
        });
        let error = RunError {
            code: ErrorCode::StepFailed,
            step: None,
            exit_code: Some(1),
            message: "exit code 1".to_owned(),
        };
        if let Some(result) = result {
            let outcome = match result {
                true => Outcome::Succeeded(Product::default()),
                false => Outcome::Failed { error },
            };
            run.state = RunState::Done(Done { outcome, started: None, at: Timestamp::default() });
        }
        run
    }

    fn patterns(texts: &[&str]) -> Patterns {
        let parsed: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
        parsed.try_into().unwrap()
    }

    #[test]
    fn a_filter_selects_events_tasks_and_branches() {
        let failed = run(1, "main", Some(false));
        let all = Filter::default();
        assert!(all.selects(RunEvent::Failed, &failed));
        assert!(!all.selects(RunEvent::Started, &failed) && !all.selects(RunEvent::Held, &failed));
        let tasks = |texts| Filter { tasks: patterns(texts), ..Filter::default() };
        assert!(tasks(&["we*"]).selects(RunEvent::Failed, &failed));
        assert!(!tasks(&["api"]).selects(RunEvent::Failed, &failed));
        let branches = |texts| Filter { branches: patterns(texts), ..Filter::default() };
        assert!(branches(&["main", "release/*"]).selects(RunEvent::Failed, &failed));
        assert!(!branches(&["release/*"]).selects(RunEvent::Failed, &failed));
        let quick = Run { task: None, read: None, ..failed };
        assert!(all.selects(RunEvent::Failed, &quick));
        assert!(!tasks(&["**"]).selects(RunEvent::Failed, &quick), "it has no task");
        assert!(!branches(&["**"]).selects(RunEvent::Failed, &quick), "it has no branch");
    }

    #[test]
    fn a_change_is_a_result_that_differs_from_the_one_before_on_the_same_branch() {
        let (good, bad) = (Some(true), Some(false));
        for (number, result, others, expected) in [
            (2, bad, vec![(1, "main", good)], true),
            (2, good, vec![(1, "main", bad)], true),
            (2, bad, vec![(1, "main", bad)], false),
            (2, good, vec![(1, "main", good)], false),
            (1, bad, vec![], true),
            (1, good, vec![], false),
            (3, bad, vec![(1, "main", good), (2, "next", bad)], true),
            (3, bad, vec![(2, "main", None), (1, "main", bad)], false),
            // A newer run has ended already.
            (2, bad, vec![(1, "main", good), (3, "main", good)], false),
            (2, None, vec![(1, "main", good)], false),
        ] {
            let others: Vec<Run> = others
                .into_iter()
                .map(|(number, branch, result)| run(number, branch, result))
                .collect();
            let is = is_change(&run(number, "main", result), &others);
            assert_eq!(is, expected, "{number} {result:?} {others:?}");
        }
    }

    #[test]
    fn hidden_and_waiting_runs_are_nothing_to_tell_of() {
        assert_eq!(RunEvent::of(&run(1, "main", None)), None);
        let ended = run(1, "main", Some(true));
        assert_eq!(RunEvent::of(&ended), Some(RunEvent::Succeeded));
        let hidden = Run { id: RunId::hidden(RunPrefix::nth(0), 1), ..ended };
        assert_eq!(RunEvent::of(&hidden), None);
    }

    #[test]
    fn only_the_origin_of_an_address_is_ever_shown() {
        let address: Address = "https://hooks.slack.com/services/T0/B0/x?y=z#w".parse().unwrap();
        assert_eq!(address.origin(), "https://hooks.slack.com");
        assert_eq!(format!("{address:?}"), "Address(https://hooks.slack.com/..)");
        for text in ["", "ftp://x/", "hooks.slack.com/s3cret", "https://", "file:///s3cret"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn an_id_names_run_event_and_notification_without_a_full_stop() {
        let id = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let id = MessageId::of(RunId::new(RunPrefix::nth(0), 1), RunEvent::Failed, &id);
        assert_eq!(id.as_str(), "msg_ca1_failed_0123456789abcdef0123456789abcdef");
        assert_eq!(id.as_str().parse(), Ok(id));
    }
}

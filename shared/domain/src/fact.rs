//! Facts: the current head of a branch, tag or pull request, and how often it has changed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::{PullRequestChange, PullRequestNotice, Push, PushedRef};
use crate::id::RegistryName;
use crate::image_version::ImageVersion;
use crate::platform::Platform;
use crate::pull_request::{ProviderRepository, PullRequestVersion};
use crate::source::{CommitId, RefName, RepositoryKey};
use crate::text::text_type;
use crate::timestamp::Timestamp;
use crate::tracked_image::TrackedImage;
use crate::trigger::PullRequestAction;

text_type!(
    /// The key of a fact, like `branch:reg:github.com/octo/hello@main`.
    FactKey,
    "fact",
    "a kind, `:` and what it is about",
    |text| text.len() <= 900 && text.contains(':') && !text.chars().any(char::is_control)
);

impl FactKey {
    /// The head of a branch, from the perspective of one registry. Each registry has separate facts, so the holder of
    /// one registry's hook cannot influence what another registry builds.
    #[must_use]
    pub fn branch(registry: &RegistryName, repository: &RepositoryKey, branch: &RefName) -> Self {
        match format!("branch:{registry}:{repository}@{branch}").parse() {
            Ok(key) => key,
            Err(_) => {
                unreachable!("a repository's key and a branch's name are short and printable")
            }
        }
    }

    /// What a push moved, from the perspective of one registry.
    #[must_use]
    pub fn moved(registry: &RegistryName, repository: &RepositoryKey, moved: &PushedRef) -> Self {
        match moved {
            PushedRef::Branch(branch) => Self::branch(registry, repository, branch),
            PushedRef::Tag(tag) => match format!("tag:{registry}:{repository}@{tag}").parse() {
                Ok(key) => key,
                Err(_) => {
                    unreachable!("a repository's key and a tag's name are short and printable")
                }
            },
        }
    }

    /// A pull request, from the perspective of one registry. By the id that the host of `at` gave the repository, which
    /// survives renames.
    #[must_use]
    pub fn pull_request(
        registry: &RegistryName,
        at: &RepositoryKey,
        repository: &ProviderRepository,
        number: u64,
    ) -> Self {
        match format!("pull:{registry}:{}/{repository}@{number}", at.host()).parse() {
            Ok(key) => key,
            Err(_) => unreachable!("a host, an id and a number are short and printable"),
        }
    }

    /// What a tag, or the one that a policy chooses, has for a platform, from the perspective of one registry of gantry.
    #[must_use]
    pub fn image(registry: &RegistryName, platform: &Platform, image: &TrackedImage) -> Self {
        match format!("image:{registry}:{platform}@{image}").parse() {
            Ok(key) => key,
            Err(_) => unreachable!("a platform's and an image's names are short and printable"),
        }
    }

    /// The number of the pull request that it is about, if it is about one.
    #[must_use]
    pub fn pull_request_number(&self) -> Option<u64> {
        let (_, number) = self.as_str().strip_prefix("pull:")?.rsplit_once('@')?;
        number.parse().ok()
    }

    /// The common prefix of the facts of one repository.
    #[must_use]
    pub fn repository_scope(registry: &RegistryName, repository: &RepositoryKey) -> String {
        scope(&format!("branch:{registry}:{repository}")).to_owned()
    }

    /// The scope of this key.
    #[must_use]
    pub fn scope(&self) -> &str {
        scope(self.as_str())
    }
}

fn scope(text: &str) -> &str {
    text.split_once('@').map_or(text, |(scope, _)| scope)
}

/// How many earlier heads a fact remembers. A delivery that is later than this many pushes was redelivered after days.
const MOST_FORMER: usize = 64;

/// The current value of a fact, and how often it has changed.
///
/// The value of a branch or tag is a commit, that of a pull request a [`PullRequestVersion`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact<V = CommitId> {
    /// What it is about.
    pub key: FactKey,
    /// The value; `None` if the branch or tag does not exist, or the pull request is closed.
    pub value: Option<V>,
    /// Counts the changes of the value, from 1.
    pub generation: u64,
    /// When it changed last.
    pub since: Timestamp,
    /// Earlier values, newest last, at most 64. Branches can be reset to an earlier commit, and deleted more than once.
    /// So a delivery that leads to one of these proves nothing about order, and the provider is asked.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerValue<V>>,
}

/// An earlier value of a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerValue<V = CommitId> {
    /// The value; `None` if there was nothing.
    pub value: Option<V>,
    /// The generation with this value; 0 if a delivery reported it only later.
    pub generation: u64,
}

impl<V: Clone + PartialEq> Fact<V> {
    /// The newest generation at which the value was `value`. `None` if it is not known to have been.
    #[must_use]
    pub fn generation_of(&self, value: &V) -> Option<u64> {
        self.generation_of_value(Some(value))
    }

    fn generation_of_value(&self, value: Option<&V>) -> Option<u64> {
        if self.value.as_ref() == value {
            return Some(self.generation);
        }
        let mut former = self.former.iter().rev();
        former.find(|head| head.value.as_ref() == value).map(|head| head.generation)
    }

    /// Records that `value` was the value at some earlier time, although nobody reported it then. Changes nothing if
    /// that is known already.
    #[must_use]
    pub fn remembering(mut self, value: Option<&V>) -> Self {
        if let Some(value) = value
            && self.generation_of(value).is_none()
        {
            self.remember(Some(value.clone()), 0);
        }
        self
    }

    fn remember(&mut self, value: Option<V>, generation: u64) {
        self.former.retain(|head| head.value != value);
        self.former.push(FormerValue { value, generation });
        let surplus = self.former.len().saturating_sub(MOST_FORMER);
        self.former.drain(..surplus);
    }
}

/// What a report says about a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move<V = CommitId> {
    /// The value before.
    pub before: Before<V>,
    /// The value after; `None` if there is nothing any more.
    pub after: Option<V>,
    /// Whether nothing can have happened before it: a pull request is opened once.
    pub is_first: bool,
}

/// What a report says about the value before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before<V = CommitId> {
    /// It was this; `None` if there was nothing.
    Was(Option<V>),
    /// It does not say.
    Unsaid,
}

impl From<&Push> for Move {
    fn from(push: &Push) -> Self {
        let (before, after) = (push.before.clone(), push.after.clone());
        Self { before: Before::Was(before), after, is_first: false }
    }
}

impl From<&PullRequestChange> for Move<PullRequestVersion> {
    fn from(change: &PullRequestChange) -> Self {
        use PullRequestAction::{Closed, Edited, Labeled, Opened, ReadyForReview, Reopened};
        use PullRequestAction::{Synchronized, Unlabeled};

        let now = &change.now;
        let version = |head: &CommitId| PullRequestVersion {
            head: head.clone(),
            base: now.base.branch.clone(),
        };
        let before = match (change.action, &change.before) {
            (Some(Opened | Reopened), _) => Before::Was(None),
            (Some(Synchronized), Some(before)) => Before::Was(Some(version(before))),
            (Some(Closed | Labeled | Unlabeled | ReadyForReview), _) => {
                Before::Was(Some(version(&now.head.commit)))
            }
            // An edit may have changed the base.
            (Some(Edited | Synchronized) | None, _) => Before::Unsaid,
        };
        Self { before, after: now.version(), is_first: change.action == Some(Opened) }
    }
}

/// The effect of a report on a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<V = CommitId> {
    /// The report begins at the current value, and the fact advances to this value.
    Advances(Option<V>),
    /// The report ends at the current value.
    Repeats,
    /// Neither: only the provider knows the current value.
    Unclear,
}

/// Classifies a report against the known value. Pure. The order of the cases matters: a report of the current value
/// changes nothing, and one of an earlier value may be late, or the branch may have been reset.
#[must_use]
pub fn classify<V: Clone + PartialEq>(known: Option<&Fact<V>>, told: &Move<V>) -> Effect<V> {
    match (known, &told.before) {
        (None, _) if told.is_first => Effect::Advances(told.after.clone()),
        (Some(fact), _) if fact.value == told.after => Effect::Repeats,
        (Some(fact), Before::Was(before)) if fact.value == *before && !leads_back(fact, told) => {
            Effect::Advances(told.after.clone())
        }
        (Some(_) | None, _) => Effect::Unclear,
    }
}

fn leads_back<V: Clone + PartialEq>(fact: &Fact<V>, told: &Move<V>) -> bool {
    fact.generation_of_value(told.after.as_ref()).is_some()
}

/// Whether the host that returned `value` may be behind a report: hosts send hooks before all of their servers show the
/// new value. A report that begins or ends at an earlier value is itself late, unless it begins at the current value.
#[must_use]
pub fn may_be_behind<V: Clone + PartialEq>(
    known: Option<&Fact<V>>,
    told: &Move<V>,
    value: Option<&V>,
) -> bool {
    if told.after.as_ref() == value {
        return false;
    }
    let Some(fact) = known else { return true };
    let has_left = |value: Option<&V>| {
        let value = value.filter(|value| fact.value.as_ref() != Some(*value));
        value.is_some_and(|value| fact.generation_of(value).is_some())
    };
    let before = match &told.before {
        Before::Was(before) if fact.value == *before => return true,
        Before::Was(before) => before.as_ref(),
        Before::Unsaid => None,
    };
    !(has_left(before) || has_left(told.after.as_ref()))
}

/// Whether a notice ends a pull request at its known version, and for the first time. Then nobody need be asked.
#[must_use]
pub fn is_ended_by(known: &Fact<PullRequestVersion>, notice: &PullRequestNotice) -> bool {
    let is_current = |version: &PullRequestVersion| notice.head.begins(&version.head);
    !notice.is_open
        && known.value.as_ref().is_some_and(is_current)
        && known.generation_of_value(None).is_none()
}

/// Whether the host that returned `value` may be behind a notice: it shows another version than the notice reports, and
/// the pull request is not known to have left that one.
#[must_use]
pub fn may_be_behind_notice(
    known: Option<&Fact<PullRequestVersion>>,
    notice: &PullRequestNotice,
    value: Option<&PullRequestVersion>,
) -> bool {
    let has_left = known
        .is_some_and(|fact| fact.former.iter().any(|former| notice.reports(former.value.as_ref())));
    !notice.reports(value) && !has_left
}

/// The fact after `value` was found to be current; unchanged if it already was.
#[must_use]
pub fn advanced<V: Clone + PartialEq>(
    known: Option<&Fact<V>>,
    key: &FactKey,
    value: Option<V>,
    now: Timestamp,
) -> Fact<V> {
    match known {
        Some(fact) if fact.value == value => fact.clone(),
        None => Fact { key: key.clone(), value, generation: 1, since: now, former: Vec::new() },
        Some(fact) => {
            let mut next = fact.clone();
            next.remember(fact.value.clone(), fact.generation);
            next.former.retain(|head| head.value != value);
            Fact { value, generation: fact.generation + 1, since: now, ..next }
        }
    }
}

/// The fact after a tag was found to have `version`. An image with the same content as before is none that is new: it
/// only gets another digest.
#[must_use]
pub fn advanced_image(
    known: Option<&Fact<ImageVersion>>,
    key: &FactKey,
    version: ImageVersion,
    now: Timestamp,
) -> Fact<ImageVersion> {
    match known {
        Some(fact) if fact.value.as_ref().is_some_and(|it| it.content == version.content) => {
            Fact { value: Some(version), ..fact.clone() }
        }
        known => advanced(known, key, Some(version), now),
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_ref().map_or("gone", CommitId::as_str);
        write!(f, "{} is {value} (generation {})", self.key, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PushedRef;

    fn commit(digit: char) -> CommitId {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn push(before: Option<char>, after: Option<char>) -> Push {
        Push {
            hook: Some("h".parse().unwrap()),
            url: "https://github.com/octo/hello.git".parse().unwrap(),
            reference: PushedRef::Branch("main".parse().unwrap()),
            before: before.map(commit),
            after: after.map(commit),
            default_branch: None,
            pusher: None,
            changed: crate::pull_request::ChangedFiles::default(),
            asks_to_skip: false,
        }
    }

    fn told(before: Option<char>, after: Option<char>) -> Move {
        (&push(before, after)).into()
    }

    fn known(digit: char) -> Fact {
        let main = "main".parse().unwrap();
        let key = FactKey::branch(&"reg".parse().unwrap(), &push(None, None).repository(), &main);
        advanced(None, &key, Some(commit(digit)), Timestamp::default())
    }

    #[test]
    fn a_push_from_the_head_advances_it_and_a_push_to_it_repeats() {
        let fact = known('b');
        assert_eq!(
            classify(Some(&fact), &told(Some('b'), Some('c'))),
            Effect::Advances(Some(commit('c')))
        );
        assert_eq!(classify(Some(&fact), &told(Some('a'), Some('b'))), Effect::Repeats);
        assert_eq!(classify(Some(&fact), &told(Some('b'), None)), Effect::Advances(None));
    }

    #[test]
    fn a_push_to_a_former_head_is_unclear() {
        let first = known('a');
        let second = advanced(Some(&first), &first.key, Some(commit('b')), Timestamp::default());
        assert_eq!(classify(Some(&second), &told(Some('b'), Some('a'))), Effect::Unclear);
        let third = advanced(Some(&second), &first.key, Some(commit('a')), Timestamp::default());
        assert_eq!(classify(Some(&third), &told(Some('a'), Some('b'))), Effect::Unclear);
        // The hooks arrived out of order: the one that led back reported the head in between.
        let remembered = first.remembering(Some(&commit('b')));
        assert_eq!(classify(Some(&remembered), &told(Some('a'), Some('b'))), Effect::Unclear);
    }

    #[test]
    fn a_commit_has_its_newest_generation_as_head() {
        let mut fact = known('a').remembering(Some(&commit('9')));
        for digit in ['b', 'a', 'c'] {
            fact = advanced(Some(&fact), &fact.key, Some(commit(digit)), Timestamp::default());
        }
        let generations = ['9', 'a', 'b', 'c', 'd'].map(|digit| fact.generation_of(&commit(digit)));
        assert_eq!(generations, [Some(0), Some(3), Some(2), Some(4), None]);
    }

    #[test]
    fn the_newest_former_heads_are_remembered() {
        let mut fact = known('f');
        for number in 0..100 {
            let head = format!("{:040}", number + 1).parse().unwrap();
            fact = advanced(Some(&fact), &fact.key, Some(head), Timestamp::default());
        }
        assert_eq!(fact.former.len(), MOST_FORMER);
        assert_eq!(fact.former.last().unwrap().generation, 100);
    }

    #[test]
    fn a_late_or_first_push_is_unclear() {
        assert_eq!(classify(Some(&known('c')), &told(Some('a'), Some('b'))), Effect::Unclear);
        assert_eq!(classify(None, &told(Some('a'), Some('b'))), Effect::Unclear);
    }

    #[test]
    fn a_host_may_be_behind_a_push_unless_the_branch_is_known_to_have_moved_on() {
        let a = known('a');
        let c = advanced(Some(&a), &a.key, Some(commit('c')), Timestamp::default());
        for (fact, before, after, value, expected) in [
            (None, None, Some('b'), Some('b'), false),
            (None, None, Some('b'), None, true),
            (None, Some('a'), Some('b'), Some('a'), true),
            (Some(&a), Some('b'), Some('c'), Some('a'), true),
            (Some(&a), Some('b'), None, Some('a'), true),
            (Some(&c), Some('a'), Some('b'), Some('c'), false),
            (Some(&c), Some('d'), Some('a'), Some('c'), false),
            (Some(&c), Some('b'), Some('d'), Some('c'), true),
            (Some(&c), Some('c'), Some('a'), Some('c'), true),
        ] {
            let value = value.map(commit);
            let behind = may_be_behind(fact, &told(before, after), value.as_ref());
            assert_eq!(behind, expected, "{before:?} {after:?} {value:?}");
        }
    }

    #[test]
    fn late_pushes_are_recognized_in_any_order() {
        let a = known('a');
        let d = advanced(Some(&a), &a.key, Some(commit('d')), Timestamp::default());
        let second = push(Some('b'), Some('c'));
        assert!(may_be_behind(Some(&d), &(&second).into(), d.value.as_ref()));
        // The push from `a` to `b` was decided.
        let d = d.remembering(Some(&commit('b')));
        assert!(!may_be_behind(Some(&d), &(&second).into(), d.value.as_ref()));
    }

    #[test]
    fn a_head_that_returns_to_an_earlier_commit_is_a_new_generation() {
        let first = known('a');
        let second = advanced(Some(&first), &first.key, Some(commit('b')), Timestamp::default());
        let third = advanced(Some(&second), &first.key, Some(commit('a')), Timestamp::default());
        assert_eq!((first.generation, second.generation, third.generation), (1, 2, 3));
        assert_eq!(
            advanced(Some(&third), &first.key, Some(commit('a')), Timestamp::default()),
            third
        );
    }

    fn notice(is_open: bool, head: char) -> PullRequestNotice {
        PullRequestNotice {
            hook: None,
            url: push(None, None).url,
            repository: "1".parse().unwrap(),
            number: 7,
            action: None,
            is_open,
            head: head.to_string().repeat(12).parse().unwrap(),
            base: "main".parse().unwrap(),
            refs: crate::event::PullRequestRefs::default(),
        }
    }

    fn versions(heads: &[Option<char>]) -> Fact<PullRequestVersion> {
        let version =
            |head| PullRequestVersion { head: commit(head), base: "main".parse().unwrap() };
        let key = notice(true, 'a').fact_key(&"reg".parse().unwrap());
        let (first, later) = heads.split_first().unwrap();
        let start = advanced(None, &key, first.map(version), Timestamp::default());
        later.iter().fold(start, |fact, head| {
            advanced(Some(&fact), &key, head.map(version), Timestamp::default())
        })
    }

    #[test]
    fn a_notice_ends_the_known_version_once() {
        let ends = |fact: &[Option<char>], told| is_ended_by(&versions(fact), &told);
        assert!(ends(&[Some('a')], notice(false, 'a')));
        assert!(ends(&[Some('a'), Some('b')], notice(false, 'b')));
        assert!(!ends(&[Some('a')], notice(true, 'a')), "it is open");
        assert!(!ends(&[Some('b')], notice(false, 'a')), "its head is another one");
        assert!(!ends(&[None], notice(false, 'a')), "it is closed already");
        assert!(!ends(&[Some('a'), None, Some('a')], notice(false, 'a')), "it was closed before");
    }

    #[test]
    fn a_host_may_be_behind_a_notice_unless_the_pull_request_has_left_its_version() {
        let a_to_b = [Some('a'), Some('b')];
        for (known, told, shown, expected) in [
            (None, notice(true, 'a'), Some('a'), false),
            (None, notice(true, 'a'), None, true),
            (None, notice(true, 'b'), Some('a'), true),
            (None, notice(false, 'a'), None, false),
            (Some(&a_to_b[..1]), notice(true, 'b'), Some('a'), true),
            (Some(&a_to_b[..1]), notice(false, 'a'), Some('a'), true),
            (Some(&a_to_b[..]), notice(true, 'a'), Some('b'), false),
            (Some(&a_to_b[..]), notice(true, 'b'), Some('b'), false),
        ] {
            let known = known.map(versions);
            let shown = shown.map(|head| versions(&[Some(head)]).value.unwrap());
            let behind = may_be_behind_notice(known.as_ref(), &told, shown.as_ref());
            assert_eq!(behind, expected, "{told:?} {shown:?}");
        }
        // Another base is another version.
        let told = PullRequestNotice { base: "release".parse().unwrap(), ..notice(true, 'a') };
        assert!(may_be_behind_notice(None, &told, versions(&[Some('a')]).value.as_ref()));
    }

    fn change(
        action: Option<PullRequestAction>,
        before: Option<char>,
        head: char,
    ) -> PullRequestChange {
        use crate::pull_request::{Association, PullRequest, PullRequestBase, PullRequestHead};

        let repository: ProviderRepository = "1".parse().unwrap();
        PullRequestChange {
            hook: None,
            url: push(None, None).url,
            action,
            before: before.map(commit),
            now: PullRequest {
                number: 7,
                is_open: action != Some(PullRequestAction::Closed),
                head: PullRequestHead {
                    commit: commit(head),
                    branch: None,
                    repository: Some(repository.clone()),
                },
                base: PullRequestBase { branch: "main".parse().unwrap(), repository },
                merge: None,
                is_draft: false,
                labels: Vec::new(),
                author: None,
                association: Association::Stranger,
            },
            asks_to_skip: false,
            refs: crate::event::PullRequestRefs::default(),
        }
    }

    #[test]
    fn a_pull_request_is_known_by_what_its_changes_prove() {
        use PullRequestAction::{Closed, Labeled, Opened, Reopened, Synchronized};

        let version =
            |head| PullRequestVersion { head: commit(head), base: "main".parse().unwrap() };
        let key = change(None, None, 'a').fact_key(&"reg".parse().unwrap());
        assert_eq!(key.as_str(), "pull:reg:github.com/1@7");
        let open = advanced(None, &key, Some(version('a')), Timestamp::default());
        let closed = advanced(Some(&open), &key, None, Timestamp::default());
        let again = advanced(Some(&closed), &key, Some(version('a')), Timestamp::default());
        let (to, gone) = (|head| Effect::Advances(Some(version(head))), Effect::Advances(None));
        for (number, (known, action, before, head, effect)) in [
            (None, Some(Opened), None, 'a', to('a')),
            (None, Some(Synchronized), Some('a'), 'b', Effect::Unclear),
            (Some(&open), Some(Opened), None, 'a', Effect::Repeats),
            (Some(&open), Some(Synchronized), Some('a'), 'b', to('b')),
            (Some(&open), Some(Synchronized), Some('b'), 'c', Effect::Unclear),
            (Some(&open), Some(Labeled), None, 'a', Effect::Repeats),
            // A vote: the provider does not say what changed, and nothing did.
            (Some(&open), None, None, 'a', Effect::Repeats),
            (Some(&open), None, None, 'b', Effect::Unclear),
            (Some(&open), Some(Closed), None, 'a', gone),
            (Some(&closed), Some(Closed), None, 'a', Effect::Repeats),
            // Both may be late, because it was open at this head before.
            (Some(&closed), Some(Reopened), None, 'a', Effect::Unclear),
            (Some(&again), Some(Closed), None, 'a', Effect::Unclear),
        ]
        .into_iter()
        .enumerate()
        {
            let told = (&change(action, before, head)).into();
            assert_eq!(classify(known, &told), effect, "{number}: {action:?}");
        }
    }
}

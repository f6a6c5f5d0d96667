//! Facts: the current head of a branch, and how often it has changed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::Push;
use crate::id::RegistryName;
use crate::source::{CommitId, RefName, RepositoryKey};
use crate::text::text_type;
use crate::timestamp::Timestamp;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// The branch that it is about.
    pub key: FactKey,
    /// The branch's head; `None` if the branch does not exist.
    pub value: Option<CommitId>,
    /// Counts the changes of the value, from 1.
    pub generation: u64,
    /// When it changed last.
    pub since: Timestamp,
    /// Earlier values, newest last, at most 64. Branches can be reset to an earlier commit, and deleted more than once.
    /// So a delivery that leads to one of these proves nothing about order, and the provider is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerHead>,
}

/// An earlier head of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerHead {
    /// The commit; `None` if the branch did not exist.
    pub value: Option<CommitId>,
    /// The generation with this value; 0 if a delivery reported it only later.
    pub generation: u64,
}

impl Fact {
    /// The newest generation at which the head was `commit`. `None` if it is not known to have been the head.
    #[must_use]
    pub fn generation_of(&self, commit: &CommitId) -> Option<u64> {
        self.generation_of_value(Some(commit))
    }

    fn generation_of_value(&self, value: Option<&CommitId>) -> Option<u64> {
        if self.value.as_ref() == value {
            return Some(self.generation);
        }
        let mut former = self.former.iter().rev();
        former.find(|head| head.value.as_ref() == value).map(|head| head.generation)
    }

    /// Records that `commit` was the head at some earlier time, although nobody reported it then. Changes nothing if
    /// that is known already.
    #[must_use]
    pub fn remembering(mut self, commit: Option<&CommitId>) -> Self {
        if let Some(commit) = commit
            && self.generation_of(commit).is_none()
        {
            self.remember(Some(commit.clone()), 0);
        }
        self
    }

    fn remember(&mut self, value: Option<CommitId>, generation: u64) {
        self.former.retain(|head| head.value != value);
        self.former.push(FormerHead { value, generation });
        let surplus = self.former.len().saturating_sub(MOST_FORMER);
        self.former.drain(..surplus);
    }
}

/// The effect of a push on a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushEffect {
    /// The push begins at the current value, and the fact advances to this value.
    Advances(Option<CommitId>),
    /// The push ends at the current value.
    Repeats,
    /// Neither: only the provider knows the current value.
    Unclear,
}

/// Classifies `push` against the known head. Pure. The order of the cases matters: a push to the current value changes
/// nothing, and a push to an earlier head may be late, or the branch may have been reset.
#[must_use]
pub fn classify(known: Option<&Fact>, push: &Push) -> PushEffect {
    match known {
        Some(fact) if fact.value == push.after => PushEffect::Repeats,
        Some(fact) if fact.value == push.before && !leads_back(fact, push) => {
            PushEffect::Advances(push.after.clone())
        }
        Some(_) | None => PushEffect::Unclear,
    }
}

fn leads_back(fact: &Fact, push: &Push) -> bool {
    fact.generation_of_value(push.after.as_ref()).is_some()
}

/// Whether the host that returned `value` may be behind `push`: hosts send hooks before all of their servers show the
/// new head. A push that begins or ends at an earlier head of the branch is itself late, unless it begins at the
/// current value.
#[must_use]
pub fn may_be_behind(known: Option<&Fact>, push: &Push, value: Option<&CommitId>) -> bool {
    if push.after.as_ref() == value {
        return false;
    }
    let Some(fact) = known else { return true };
    let has_left = |commit: &Option<CommitId>| {
        let commit = commit.as_ref().filter(|commit| fact.value.as_ref() != Some(commit));
        commit.is_some_and(|commit| fact.generation_of(commit).is_some())
    };
    fact.value == push.before || !(has_left(&push.before) || has_left(&push.after))
}

/// The fact after `value` was found to be current; unchanged if it already was.
#[must_use]
pub fn advanced(
    known: Option<&Fact>,
    key: &FactKey,
    value: Option<CommitId>,
    now: Timestamp,
) -> Fact {
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
        }
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
            classify(Some(&fact), &push(Some('b'), Some('c'))),
            PushEffect::Advances(Some(commit('c')))
        );
        assert_eq!(classify(Some(&fact), &push(Some('a'), Some('b'))), PushEffect::Repeats);
        assert_eq!(classify(Some(&fact), &push(Some('b'), None)), PushEffect::Advances(None));
    }

    #[test]
    fn a_push_to_a_former_head_is_unclear() {
        let first = known('a');
        let second = advanced(Some(&first), &first.key, Some(commit('b')), Timestamp::default());
        assert_eq!(classify(Some(&second), &push(Some('b'), Some('a'))), PushEffect::Unclear);
        let third = advanced(Some(&second), &first.key, Some(commit('a')), Timestamp::default());
        assert_eq!(classify(Some(&third), &push(Some('a'), Some('b'))), PushEffect::Unclear);
        // The hooks arrived out of order: the one that led back reported the head in between.
        let told = first.remembering(Some(&commit('b')));
        assert_eq!(classify(Some(&told), &push(Some('a'), Some('b'))), PushEffect::Unclear);
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
        assert_eq!(classify(Some(&known('c')), &push(Some('a'), Some('b'))), PushEffect::Unclear);
        assert_eq!(classify(None, &push(Some('a'), Some('b'))), PushEffect::Unclear);
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
            let behind = may_be_behind(fact, &push(before, after), value.as_ref());
            assert_eq!(behind, expected, "{before:?} {after:?} {value:?}");
        }
    }

    #[test]
    fn late_pushes_are_recognized_in_any_order() {
        let a = known('a');
        let d = advanced(Some(&a), &a.key, Some(commit('d')), Timestamp::default());
        let second = push(Some('b'), Some('c'));
        assert!(may_be_behind(Some(&d), &second, d.value.as_ref()));
        // The push from `a` to `b` was decided.
        let d = d.remembering(Some(&commit('b')));
        assert!(!may_be_behind(Some(&d), &second, d.value.as_ref()));
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
}

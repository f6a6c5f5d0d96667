//! What a branch head is now, and how often it changed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::Push;
use crate::id::RegistryName;
use crate::source::{CommitId, RefName, RepositoryKey};
use crate::text::text_type;
use crate::timestamp::Timestamp;

text_type!(
    /// What a fact is about: `branch:reg:github.com/octo/hello@main`.
    FactKey,
    "fact",
    "a kind, `:` and what it is about",
    |text| text.len() <= 900 && text.contains(':') && !text.chars().any(char::is_control)
);

impl FactKey {
    /// The head of a branch, as a registry's hooks and tasks know it. Each registry has facts of its own: what the
    /// holder of one registry's hook claims never moves what another registry builds.
    #[must_use]
    pub fn branch(registry: &RegistryName, repository: &RepositoryKey, branch: &RefName) -> Self {
        match format!("branch:{registry}:{repository}@{branch}").parse() {
            Ok(key) => key,
            Err(_) => {
                unreachable!("a repository's key and a branch's name are short and printable")
            }
        }
    }
}

/// A fact: what is so now, and the how-manieth value that is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is about.
    pub key: FactKey,
    /// The branch's head; `None` when the branch is gone.
    pub value: Option<CommitId>,
    /// Counts from 1 with each change of value.
    pub generation: u64,
    /// When it changed last.
    pub since: Timestamp,
}

/// What a push says about a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hearing {
    /// It begins where we stand: the fact advances to this value.
    Advances(Option<CommitId>),
    /// It ends where we stand: heard before.
    Repeats,
    /// Neither: only the provider can say what is so now.
    Unclear,
}

/// What `push` says about the head that we know. Pure; the order of the two questions matters: a push whose ends
/// are equal changes nothing.
#[must_use]
pub fn hear(known: Option<&Fact>, push: &Push) -> Hearing {
    match known {
        Some(fact) if fact.value == push.after => Hearing::Repeats,
        Some(fact) if fact.value == push.before => Hearing::Advances(push.after.clone()),
        Some(_) | None => Hearing::Unclear,
    }
}

/// The fact after `value` was found to be so: itself if nothing changed.
#[must_use]
pub fn advanced(
    known: Option<&Fact>,
    key: &FactKey,
    value: Option<CommitId>,
    now: Timestamp,
) -> Fact {
    match known {
        Some(fact) if fact.value == value => fact.clone(),
        known => Fact {
            key: key.clone(),
            value,
            generation: known.map_or(0, |fact| fact.generation) + 1,
            since: now,
        },
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
            hook: "h".parse().unwrap(),
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
    fn a_push_from_our_head_advances_it_and_one_to_our_head_repeats() {
        let fact = known('b');
        assert_eq!(
            hear(Some(&fact), &push(Some('b'), Some('c'))),
            Hearing::Advances(Some(commit('c')))
        );
        assert_eq!(hear(Some(&fact), &push(Some('a'), Some('b'))), Hearing::Repeats);
        assert_eq!(hear(Some(&fact), &push(Some('b'), None)), Hearing::Advances(None));
    }

    #[test]
    fn a_late_or_first_push_is_a_question_to_the_provider() {
        assert_eq!(hear(Some(&known('c')), &push(Some('a'), Some('b'))), Hearing::Unclear);
        assert_eq!(hear(None, &push(Some('a'), Some('b'))), Hearing::Unclear);
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

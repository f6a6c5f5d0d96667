//! Matches a push to a task's source trigger.
//!
//! In: an event's push and one candidate task. Out: the watched branch, or the first rule that said no. Pure. The
//! current head of the branch is not considered here.

use super::{OtherAddress, Rule};
use crate::event::{Push, PushedRef};
use crate::source::{GitSource, RefKind, RefName, RepositoryKey, Source};
use crate::task::{SourceTrigger, Status, Task};

/// The repository that a task's source trigger watches; `None` without a source trigger or git source.
#[must_use]
pub fn watched_repository(task: &Task) -> Option<RepositoryKey> {
    task.source_trigger.as_ref()?;
    git_source(task).map(|git| git.url.key())
}

/// The branch that a task's source trigger watches; `None` means the default branch.
#[must_use]
pub fn watched_branch(task: &Task) -> Option<RefName> {
    let trigger = task.source_trigger.as_ref()?;
    let reference = trigger.branch.as_ref().or_else(|| git_source(task)?.reference.as_ref())?;
    match reference.kind() {
        RefKind::DefaultBranch => None,
        RefKind::Branch(branch) => Some(branch),
        // Never a branch, so nothing matches. Such a trigger is refused when its task is saved.
        RefKind::Tag | RefKind::Commit | RefKind::Other => Some(reference.clone()),
    }
}

fn git_source(task: &Task) -> Option<&GitSource> {
    match &task.recipe.source {
        Source::Git(git) => Some(git),
        Source::Upload { .. } | Source::Tarball { .. } | Source::Nothing => None,
    }
}

/// The two URLs, if the push and the task name different servers.
#[must_use]
pub fn other_address(push: &Push, task: &Task) -> Option<OtherAddress> {
    let url = &git_source(task)?.url;
    let (pushed, asked) = (push.url.as_url(), url.as_url());
    // Both match by host, port and path, so only the scheme can differ.
    let is_one_server = pushed.origin() == asked.origin();
    (!is_one_server).then(|| OtherAddress { pushed: push.url.clone(), task: url.clone() })
}

/// Checks all rules that need only the push and the task.
///
/// # Errors
/// The first [`Rule`] that said no.
pub fn match_push<'a>(push: &'a Push, task: &Task) -> Result<&'a RefName, Rule> {
    let trigger = match_repository(push, task)?;
    if trigger.status == Status::Disabled {
        return Err(Rule::TriggerDisabled);
    }
    match_branch(push, task)
}

/// The branch that the push moved, if it is the one that the task's source trigger names, even if the trigger is
/// disabled: the push moves the task's source.
///
/// # Errors
/// The first [`Rule`] that said no.
pub fn moved_source<'a>(push: &'a Push, task: &Task) -> Result<&'a RefName, Rule> {
    match_repository(push, task)?;
    match_branch(push, task)
}

fn match_repository<'a>(push: &Push, task: &'a Task) -> Result<&'a SourceTrigger, Rule> {
    let Some(trigger) = &task.source_trigger else {
        return Err(Rule::NoTask { repository: push.repository() });
    };
    if watched_repository(task) != Some(push.repository()) {
        return Err(Rule::NoTask { repository: push.repository() });
    }
    if task.status == Status::Disabled {
        return Err(Rule::TaskDisabled);
    }
    Ok(trigger)
}

fn match_branch<'a>(push: &'a Push, task: &Task) -> Result<&'a RefName, Rule> {
    let branch = match &push.reference {
        PushedRef::Branch(branch) => branch,
        PushedRef::Tag(tag) => return Err(Rule::NotABranch { tag: tag.clone() }),
    };
    let Some(watched) = watched_branch(task).or_else(|| push.default_branch.clone()) else {
        return Err(Rule::DefaultBranchUnknown { repository: push.repository() });
    };
    if watched != *branch {
        return Err(Rule::OtherBranch { pushed: branch.clone(), watched });
    }
    Ok(branch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::samples::{push, task};

    fn verdict(push: &Push, task: &Task) -> String {
        match match_push(push, task) {
            Ok(branch) => format!("asks about {branch}"),
            Err(rule) => rule.to_string(),
        }
    }

    #[test]
    fn a_push_to_the_watched_branch_matches() {
        assert_eq!(verdict(&push("main"), &task()), "asks about main");
    }

    #[test]
    fn the_first_failing_rule_is_returned() {
        let mut disabled = task();
        disabled.status = Status::Disabled;
        assert!(verdict(&push("other"), &disabled).starts_with("the task is disabled"));

        let mut untriggered = task();
        untriggered.source_trigger.as_mut().unwrap().status = Status::Disabled;
        assert!(verdict(&push("main"), &untriggered).starts_with("its source trigger is disabled"));
        assert_eq!(moved_source(&push("main"), &untriggered).unwrap().as_str(), "main");
        assert!(moved_source(&push("other"), &untriggered).is_err());
        assert_eq!(moved_source(&push("main"), &disabled), Err(Rule::TaskDisabled));

        let mut tag = push("main");
        tag.reference = PushedRef::Tag("v1".parse().unwrap());
        assert_eq!(verdict(&tag, &task()), "tag v1 moved; the source trigger watches a branch");

        assert_eq!(
            verdict(&push("other"), &task()),
            "branch other moved; the source trigger watches main"
        );
    }

    #[test]
    fn a_push_with_another_server_than_the_task_is_noted() {
        let mut push = push("main");
        push.url = "https://github.com/octo/hello".parse().unwrap();
        assert_eq!(other_address(&push, &task()), None, "the same server in another spelling");
        push.url = "http://github.com/octo/hello.git".parse().unwrap();
        assert_eq!(verdict(&push, &task()), "asks about main");
        assert_eq!(
            other_address(&push, &task()).unwrap().to_string(),
            "the push names http://github.com/octo/hello.git, and the task https://github.com/octo/hello.git: only the task's \
             address is asked, and only it gets the task's token"
        );
    }

    #[test]
    fn a_task_without_a_branch_watches_the_default_branch() {
        let mut task = task();
        let Source::Git(git) = &mut task.recipe.source else { panic!("a git source") };
        git.reference = None;
        let mut elsewhere = push("topic");
        elsewhere.default_branch = Some("main".parse().unwrap());
        assert_eq!(
            verdict(&elsewhere, &task),
            "branch topic moved; the source trigger watches main"
        );
        let mut head = task.clone();
        let Source::Git(git) = &mut head.recipe.source else { panic!("a git source") };
        git.reference = Some("HEAD".parse().unwrap());
        assert_eq!(verdict(&elsewhere, &head), verdict(&elsewhere, &task));
    }

    #[test]
    fn without_a_default_branch_tasks_that_need_it_do_not_match() {
        let mut task = task();
        assert_eq!(verdict(&push("main"), &task), "asks about main");
        let Source::Git(git) = &mut task.recipe.source else { panic!("a git source") };
        git.reference = None;
        assert_eq!(
            verdict(&push("topic"), &task),
            "the default branch of github.com/octo/hello is not known: name a branch in the task's context, like \
             `URL#main`"
        );
    }

    #[test]
    fn one_branch_is_watched_however_it_is_spelled() {
        for spelled in ["main", "heads/main", "refs/heads/main"] {
            let mut task = task();
            let Source::Git(git) = &mut task.recipe.source else { panic!("a git source") };
            git.reference = Some(spelled.parse().unwrap());
            assert_eq!(verdict(&push("main"), &task), "asks about main", "{spelled}");
            let Source::Git(git) = &mut task.recipe.source else { panic!("a git source") };
            git.reference = None;
            task.source_trigger.as_mut().unwrap().branch = Some(spelled.parse().unwrap());
            assert_eq!(verdict(&push("main"), &task), "asks about main", "{spelled}");
        }
    }
}

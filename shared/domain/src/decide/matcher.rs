//! Matches pushes and pull requests to a task's source trigger.
//!
//! In: what an event reports, and one candidate task. Out: the first rule that said no, if one did. Pure. The current
//! heads, and the changed files, are not considered here.

use super::{OtherAddress, Rule};
use crate::event::{Comment, PullRequestChange, Push, PushedRef};
use crate::pull_request::{Association, PullRequest};
use crate::source::{GitUrl, RefKind, RefName, RepositoryKey};
use crate::task::{Status, Task};
use crate::trigger::{CommitRules, Forks, PullRequestAction, PullRequestRules, SourceTrigger};

/// The repository that a task's source trigger watches; `None` without a source trigger or git source.
#[must_use]
pub fn watched_repository(task: &Task) -> Option<RepositoryKey> {
    task.source_trigger.as_ref()?;
    task.recipe.source.git().map(|git| git.url.key())
}

/// The branch that a task's source trigger watches; `None` means the default branch.
#[must_use]
pub fn watched_branch(task: &Task) -> Option<RefName> {
    let trigger = task.source_trigger.as_ref()?;
    let reference =
        trigger.branch.as_ref().or_else(|| task.recipe.source.git()?.reference.as_ref())?;
    match reference.kind() {
        RefKind::DefaultBranch => None,
        RefKind::Branch(branch) => Some(branch),
        // Never a branch, so nothing matches. Such a trigger is refused when its task is saved.
        RefKind::Tag | RefKind::Commit | RefKind::Other => Some(reference.clone()),
    }
}

/// The two URLs, if an event and the task name different servers.
#[must_use]
pub fn other_address(reported: &GitUrl, task: &Task) -> Option<OtherAddress> {
    let url = &task.recipe.source.git()?.url;
    if url.is_ssh() || reported.is_ssh() {
        // Code hosts report the address of their web server.
        return None;
    }
    let (pushed, asked) = (reported.as_url(), url.as_url());
    // Both match by host, port and path, so only the scheme can differ.
    let is_one_server = pushed.origin() == asked.origin();
    (!is_one_server).then(|| OtherAddress { pushed: reported.clone(), task: url.clone() })
}

/// Checks all rules that need only the push and the task.
///
/// # Errors
/// The first [`Rule`] that said no.
pub fn match_push(push: &Push, task: &Task) -> Result<(), Rule> {
    let trigger = match_repository(&push.repository(), task)?;
    if trigger.commit.status == Status::Disabled {
        return Err(Rule::TriggerDisabled);
    }
    match_reference(push, task, trigger)?;
    match push.asks_to_skip && trigger.honors_skip_marks {
        true => Err(Rule::AskedToSkip),
        false => Ok(()),
    }
}

/// Whether the push moved what the task's source trigger names, even if the trigger is disabled: the push moves the
/// task's source.
///
/// # Errors
/// The first [`Rule`] that said no.
pub fn moved_source(push: &Push, task: &Task) -> Result<(), Rule> {
    let trigger = match_repository(&push.repository(), task)?;
    match_reference(push, task, trigger)
}

/// Whether pull requests may start the task.
#[must_use]
pub fn watches_pull_requests(task: &Task) -> bool {
    let rules = task.source_trigger.as_ref().map(|trigger| &trigger.pull_request);
    task.status == Status::Enabled && rules.is_some_and(|rules| rules.status == Status::Enabled)
}

/// Checks whether pull requests of the repository may start the task at all.
///
/// # Errors
/// The first [`Rule`] that said no.
pub fn match_pull_requests<'a>(
    repository: &RepositoryKey,
    task: &'a Task,
) -> Result<&'a SourceTrigger, Rule> {
    let trigger = match_repository(repository, task)?;
    match trigger.pull_request.status {
        Status::Disabled => Err(Rule::PullRequestsDisabled),
        Status::Enabled => Ok(trigger),
    }
}

/// Checks all rules that need only the change of an open pull request and the task.
///
/// # Errors
/// The first [`Rule`] that said no.
pub fn match_pull_request(change: &PullRequestChange, task: &Task) -> Result<(), Rule> {
    let trigger = match_pull_requests(&change.repository(), task)?;
    let rules = &trigger.pull_request;
    match_pull_request_now(&change.now, task, trigger)?;
    match change.action {
        Some(action) if !starts(action, rules) => return Err(Rule::OtherAction { action }),
        Some(_) | None => {}
    }
    match change.asks_to_skip && trigger.honors_skip_marks {
        true => Err(Rule::AskedToSkip),
        false => Ok(()),
    }
}

/// Checks all rules that need only a comment and the task.
///
/// # Errors
/// The first [`Rule`] that said no.
pub fn match_comment(comment: &Comment, task: &Task) -> Result<(), Rule> {
    let rules = &match_pull_requests(&comment.url.key(), task)?.pull_request;
    if !rules.comments {
        return Err(Rule::CommentsIgnored);
    }
    match comment.association >= Association::Collaborator {
        true => Ok(()),
        false => Err(Rule::MayNotCommand { is: comment.association }),
    }
}

/// Checks the rules that hold even if a person asks for a build: the base, and whether forks are built at all.
///
/// # Errors
/// The first [`Rule`] that said no.
pub fn match_asked_pull_request(now: &PullRequest, task: &Task) -> Result<(), Rule> {
    let Some(trigger) = &task.source_trigger else { return Err(Rule::PullRequestsDisabled) };
    match_base(now, task, trigger)?;
    match now.is_from_fork() && trigger.pull_request.forks == Forks::Never {
        true => Err(Rule::FromFork),
        false => Ok(()),
    }
}

/// Checks the rules about the pull request itself, whatever happened to it.
fn match_pull_request_now(
    now: &PullRequest,
    task: &Task,
    trigger: &SourceTrigger,
) -> Result<(), Rule> {
    match_base(now, task, trigger)?;
    let rules = &trigger.pull_request;
    if now.is_draft && !rules.drafts {
        return Err(Rule::Draft);
    }
    let is_chosen = |label: &String| rules.labels.choose(label);
    if !rules.labels.is_empty() && !now.labels.iter().any(is_chosen) {
        return Err(Rule::NoLabel { wanted: rules.labels.to_string() });
    }
    if now.association < rules.authors {
        return Err(Rule::Author { is: now.association, least: rules.authors });
    }
    if now.is_from_fork() && rules.forks == Forks::Never {
        return Err(Rule::FromFork);
    }
    Ok(())
}

fn match_base(now: &PullRequest, task: &Task, trigger: &SourceTrigger) -> Result<(), Rule> {
    let (rules, base) = (&trigger.pull_request, &now.base.branch);
    if rules.branches.is_empty() {
        // Without a branch of its own, the task builds the default branch, and pull requests into any branch.
        if let Some(watched) = watched_branch(task).filter(|watched| watched != base) {
            return Err(Rule::OtherBase { base: base.clone(), watched: watched.to_string() });
        }
    } else if !rules.branches.choose(base.as_str()) {
        let watched = rules.branches.to_string();
        return Err(Rule::OtherBase { base: base.clone(), watched });
    }
    Ok(())
}

/// Actions that change what is built start runs; of the others, those that the trigger names.
fn starts(action: PullRequestAction, rules: &PullRequestRules) -> bool {
    use PullRequestAction::{Closed, Edited, Labeled, Opened, ReadyForReview, Reopened};
    use PullRequestAction::{Synchronized, Unlabeled};

    match action {
        // A closed one starts nothing, which its own rule says. An edit may have changed the base.
        Opened | Synchronized | Reopened | Closed | Edited => true,
        ReadyForReview => !rules.drafts || rules.actions.contains(&action),
        Labeled => !rules.labels.is_empty() || rules.actions.contains(&action),
        Unlabeled => rules.actions.contains(&action),
    }
}

fn match_repository<'a>(
    repository: &RepositoryKey,
    task: &'a Task,
) -> Result<&'a SourceTrigger, Rule> {
    let no_task = || Rule::NoTask { repository: repository.clone() };
    let trigger = task.source_trigger.as_ref().ok_or_else(no_task)?;
    if watched_repository(task).as_ref() != Some(repository) {
        return Err(no_task());
    }
    match task.status {
        Status::Disabled => Err(Rule::TaskDisabled),
        Status::Enabled => Ok(trigger),
    }
}

fn match_reference(push: &Push, task: &Task, trigger: &SourceTrigger) -> Result<(), Rule> {
    let CommitRules { branches, tags, .. } = &trigger.commit;
    let branch = match &push.reference {
        PushedRef::Tag(tag) if tags.choose(tag.as_str()) => return Ok(()),
        PushedRef::Tag(tag) => {
            return Err(Rule::OtherTag { tag: tag.clone(), watched: tags.to_string() });
        }
        PushedRef::Branch(branch) => branch,
    };
    if !branches.is_empty() {
        return match branches.choose(branch.as_str()) {
            true => Ok(()),
            false => {
                let watched = branches.to_string();
                Err(Rule::OtherBranch { pushed: branch.clone(), watched })
            }
        };
    }
    let Some(watched) = watched_branch(task).or_else(|| push.default_branch.clone()) else {
        return Err(Rule::DefaultBranchUnknown { repository: push.repository() });
    };
    match watched == *branch {
        true => Ok(()),
        false => {
            let watched = watched.to_string();
            Err(Rule::OtherBranch { pushed: branch.clone(), watched })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::samples::{push, task};
    use crate::source::Source;

    fn verdict(push: &Push, task: &Task) -> String {
        match match_push(push, task) {
            Ok(()) => "matches".to_owned(),
            Err(rule) => rule.to_string(),
        }
    }

    #[test]
    fn a_push_to_the_watched_branch_matches() {
        assert_eq!(verdict(&push("main"), &task()), "matches");
    }

    #[test]
    fn the_first_failing_rule_is_returned() {
        let mut disabled = task();
        disabled.status = Status::Disabled;
        assert!(verdict(&push("other"), &disabled).starts_with("the task is disabled"));

        let mut untriggered = task();
        untriggered.source_trigger.as_mut().unwrap().commit.status = Status::Disabled;
        assert!(verdict(&push("main"), &untriggered).starts_with("its source trigger is disabled"));
        assert!(moved_source(&push("main"), &untriggered).is_ok());
        assert!(moved_source(&push("other"), &untriggered).is_err());
        assert_eq!(moved_source(&push("main"), &disabled), Err(Rule::TaskDisabled));

        let mut tag = push("main");
        tag.reference = PushedRef::Tag("v1".parse().unwrap());
        assert_eq!(verdict(&tag, &task()), "tag v1 moved; the source trigger watches no tags");

        assert_eq!(
            verdict(&push("other"), &task()),
            "branch other moved; the source trigger watches main"
        );
    }

    #[test]
    fn a_push_with_another_server_than_the_task_is_noted() {
        let mut push = push("main");
        push.url = "https://github.com/octo/hello".parse().unwrap();
        assert_eq!(other_address(&push.url, &task()), None, "the same server in another spelling");
        push.url = "http://github.com/octo/hello.git".parse().unwrap();
        assert_eq!(verdict(&push, &task()), "matches");
        assert_eq!(
            other_address(&push.url, &task()).unwrap().to_string(),
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
        assert_eq!(verdict(&push("main"), &task), "matches");
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
            assert_eq!(verdict(&push("main"), &task), "matches", "{spelled}");
            let Source::Git(git) = &mut task.recipe.source else { panic!("a git source") };
            git.reference = None;
            task.source_trigger.as_mut().unwrap().branch = Some(spelled.parse().unwrap());
            assert_eq!(verdict(&push("main"), &task), "matches", "{spelled}");
        }
    }
}

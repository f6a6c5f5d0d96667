//! Rules that involve several fields of a build.

use gantry_domain::id::TaskName;
use gantry_domain::image::ImageReference;
use gantry_domain::recipe::Recipe;
use gantry_domain::sealed::Sealed;
use gantry_domain::source::{GitSource, Source};
use gantry_domain::template::{RunVariables, Template};
use gantry_domain::trigger::SourceTrigger;
use gantry_ops::bundle::Bundle;

use super::trigger::is_enabled;
use super::{Checker, never_moves, sample_branch, sample_commit, widest_run};
use crate::refusal::Refusal;

/// The fields of those rules.
pub(crate) struct Whole<'a> {
    pub(crate) source: &'a Source,
    /// Whether the work reads a file of the source first.
    pub(crate) needs_files: bool,
    /// `None` if they are already known to be wrong.
    pub(crate) images: Option<&'a [Template]>,
    pub(crate) push: bool,
    pub(crate) source_trigger: Option<&'a SourceTrigger>,
    pub(crate) has_git_token: bool,
    pub(crate) has_api_token: bool,
    pub(crate) task: Option<&'a TaskName>,
}

impl Checker<'_> {
    /// Fails if there are mistakes, or if the build's secrets could not be masked in a log. The run checks again,
    /// because its registry's password may have changed by then.
    pub(crate) fn finish(self, build: &Recipe, git_token: Option<&Sealed>) -> Result<(), Refusal> {
        self.mistakes.none()?;
        // A secret that does not open may be what the next request replaces.
        let Ok(bundle) = Bundle::gather(self.keyring, self.registry, build, git_token) else {
            return Ok(());
        };
        let masked = bundle.masked();
        masked.map(drop).map_err(|error| Refusal::invalid("secret_build_args", error.to_string()))
    }

    /// Checks the rules that involve several fields.
    pub(crate) fn together(&mut self, whole: &Whole<'_>) {
        if whole.push && whole.images.is_some_and(<[Template]>::is_empty) {
            self.mistakes.add("images", "name at least one image to push, or set `push` to false");
        }
        let git = whole.source.git();
        if whole.needs_files && *whole.source == Source::Nothing {
            let message = "it has no files, and this needs some: give the address of a git repository, a `.tar.gz` or an artifact";
            self.mistakes.add("context", message);
        }
        if let Some(trigger) = whole.source_trigger {
            self.trigger_of(git, trigger);
        }
        for (target, what, is_given) in [
            ("git_token", "a git token", whole.has_git_token),
            ("api_token", "a token for a code host", whole.has_api_token),
        ] {
            if is_given && git.is_none() {
                let message = format!(
                    "{what} needs a git repository as context, like `https://host/repository.git`"
                );
                self.mistakes.add(target, message);
            }
        }
        if let Some(git) = git.filter(|git| git.url.is_ssh()) {
            self.ssh_of(git, whole.has_git_token);
        }
        for image in whole.images.unwrap_or_default() {
            self.image_of(whole, image);
        }
    }

    /// Both are required: without the host's key, another server could pretend to be it.
    fn ssh_of(&mut self, git: &GitSource, has_key: bool) {
        let url = &git.url;
        if !has_key {
            let message = format!(
                "{url} is read with a deploy key: make one with `ssh-keygen -t ed25519 -N '' -f FILE`, register FILE.pub at the \
                 host, and give FILE with `--git-ssh-key FILE`"
            );
            self.mistakes.add("git_token", message);
        }
        if git.host_keys.is_empty() {
            let port = url.as_url().port().map_or_else(String::new, |port| format!("-p {port} "));
            let message = format!(
                "{url} is read only from a host that proves its key: `ssh-keyscan {port}{}` shows it, compare its fingerprint with \
                 what the host publishes, and give the line with `--git-host-key`",
                url.as_url().host_str().unwrap_or_default()
            );
            self.mistakes.add("git_host_keys", message);
        }
    }

    fn trigger_of(&mut self, git: Option<&GitSource>, trigger: &SourceTrigger) {
        let Some(git) = git else {
            let message = "a source trigger needs a git repository as context, like `https://host/repository.git`";
            self.mistakes.add("source_trigger", message);
            return;
        };
        let names_one = trigger.branch.is_some() || !trigger.commit.branches.is_empty();
        if let (false, true, Some(reference)) = (names_one, is_enabled(trigger), &git.reference)
            && let Some(what) = never_moves(reference)
        {
            let message = format!(
                "`#{reference}` names {what}, which no push moves, so the source trigger would never start this task: name a \
                 branch, or leave the trigger out (`--commit-trigger-enabled false`)"
            );
            self.mistakes.add("context", message);
        }
    }

    /// Variables that are empty in every run of this source are left empty. The rest must still be a valid name.
    fn image_of(&mut self, whole: &Whole<'_>, image: &Template) {
        let run = RunVariables {
            commit: matches!(whole.source, Source::Git(_)).then(sample_commit).flatten(),
            branch: may_have_branch(whole.source).then(sample_branch).flatten(),
            task: whole.task,
            ..widest_run(&self.registry.host)
        };
        let rendered = image.render(&run);
        if ImageReference::parse_in(&rendered, &self.registry.host).is_err() {
            let empty = image.empty_variables(&run);
            let message = match empty.as_slice() {
                [] => format!(
                    "`{image}` becomes `{rendered}`, which is too long for an image's name: shorten it"
                ),
                [empty, ..] => format!(
                    "`{image}` becomes `{rendered}`, since `{empty}` is empty in {}: use `{{{{.Run.ID}}}}`",
                    match *empty {
                        "{{.Run.TaskName}}" => "a build without a task",
                        "{{.Run.Branch}}" => "a build of no branch",
                        "{{.Run.Timer}}" | "{{.Run.TimerDue}}" => "a run that no timer started",
                        _ => "a build of no git repository",
                    }
                ),
            };
            self.mistakes.add("images", message);
        }
    }
}

fn may_have_branch(source: &Source) -> bool {
    let may_have =
        |git: &GitSource| git.reference.as_ref().is_none_or(|name| never_moves(name).is_none());
    source.git().is_some_and(may_have)
}

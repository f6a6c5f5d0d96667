//! Changes of a task.

use gantry_api::{TaskFileUpdate, TaskUpdate};
use gantry_domain::recipe::{FileWork, Work};
use gantry_domain::registry::Registry;
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::secret::{Keyring, SecretError};

use super::code_choice;
use super::recipe::{Checker, Whole, is_elsewhere, keep_options, needs_files};
use crate::refusal::Refusal;

/// The task with the requested changes.
pub(super) fn changed(
    keyring: &Keyring,
    registry: &Registry,
    task: &Task,
    asked: &TaskUpdate,
    now: Timestamp,
) -> Result<Task, Refusal> {
    let mut check = Checker::new(registry, keyring);
    let mut changed = task.clone();
    let recipe = &mut changed.recipe;
    if let Some(text) = &asked.context
        && let Some(mut source) = check.context(text)?
    {
        keep_options(&mut source, &recipe.source);
        recipe.source = source;
    }
    if let Some(wanted) = asked.lfs {
        check.lfs(&mut recipe.source, wanted);
    }
    if let Some(wanted) = asked.submodules {
        check.submodules(&mut recipe.source, wanted);
    }
    if let Some(lines) = &asked.git_host_keys {
        check.host_keys(&mut recipe.source, lines);
    }
    change_work(&mut recipe.work, asked, &mut check)?;
    check.change_logins(&mut recipe.logins, &asked.credentials)?;
    set(&mut recipe.platforms, asked.platform.as_deref(), |text| check.platforms(text));
    set(&mut recipe.timeout, asked.timeout, |seconds| check.timeout(seconds));
    set(&mut recipe.follows, asked.base_image_follow.as_deref(), |texts| {
        check.base_image_follow(texts)
    });
    set(&mut changed.status, asked.status.as_deref(), |text| check.status("status", text));
    if let Some(trigger) = &asked.source_trigger {
        changed.source_trigger = trigger.as_ref().and_then(|trigger| check.source_trigger(trigger));
    }
    if let Some(trigger) = &asked.base_image_trigger {
        changed.base_image_trigger =
            trigger.as_ref().and_then(|trigger| check.base_image_trigger(trigger));
    }
    set(&mut changed.timers, asked.timers.as_deref(), |timers| check.timers(timers, now));
    if is_elsewhere(&task.recipe.source, &changed.recipe.source) {
        // A token belongs to the repository that it was given for, and must not be sent to another.
        (changed.git_token, changed.api_token) = (None, None);
    }
    if let Some(token) = &asked.git_token {
        changed.git_token = check.git_token(token.as_deref(), Some(&changed.recipe.source))?;
    }
    if let Some(token) = &asked.api_token {
        changed.api_token = check.api_token(token.as_deref())?;
    }
    set(&mut changed.reports, asked.report_status, Some);
    if let Some(limit) = asked.run_limit {
        changed.run_limit = limit.and_then(|limit| check.run_limit(limit));
    }
    if let Some(group) = &asked.concurrency_group {
        changed.concurrency_group =
            group.as_deref().and_then(|group| check.concurrency_group(group));
    }
    let (images, push) = match &changed.recipe.work {
        Work::Build(build) => (build.images.as_slice(), build.push),
        Work::File(_) => (&[][..], false),
    };
    check.together(&Whole {
        source: &changed.recipe.source,
        needs_files: needs_files(&changed.recipe.work),
        images: Some(images),
        push,
        source_trigger: changed.source_trigger.as_ref(),
        has_git_token: changed.git_token.is_some(),
        has_api_token: changed.api_token.is_some(),
        task: Some(&changed.id.name),
    });
    check.finish(&changed.recipe, changed.git_token.as_ref())?;
    code_choice::check_update(task, &changed, asked)?;
    Ok(changed)
}

fn change_work(
    work: &mut Work,
    asked: &TaskUpdate,
    check: &mut Checker<'_>,
) -> Result<(), SecretError> {
    match work {
        Work::Build(build) => {
            set(&mut build.dockerfile, asked.dockerfile.as_deref(), |text| check.dockerfile(text));
            set(&mut build.images, asked.images.as_ref(), |texts| check.images(texts));
            set(&mut build.build_args, asked.build_args.as_ref(), |args| check.build_args(args));
            if let Some(args) = &asked.secret_build_args {
                build.secret_build_args = check.secret_build_args(args)?.unwrap_or_default();
            }
            if let Some(target) = &asked.target {
                build.target =
                    target.as_deref().and_then(|target| check.mistakes.parse("target", target));
            }
            set(&mut build.push, asked.push, Some);
            set(&mut build.no_cache, asked.no_cache, Some);
            if asked.task_file.is_some() {
                let message = "this task builds a Dockerfile: create another task for a task file";
                check.mistakes.add("task_file", message);
            }
        }
        Work::File(file) => {
            if let Some(asked) = &asked.task_file {
                change_file(file, asked, check)?;
            }
            for (field, is_given) in [
                ("dockerfile", asked.dockerfile.is_some()),
                ("images", asked.images.is_some()),
                ("build_args", asked.build_args.is_some()),
                ("secret_build_args", asked.secret_build_args.is_some()),
                ("target", asked.target.is_some()),
                ("push", asked.push.is_some()),
                ("no_cache", asked.no_cache.is_some()),
            ] {
                if is_given {
                    let message = "this task runs a task file, which says itself what it builds";
                    check.mistakes.add(field, message);
                }
            }
        }
    }
    Ok(())
}

fn change_file(
    file: &mut FileWork,
    asked: &TaskFileUpdate,
    check: &mut Checker<'_>,
) -> Result<(), SecretError> {
    if asked.text.is_some() && asked.path.is_some() {
        check.mistakes.add("task_file", "give a `text` or a `path`, not both");
    }
    set(&mut file.file, asked.text.as_deref(), |text| check.file_text(text));
    set(&mut file.file, asked.path.as_deref(), |path| check.file_path(path));
    if let Some(path) = &asked.values_file {
        file.values_file = path.as_deref().and_then(|path| check.values_file(path));
    }
    set(&mut file.values, asked.values.as_ref(), |values| check.values(values, false));
    if let Some(values) = &asked.secret_values {
        file.secret_values = check.secret_values(values)?.unwrap_or_default();
    }
    set(&mut file.secrets, asked.secrets.as_ref(), |secrets| check.secrets(secrets));
    Ok(())
}

/// Sets a field that was given and is valid.
fn set<T, G>(field: &mut T, given: Option<G>, check: impl FnOnce(G) -> Option<T>) {
    if let Some(value) = given.and_then(check) {
        *field = value;
    }
}

//! Requested runs of a task.

use gantry_api::TaskRunCreate;
use gantry_domain::decide::planner::{self, RunDraft};
use gantry_domain::recipe::Work;
use gantry_domain::registry::Registry;
use gantry_domain::task::Task;
use gantry_domain::token::Scope;

use super::{Asked, Request, Started};
use crate::access::{Allowed, Run};
use crate::refusal::Refusal;
use crate::state::State;
use crate::usecase::code_choice;
use crate::usecase::recipe::{Checker, Whole, is_elsewhere, keep_options, lint, needs_files};

/// Starts a run of a task, with overrides.
pub(crate) async fn start_task_run(
    state: &State,
    allowed: &Allowed<Run>,
    registry: &Registry,
    task: &Task,
    given: &TaskRunCreate,
    asked: Asked,
) -> Result<Started, Refusal> {
    let request = Request::new(asked, allowed, registry)?;
    let scope = allowed.token().scope;
    let draft = overridden(state, registry, task, given, scope, &request).await?;
    request.start(state, registry, Some(task.id.clone()), None, draft).await
}

async fn overridden(
    state: &State,
    registry: &Registry,
    task: &Task,
    given: &TaskRunCreate,
    scope: Scope,
    request: &Request,
) -> Result<RunDraft, Refusal> {
    let mut check = Checker::new(registry, &state.keyring);
    let mut recipe = task.recipe.clone();
    let mut git_token = task.git_token.clone();
    if given.context.is_some() || given.upload.is_some() {
        let store = state.store.as_ref();
        let (context, upload) = (given.context.as_deref(), given.upload.as_deref());
        if let Some(mut source) = check.source(store, context, upload).await? {
            keep_options(&mut source, &recipe.source);
            recipe.source = source;
        }
        code_choice::take_declared(&mut recipe);
    }
    if !given.git_host_keys.is_empty() {
        check.host_keys(&mut recipe.source, &given.git_host_keys);
    }
    let is_elsewhere = is_elsewhere(&task.recipe.source, &recipe.source);
    code_choice::check_override(task, &recipe, given, is_elsewhere, scope)?;
    if is_elsewhere {
        // A token must not be sent to another repository than its own.
        git_token = None;
    }
    override_work(&mut recipe.work, given, &mut check)?;
    if given.git_token.is_some() {
        git_token = check.git_token(given.git_token.as_deref(), Some(&recipe.source))?;
    }
    let (images, push) = match &recipe.work {
        Work::Build(build) => (build.images.as_slice(), build.push),
        Work::File(_) => (&[][..], false),
    };
    check.together(&Whole {
        source: &recipe.source,
        needs_files: needs_files(&recipe.work),
        images: Some(images),
        push,
        source_trigger: None,
        has_git_token: git_token.is_some() || given.git_token.is_some(),
        has_api_token: false,
        task: Some(&task.id.name),
    });
    check.finish(&recipe, git_token.as_ref())?;
    lint(&recipe).await?;
    let (event, by) = (request.event.clone(), request.by.clone());
    let mut draft = planner::for_task_request(task, recipe, event, by);
    draft.git_token = git_token;
    draft.force_tags = given.force_tags;
    Ok(draft)
}

/// Replaces what the request gives. What the task's kind of work does not have is a mistake.
fn override_work(
    work: &mut Work,
    given: &TaskRunCreate,
    check: &mut Checker<'_>,
) -> Result<(), Refusal> {
    match work {
        Work::Build(build) => {
            if let Some(dockerfile) = &given.dockerfile
                && let Some(dockerfile) = check.dockerfile(dockerfile)
            {
                build.dockerfile = dockerfile;
            }
            build.build_args.extend(check.build_args(&given.build_args).unwrap_or_default());
            let secrets = check.secret_build_args(&given.secret_build_args)?;
            build.secret_build_args.extend(secrets.unwrap_or_default());
            if let Some(target) = &given.target {
                build.target = check.mistakes.parse("target", target);
            }
            for (field, is_given) in [
                ("task_file", given.task_file.is_some()),
                ("values", !given.values.is_empty()),
                ("secret_values", !given.secret_values.is_empty()),
            ] {
                if is_given {
                    check
                        .mistakes
                        .add(field, "this task builds a Dockerfile, and runs no task file");
                }
            }
        }
        Work::File(file) => {
            if let Some(path) = &given.task_file
                && let Some(path) = check.file_path(path)
            {
                file.file = path;
            }
            file.values.extend(check.values(&given.values, true).unwrap_or_default());
            let secrets = check.secret_values(&given.secret_values)?;
            file.secret_values.extend(secrets.unwrap_or_default());
            for (field, is_given) in [
                ("dockerfile", given.dockerfile.is_some()),
                ("build_args", !given.build_args.is_empty()),
                ("secret_build_args", !given.secret_build_args.is_empty()),
                ("target", given.target.is_some()),
            ] {
                if is_given {
                    check.mistakes.add(
                        field,
                        "this task runs a task file, which says itself what it builds: give `values`",
                    );
                }
            }
        }
    }
    Ok(())
}

//! Runs of a task file, which belong to no task.

use gantry_api::RunCreate;
use gantry_domain::decide::planner::{self, RunDraft};
use gantry_domain::registry::Registry;

use super::{Asked, Request, Started};
use crate::access::{Allowed, Run};
use crate::refusal::Refusal;
use crate::state::State;
use crate::usecase::code_choice;
use crate::usecase::recipe::{Checker, Whole, lint};

/// Starts a run of a task file.
pub(crate) async fn start_file_run(
    state: &State,
    allowed: &Allowed<Run>,
    registry: &Registry,
    new: &RunCreate,
    asked: Asked,
) -> Result<Started, Refusal> {
    let request = Request::new(asked, allowed, registry)?;
    let draft = file_run(state, registry, new, &request).await?;
    code_choice::check_declared(&draft.recipe, allowed.token().scope)?;
    lint(&draft.recipe).await?;
    request.start(state, registry, None, None, draft).await
}

async fn file_run(
    state: &State,
    registry: &Registry,
    new: &RunCreate,
    request: &Request,
) -> Result<RunDraft, Refusal> {
    let mut check = Checker::new(registry, &state.keyring);
    let (context, upload) = (new.context.as_deref(), new.upload.as_deref());
    let mut source = check.source_or_nothing(state.store.as_ref(), context, upload).await?;
    if let Some(source) = &mut source {
        check.lfs(source, new.lfs);
        check.submodules(source, new.submodules);
        check.host_keys(source, &new.git_host_keys);
    }
    let (platform, timeout) = (new.platform.as_deref(), new.timeout);
    let parts = check.file_recipe(source, platform, timeout, &new.task_file, &new.credentials)?;
    let git_token = check.git_token(new.git_token.as_deref(), parts.source.as_ref())?;
    if let Some(source) = &parts.source {
        check.together(&Whole {
            source,
            needs_files: parts.needs_files(),
            images: parts.images(),
            push: parts.pushes(),
            source_trigger: None,
            has_git_token: new.git_token.is_some(),
            has_api_token: false,
            task: None,
        });
    }
    let Some(recipe) = parts.whole() else {
        return Err(Refusal::Invalid(check.mistakes));
    };
    check.finish(&recipe, git_token.as_ref())?;
    let (event, by) = (request.event.clone(), request.by.clone());
    let draft = planner::for_quick_run(registry.name.clone(), recipe, git_token, event, by);
    Ok(RunDraft { force_tags: new.force_tags, ..draft })
}

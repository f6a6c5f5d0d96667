//! Quick builds, which belong to no task.

use gantry_api::BuildCreate;
use gantry_domain::decide::planner::{self, RunDraft};
use gantry_domain::registry::Registry;

use super::{Asked, Request, Started};
use crate::access::{Allowed, Run};
use crate::refusal::Refusal;
use crate::state::State;
use crate::usecase::code_choice;
use crate::usecase::recipe::{Checker, Whole};

pub(crate) async fn start_build(
    state: &State,
    allowed: &Allowed<Run>,
    registry: &Registry,
    new: &BuildCreate,
    asked: Asked,
) -> Result<Started, Refusal> {
    let request = Request::new(asked, allowed, registry)?;
    let draft = quick_build(state, registry, new, &request).await?;
    code_choice::check_declared(&draft.recipe, allowed.token().scope)?;
    request.start(state, registry, None, None, draft).await
}

async fn quick_build(
    state: &State,
    registry: &Registry,
    new: &BuildCreate,
    request: &Request,
) -> Result<RunDraft, Refusal> {
    let mut check = Checker::new(registry, &state.keyring);
    let mut source =
        check.source(state.store.as_ref(), new.context.as_deref(), new.upload.as_deref()).await?;
    if let Some(source) = &mut source {
        check.lfs(source, new.lfs);
        check.submodules(source, new.submodules);
        check.host_keys(source, &new.git_host_keys);
    }
    let build = check.recipe(source, &new.into(), None)?;
    let git_token = check.git_token(new.git_token.as_deref(), build.source.as_ref())?;
    if let Some(source) = &build.source {
        check.together(&Whole {
            source,
            needs_files: build.needs_files(),
            images: build.images(),
            push: build.pushes(),
            source_trigger: None,
            has_git_token: new.git_token.is_some(),
            has_api_token: false,
            task: None,
        });
    }
    let Some(build) = build.whole() else {
        return Err(Refusal::Invalid(check.mistakes));
    };
    check.finish(&build, git_token.as_ref())?;
    let (event, by) = (request.event.clone(), request.by.clone());
    let registry = registry.name.clone();
    let draft = planner::for_quick_run(registry, build, git_token, event, by);
    Ok(RunDraft { force_tags: new.force_tags, ..draft })
}

//! Reruns: the same build again.

use gantry_api::RerunCreate;
use gantry_domain::decide::planner;
use gantry_domain::lineage::BaseImage;
use gantry_domain::registry::Registry;
use gantry_domain::run::Run as RunRecord;
use gantry_domain::source::Source;
use gantry_seams::{registries, uploads};

use super::{Asked, Request, Started};
use crate::access::{Allowed, Run};
use crate::refusal::Refusal;
use crate::state::State;
use crate::usecase::code_choice;

/// Starts the build of a run again, at the commit that the run read. If the run ended before its source was fetched,
/// the new one builds the current state of its context. An archive is fetched from its address again.
pub(crate) async fn start_rerun(
    state: &State,
    allowed: &Allowed<Run>,
    run: &RunRecord,
    given: &RerunCreate,
    asked: Asked,
) -> Result<Started, Refusal> {
    if let Some(of) = run.purpose.leg_of() {
        let message = format!("run {} is a part of run {}: start that again", run.id, of.run);
        return Err(Refusal::Conflict { code: "leg_of_a_run", message });
    }
    let registry = registry_of(state, run).await?;
    refuse_unsigned(state, run)?;
    refuse_lost_upload(state, run).await?;
    let request = Request::new(asked, allowed, &registry)?;
    let mut draft = planner::for_rerun(run, request.event.clone(), request.by.clone());
    if given.same_bases {
        draft.recipe.bases = bases_of(run)?;
    }
    draft.force_tags = given.force_tags;
    code_choice::check_rerun(state.store.as_ref(), run, &draft.recipe, allowed.token()).await?;
    request.start(state, &registry, run.task_id(), Some(run.id), draft).await
}

/// The registry of a run. One that was created again under the same name is another one.
async fn registry_of(state: &State, run: &RunRecord) -> Result<Registry, Refusal> {
    let (name, prefix) = (&run.registry, run.id.prefix());
    let found = registries::find_exactly(state.store.as_ref(), name, prefix).await?;
    found.ok_or_else(|| Refusal::Conflict {
        code: "registry_gone",
        message: format!("registry `{name}` of run {} was deleted", run.id),
    })
}

/// The base images of a run.
fn bases_of(run: &RunRecord) -> Result<Vec<BaseImage>, Refusal> {
    let product = run.state.done().and_then(|done| done.outcome.product());
    product.map(|product| product.bases.clone()).ok_or_else(|| Refusal::Conflict {
        code: "bases_unknown",
        message: format!(
            "the bases of run {} are not recorded, since it did not succeed: run it again without `same_bases`",
            run.id
        ),
    })
}

/// The new run will be signed, and an unsigned record must not get the service's signature that way.
fn refuse_unsigned(state: &State, run: &RunRecord) -> Result<(), Refusal> {
    if run.is_signed(state.keyring.as_ref()) {
        return Ok(());
    }
    Err(Refusal::Conflict {
        code: "run_unsigned",
        message: format!(
            "the record of run {} lacks the service's signature, so it is not run again: start its task, or build it anew \
             from your files",
            run.id
        ),
    })
}

async fn refuse_lost_upload(state: &State, run: &RunRecord) -> Result<(), Refusal> {
    let Source::Upload { upload, .. } = &run.recipe.source else {
        return Ok(());
    };
    match uploads::find(state.store.as_ref(), upload).await? {
        Some(_) => Ok(()),
        None => Err(Refusal::Conflict {
            code: "source_gone",
            message: format!(
                "what run {} was built from is no longer kept: build it again from your files",
                run.id
            ),
        }),
    }
}

//! Who may choose the code that sees a task's secrets: its secret build arguments, or the secret values and the declared
//! secrets of its task file; and the images that its credentials for registries show.
//!
//! Any instruction of a build may read them, also one of a base image, and so may a step that they are given to. So a
//! caller who chooses the code can read the secrets, and must either have given them or have a token that is trusted
//! with the task.

use gantry_api::{TaskRunCreate, TaskUpdate};
use gantry_domain::image::RegistryHost;
use gantry_domain::recipe::{ArgName, Recipe, ValueName, Work};
use gantry_domain::run::Run;
use gantry_domain::secret::SecretId;
use gantry_domain::source::{CommitId, Source};
use gantry_domain::task::Task;
use gantry_domain::token::{Scope, Token};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::tasks;

use crate::refusal::Refusal;

/// Checks that a caller who chooses the code of a run may declare its secrets.
pub(super) fn check_declared(recipe: &Recipe, scope: Scope) -> Result<(), Refusal> {
    let declared = match &recipe.work {
        Work::File(file) => Some(file.secrets.keys().map(SecretId::as_str)),
        Work::Build(_) => None,
    };
    let logins = recipe.logins.iter().filter(|(_, login)| login.sources().next().is_some());
    let logins = logins.map(|(host, _)| host.as_str());
    let ids: Vec<&str> = declared.into_iter().flatten().chain(logins).collect();
    if ids.is_empty() || scope >= Scope::Write {
        return Ok(());
    }
    Err(Refusal::Forbidden(format!(
        "the code of this run may read the registry's secrets that it declares ({}): this needs a token of scope `write`, \
         or values of its own (`secret_values`, or a `password`)",
        ids.join(", ")
    )))
}

/// Takes the declared secrets, and the credentials for registries, from a run whose context its task's owner did not choose.
pub(super) fn take_declared(recipe: &mut Recipe) {
    recipe.logins.clear();
    if let Work::File(file) = &mut recipe.work {
        file.secrets.clear();
    }
}

/// Checks a run of a task with overrides. Below scope `write`, a run may not choose code that sees the task's secrets.
/// With `write` it may, within the task's own repository.
pub(super) fn check_override(
    task: &Task,
    recipe: &Recipe,
    body: &TaskRunCreate,
    is_elsewhere: bool,
    scope: Scope,
) -> Result<(), Refusal> {
    let given = |name: &str| {
        body.secret_build_args.contains_key(name) || body.secret_values.contains_key(name)
    };
    let kept = kept(recipe, given);
    let chosen = chosen(body);
    if !recipe.logins.is_empty() && !chosen.is_empty() && scope < Scope::Write {
        return Err(Refusal::Forbidden(format!(
            "task `{}` has credentials for {}, and {} may choose other images or code, which would see what they show: this needs \
             a token of scope `write`, or a `context` or `upload` of its own, whose run has none of these credentials",
            task.id,
            hosts(recipe),
            chosen.join(", ")
        )));
    }
    if kept.is_empty() || chosen.is_empty() || (scope >= Scope::Write && !is_elsewhere) {
        return Ok(());
    }
    if scope >= Scope::Write {
        return Err(Refusal::Forbidden(format!(
            "task `{}` has secrets ({}), which another repository or archive must not see: give them again \
             with this request",
            task.id,
            kept.join(", ")
        )));
    }
    Err(Refusal::Forbidden(format!(
        "task `{}` has secrets ({}), and {} may choose other code, which would see them: this needs a token \
         of scope `write`, or the secrets given again with this request",
        task.id,
        kept.join(", "),
        chosen.join(", ")
    )))
}

/// Checks that a rerun below scope `write` shows secrets only to code of the first run: the source is at a fixed
/// commit, or the same token requested the first run, or the task would build the same.
pub(super) async fn check_rerun(
    store: &dyn Store,
    run: &Run,
    recipe: &Recipe,
    token: &Token,
) -> Result<(), Refusal> {
    let asked_for_it = run.cause.by() == Some(&token.id);
    if (kept(recipe, |_| false).is_empty() && recipe.logins.is_empty())
        || token.scope >= Scope::Write
        || asked_for_it
        || is_fixed(&recipe.source)
        || is_as_the_task(store, run, recipe).await?
    {
        return Ok(());
    }
    Err(Refusal::Forbidden(format!(
        "run {} has secrets and runs the code of {}, whose content may have changed since: this needs a token of \
         scope `write`",
        run.id, recipe.source
    )))
}

async fn is_as_the_task(store: &dyn Store, run: &Run, recipe: &Recipe) -> Result<bool, StoreError> {
    let Some(id) = run.task_id() else { return Ok(false) };
    let Some(task) = tasks::find(store, &id).await? else { return Ok(false) };
    let is_same = match (&task.recipe.work, &recipe.work) {
        (Work::Build(now), Work::Build(build)) => {
            now.dockerfile == build.dockerfile
                && now.target == build.target
                && now.build_args == build.build_args
        }
        (Work::File(now), Work::File(file)) => {
            now.file == file.file
                && now.values_file == file.values_file
                && now.values == file.values
                && now.secrets == file.secrets
        }
        (Work::Build(_), Work::File(_)) | (Work::File(_), Work::Build(_)) => false,
    };
    Ok(is_same && task.recipe.source == recipe.source)
}

/// Whether the source has the same content at every read.
fn is_fixed(source: &Source) -> bool {
    match source {
        Source::Git(git) => git
            .reference
            .as_ref()
            .is_some_and(|reference| reference.as_str().parse::<CommitId>().is_ok()),
        Source::Upload { .. } | Source::Nothing => true,
        Source::Artifact { image } => image.digest().is_some(),
        Source::Tarball { .. } => false,
    }
}

/// Checks a change of a task. Anybody's push starts its runs, so a new context requires the secrets to be given again.
pub(super) fn check_update(before: &Task, after: &Task, asked: &TaskUpdate) -> Result<(), Refusal> {
    let file = asked.task_file.as_ref();
    let values = file.and_then(|file| file.secret_values.as_ref());
    let declared = file.and_then(|file| file.secrets.as_ref());
    let given = |name: &str| {
        let mut secrets = asked.secret_build_args.iter().chain(values).chain(declared);
        secrets.any(|secrets| secrets.contains_key(name))
    };
    if before.recipe.source == after.recipe.source {
        return Ok(());
    }
    let is_given = |host: &RegistryHost| {
        asked
            .credentials
            .keys()
            .any(|server| server.parse().is_ok_and(|it: RegistryHost| it == *host))
    };
    if let Some(host) = after.recipe.logins.keys().find(|host| !is_given(host)) {
        return Err(Refusal::invalid(
            "context",
            format!(
                "task `{}` has credentials for {host}, which another context must not use: give them again with this change \
                 (`credentials`), or remove them with `null`",
                before.id
            ),
        ));
    }
    let kept = kept(&after.recipe, given);
    if kept.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(
        "context",
        format!(
            "task `{}` has secrets ({}), which another context must not see: give them again with this change, or remove \
             them with an empty `secret_build_args`, `secret_values` or `secrets`",
            before.id,
            kept.join(", ")
        ),
    ))
}

/// The registries that a recipe has credentials for.
fn hosts(recipe: &Recipe) -> String {
    recipe.logins.keys().map(RegistryHost::as_str).collect::<Vec<_>>().join(", ")
}

/// The secrets of a recipe that the caller did not give, by name.
fn kept(recipe: &Recipe, given: impl Fn(&str) -> bool) -> Vec<&str> {
    let names: Vec<&str> = match &recipe.work {
        Work::Build(build) => build.secret_build_args.keys().map(ArgName::as_str).collect(),
        Work::File(file) => {
            let values = file.secret_values.keys().map(ValueName::as_str);
            values.chain(file.secrets.keys().map(SecretId::as_str)).collect()
        }
    };
    names.into_iter().filter(|name| !given(name)).collect()
}

/// The fields of a request that decide which code runs. An argument or value, secret or not, may name an image.
fn chosen(body: &TaskRunCreate) -> Vec<&'static str> {
    // Destructures all fields, so that adding one requires a decision here.
    let TaskRunCreate {
        context,
        upload,
        task_file,
        values,
        secret_values,
        dockerfile,
        build_args,
        secret_build_args,
        target,
        git_token: _,
        git_host_keys,
        force_tags: _,
    } = body;
    [
        ("`context`", context.is_some()),
        ("`upload`", upload.is_some()),
        ("`task_file`", task_file.is_some()),
        ("`values`", !values.is_empty()),
        ("`secret_values`", !secret_values.is_empty()),
        ("`dockerfile`", dockerfile.is_some()),
        ("`build_args`", !build_args.is_empty()),
        ("`secret_build_args`", !secret_build_args.is_empty()),
        ("`target`", target.is_some()),
        ("`git_host_keys`", !git_host_keys.is_empty()),
    ]
    .into_iter()
    .filter_map(|(name, is_given)| is_given.then_some(name))
    .collect()
}

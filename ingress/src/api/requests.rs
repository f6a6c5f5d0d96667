//! Requests that start a run: quick builds, runs of a task, reruns. Each answers with the run's id.

use actix_web::http::header::HeaderValue;
use actix_web::web::{Bytes, Data, Json, Path as At};
use actix_web::{Error, HttpRequest, HttpResponse, post};
use gantry_api as types;
use gantry_domain::decide::planner::{self, RunDraft};
use gantry_domain::event::{Event, EventKind};
use gantry_domain::id::{
    EventId, IdempotencyKey, RegistryName, RunId, RunPrefix, TaskId, TaskName, TokenId,
};
use gantry_domain::lineage::BaseImage;
use gantry_domain::platform::Platform;
use gantry_domain::registry::Registry;
use gantry_domain::run::Run as RunRecord;
use gantry_domain::source::Source;
use gantry_domain::task::{BuildSpec, RunTimeout, Task};
use gantry_domain::token::Scope;
use gantry_ops::metrics::{self, Decided};
use gantry_ops::secret::random_hex;
use gantry_ops::telemetry;
use gantry_seams::requests::{self, Accepted, Idempotency, RunRequest};
use gantry_seams::{runs, uploads};
use serde::Serialize;
use tracing::{Instrument as _, Span, field};

use super::recipe::{Checker, Whole};
use super::tasks::is_elsewhere;
use super::{body, code_choice, runs as run_routes, tasks};
use crate::access::{Allowed, Run};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::trace;
use crate::view;

/// Says that an earlier request with the same key had started the run.
const REPEATED: &str = "idempotent-replayed";

/// Starts a build that belongs to no task.
#[utoipa::path(
    tag = "runs",
    security(("token" = ["run"])),
    params(("registry" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key again starts nothing new")),
    responses((status = 201, body = types::Run), (status = 200, body = types::Run, description = "The run that an earlier request with the same key started"), Failures)
)]
#[post("/registries/{registry}/builds")]
pub(super) async fn start_build(
    state: Data<State>,
    allowed: Allowed<Run>,
    request: HttpRequest,
    at: At<RegistryName>,
    body: Json<types::BuildCreate>,
) -> Result<HttpResponse, ApiError> {
    let registry = allowed.registry(state.store.as_ref(), &at).await?;
    let asked = Asked::new(&request, allowed.by(), &*body)?;
    let draft = quick_build(&state, &registry, &body, &asked).await?;
    asked.start(&state, &registry, None, None, draft).await
}

async fn quick_build(
    state: &State,
    registry: &Registry,
    body: &types::BuildCreate,
    asked: &Asked,
) -> Result<RunDraft, ApiError> {
    let mut check = Checker::new(registry, &state.keyring);
    let source =
        check.source(state.store.as_ref(), body.context.as_deref(), body.upload.as_deref()).await?;
    let dockerfile = check.dockerfile(body.dockerfile.as_deref().unwrap_or("Dockerfile"));
    let images = check.images(&body.images);
    let build_args = check.build_args(&body.build_args);
    let secret_build_args = check.secret_build_args(&body.secret_build_args)?;
    let target = body.target.as_deref().and_then(|target| check.mistakes.parse("target", target));
    let platform = match &body.platform {
        Some(platform) => check.platform(platform),
        None => Some(Platform::default()),
    };
    let timeout = match body.timeout {
        Some(seconds) => check.timeout(seconds),
        None => Some(RunTimeout::default()),
    };
    let git_token = match &body.git_token {
        Some(token) => check.git_token(token)?,
        None => None,
    };
    if let Some(source) = &source {
        check.together(&Whole {
            source,
            images: images.as_deref(),
            push: body.push,
            source_trigger: None,
            has_git_token: body.git_token.is_some(),
            task: None,
        });
    }
    let (
        Some(source),
        Some(dockerfile),
        Some(images),
        Some(build_args),
        Some(secret_build_args),
        Some(platform),
        Some(timeout),
    ) = (source, dockerfile, images, build_args, secret_build_args, platform, timeout)
    else {
        return Err(ApiError::Invalid(check.mistakes));
    };
    let build = BuildSpec {
        source,
        dockerfile,
        images,
        build_args,
        secret_build_args,
        target,
        platform,
        timeout,
        push: body.push,
        no_cache: body.no_cache,
        bases: Vec::new(),
    };
    check.finish(&build, git_token.as_ref())?;
    let (event, by) = (asked.event.clone(), asked.by.clone());
    let registry = registry.name.clone();
    let draft = planner::for_quick_build(registry, build, git_token, event, by);
    Ok(RunDraft { force_tags: body.force_tags, ..draft })
}

/// Starts a run of a task, with what is given instead of what the task says.
#[utoipa::path(
    tag = "runs",
    security(("token" = ["run"])),
    params(("registry" = String, Path), ("task" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key again starts nothing new")),
    request_body(content = types::TaskRunCreate, description = "May be left out"),
    responses((status = 201, body = types::Run), (status = 200, body = types::Run, description = "The run that an earlier request with the same key started"), Failures)
)]
#[post("/registries/{registry}/tasks/{task}/runs")]
pub(super) async fn start_task_run(
    state: Data<State>,
    allowed: Allowed<Run>,
    request: HttpRequest,
    at: At<(RegistryName, TaskName)>,
    body: Result<Bytes, Error>,
) -> Result<HttpResponse, ApiError> {
    let (registry, task) = tasks::find(&state, &allowed, &at).await?;
    let body: types::TaskRunCreate = body::optional(body)?;
    let asked = Asked::new(&request, allowed.by(), &body)?;
    let scope = allowed.token().scope;
    let draft = overridden(&state, &registry, &task, &body, scope, &asked).await?;
    asked.start(&state, &registry, Some(task.id), None, draft).await
}

async fn overridden(
    state: &State,
    registry: &Registry,
    task: &Task,
    body: &types::TaskRunCreate,
    scope: Scope,
    asked: &Asked,
) -> Result<RunDraft, ApiError> {
    let mut check = Checker::new(registry, &state.keyring);
    let mut build = task.build.clone();
    let mut git_token = task.git_token.clone();
    if body.context.is_some() || body.upload.is_some() {
        let store = state.store.as_ref();
        let (context, upload) = (body.context.as_deref(), body.upload.as_deref());
        if let Some(source) = check.source(store, context, upload).await? {
            build.source = source;
        }
    }
    let is_elsewhere = is_elsewhere(&task.build.source, &build.source);
    code_choice::check_override(task, body, is_elsewhere, scope)?;
    if is_elsewhere {
        // The token of a repository must not be shown to another.
        git_token = None;
    }
    if let Some(dockerfile) = &body.dockerfile
        && let Some(dockerfile) = check.dockerfile(dockerfile)
    {
        build.dockerfile = dockerfile;
    }
    build.build_args.extend(check.build_args(&body.build_args).unwrap_or_default());
    let secrets = check.secret_build_args(&body.secret_build_args)?;
    build.secret_build_args.extend(secrets.unwrap_or_default());
    if let Some(target) = &body.target {
        build.target = check.mistakes.parse("target", target);
    }
    if let Some(token) = &body.git_token {
        git_token = check.git_token(token)?;
    }
    check.together(&Whole {
        source: &build.source,
        images: Some(&build.images),
        push: build.push,
        source_trigger: None,
        has_git_token: body.git_token.is_some(),
        task: Some(&task.id.name),
    });
    check.finish(&build, git_token.as_ref())?;
    let (event, by) = (asked.event.clone(), asked.by.clone());
    let mut draft = planner::for_task_request(task, build, event, by);
    draft.git_token = git_token;
    draft.force_tags = body.force_tags;
    Ok(draft)
}

/// Starts the same build once more, at the commit that the run read. One that ended before its source was fetched builds what
/// its context names now; an archive is fetched from its address again.
#[utoipa::path(
    tag = "runs",
    security(("token" = ["run"])),
    params(("run" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key again starts nothing new")),
    request_body(content = types::RerunCreate, description = "May be left out"),
    responses((status = 201, body = types::Run), (status = 200, body = types::Run, description = "The run that an earlier request with the same key started"), Failures)
)]
#[post("/runs/{run}/reruns")]
pub(super) async fn start_rerun(
    state: Data<State>,
    allowed: Allowed<Run>,
    request: HttpRequest,
    at: At<RunId>,
    body: Result<Bytes, Error>,
) -> Result<HttpResponse, ApiError> {
    let run = run_routes::find(&state, &allowed, *at).await?;
    let body: types::RerunCreate = body::optional(body)?;
    let registry = allowed.registry(state.store.as_ref(), &run.registry).await?;
    refuse_unsigned(&state, &run)?;
    refuse_lost_upload(&state, &run).await?;
    let asked = Asked::new(&request, allowed.by(), &body)?;
    let mut draft = planner::for_rerun(&run, asked.event.clone(), asked.by.clone());
    if body.same_bases {
        draft.build.bases = bases_of(&run)?;
    }
    draft.force_tags = body.force_tags;
    code_choice::check_rerun(state.store.as_ref(), &run, &draft.build, allowed.token()).await?;
    asked.start(&state, &registry, run.task_id(), Some(run.id), draft).await
}

/// The bases that a run was built from.
fn bases_of(run: &RunRecord) -> Result<Vec<BaseImage>, ApiError> {
    let product = run.state.done().and_then(|done| done.outcome.product());
    product.map(|product| product.bases.clone()).ok_or_else(|| ApiError::Conflict {
        code: "bases_unknown",
        message: format!(
            "the bases of run {} are not recorded, since it did not succeed: run it again without `same_bases`",
            run.id
        ),
    })
}

/// The new run would be signed: what nobody vouched for must not become what the service vouches for.
fn refuse_unsigned(state: &State, run: &RunRecord) -> Result<(), ApiError> {
    if run.is_signed(state.keyring.as_ref()) {
        return Ok(());
    }
    Err(ApiError::Conflict {
        code: "run_unsigned",
        message: format!(
            "the record of run {} lacks the service's signature, so it is not run again: start its task, or build it anew \
             from your files",
            run.id
        ),
    })
}

async fn refuse_lost_upload(state: &State, run: &RunRecord) -> Result<(), ApiError> {
    let Source::Upload { upload, .. } = &run.build.source else {
        return Ok(());
    };
    match uploads::find(state.store.as_ref(), upload).await? {
        Some(_) => Ok(()),
        None => Err(ApiError::Conflict {
            code: "source_gone",
            message: format!(
                "what run {} was built from is not kept any more: build it again from your files",
                run.id
            ),
        }),
    }
}

/// Who asked, and under which key.
struct Asked {
    by: TokenId,
    event: EventId,
    /// Method and path, as an answer may name them.
    what: String,
    idempotency: Option<Idempotency>,
    span: Span,
}

impl Asked {
    fn new(request: &HttpRequest, by: TokenId, body: &impl Serialize) -> Result<Self, ApiError> {
        let what = format!("{} {}", request.method(), request.path());
        let key = request.headers().get("idempotency-key");
        let key = key.map(idempotency_key).transpose()?;
        let asked = || {
            let Ok(body) = serde_json::to_string(body) else {
                unreachable!("names and texts always make JSON")
            };
            format!("{what}\n{body}").into_bytes()
        };
        let idempotency = key.map(|key| Idempotency { key: format!("{by}/{key}"), asked: asked() });
        let random = random_hex::<16>()?;
        let event = match format!("request:{}", random.as_str()).parse() {
            Ok(event) => event,
            Err(_) => unreachable!("a word and hexadecimal digits are an event id"),
        };
        Ok(Self { by, event, what, idempotency, span: trace::span(request) })
    }

    /// Event, decision and run in one commit, then the doorbell.
    async fn start(
        self,
        state: &State,
        registry: &Registry,
        task: Option<TaskId>,
        rerun_of: Option<RunId>,
        draft: RunDraft,
    ) -> Result<HttpResponse, ApiError> {
        state.intake.check()?;
        let span = self.span.clone();
        self.start_in_span(state, registry, task, rerun_of, draft).instrument(span).await
    }

    async fn start_in_span(
        self,
        state: &State,
        registry: &Registry,
        task: Option<TaskId>,
        rerun_of: Option<RunId>,
        mut draft: RunDraft,
    ) -> Result<HttpResponse, ApiError> {
        let store = state.store.as_ref();
        let trace = telemetry::current_trace();
        draft.trace.clone_from(&trace);
        let event = Event {
            id: self.event,
            registry: registry.name.clone(),
            received: store.now().await?,
            trace,
            kind: EventKind::Requested { by: self.by, task, rerun_of },
        };
        let prefix: RunPrefix = registry.prefix;
        let request = RunRequest { event, prefix, draft, idempotency: self.idempotency };
        match requests::accept(store, request, state.keyring.as_ref()).await? {
            Accepted::Started(run) => {
                self.span.record("run.id", field::display(run.id));
                metrics::decided(Decided::Run);
                state.doorbells.run_created(&run);
                Ok(HttpResponse::Created().json(view::run(&run)))
            }
            Accepted::OtherRequest(run) => Err(ApiError::KeyReused { what: self.what, run }),
            Accepted::Repeated(id) => {
                let run = runs::find(store, id).await?;
                let run = run.ok_or_else(|| ApiError::Conflict {
                    code: "run_gone",
                    message: format!("this key started run {id}, which is not kept any more"),
                })?;
                let mut response = HttpResponse::Ok();
                response.insert_header((REPEATED, HeaderValue::from_static("true")));
                Ok(response.json(view::run(&run)))
            }
        }
    }
}

fn idempotency_key(value: &HeaderValue) -> Result<IdempotencyKey, ApiError> {
    const NAME: &str = "Idempotency-Key";
    let text = value.to_str().map_err(|_| ApiError::invalid(NAME, "it is not printable"))?;
    text.parse()
        .map_err(|error: gantry_domain::InvalidText| ApiError::invalid(NAME, error.to_string()))
}

//! The API, version 1, with bearer tokens. All paths are under `/api/v1`.
//!
//! | method and path | scope | what |
//! |---|---|---|
//! | `GET /registries` | read | lists registries |
//! | `POST /registries` | write, everywhere | creates one; credentials only ever go in |
//! | `GET PATCH DELETE /registries/{registry}` | read, write, write | |
//! | `GET /registries/{registry}/secrets` | read | lists its secrets, without values |
//! | `GET PUT DELETE /registries/{registry}/secrets/{name}` | read, write, write | `PUT` adds a version |
//! | `POST /registries/{registry}/uploads?from` | run | takes a `.tar` or `.tar.gz` as the body, for a build |
//! | `DELETE /registries/{registry}/uploads/{upload}` | run | removes an upload |
//! | `POST /registries/{registry}/builds` | run | starts a quick build; `Idempotency-Key` |
//! | `POST /registries/{registry}/runs` | run | runs a task file without a task; `Idempotency-Key` |
//! | `GET /tasks?registry=` | read | lists tasks |
//! | `POST /registries/{registry}/tasks` | write | creates one |
//! | `GET PATCH DELETE /registries/{registry}/tasks/{task}` | read, write, write | |
//! | `GET /registries/{registry}/tasks/{task}/images` | read | the images that it needs |
//! | `POST /registries/{registry}/tasks/{task}/runs` | run | starts a run of it; `Idempotency-Key` |
//! | `GET /runs?registry=&task=&status=&image=&after=&limit=` | read | lists runs from the newest |
//! | `GET /runs/{run}` | read | shows one, with what it waits for |
//! | `PATCH /runs/{run}` | run | sets whether it is kept for good |
//! | `POST /runs/{run}/cancel` | run | requests cancellation |
//! | `POST /runs/{run}/approve` | write | lets a held run of one commit start |
//! | `POST /runs/{run}/reruns` | run | starts the same build again; `Idempotency-Key` |
//! | `GET /runs/{run}/log?attempt=&offset=` | read | the log as text |
//! | `GET /runs/{run}/log/events` | read | follows the log, as server-sent events; `Last-Event-ID` |
//! | `GET /lineages/{digest}` | read | shows the lineage of a pushed digest |
//! | `GET /images?after=&limit=` | read | lists the images that tasks need, with how they were last asked for |
//! | `GET /images/show?image=` | read | shows one: what was seen, who needs it, who makes it |
//! | `GET /images/why?image=` | read | where an image comes from, and what was built on it |
//! | `GET /images/impact?base=` | read | what a change of an image would rebuild, in which order |
//! | `GET /registries/{registry}/waves?after=&limit=` | read | lists waves from the newest |
//! | `GET /waves/{wave}` | read | shows one with its tasks |
//! | `POST /waves/{wave}/resume`, `POST /waves/{wave}/drop` | run | lets a frozen wave go on; ends one without a build |
//! | `GET /hooks?registry=` | read | lists hooks |
//! | `POST /registries/{registry}/hooks` | write | creates one; returns URL, secret, content type and events to
//! configure |
//! | `GET PATCH DELETE /hooks/{hook}` | read, write, write | |
//! | `POST /hooks/{hook}/secrets` | write | adds a secret; the old ones stay active |
//! | `DELETE /hooks/{hook}/secrets/{secret}` | write | removes one |
//! | `GET /hooks/{hook}/webhook` | write | compares it with what its code host has |
//! | `POST /hooks/{hook}/redeliveries` | write | has its code host send again what did not arrive |
//! | `POST /hooks/{hook}/test` | write | sends a test delivery to the hook |
//! | `GET POST /registries/{registry}/notifications` | read, write | lists them, creates one |
//! | `GET PATCH DELETE /registries/{registry}/notifications/{notification}` | read, write, write | |
//! | `POST /registries/{registry}/notifications/{notification}/secrets` | write | adds a signing secret; the old one
//! signs too |
//! | `DELETE /registries/{registry}/notifications/{notification}/secrets/{signing_secret}` | write | removes one |
//! | `POST /registries/{registry}/notifications/{notification}/test` | write | sends a message that tells of no run |
//! | `GET /registries/{registry}/notifications/{notification}/messages?after=&limit=` | read | lists its messages
//! from the newest |
//! | `GET /registries/{registry}/notifications/{notification}/messages/{message}` | read | shows one with its body |
//! | `POST /registries/{registry}/notifications/{notification}/messages/{message}/replays` | run | sends it again |
//! | `POST /registries/{registry}/notifications/{notification}/replays` | run | sends those of a time again |
//! | `POST /registries/{registry}/simulations` | run | decides a body or delivery, without effect |
//! | `GET /deliveries?registry=&hook=&id=&after=&limit=` | read | lists deliveries from the newest |
//! | `GET /hooks/{hook}/deliveries/{delivery}` | read | shows one with events and decisions |
//! | `GET /hooks/{hook}/deliveries/{delivery}/body` | read | its body as received |
//! | `POST /hooks/{hook}/deliveries/{delivery}/replays` | run | accepts the same body as a new delivery |
//! | `GET /events/{event}` | read | shows an event and its decision; the id may have slashes |
//! | `GET POST /tokens`, `DELETE /tokens/{token}` | admin, everywhere | lists, creates, revokes |
//! | `GET /tokens/current` | read | the token of the request |
//! | `GET /workers` | read | lists workers |
//! | `POST /workers/{worker}/drain`, `POST /workers/{worker}/resume` | admin, everywhere | drains or resumes one |
//! | `GET /status` | read | the status of the installation |
//! | `GET /openapi.json` | none | this table as an OpenAPI document |
//!
//! Outside of it and without a token: `/healthz` (the process answers), `/readyz` (its dependencies work),
//! `/hooks/{provider}/{hook}`.
//!
//! Objects of registries that the token is not bound to look as if they did not exist: 404.

pub(crate) mod body;
mod deliveries;
mod hooks;
mod images;
mod logs;
mod notifications;
mod paging;
mod registries;
mod requests;
mod runs;
mod secrets;
mod status;
mod tasks;
mod tokens;
mod uploads;
mod waves;
mod workers;

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, SecurityRequirement,
};
use utoipa_actix_web::AppExt as _;
use utoipa_actix_web::service_config::ServiceConfig;

pub(crate) use uploads::is_upload;

pub(crate) const ROOT: &str = "/api/v1";

/// All routes of the API, relative to [`ROOT`].
pub(crate) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(registries::list)
        .service(registries::create)
        .service(registries::show)
        .service(registries::update)
        .service(registries::delete)
        .service(secrets::list)
        .service(secrets::show)
        .service(secrets::set)
        .service(secrets::delete)
        .service(uploads::create)
        .service(uploads::delete)
        .service(tasks::list)
        .service(tasks::create)
        .service(tasks::show)
        .service(tasks::images)
        .service(tasks::update)
        .service(tasks::delete)
        .service(requests::start_build)
        .service(requests::start_file_run)
        .service(requests::start_task_run)
        .service(requests::start_rerun)
        .service(runs::list)
        .service(runs::show)
        .service(runs::update)
        .service(runs::cancel)
        .service(runs::approve)
        .service(runs::lineage)
        .service(images::list)
        .service(images::show)
        .service(images::why)
        .service(images::impact)
        .service(waves::list)
        .service(waves::show)
        .service(waves::resume)
        .service(waves::drop_wave)
        .service(logs::read_log)
        .service(logs::follow_log)
        .service(hooks::list)
        .service(hooks::create)
        .service(hooks::show)
        .service(hooks::update)
        .service(hooks::delete)
        .service(hooks::add_secret)
        .service(hooks::remove_secret)
        .service(hooks::test)
        .service(hooks::webhook)
        .service(hooks::redeliver)
        .service(notifications::list)
        .service(notifications::create)
        .service(notifications::show)
        .service(notifications::update)
        .service(notifications::delete)
        .service(notifications::add_secret)
        .service(notifications::remove_secret)
        .service(notifications::test)
        .service(notifications::list_messages)
        .service(notifications::show_message)
        .service(notifications::replay)
        .service(notifications::replay_many)
        .service(deliveries::list)
        .service(deliveries::simulate)
        .service(deliveries::show)
        .service(deliveries::read_body)
        .service(deliveries::replay)
        .service(deliveries::show_event)
        .service(tokens::list)
        .service(tokens::create)
        .service(tokens::current)
        .service(tokens::revoke)
        .service(workers::list)
        .service(workers::drain)
        .service(workers::resume)
        .service(status::show_status);
}

/// The OpenAPI document, generated from the routes.
pub(crate) fn document() -> OpenApi {
    let (_, mut document) = actix_web::App::new()
        .into_utoipa_app()
        .service(utoipa_actix_web::scope(ROOT).configure(routes))
        .split_for_parts();
    document.info = InfoBuilder::new()
        .title("gantry")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("A self-hosted build service for container images."))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").build()))
        .build();
    let components = document.components.take().unwrap_or_default();
    document.components = Some(
        ComponentsBuilder::from(components)
            .security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
            .schema_from::<gantry_api::ErrorBody>()
            .schema_from::<gantry_api::ErrorDetail>()
            .schema_from::<gantry_api::Mistake>()
            .schema_from::<gantry_api::LogStatus>()
            .schema_from::<gantry_api::LogAttempt>()
            .schema_from::<gantry_api::LogChunk>()
            .schema_from::<gantry_api::LogHole>()
            .build(),
    );
    document.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    document
}

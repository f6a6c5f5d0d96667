//! API v1: what people and programs ask of gantry, with bearer tokens. All under `/api/v1`.
//!
//! | method and path | scope | what |
//! |---|---|---|
//! | `GET /registries` | read | lists registries |
//! | `POST /registries` | write, everywhere | creates one; credentials only ever go in |
//! | `GET PATCH DELETE /registries/{registry}` | read, write, write | |
//! | `POST /registries/{registry}/uploads` | run | takes a `.tar` or `.tar.gz` as the body, for a build |
//! | `POST /registries/{registry}/builds` | run | starts a quick build; `Idempotency-Key` |
//! | `GET /tasks?registry=` | read | lists tasks |
//! | `POST /registries/{registry}/tasks` | write | creates one |
//! | `GET PATCH DELETE /registries/{registry}/tasks/{task}` | read, write, write | |
//! | `POST /registries/{registry}/tasks/{task}/runs` | run | starts a run of it; `Idempotency-Key` |
//! | `GET /runs?registry=&task=&status=&image=&after=&limit=` | read | lists runs from the newest |
//! | `GET /runs/{run}` | read | shows one, with what it waits for |
//! | `PATCH /runs/{run}` | run | archives it, or no longer |
//! | `POST /runs/{run}/cancel` | run | asks to cancel it |
//! | `POST /runs/{run}/reruns` | run | starts the same build once more; `Idempotency-Key` |
//! | `GET /runs/{run}/log?attempt=&offset=` | read | the log as text |
//! | `GET /runs/{run}/log/events` | read | the log live, as server-sent events; `Last-Event-ID` |
//! | `GET /lineages/{digest}` | read | where a pushed digest comes from |
//! | `GET /hooks?registry=` | read | lists hooks |
//! | `POST /registries/{registry}/hooks` | write | creates one: answers URL, secret, content type and events to set |
//! | `GET PATCH DELETE /hooks/{hook}` | read, write, write | |
//! | `POST /hooks/{hook}/secrets` | write | adds a secret; the old ones stay active |
//! | `DELETE /hooks/{hook}/secrets/{secret}` | write | removes one |
//! | `POST /hooks/{hook}/test` | write | knocks at the hook as its sender would |
//! | `GET /deliveries?registry=&hook=&id=&after=&limit=` | read | lists deliveries from the newest |
//! | `GET /hooks/{hook}/deliveries/{delivery}` | read | shows one with events and decisions |
//! | `GET /hooks/{hook}/deliveries/{delivery}/body` | read | its body, as it came |
//! | `POST /hooks/{hook}/deliveries/{delivery}/replays` | run | the same body once more, decided anew |
//! | `GET /events/{event}` | read | shows an event and its decision; the id may have slashes |
//! | `GET POST /tokens`, `DELETE /tokens/{token}` | admin, everywhere | lists, makes, revokes |
//! | `GET /tokens/current` | read | the token that asks |
//! | `GET /workers` | read | lists workers |
//! | `GET /status` | read | how the installation is |
//! | `GET /openapi.json` | none | this, for programs |
//!
//! Beside it, without token: `/healthz` (the process answers), `/readyz` (the store answers), `/hooks/{provider}/{hook}`.
//!
//! What belongs to a registry that the token is not bound to looks as if it were not there: 404.

pub mod types;

//! Logs: as text, or followed as server-sent events.

use std::collections::VecDeque;

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{Bytes, Data, Path as At, Query};
use actix_web::{HttpRequest, HttpResponse, get};
use futures_util::Stream;
use gantry_domain::id::{RunId, StepId};
use gantry_domain::recipe::{Recipe, Work};
use gantry_domain::run::Run;
use gantry_ops::terminal;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use crate::access::{Allowed, Read, Standing};
use crate::error::{ApiError, Failures};
use crate::logs::{LiveLog, LogItem, LogPosition, LogWalk, WalkError};
use crate::refusal::Refusal;
use crate::state::State;
use crate::usecase::runs;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// Only this attempt's log, from 1. If absent, all attempts, each with a line that announces it.
    attempt: Option<u32>,
    /// Starts at this byte of the attempt's log; without `attempt`, of the first one's.
    offset: Option<u64>,
}

impl LogQuery {
    fn position(&self) -> LogPosition {
        match (self.attempt, self.offset) {
            (None, None) => LogPosition::default(),
            (attempt, offset) => {
                LogPosition { attempt: attempt.unwrap_or(1).max(1), offset: offset.unwrap_or(0) }
            }
        }
    }
}

/// Returns a log as text, as far as it is written. Lines of a task file's steps, and of a build for several platforms, begin
/// with the step's name, like `test │ `, because several of them may write at once. Control characters, and characters that
/// hide or reorder others, are escaped, like `\x1b`; `/log/events` has them unescaped. With `Accept: text/event-stream`, the same as `/log/events`.
#[utoipa::path(
    tag = "logs",
    security(("token" = ["read"])),
    params(("run" = String, Path), LogQuery),
    responses((status = 200, content_type = "text/plain", body = String), Failures)
)]
#[get("/runs/{run}/log")]
pub(super) async fn read_log(
    state: Data<State>,
    allowed: Allowed<Read>,
    request: HttpRequest,
    at: At<RunId>,
    query: Query<LogQuery>,
) -> Result<HttpResponse, ApiError> {
    if wants_events(&request) {
        return live(state, allowed, request, at, query).await;
    }
    let run = runs::find(&state, &allowed, *at).await?;
    let admitted = state.followers.admit().ok_or(Refusal::Busy)?;
    let standing = allowed.standing(&run);
    let text = TextLog::new(state, standing, &run, &query, admitted);
    let stream = futures_util::stream::unfold(text, |mut text| async move {
        let piece = text.next().await?;
        Some((piece, text))
    });
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
        .streaming(into_stream(stream)))
}

/// Converts the item's type for actix.
fn into_stream(
    stream: impl Stream<Item = Result<Bytes, WalkError>>,
) -> impl Stream<Item = Result<Bytes, Box<dyn std::error::Error>>> {
    use futures_util::TryStreamExt as _;

    stream.map_err(|error| {
        tracing::warn!("a log response was cut off: {error}");
        error.into()
    })
}

fn wants_events(request: &HttpRequest) -> bool {
    let accept = request.headers().get(header::ACCEPT);
    accept.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// Follows a log: what there is, then what is added, and at the end the run. See `LogEvent` for the events.
#[utoipa::path(
    tag = "logs",
    security(("token" = ["read"])),
    params(
        ("run" = String, Path),
        LogQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "`attempt:offset`: goes on after this position")
    ),
    responses((status = 200, content_type = "text/event-stream", body = String), Failures)
)]
#[get("/runs/{run}/log/events")]
pub(super) async fn follow_log(
    state: Data<State>,
    allowed: Allowed<Read>,
    request: HttpRequest,
    at: At<RunId>,
    query: Query<LogQuery>,
) -> Result<HttpResponse, ApiError> {
    live(state, allowed, request, at, query).await
}

async fn live(
    state: Data<State>,
    allowed: Allowed<Read>,
    request: HttpRequest,
    at: At<RunId>,
    query: Query<LogQuery>,
) -> Result<HttpResponse, ApiError> {
    let run = runs::find(&state, &allowed, *at).await?;
    let position = match request.headers().get("last-event-id") {
        Some(id) => last_event(id)?,
        None => query.position(),
    };
    let standing = allowed.standing(&run);
    let live =
        LiveLog::from(state.into_inner(), standing, run.id, position).ok_or(Refusal::Busy)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Some proxies buffer an answer until it is large.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(live.into_stream()))
}

fn last_event(id: &HeaderValue) -> Result<LogPosition, Refusal> {
    let parse = || {
        let (attempt, offset) = id.to_str().ok()?.split_once(':')?;
        Some(LogPosition { attempt: attempt.parse().ok()?, offset: offset.parse().ok()? })
    };
    parse().ok_or_else(|| Refusal::invalid("Last-Event-ID", "it is `attempt:offset`"))
}

/// A log being sent as text.
struct TextLog {
    state: Data<State>,
    standing: Standing,
    walk: LogWalk,
    /// Only this attempt.
    only: Option<u32>,
    /// Whether lines announce attempts.
    with_marks: bool,
    /// Bytes of the first piece before this offset are skipped.
    skip_to: u64,
    /// Whether lines begin with the name of their step, because several steps may write at once.
    with_steps: bool,
    /// The step whose line the output so far ends in the middle of; of the run itself without a step.
    in_line_of: Option<Option<StepId>>,
    waiting: VecDeque<Bytes>,
    is_over: bool,
    _admitted: OwnedSemaphorePermit,
}

fn has_several_attempts(run: &Run) -> bool {
    run.attempts.len() + usize::from(run.state.lease().is_some()) > 1
}

/// Whether several steps may write at once: those of a task file, or the legs of a build.
fn has_parallel_steps(recipe: &Recipe) -> bool {
    matches!(recipe.work, Work::File(_)) || recipe.platforms.are_several()
}

impl TextLog {
    fn new(
        state: Data<State>,
        standing: Standing,
        run: &Run,
        query: &LogQuery,
        admitted: OwnedSemaphorePermit,
    ) -> Self {
        let position = query.position();
        Self {
            state,
            standing,
            walk: LogWalk::from(run.id, position),
            only: query.attempt,
            with_marks: query.attempt.is_none() && has_several_attempts(run),
            skip_to: position.offset,
            with_steps: has_parallel_steps(&run.recipe),
            in_line_of: None,
            waiting: VecDeque::new(),
            is_over: false,
            _admitted: admitted,
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, WalkError>> {
        loop {
            if let Some(piece) = self.waiting.pop_front() {
                return Some(Ok(piece));
            }
            if self.is_over || !self.standing.holds(self.state.store.as_ref()).await {
                return None;
            }
            let item = self.state.followers.read(&self.state, &mut self.walk).await;
            match item {
                Ok(item) => self.take(item),
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
    }

    fn take(&mut self, item: LogItem) {
        match item {
            LogItem::CaughtUp(_) => self.is_over = true,
            LogItem::Attempt(attempt) if self.only.is_some_and(|only| only != attempt) => {
                self.is_over = true;
            }
            LogItem::Attempt(attempt) => {
                self.skip_to = 0;
                if self.with_marks {
                    self.mark(&format!("attempt {attempt}"));
                }
            }
            LogItem::Hole { from, until } => {
                self.mark(&format!("{} bytes of the log are lost", until - from));
            }
            LogItem::Frames(frames) => {
                for frame in frames {
                    let before = usize::try_from(self.skip_to.saturating_sub(frame.offset));
                    let text = &frame.text;
                    let from = text.floor_char_boundary(before.unwrap_or(0).min(text.len()));
                    self.add(frame.step, &terminal::visible(&text[from..]));
                }
            }
        }
    }

    /// Adds what a step, or the run itself, has written.
    fn add(&mut self, step: Option<StepId>, text: &str) {
        let step = step.filter(|_| self.with_steps);
        let mut named = String::with_capacity(text.len());
        if self.in_line_of.as_ref().is_some_and(|writer| *writer != step) {
            named.push('\n');
            self.in_line_of = None;
        }
        for line in text.split_inclusive('\n') {
            if let (None, Some(step)) = (&self.in_line_of, &step) {
                named.push_str(step.as_str());
                named.push_str(" │ ");
            }
            named.push_str(line);
            self.in_line_of = (!line.ends_with('\n')).then(|| step.clone());
        }
        self.waiting.push_back(named.into());
    }

    /// Adds a line of gantry's own.
    fn mark(&mut self, text: &str) {
        let end_of_line = if self.in_line_of.take().is_some() { "\n" } else { "" };
        self.waiting.push_back(format!("{end_of_line}--- {text} ---\n").into());
    }
}

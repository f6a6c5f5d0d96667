//! The trace that a request belongs to: its sender's, if it names one, else a new one.

use actix_web::HttpRequest;
use gantry_domain::trace::TraceParent;
use gantry_ops::telemetry;
use tracing::Span;
use tracing::field::Empty;

/// The span of a request to the API whose sender has proved itself: nobody else's takes the room of a trace.
pub(crate) fn span(request: &HttpRequest) -> Span {
    span_at(request, request.match_pattern().unwrap_or_default())
}

/// The same of a request to this route.
pub(crate) fn span_at(request: &HttpRequest, route: impl Into<String>) -> Span {
    let (method, route) = (request.method().as_str(), route.into());
    let name = format!("{method} {route}");
    let span = tracing::info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        trace.id = Empty,
        delivery.id = Empty,
        run.id = Empty
    );
    telemetry::follow(&span, sent(request).as_ref());
    telemetry::attribute(&span, "http.request.method", method.to_owned());
    telemetry::attribute(&span, "http.route", route);
    span
}

/// What the sender says. What is no `traceparent` is as good as none.
fn sent(request: &HttpRequest) -> Option<TraceParent> {
    request.headers().get("traceparent")?.to_str().ok()?.parse().ok()
}

//! The trace of a request: the sender's if it sent one, otherwise a new one.

use actix_web::HttpRequest;
use gantry_domain::id::DeliveryId;
use gantry_domain::trace::TraceParent;
use gantry_ops::telemetry;
use tracing::Span;
use tracing::field::{self, Empty};

/// The span of an API request. Only for authenticated senders, so that others cannot fill the trace store.
pub(crate) fn span(request: &HttpRequest) -> Span {
    span_at(request, request.match_pattern().unwrap_or_default(), None)
}

/// The span of a delivery. The id is set at creation, because recording a field later rewrites all the others.
pub(crate) fn span_of_delivery(request: &HttpRequest, route: &str, id: &DeliveryId) -> Span {
    span_at(request, route.to_owned(), Some(id))
}

fn span_at(request: &HttpRequest, route: String, delivery: Option<&DeliveryId>) -> Span {
    let method = request.method().as_str();
    let name = format!("{method} {route}");
    let span = tracing::info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        trace.id = Empty,
        delivery.id = delivery.map(field::display),
        run.id = Empty
    );
    telemetry::follow(&span, sent(request).as_ref());
    telemetry::attribute(&span, "http.request.method", method.to_owned());
    telemetry::attribute(&span, "http.route", route);
    span
}

/// The sender's trace. An invalid `traceparent` counts as none.
fn sent(request: &HttpRequest) -> Option<TraceParent> {
    request.headers().get("traceparent")?.to_str().ok()?.parse().ok()
}

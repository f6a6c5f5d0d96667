//! The trace that a request belongs to: its sender's, if it names one, else a new one.

use actix_web::HttpRequest;
use gantry_domain::id::DeliveryId;
use gantry_domain::trace::TraceParent;
use gantry_ops::telemetry;
use tracing::Span;
use tracing::field::{self, Empty};

/// The span of a request to the API whose sender has proved itself: nobody else's takes the room of a trace.
pub(crate) fn span(request: &HttpRequest) -> Span {
    span_at(request, request.match_pattern().unwrap_or_default(), None)
}

/// The same of a delivery to this route. It has its id from the start: a field that is recorded later has all the others
/// written anew.
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

/// What the sender says. What is no `traceparent` is as good as none.
fn sent(request: &HttpRequest) -> Option<TraceParent> {
    request.headers().get("traceparent")?.to_str().ok()?.parse().ok()
}

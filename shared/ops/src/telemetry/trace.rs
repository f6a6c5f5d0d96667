//! Passes traces between spans and, as a [`TraceParent`], between processes.

use gantry_domain::trace::TraceParent;
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, Value};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The trace context of the current span; `None` outside of any span.
#[must_use]
pub fn current_trace() -> Option<TraceParent> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() {
        return None;
    }
    let flags = span.trace_flags().to_u8();
    format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()).parse().ok()
}

/// Attaches a span that was not entered yet to the trace in `parent`, and records the trace's id in its field
/// `trace.id`, if it has one, for log lines. Without `parent` it continues its own parent's trace, or begins a new one.
pub fn follow(span: &Span, parent: Option<&TraceParent>) {
    if let Some(remote) = parent.and_then(span_context) {
        // An unrecorded span cannot be attached, and need not be.
        let _unrecorded = span.set_parent(Context::new().with_remote_span_context(remote));
    }
    let context = span.context();
    let trace = context.span().span_context().trace_id();
    if trace != TraceId::INVALID {
        span.record("trace.id", tracing::field::display(trace));
    }
}

/// Records that a doorbell was claimed, as a span in its trace.
pub fn doorbell(queue: &'static str, trace: Option<&TraceParent>) {
    let Some(trace) = trace else { return };
    let span = tracing::info_span!("doorbell", otel.kind = "consumer", queue);
    follow(&span, Some(trace));
    span.in_scope(|| {});
}

/// Adds an attribute that only traces show, named by OpenTelemetry's conventions. Never a secret.
pub fn attribute(span: &Span, name: &'static str, value: impl Into<Value>) {
    span.set_attribute(name, value);
}

/// Marks a span as failed. `why` must be from a fixed set, or masked.
pub fn broken(span: &Span, why: impl Into<std::borrow::Cow<'static, str>>) {
    span.set_status(Status::error(why));
}

fn span_context(parent: &TraceParent) -> Option<SpanContext> {
    let mut parts = parent.as_str().split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_span_continues_the_senders_trace() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            assert_eq!(current_trace(), None);
            let sent: TraceParent =
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
            let span = tracing::info_span!("work", trace.id = tracing::field::Empty);
            follow(&span, Some(&sent));
            let inner = span.in_scope(|| current_trace().unwrap());
            let parts = |text: &TraceParent| -> Vec<String> {
                text.as_str().split('-').map(str::to_owned).collect()
            };
            assert_eq!(parts(&inner)[1], parts(&sent)[1]);
            assert_ne!(parts(&inner)[2], parts(&sent)[2]);
            assert_eq!(parts(&inner)[3], "01");
            let new = tracing::info_span!("new");
            follow(&new, None);
            assert_ne!(parts(&new.in_scope(|| current_trace().unwrap()))[1], parts(&sent)[1]);
        });
    }

    #[test]
    fn without_a_recorder_there_is_no_trace() {
        let span = tracing::info_span!("work");
        follow(&span, None);
        assert_eq!(span.in_scope(current_trace), None);
    }
}

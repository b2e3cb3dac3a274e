//! Spans of our own making: a batch is under way for long, in several tasks and processes, so its spans are handed from room to
//! room as values, not entered and left. Where nobody collects (`telemetry.otlp_endpoint` is not set) nothing is made at all.
//!
//! What is sampled is decided where a trace begins (`telemetry.trace_ratio`) and kept from there on, across processes: contexts
//! travel as W3C `traceparent`, in headers of calls and in fields of messages. A batch that is not sampled has no [`Span`].

use std::{borrow::Cow, collections::HashMap, sync::OnceLock, time::SystemTime};

use axum::http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator as _,
    trace::{Link, SpanBuilder, SpanContext, Status, TraceContextExt as _},
};
pub use opentelemetry::{context::FutureExt, trace::SpanKind};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracer};

const TRACEPARENT: &str = "traceparent";

/// Who makes the spans of this process.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Once per process; a second call changes nothing.
pub(crate) fn begin(tracer: SdkTracer) {
    TRACER.set(tracer).ok();
}

/// Whether any span is made at all: what costs something is asked for only then.
#[must_use]
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// What a span is, apart from its place in a tree.
#[derive(Clone, Debug)]
pub struct What {
    builder: SpanBuilder,
}

impl What {
    /// Begins now.
    pub fn new(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        Self { builder: SpanBuilder::from_name(name).with_kind(kind) }
    }

    /// With these attributes.
    #[must_use]
    pub fn with(self, attributes: impl IntoIterator<Item = KeyValue>) -> Self {
        Self { builder: self.builder.with_attributes(attributes) }
    }

    /// Began then.
    #[must_use]
    pub fn since(self, began: SystemTime) -> Self {
        Self { builder: self.builder.with_start_time(began) }
    }

    /// Goes with these as well.
    #[must_use]
    pub fn beside<'a>(self, others: impl IntoIterator<Item = &'a Span>) -> Self {
        let links = others.into_iter().map(|span| Link::with_context(span.identity())).collect();
        Self { builder: self.builder.with_links(links) }
    }

    fn start(self, parent: &Context) -> Option<Span> {
        let span = self.builder.start_with_context(TRACER.get()?, parent);
        let context = parent.with_span(span);
        context.span().is_recording().then_some(Span(context))
    }
}

/// A span that is recorded, until it is ended or the last copy of it is gone. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Span(Context);

impl Span {
    /// Begins a trace, if it is to be sampled. `what` is asked only if spans are made at all.
    pub fn root(what: impl FnOnce() -> What) -> Option<Self> {
        if is_on() { what().start(&Context::new()) } else { None }
    }

    /// Goes on with what another process, or another room, sent along.
    pub fn of_remote(traceparent: &str, what: impl FnOnce() -> What) -> Option<Self> {
        if traceparent.is_empty() || !is_on() {
            return None;
        }
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
        // What cannot be read begins no trace.
        parent.span().span_context().is_valid().then(|| what().start(&parent)).flatten()
    }

    /// Part of this one.
    #[must_use]
    pub fn child(&self, what: What) -> Option<Self> {
        what.start(&self.0)
    }

    fn identity(&self) -> SpanContext {
        self.0.span().span_context().clone()
    }

    /// One more attribute.
    pub fn note(&self, attribute: KeyValue) {
        self.0.span().set_attribute(attribute);
    }

    /// It did not work. The text must be one that may be logged; `kind` is one of few words.
    pub fn failed(&self, kind: &'static str, text: impl Into<Cow<'static, str>>) {
        self.note(KeyValue::new("error.type", kind));
        self.0.span().set_status(Status::error(text));
    }

    /// It is over.
    pub fn end(&self) {
        self.0.span().end();
    }

    /// It was over then.
    pub fn end_at(&self, at: SystemTime) {
        self.0.span().end_with_timestamp(at);
    }

    /// What a message carries so that others can go on with it.
    #[must_use]
    pub fn traceparent(&self) -> String {
        traceparent(&self.0).unwrap_or_default()
    }

    /// What is current while a future of this span is polled: `future.with_context(span.context())`.
    #[must_use]
    pub fn context(&self) -> Context {
        self.0.clone()
    }

    /// Has a call go on with this span.
    pub fn inject(&self, headers: &mut HeaderMap) {
        TraceContextPropagator::new().inject_context(&self.0, &mut HeaderInjector(headers));
    }
}

/// The current span as a `traceparent`, if it is sampled.
#[must_use]
pub fn current() -> Option<String> {
    if is_on() { Context::map_current(traceparent) } else { None }
}

fn traceparent(context: &Context) -> Option<String> {
    let span = context.span();
    let identity = span.span_context();
    (identity.is_valid() && identity.is_sampled())
        .then(|| format!("00-{}-{}-01", identity.trace_id(), identity.span_id()))
}

/// Has a call go on with the current span.
pub fn inject_current(headers: &mut HeaderMap) {
    if is_on() {
        let put = |context: &Context| {
            TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
        };
        Context::map_current(put);
    }
}

/// A span that serves a call, under the caller's if the call says which.
pub(crate) fn serving(headers: &HeaderMap, what: impl FnOnce() -> What) -> Option<Span> {
    if !is_on() {
        return None;
    }
    let parent =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    what().start(&parent)
}

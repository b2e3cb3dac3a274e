//! What every gRPC server of the house is wrapped in: it counts and times calls, and gives each its span, by the semantic
//! conventions of OpenTelemetry for RPC. Streams count when they are opened.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::http::{HeaderMap, Request, Response};
use opentelemetry::{KeyValue, global, metrics::Histogram};
use tower::{Layer, Service};

use crate::trace::{self, FutureExt as _, Span, SpanKind, What};

/// What a method is called that nobody serves: callers must not make up names of metrics.
const OTHER: &str = "_OTHER";
/// The names of gRPC's status codes, in their order.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const UNIMPLEMENTED: usize = 12;

/// Wraps a server: `Server::builder().layer(GrpcCalls::default())`.
#[derive(Clone, Debug)]
pub struct GrpcCalls {
    duration: Histogram<f64>,
}

impl Default for GrpcCalls {
    fn default() -> Self {
        let meter = global::meter("shardwright");
        let duration = meter.f64_histogram("rpc.server.call.duration").with_unit("s");
        let duration = duration.with_description("calls by method and outcome; of streams, their opening");
        Self { duration: duration.build() }
    }
}

impl<S> Layer<S> for GrpcCalls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, duration: self.duration.clone() }
    }
}

/// See [`GrpcCalls`].
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    duration: Histogram<f64>,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send,
    R: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let began = Instant::now();
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let span = trace::serving(request.headers(), || {
            What::new(method.clone(), SpanKind::Server)
                .with([system(), KeyValue::new("rpc.method", method.clone())])
        });
        let (call, duration) = (self.inner.call(request), self.duration.clone());
        Box::pin(async move {
            let answer = match &span {
                Some(span) => call.with_context(span.context()).await,
                None => call.await,
            };
            let code = answer.as_ref().map_or(2, |answer| status(answer.headers()));
            count(&duration, began, method, code);
            span.into_iter().for_each(|span| finish(&span, code));
            answer
        })
    }
}

fn system() -> KeyValue {
    KeyValue::new("rpc.system.name", "grpc")
}

/// A call that is refused at once says so in its headers; whatever else comes later is the stream's matter.
fn status(headers: &HeaderMap) -> usize {
    let code = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
    code.filter(|code| *code < CODES.len()).unwrap_or(0)
}

fn count(duration: &Histogram<f64>, began: Instant, method: String, code: usize) {
    let method = if code == UNIMPLEMENTED { OTHER.to_owned() } else { method };
    let labels = [
        system(),
        KeyValue::new("rpc.method", method),
        KeyValue::new("rpc.response.status_code", CODES[code]),
    ];
    duration.record(began.elapsed().as_secs_f64(), &labels);
}

fn finish(span: &Span, code: usize) {
    span.note(KeyValue::new("rpc.response.status_code", CODES[code]));
    if code != 0 {
        span.failed(CODES[code], "");
    }
    span.end();
}

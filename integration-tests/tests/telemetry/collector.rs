//! An OTLP collector within the test: keeps what it is sent.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::span::SpanKind,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, transport::Server};

/// A span, in what the tests look at.
#[derive(Clone, Debug)]
pub struct Span {
    pub service: String,
    pub trace: Vec<u8>,
    pub id: Vec<u8>,
    pub parent: Vec<u8>,
    pub name: String,
    pub kind: SpanKind,
    pub links: Vec<Vec<u8>>,
    pub attributes: Vec<KeyValue>,
}

impl Span {
    /// The text of an attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|attribute| attribute.key == name)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    metrics: Vec<String>,
    /// Body, and whether it has a trace id.
    lines: Vec<(String, bool)>,
}

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Kept>>);

/// Ends with this value.
pub struct Collector {
    pub url: String,
    shelf: Shelf,
    _server: AbortOnDropHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shelf = Shelf::default();
        let server = Server::builder()
            .add_service(TraceServiceServer::new(shelf.clone()))
            .add_service(MetricsServiceServer::new(shelf.clone()))
            .add_service(LogsServiceServer::new(shelf.clone()));
        let served = server.serve_with_incoming(TcpListenerStream::new(listener));
        let server = AbortOnDropHandle::new(tokio::spawn(async move { served.await.unwrap() }));
        Self { url, shelf, _server: server }
    }

    pub fn spans(&self) -> Vec<Span> {
        self.shelf.0.lock().unwrap().spans.clone()
    }

    /// Names of the metrics that came.
    pub fn metrics(&self) -> Vec<String> {
        self.shelf.0.lock().unwrap().metrics.clone()
    }

    /// Log lines that came.
    pub fn lines(&self) -> Vec<(String, bool)> {
        self.shelf.0.lock().unwrap().lines.clone()
    }
}

#[tonic::async_trait]
impl TraceService for Shelf {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        for of_process in request.into_inner().resource_spans {
            let named = of_process.resource.unwrap_or_default().attributes;
            let service = named.iter().find(|a| a.key == "service.name").cloned().unwrap_or_default();
            let service = match service.value.unwrap_or_default().value {
                Some(Value::StringValue(name)) => name,
                _ => String::new(),
            };
            for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                kept.spans.push(Span {
                    service: service.clone(),
                    kind: span.kind(),
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                    name: span.name,
                    links: span.links.into_iter().map(|link| link.span_id).collect(),
                    attributes: span.attributes,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Shelf {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let scopes = request.into_inner().resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
        let names = scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name);
        self.0.lock().unwrap().metrics.extend(names);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Shelf {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let scopes = request.into_inner().resource_logs.into_iter().flat_map(|of| of.scope_logs);
        for line in scopes.flat_map(|scope| scope.log_records) {
            if let Some(Value::StringValue(text)) = line.body.and_then(|body| body.value) {
                self.0.lock().unwrap().lines.push((text, !line.trace_id.is_empty()));
            }
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

//! Logs to stderr, metrics for Prometheus and, if asked, both metrics and traces to an OTLP collector.
//!
//! Every room records through the global meter and `tracing`; only this file knows where that goes.

use std::io::IsTerminal;

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use prometheus::Registry;
use serde::Deserialize;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{Error, Result};

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of logs and metrics.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `off` for nowhere. Port 0 takes a free one and logs it.
    pub listen: String,
    /// What is logged: `info`, `debug`, or a filter such as `info,shardwright_worker=debug`.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// URL of an OTLP collector (gRPC) for metrics and traces; none if absent.
    pub otlp_endpoint: Option<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
        }
    }
}

impl TelemetryConfig {
    /// Where to listen; `None` when it is switched off.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        (self.listen != "off" && !self.listen.is_empty()).then_some(self.listen.as_str())
    }
}

/// The running telemetry of a process.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    meters: SdkMeterProvider,
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sets the global logger and the global meter. `role` and `version` become the service's name and version. Once per
    /// process, inside the runtime.
    pub fn start(config: &TelemetryConfig, role: &str, version: &str) -> Result<Self> {
        let resource = Resource::builder()
            .with_service_name(format!("shardwright-{role}"))
            .with_attribute(KeyValue::new("service.version", version.to_owned()))
            .build();
        let registry = Registry::new();
        let meters = meters(config, &registry, resource.clone())?;
        let traces = config.otlp_endpoint.as_deref().map(|url| traces(url, resource)).transpose()?;
        log(config, traces.as_ref())?;
        // Last: a setting that is refused leaves nothing behind.
        opentelemetry::global::set_meter_provider(meters.clone());
        Ok(Self { registry, meters, traces })
    }

    /// What `/metrics` shows.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Sends what is left to the collector. Blocks for a few seconds if it is away.
    pub fn stop(self) {
        if let Some(traces) = self.traces {
            traces.shutdown().ok();
        }
        // Refused after the first call only.
        self.meters.shutdown().ok();
    }
}

fn otlp_refused(url: &str, error: impl std::fmt::Display) -> Error {
    Error::config(format!("`telemetry.otlp_endpoint` `{url}`: {error}"))
}

fn meters(config: &TelemetryConfig, registry: &Registry, resource: Resource) -> Result<SdkMeterProvider> {
    let prometheus = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()
        .map_err(|error| Error::system(format!("metrics: {error}")))?;
    let mut builder = SdkMeterProvider::builder().with_resource(resource).with_reader(prometheus);
    if let Some(url) = &config.otlp_endpoint {
        let exporter = opentelemetry_otlp::MetricExporter::builder()
            .with_tonic()
            .with_endpoint(url.clone())
            .build()
            .map_err(|error| otlp_refused(url, error))?;
        builder = builder.with_periodic_exporter(exporter);
    }
    Ok(builder.build())
}

fn traces(url: &str, resource: Resource) -> Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(url)
        .build()
        .map_err(|error| otlp_refused(url, error))?;
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

fn log(config: &TelemetryConfig, traces: Option<&SdkTracerProvider>) -> Result<()> {
    // Its own news (a provider was set, a provider was dropped) are no news of ours.
    let quiet = if config.log.contains("opentelemetry") { "" } else { ",opentelemetry=warn" };
    let filter = EnvFilter::try_new(format!("{}{quiet}", config.log))
        .map_err(|error| Error::config(format!("`telemetry.log` `{}`: {error}", config.log)))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = traces.map(|traces| tracing_opentelemetry::layer().with_tracer(traces.tracer("shardwright")));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(spans)
        .try_init()
        .map_err(|error| Error::system(format!("logging was set up before: {error}")))
}

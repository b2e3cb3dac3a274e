//! Logs to stderr, metrics for Prometheus and, if asked, all three of metrics, traces and logs to an OTLP collector.
//!
//! Every room records through the global meter, `tracing` and [`crate::trace`]; only this file knows where that goes.

use std::io::IsTerminal;

use opentelemetry::{Key, KeyValue, trace::TracerProvider as _};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    metrics::{Aggregation, Instrument, InstrumentKind, SdkMeterProvider, Stream},
    trace::{Sampler, SdkTracerProvider},
};
use prometheus::Registry;
use serde::Deserialize;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};
use ulid::Ulid;

use crate::{
    Error, Result,
    logs::{JsonLines, LogFilter},
    trace,
};

/// Part of all traces that is recorded.
const TRACE_RATIO: f64 = 0.001;
/// Where the buckets of histograms end, in seconds: from a quick answer to a failover.
const BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Series that one metric may have in a process; beyond it they count as one, `otel_metric_overflow`.
const SERIES_MAX: usize = 10_000;

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

/// Settings of logs, metrics and traces.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Where `/metrics`, `/livez`, `/readyz` and `/debug` are served; `off` for nowhere. Port 0 takes a free one and logs it.
    pub listen: String,
    /// What is logged: `info`, `debug`, or a filter such as `info,shardwright_worker=debug`.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// URL of an OTLP collector (gRPC) for metrics, traces and logs; none if absent.
    pub otlp_endpoint: Option<String>,
    /// Part of all traces that is recorded, 0 to 1; a caller that says that it records is followed.
    pub trace_ratio: f64,
    /// Whether others than this machine may change the log filter.
    pub debug_remote: bool,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            trace_ratio: TRACE_RATIO,
            debug_remote: false,
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

/// Who this process is, to those who read its telemetry.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// `service.name` is `shardwright-` and this.
    pub role: &'a str,
    /// `service.version`.
    pub version: &'a str,
    /// `service.instance.id`: what tells it from others of its role. One of its own, new at each start, if absent.
    pub instance: Option<&'a str>,
}

impl Service<'_> {
    /// With the attributes of OTEL_RESOURCE_ATTRIBUTES, whose `service.instance.id` is taken instead of ours.
    fn resource(self) -> Resource {
        const INSTANCE: &str = "service.instance.id";
        let resource = Resource::builder()
            .with_service_name(format!("shardwright-{}", self.role))
            .with_attribute(KeyValue::new("service.version", self.version.to_owned()));
        let said = Resource::builder().build().get(&Key::from_static_str(INSTANCE));
        let instance = said.map_or_else(
            || self.instance.map_or_else(|| Ulid::new().to_string(), str::to_owned),
            |said| said.to_string(),
        );
        resource.with_attribute(KeyValue::new(INSTANCE, instance)).build()
    }
}

/// The running telemetry of a process.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    meters: SdkMeterProvider,
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
    filter: LogFilter,
}

impl Telemetry {
    /// Sets the global logger, the global meter and who makes spans. Once per process, inside the runtime.
    pub fn start(config: &TelemetryConfig, service: Service<'_>) -> Result<Self> {
        if !(0.0..=1.0).contains(&config.trace_ratio) {
            let text = format!("`telemetry.trace_ratio` `{}`: it is between 0 and 1", config.trace_ratio);
            return Err(Error::config(text));
        }
        let resource = service.resource();
        let registry = Registry::new();
        let meters = meters(config, &registry, resource.clone())?;
        let url = config.otlp_endpoint.as_deref();
        let traces = url.map(|url| traces(url, config.trace_ratio, resource.clone())).transpose()?;
        let logs = url.map(|url| logs(url, resource)).transpose()?;
        let filter = log(config, logs.as_ref())?;
        // Last: a setting that is refused leaves nothing behind.
        opentelemetry::global::set_meter_provider(meters.clone());
        if let Some(traces) = &traces {
            trace::begin(traces.tracer("shardwright"));
        }
        Ok(Self { registry, meters, traces, logs, filter })
    }

    /// What `/metrics` shows.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// What is logged.
    #[must_use]
    pub fn filter(&self) -> LogFilter {
        self.filter.clone()
    }

    /// Sends what is left to the collector. Blocks for a few seconds if it is away.
    pub fn stop(self) {
        // Each is refused after the first call only.
        self.traces.into_iter().for_each(|traces| _ = traces.shutdown());
        self.logs.into_iter().for_each(|logs| _ = logs.shutdown());
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
    let mut builder =
        SdkMeterProvider::builder().with_resource(resource).with_reader(prometheus).with_view(view);
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

/// Every histogram of the house is one of seconds.
fn view(instrument: &Instrument) -> Option<Stream> {
    let stream = Stream::builder().with_cardinality_limit(SERIES_MAX);
    let stream = match instrument.kind() {
        InstrumentKind::Histogram => stream.with_aggregation(Aggregation::ExplicitBucketHistogram {
            boundaries: BUCKETS.to_vec(),
            record_min_max: false,
        }),
        _ => stream,
    };
    stream.build().ok()
}

fn traces(url: &str, ratio: f64, resource: Resource) -> Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(url)
        .build()
        .map_err(|error| otlp_refused(url, error))?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
    let builder = SdkTracerProvider::builder().with_resource(resource).with_sampler(sampler);
    Ok(builder.with_batch_exporter(exporter).build())
}

fn logs(url: &str, resource: Resource) -> Result<SdkLoggerProvider> {
    let exporter = opentelemetry_otlp::LogExporter::builder()
        .with_tonic()
        .with_endpoint(url)
        .build()
        .map_err(|error| otlp_refused(url, error))?;
    Ok(SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

fn log(config: &TelemetryConfig, logs: Option<&SdkLoggerProvider>) -> Result<LogFilter> {
    let (layer, filter) = LogFilter::new(&config.log)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.event_format(JsonLines).boxed(),
    };
    // What sends the lines must not make lines of its own.
    let carriers = ["h2", "hyper", "hyper_util", "tonic", "tower", "opentelemetry"];
    let ours = Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_targets(carriers.map(|carrier| (carrier, LevelFilter::OFF)));
    let sent = logs.map(|logs| OpenTelemetryTracingBridge::new(logs).with_filter(ours));
    tracing_subscriber::registry()
        .with(layer)
        .with(lines)
        .with(sent)
        .try_init()
        .map_err(|error| Error::system(format!("logging was set up before: {error}")))?;
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_of_a_role_are_told_apart() {
        let of = |instance| {
            let resource = Service { role: "worker", version: "1", instance }.resource();
            let said = |key| resource.get(&Key::from_static_str(key)).unwrap().to_string();
            assert_eq!(said("service.name"), "shardwright-worker");
            said("service.instance.id")
        };
        assert_eq!((of(Some("w-0")), of(Some("w-1"))), ("w-0".to_owned(), "w-1".to_owned()));
        assert_ne!(of(None), of(None));
    }
}

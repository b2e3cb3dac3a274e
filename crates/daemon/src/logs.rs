//! Log lines: their filter, which can be changed while the process runs, and how they look as JSON.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry::{Context, trace::TraceContextExt as _};
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
    reload,
};

use crate::{Error, Result};

/// The filter of a process.
#[derive(Clone, Debug)]
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    configured: Arc<str>,
    now: Arc<Mutex<String>>,
}

impl LogFilter {
    /// The layer that filters, and what changes it.
    pub(crate) fn new(text: &str) -> Result<(reload::Layer<EnvFilter, Registry>, Self)> {
        let filter =
            parse(text).map_err(|error| Error::config(format!("`telemetry.log` `{text}`: {error}")))?;
        let (layer, handle) = reload::Layer::new(filter);
        Ok((layer, Self { handle, configured: text.into(), now: Arc::new(Mutex::new(text.to_owned())) }))
    }

    /// The filter in force.
    #[must_use]
    pub fn now(&self) -> String {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another filter in force until the process ends; says which it was. Errors: what is wrong with it.
    pub fn set(&self, text: &str) -> std::result::Result<String, String> {
        let filter = parse(text)?;
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(filter).map_err(|error| error.to_string())?;
        let old = std::mem::replace(&mut *now, text.to_owned());
        drop(now);
        tracing::warn!(filter = text, old, "another log filter is in force");
        Ok(old)
    }

    /// Puts the filter of the settings in force again; says which it was.
    pub fn restore(&self) -> std::result::Result<String, String> {
        self.set(&self.configured)
    }
}

fn parse(text: &str) -> std::result::Result<EnvFilter, String> {
    // Its own news (a provider was set, a provider was dropped) are no news of ours.
    let quiet = if text.contains("opentelemetry") { "" } else { ",opentelemetry=warn" };
    // Who did what is kept whatever the level is; who does not want it says so.
    let audit = if text.contains("audit") { "" } else { ",audit=info" };
    EnvFilter::try_new(format!("{text}{quiet}{audit}")).map_err(|error| error.to_string())
}

/// One JSON object a line: `timestamp`, `level`, `target`, the fields of the event (`message` is one), and, within a span,
/// `trace_id` and `span_id`.
pub(crate) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut line = Line(Map::new());
        let metadata = event.metadata();
        line.put("timestamp", timestamp);
        line.put("level", metadata.level().as_str());
        event.record(&mut line);
        line.put("target", metadata.target());
        Context::map_current(|context| {
            let span = context.span();
            let identity = span.span_context();
            if identity.is_valid() {
                line.put("trace_id", identity.trace_id().to_string());
                line.put("span_id", identity.span_id().to_string());
            }
        });
        writeln!(writer, "{}", Value::Object(line.0))
    }
}

/// A line in the making.
struct Line(Map<String, Value>);

impl Line {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use tracing::{Level, enabled, subscriber::with_default};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_quiet_log_still_tells_who_did_what_unless_that_is_turned_off() {
        for (text, audited) in [("warn", true), ("off", true), ("info", true), ("info,audit=off", false)] {
            let subscriber = Registry::default().with(parse(text).unwrap());
            let enabled = with_default(subscriber, || enabled!(target: "audit", Level::INFO));
            assert_eq!(enabled, audited, "{text}");
        }
    }
}

//! What the client says by itself: log lines, and errors that belong to no message. A wrong password is only told here
//! (the message itself merely times out), so the last such error is kept to explain failures.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use connector::ErrorKind;
use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::ProducerContext,
};

use super::reports::Report;

/// Lines in one span; a broker that is away makes the client say so many times a second.
const LINES_MAX: u32 = 10;
const SPAN: Duration = Duration::from_secs(10);
/// So long an error explains what fails after it.
const FRESH: Duration = Duration::from_secs(30);

/// Receives what a producer says.
pub(super) struct Notices {
    sink: String,
    lines: Mutex<Lines>,
    trouble: Mutex<Option<Trouble>>,
}

/// An error of the whole client.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    at: Instant,
    /// What a user can do about it.
    pub(super) kind: ErrorKind,
    /// In the client's words.
    pub(super) text: String,
}

struct Lines {
    since: Instant,
    written: u32,
    withheld: u32,
}

impl Notices {
    /// Nothing said yet.
    pub(super) fn new(sink: &str) -> Self {
        let lines = Mutex::new(Lines { since: Instant::now(), written: 0, withheld: 0 });
        Self { sink: sink.to_owned(), lines, trouble: Mutex::new(None) }
    }

    /// Why nothing gets through, if the client knows.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        locked(&self.trouble).clone().filter(|t| t.at.elapsed() < FRESH)
    }

    /// Whether a line may be written now; if some were withheld, how many.
    fn admit(&self) -> Option<u32> {
        let mut lines = locked(&self.lines);
        if lines.since.elapsed() >= SPAN {
            *lines = Lines { since: Instant::now(), written: 0, withheld: lines.withheld };
        }
        if lines.written == LINES_MAX {
            lines.withheld += 1;
            return None;
        }
        lines.written += 1;
        Some(std::mem::take(&mut lines.withheld))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Notices {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let sink = &self.sink;
        if level as i32 > RDKafkaLogLevel::Warning as i32 {
            tracing::debug!(%sink, facility, "kafka client: {line}");
        } else if let Some(withheld) = self.admit() {
            // Whatever it calls an error is tried again: the worker says when data waits.
            tracing::warn!(%sink, facility, withheld, "kafka client: {line}");
        }
    }

    fn stats(&self, statistics: Statistics) {
        tracing::debug!(sink = %self.sink, queued = statistics.msg_cnt, sent = statistics.txmsgs, "kafka client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let kind = match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed,
            ) => ErrorKind::Denied,
            Some(RDKafkaErrorCode::SSL) => ErrorKind::Config,
            _ => ErrorKind::Unavailable,
        };
        let text = reason.to_owned();
        let mut trouble = locked(&self.trouble);
        // "All brokers are down" follows and must not hide why.
        let hides =
            trouble.as_ref().is_some_and(|t| t.kind != ErrorKind::Unavailable && t.at.elapsed() < FRESH);
        if kind != ErrorKind::Unavailable || !hides {
            *trouble = Some(Trouble { at: Instant::now(), kind, text });
        }
    }
}

impl ProducerContext for Notices {
    type DeliveryOpaque = Box<Report>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Box<Report>) {
        match result {
            Ok(_) => {
                *locked(&self.trouble) = None;
                report.delivered();
            }
            Err((error, _)) => report.failed(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_lines_is_counted_not_written() {
        let notices = Notices::new("s");
        let written = (0..100).filter(|_| notices.admit().is_some()).count();
        assert_eq!((written, locked(&notices.lines).withheld), (10, 90));
    }

    #[test]
    fn brokers_down_does_not_hide_a_wrong_password() {
        let notices = Notices::new("s");
        notices.error(KafkaError::Global(RDKafkaErrorCode::Authentication), "SASL authentication error");
        notices.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        let trouble = notices.trouble().unwrap();
        assert_eq!((trouble.kind, trouble.text.as_str()), (ErrorKind::Denied, "SASL authentication error"));
    }
}

//! Batches to messages. A delivery waits for the report of every message of its batch; if they do not come in time, or if
//! nobody waits any more (a timeout of the worker, the end of the run), the producer is purged, so that nothing of a run
//! lands after its last breath (I11).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use connector::{Delivery, Error, ErrorKind, Rejected, Result, SinkWriter};
use formats::MessageEncoder;
use model::{Batch, SplitId, Work};
use opentelemetry::{Context, trace::TraceContextExt as _};

use super::{
    client::{Client, Live, Outgoing, is_refusal},
    reports::Reports,
};

/// After a purge the reports come at once; a producer that does not even do that is given up.
const PURGE_GRACE: Duration = Duration::from_millis(300);

/// Writes for one run.
pub(super) struct Writer {
    client: Arc<Client>,
    split: Option<SplitId>,
    encoder: MessageEncoder,
}

impl Writer {
    /// A writer of one task.
    pub(super) fn new(client: Arc<Client>, work: &Work, encoder: MessageEncoder) -> Self {
        let split = match work {
            Work::Split(split) => Some(split.clone()),
            Work::Partition(_) => None,
        };
        Self { client, split, encoder }
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<Delivery> {
        let began = Instant::now();
        let encoded = self.encoder.encode(&batch).map_err(|e| Error::new(ErrorKind::Bug, e.to_string()))?;
        let refuse = |row, reason| Rejected { row, error: Error::new(ErrorKind::Rejected, reason) };
        let mut rejected: Vec<Rejected> =
            encoded.refused.into_iter().map(|r| refuse(r.row, r.reason)).collect();
        let live = self.client.producer()?;
        let waited = Waited { client: Arc::clone(&self.client), live, reports: Arc::default(), began };
        // Whoever consumes the message goes on with this request's span, if its batch is traced.
        let traceparent = Context::map_current(traceparent);
        let mut full = false;
        for message in &encoded.messages {
            let outgoing = Outgoing {
                key: message.key.as_ref(),
                value: &message.value,
                split: self.split.as_ref().map(SplitId::name),
                number: batch.cursors[message.row].as_str(),
                traceparent: traceparent.as_deref(),
            };
            // After the first row that finds no room none is sent: a later row of its key must not come first (I10).
            full = full || !self.client.enqueue(&waited.live, &outgoing, waited.reports.expect(message.row));
            if full {
                let error = Error::new(ErrorKind::Throttled, "the queue of the kafka client is full");
                rejected.push(Rejected { row: message.row, error });
            }
        }
        Ok(Box::pin(async move {
            rejected.extend(waited.outcome().await?);
            Ok(rejected)
        }))
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn traceparent(context: &Context) -> Option<String> {
    let span = context.span();
    let identity = span.span_context();
    let traced = identity.is_valid() && identity.is_sampled();
    traced.then(|| format!("00-{}-{}-01", identity.trace_id(), identity.span_id()))
}

/// A write whose reports are not all in.
struct Waited {
    client: Arc<Client>,
    live: Live,
    reports: Arc<Reports>,
    began: Instant,
}

impl Waited {
    /// The rows that failed.
    async fn outcome(self) -> Result<Vec<Rejected>> {
        // A little less than the worker gives, so that the purge is ours and its reports are heard.
        let limit = self.client.attempt().mul_f64(0.9).saturating_sub(self.began.elapsed());
        if tokio::time::timeout(limit, self.reports.complete()).await.is_err() {
            self.client.purge(&self.live);
            if tokio::time::timeout(PURGE_GRACE, self.reports.complete()).await.is_err() {
                let text = "the kafka client does not report on what it was given";
                return Err(Error::new(ErrorKind::Unavailable, text).ambiguous_since(self.began));
            }
        }
        let failed = self.reports.failed();
        if failed.iter().any(|(_, code)| !self.live.survives(*code)) {
            self.client.purge(&self.live);
        }
        // A broker refuses batches, and the client tells every message of one: who is meant shows only alone.
        if let [(_, code), _, ..] = failed[..]
            && failed.len() == self.reports.asked()
            && failed.iter().all(|(_, other)| is_refusal(*other))
        {
            return Err(self.client.explain(&self.live, code, self.began));
        }
        let reject = |(row, code)| Rejected { row, error: self.client.explain(&self.live, code, self.began) };
        Ok(failed.into_iter().map(reject).collect())
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        if self.reports.waiting() > 0 {
            self.client.purge(&self.live);
        }
    }
}

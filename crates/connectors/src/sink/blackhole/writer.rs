//! Counts and forgets.

use async_trait::async_trait;
use connector::{Delivery, Error, ErrorKind, Rejected, Result, SinkWriter};
use formats::MessageEncoder;
use model::Batch;
use opentelemetry::{KeyValue, global, metrics::Counter};

/// Writes for one run.
pub(super) struct Writer {
    rows: Counter<u64>,
    bytes: Counter<u64>,
    labels: [KeyValue; 1],
    encoder: Option<MessageEncoder>,
}

impl Writer {
    /// A writer that encodes if there is an encoder.
    pub(super) fn new(sink: &str, encoder: Option<MessageEncoder>) -> Self {
        let meter = global::meter("shardwright");
        Self {
            rows: meter.u64_counter("blackhole_rows").with_description("rows forgotten").build(),
            bytes: meter.u64_counter("blackhole_bytes").with_description("encoded bytes forgotten").build(),
            labels: [KeyValue::new("sink", sink.to_owned())],
            encoder,
        }
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<Delivery> {
        let mut rejected = Vec::new();
        if let Some(encoder) = &self.encoder {
            let encoded = encoder.encode(&batch).map_err(|e| Error::new(ErrorKind::Bug, e.to_string()))?;
            let bytes: usize = encoded.messages.iter().map(|m| m.value.len()).sum();
            self.bytes.add(bytes as u64, &self.labels);
            rejected.extend(
                encoded
                    .refused
                    .into_iter()
                    .map(|r| Rejected { row: r.row, error: Error::new(ErrorKind::Rejected, r.reason) }),
            );
        }
        self.rows.add((batch.len() - rejected.len()) as u64, &self.labels);
        Ok(Box::pin(async move { Ok(rejected) }))
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

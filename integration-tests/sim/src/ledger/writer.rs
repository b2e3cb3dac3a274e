//! Batches to the ledger: one write is one request. Its answer is the delivery; a connection that broke leaves it unknown.

use std::time::Instant;

use async_trait::async_trait;
use connector::{Delivery, Error, ErrorKind, Rejected, Result, SinkWriter};
use formats::MessageEncoder;
use model::Batch;

use super::server::{Origin, Row, Server};

/// Writes for one run.
pub(super) struct Writer {
    server: Server,
    origin: Origin,
    encoder: MessageEncoder,
}

impl Writer {
    pub fn new(server: Server, origin: Origin, encoder: MessageEncoder) -> Self {
        Self { server, origin, encoder }
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<Delivery> {
        let began = Instant::now();
        let encoded = self.encoder.encode(&batch).map_err(|e| Error::new(ErrorKind::Bug, e.to_string()))?;
        let mut rejected: Vec<Rejected> = encoded
            .refused
            .into_iter()
            .map(|r| Rejected { row: r.row, error: Error::new(ErrorKind::Rejected, r.reason) })
            .collect();
        if encoded.messages.is_empty() {
            return Ok(Box::pin(async move { Ok(rejected) }));
        }
        let rows = encoded.messages.into_iter().map(|m| Row { row: m.row, value: m.value }).collect();
        let told = self.server.write(self.origin.clone(), rows);
        Ok(Box::pin(async move {
            let Ok(answer) = told.await else {
                let error = Error::new(ErrorKind::Unavailable, "connection to the ledger broke");
                return Err(error.ambiguous_since(began));
            };
            let failed = answer?;
            rejected.extend(failed.into_iter().map(|(row, error)| Rejected { row, error }));
            Ok(rejected)
        }))
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

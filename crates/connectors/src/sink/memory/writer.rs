//! Batches to memory, through whatever fault comes next.

use std::sync::Arc;

use async_trait::async_trait;
use connector::{Delivery, Error, ErrorKind, Rejected, Result, SinkWriter};
use formats::MessageEncoder;
use model::{Batch, Epoch, Work};
use tokio::time::Instant;

use super::client::{Fault, Memory, Stored, told_to};

/// Writes for one run.
pub(super) struct Writer {
    memory: Arc<Memory>,
    work: Work,
    epoch: Epoch,
    encoder: MessageEncoder,
}

impl Writer {
    /// A writer of one task.
    pub(super) fn new(memory: Arc<Memory>, work: Work, epoch: Epoch, encoder: MessageEncoder) -> Self {
        Self { memory, work, epoch, encoder }
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<Delivery> {
        let began = Instant::now();
        let encoded = self.encoder.encode(&batch).map_err(|e| Error::new(ErrorKind::Bug, e.to_string()))?;
        let fault = self.memory.next_fault();
        let reject = |row, error| Rejected { row, error };
        let mut rejected: Vec<Rejected> = encoded
            .refused
            .into_iter()
            .map(|r| reject(r.row, Error::new(ErrorKind::Rejected, r.reason)))
            .collect();
        let mut messages = Vec::with_capacity(encoded.messages.len());
        for message in encoded.messages {
            if self.memory.is_poison(&message.value) {
                rejected.push(reject(message.row, told_to(ErrorKind::Rejected)));
                continue;
            }
            match &fault {
                Fault::Rows(rows, kind) if rows.contains(&message.row) => {
                    rejected.push(reject(message.row, told_to(*kind)));
                }
                _ => messages.push(Stored {
                    work: self.work.clone(),
                    epoch: self.epoch,
                    key: message.key,
                    value: message.value,
                }),
            }
        }
        let memory = Arc::clone(&self.memory);
        Ok(Box::pin(async move {
            match fault {
                Fault::Error(kind) => return Err(told_to(kind)),
                Fault::Ambiguous => {
                    memory.store(messages);
                    return Err(told_to(ErrorKind::Unavailable).ambiguous_since(began.into_std()));
                }
                Fault::Delay(time) => tokio::time::sleep(time).await,
                Fault::Pass | Fault::Rows(..) => {}
            }
            memory.store(messages);
            Ok(rejected)
        }))
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

//! Batches to lines. Lines are appended in `write`, so they stand in the order of the calls (I10); the delivery waits for
//! the disk.
//!
//! A write that failed leaves nothing that could land later: what the kernel already took stands before what is written
//! again, in this file or in an earlier one. So no error here is ambiguous (P12).

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use connector::{Delivery, Error, ErrorKind, Rejected, Result, SinkWriter};
use formats::MessageEncoder;
use model::{Batch, Epoch};

use super::{
    client::{Folder, Segment},
    config::Rotation,
};

/// Writes for one run.
pub(super) struct Writer {
    folder: Folder,
    epoch: Epoch,
    extension: &'static str,
    encoder: MessageEncoder,
    rotation: Rotation,
    current: Option<(Arc<Segment>, Instant)>,
    next: u32,
}

impl Writer {
    /// A writer that makes its first file when the first row comes.
    pub(super) fn new(
        folder: Folder,
        epoch: Epoch,
        extension: &'static str,
        encoder: MessageEncoder,
        rotation: Rotation,
    ) -> Self {
        Self { folder, epoch, extension, encoder, rotation, current: None, next: 0 }
    }

    /// The file that takes the next lines.
    async fn segment(&mut self) -> Result<Arc<Segment>> {
        if let Some((segment, since)) = &self.current {
            let full = segment.length() >= self.rotation.bytes || since.elapsed() >= self.rotation.interval;
            if !full && !segment.is_broken() {
                return Ok(Arc::clone(segment));
            }
        }
        self.current = None;
        let (segment, n) = self.folder.create(self.epoch, self.next, self.extension).await?;
        self.next = n + 1;
        let segment = Arc::new(segment);
        self.current = Some((Arc::clone(&segment), Instant::now()));
        Ok(segment)
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<Delivery> {
        let (lines, rejected) = lines(&self.encoder, &batch)?;
        if lines.is_empty() {
            return Ok(Box::pin(async move { Ok(rejected) }));
        }
        let segment = self.segment().await?;
        let end = segment.append(lines).await?;
        Ok(Box::pin(async move {
            segment.durable(end).await?;
            Ok(rejected)
        }))
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The lines of a batch, and the rows that cannot be one.
fn lines(encoder: &MessageEncoder, batch: &Batch) -> Result<(Vec<u8>, Vec<Rejected>)> {
    let encoded = encoder.encode(batch).map_err(|e| Error::new(ErrorKind::Bug, e.to_string()))?;
    let refuse = |row, reason: String| Rejected { row, error: Error::new(ErrorKind::Rejected, reason) };
    let mut rejected: Vec<Rejected> = encoded.refused.into_iter().map(|r| refuse(r.row, r.reason)).collect();
    let mut lines = Vec::with_capacity(encoded.messages.iter().map(|m| m.value.len() + 1).sum());
    for message in encoded.messages {
        if message.value.contains(&b'\n') {
            rejected.push(refuse(
                message.row,
                "a payload with a newline cannot be one line of a file".to_owned(),
            ));
            continue;
        }
        lines.extend_from_slice(&message.value);
        lines.push(b'\n');
    }
    Ok((lines, rejected))
}

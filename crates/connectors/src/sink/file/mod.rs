//! Files as a destination: lines on a file system that the worker sees, one folder per split.
//!
//! ```sql
//! CREATE SINK clicks_log FROM clicks WITH (connector = 'file', path = '/var/lib/clicks');
//! ```
//!
//! * `{path}/{sink}/{split}/{epoch}-{n}.jsonl`: one JSON object a line (`.txt` with `ENCODE BYTES`, whose payloads are
//!   written as they are; one that holds a newline is refused, since it could not be read back). Epochs and numbers have
//!   leading zeros: read in the order of their names, the files of a split are the split in its order (`ordered`).
//! * At least once. A delivery resolves when the bytes and the names that lead to them are on the disk (`fsync`); deliveries
//!   that wait at the same time share one.
//! * A file is closed, and the next one begun, when it reaches `rotate.bytes` or is older than `rotate.interval`.
//! * A crash may leave a last line without its newline: it was never delivered. A new run never appends to an old file, so
//!   readers skip a line without newline and lose nothing.
//! * A full disk is waited out and named in `status`; what was half written is cut off first.
//! * A path that is not shared between workers ends up with each split where it was written.

mod client;
mod config;
mod writer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use connector::{
    BatchLimits, Capability, DistributionKind, Error, ErrorKind, KeyRule, OptionError, Registry, Result, Run,
    Sink, SinkKind, SinkWriter,
};
use formats::MessageEncoder;
use model::{Encode, Format, Options, SinkSpec, TaskId};

use self::{
    client::{Folder, Threads},
    config::Config,
    writer::Writer,
};
use super::with_json;

/// The value of `connector`.
pub const NAME: &str = "file";

/// Adds the sink to the registry.
pub fn register(registry: &mut Registry) {
    registry.add_sink(SinkKind {
        name: NAME,
        options: config::OPTIONS,
        formats: &[(Format::Plain, Encode::Json), (Format::Plain, Encode::Bytes)],
        format_required: false,
        key: KeyRule::Optional,
        distributions: DistributionKind::ALL,
        limits: BatchLimits { rows: 10_000, bytes: 4 << 20, linger: Duration::from_millis(50) },
        build: Arc::new(build),
    });
}

fn build(spec: &SinkSpec, options: &Options) -> Result<Arc<dyn Sink>, OptionError> {
    let config = Config::read(options)?;
    let spec = with_json(spec);
    MessageEncoder::new(&spec).map_err(|e| OptionError::config(e.to_string()))?;
    Ok(Arc::new(File { config, spec, threads: Threads::of_a_sink() }))
}

struct File {
    config: Config,
    spec: SinkSpec,
    threads: Threads,
}

#[async_trait]
impl Sink for File {
    fn capability(&self) -> Capability {
        Capability { ordered: true, ..Capability::default() }
    }

    async fn validate(&self) -> Result<()> {
        client::probe(self.config.path.clone(), &self.threads).await
    }

    async fn open(&self, task: &TaskId, run: &Run) -> Result<Box<dyn SinkWriter>> {
        let encoder =
            MessageEncoder::new(&self.spec).map_err(|e| Error::new(ErrorKind::Config, e.to_string()))?;
        let lines = self.spec.format.as_ref().is_none_or(|f| f.encode == Encode::Json);
        let extension = if lines { "jsonl" } else { "txt" };
        let folder = Folder::new(&self.config.path, &self.spec.name, &task.work.to_string(), &self.threads);
        Ok(Box::new(Writer::new(folder, run.epoch, extension, encoder, self.config.rotation)))
    }
}

//! A destination in this process's memory, for tests: what was delivered can be read, and it can be told to fail.
//!
//! ```sql
//! CREATE SINK seen FROM clicks WITH (connector = 'memory', name = 'seen');
//! ```
//!
//! * Not among the built-in connectors: tests register it themselves. It keeps everything until it is cleared.
//! * Sinks of one `name` (default: the sink's) share one [`Memory`], which [`Memory::named`] finds.

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

pub use self::client::{Fault, Memory, Stored};
use self::{config::Config, writer::Writer};
use super::with_json;

/// The value of `connector`.
pub const NAME: &str = "memory";

/// Adds the sink to the registry.
pub fn register(registry: &mut Registry) {
    registry.add_sink(SinkKind {
        name: NAME,
        options: config::OPTIONS,
        formats: &[(Format::Plain, Encode::Json), (Format::Plain, Encode::Bytes)],
        format_required: false,
        key: KeyRule::Optional,
        distributions: DistributionKind::ALL,
        limits: BatchLimits { rows: 500, bytes: 1 << 20, linger: Duration::from_millis(5) },
        build: Arc::new(build),
    });
}

fn build(spec: &SinkSpec, options: &Options) -> Result<Arc<dyn Sink>, OptionError> {
    let config = Config::read(options)?;
    let spec = with_json(spec);
    MessageEncoder::new(&spec).map_err(|e| OptionError::config(e.to_string()))?;
    let memory = Memory::named(config.name.as_deref().unwrap_or(&spec.name));
    Ok(Arc::new(InMemory { memory, spec }))
}

struct InMemory {
    memory: Arc<Memory>,
    spec: SinkSpec,
}

#[async_trait]
impl Sink for InMemory {
    fn capability(&self) -> Capability {
        Capability { ordered: true, ..Capability::default() }
    }

    async fn validate(&self) -> Result<()> {
        self.memory.reach()
    }

    async fn open(&self, task: &TaskId, run: &Run) -> Result<Box<dyn SinkWriter>> {
        let encoder =
            MessageEncoder::new(&self.spec).map_err(|e| Error::new(ErrorKind::Config, e.to_string()))?;
        Ok(Box::new(Writer::new(Arc::clone(&self.memory), task.work.clone(), run.epoch, encoder)))
    }
}

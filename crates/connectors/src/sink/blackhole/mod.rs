//! A destination that forgets: for measuring everything before it, and for reading a stream without keeping it.
//!
//! ```sql
//! CREATE SINK nowhere FROM clicks WITH (connector = 'blackhole');
//! ```
//!
//! * Rows are counted (`blackhole_rows`, by sink). With a `FORMAT` clause they are encoded first and their bytes are counted
//!   too (`blackhole_bytes`), so that the price of encoding can be seen.
//! * Two files: there is nothing to configure and nobody to talk to.

mod writer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use connector::{
    BatchLimits, Capability, DistributionKind, Error, ErrorKind, KeyRule, OptionError, Reader, Registry,
    Result, Run, Sink, SinkKind, SinkWriter,
};
use formats::MessageEncoder;
use model::{Encode, Format, Options, SinkSpec, TaskId};

use self::writer::Writer;

/// The value of `connector`.
pub const NAME: &str = "blackhole";

/// Adds the sink to the registry.
pub fn register(registry: &mut Registry) {
    registry.add_sink(SinkKind {
        name: NAME,
        options: &[],
        formats: &[(Format::Plain, Encode::Json), (Format::Plain, Encode::Bytes)],
        format_required: false,
        key: KeyRule::Optional,
        distributions: DistributionKind::ALL,
        limits: BatchLimits { rows: 10_000, bytes: 4 << 20, linger: Duration::ZERO },
        build: Arc::new(build),
    });
}

fn build(spec: &SinkSpec, options: &Options) -> Result<Arc<dyn Sink>, OptionError> {
    Reader::new(options, &[])?;
    let blackhole = Blackhole { spec: spec.clone() };
    blackhole.encoder().map_err(|e| OptionError::config(e.to_string()))?;
    Ok(Arc::new(blackhole))
}

struct Blackhole {
    spec: SinkSpec,
}

impl Blackhole {
    fn encoder(&self) -> Result<Option<MessageEncoder>, formats::FormatError> {
        self.spec.format.as_ref().map(|_| MessageEncoder::new(&self.spec)).transpose()
    }
}

#[async_trait]
impl Sink for Blackhole {
    fn capability(&self) -> Capability {
        Capability { ordered: true, ..Capability::default() }
    }

    async fn validate(&self) -> Result<()> {
        Ok(())
    }

    async fn open(&self, _: &TaskId, _: &Run) -> Result<Box<dyn SinkWriter>> {
        let encoder = self.encoder().map_err(|e| Error::new(ErrorKind::Config, e.to_string()))?;
        Ok(Box::new(Writer::new(&self.spec.name, encoder)))
    }
}

//! The destination of the simulation: a sink kind `ledger`, a server that keeps every row it is sent and can be told to fail
//! ([`Server`]), and what can be said of the rows at the end ([`audit`]).
//!
//! ```sql
//! CREATE SINK seen FROM clicks WITH (connector = 'ledger', name = 'a', primary_key = 'k');
//! ```
//!
//! * Rows leave as JSON and carry their key in `k` and their number within the key in `n`; dead letters carry neither.
//! * A request takes the rows of one key in order and stops at the first that fails. With `piecemeal = 'true'` it may take a row
//!   and not an earlier one, as `PutRecords` does.

mod audit;
mod fault;
mod keep;
mod server;
mod story;
mod writer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use connector::{
    BatchLimits, Capability, DistributionKind, Error, ErrorKind, KeyRule, OptionDef, OptionError, OptionKind,
    Reader, Registry, Result, Run, Sink, SinkKind, SinkWriter,
};
use formats::MessageEncoder;
use model::{Encode, Format, FormatClause, Options, SinkSpec, TaskId};

pub use self::{
    audit::{Records, Report, Rewind, audit, audit_found},
    keep::{Arrival, Kept, record},
    server::Server,
};
use self::{server::Origin, writer::Writer};
use crate::place::Place;

/// The value of `connector`.
pub const NAME: &str = "ledger";

/// Small, so that a few hundred rows a second make several requests at a time.
const LIMITS: BatchLimits = BatchLimits { rows: 25, bytes: 64 << 10, linger: Duration::from_millis(5) };

const OPTIONS: &[OptionDef] =
    &[OptionDef::new("name", OptionKind::Text), OptionDef::new("piecemeal", OptionKind::Boolean)];

/// Adds the sink to the registry of the process at `place`.
pub fn register(registry: &mut Registry, server: &Server, place: Place) {
    let server = server.clone();
    registry.add_sink(SinkKind {
        name: NAME,
        options: OPTIONS,
        formats: &[(Format::Plain, Encode::Json)],
        format_required: false,
        key: KeyRule::Optional,
        distributions: DistributionKind::ALL,
        limits: LIMITS,
        build: Arc::new(move |spec, options| build(server.clone(), place, spec, options)),
    });
}

fn build(
    server: Server,
    place: Place,
    spec: &SinkSpec,
    options: &Options,
) -> Result<Arc<dyn Sink>, OptionError> {
    let mut reader = Reader::new(options, OPTIONS)?;
    let name = reader.text("name")?.unwrap_or_else(|| spec.name.clone());
    let piecemeal = reader.boolean("piecemeal")?.unwrap_or(false);
    let mut spec = spec.clone();
    spec.format.get_or_insert_with(|| FormatClause {
        format: Format::Plain,
        encode: Encode::Json,
        options: Options::default(),
        key_encode: None,
    });
    MessageEncoder::new(&spec).map_err(|e| OptionError::config(e.to_string()))?;
    Ok(Arc::new(Ledger { server, place, name: name.into(), piecemeal, spec }))
}

struct Ledger {
    server: Server,
    place: Place,
    /// Of the destination.
    name: Arc<str>,
    piecemeal: bool,
    spec: SinkSpec,
}

#[async_trait]
impl Sink for Ledger {
    fn capability(&self) -> Capability {
        Capability { ordered: true, piecemeal: self.piecemeal, ..Capability::default() }
    }

    async fn validate(&self) -> Result<()> {
        self.server.reach(self.place).await
    }

    async fn open(&self, task: &TaskId, run: &Run) -> Result<Box<dyn SinkWriter>> {
        let encoder =
            MessageEncoder::new(&self.spec).map_err(|e| Error::new(ErrorKind::Config, e.to_string()))?;
        let origin = Origin {
            name: Arc::clone(&self.name),
            piecemeal: self.piecemeal,
            worker: self.place,
            task: task.clone(),
            epoch: run.epoch,
        };
        Ok(Box::new(Writer::new(self.server.clone(), origin, encoder)))
    }
}

#[cfg(test)]
mod tests;

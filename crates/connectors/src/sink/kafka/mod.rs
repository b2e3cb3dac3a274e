//! Apache Kafka as a destination.
//!
//! ```sql
//! CREATE SINK clicks_topic FROM clicks
//! WITH (connector = 'kafka', properties.bootstrap.server = '127.0.0.1:9092', topic = 'clicks', primary_key = 'id')
//! FORMAT PLAIN ENCODE JSON KEY ENCODE TEXT;
//! ```
//!
//! * At least once, in the order of each key (`ordered`): the producer is idempotent and waits for all replicas
//!   (`acks = all`). Without `primary_key` messages have no key and go to any partition: then there is no order to keep.
//! * The partition of a key is the one that Java clients choose (`murmur2`).
//! * Headers say where a message comes from: `shardwright-split` and `shardwright-sequence-number`. Who must not see a
//!   record twice can drop what is not beyond the largest number seen of its split *and key*: keys overtake each other. A
//!   number may be `N:sub` (a record inside an aggregate); `N` alone is the last of that aggregate, so it comes after them.
//!   A partition of `distribution = 'key(n)'` has rows of many splits: its messages have the number only, and no such rule.
//! * Of a batch that is traced (`telemetry.trace_ratio`) each message also has `traceparent`, of the request that sent it.
//! * One producer serves all tasks of a sink in a worker. A write that is not answered in time, or that nobody waits for any
//!   more, purges it: what is not yet on the wire never lands later. The next write makes it anew.
//! * `properties.message.timeout.ms` is at most the cluster's attempt timeout (5 s); retries beyond it are the worker's, for
//!   as long as it takes, so `properties.retry.max` and `properties.retry.interval` are accepted and change nothing.
//! * Not built in: GSSAPI and OAUTHBEARER.

mod client;
mod config;
mod credential;
mod notices;
mod reports;
mod writer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use connector::{
    BatchLimits, Capability, DistributionKind, Error, ErrorKind, KeyRule, OptionError, Registry, Result, Run,
    Sink, SinkKind, SinkWriter,
};
use formats::MessageEncoder;
use model::{Encode, Format, Options, SinkSpec, TaskId};

use self::{client::Client, config::Config, writer::Writer};
use super::with_json;

/// The value of `connector`.
pub const NAME: &str = "kafka";

/// Adds the sink to the registry.
pub fn register(registry: &mut Registry) {
    credential::register(registry);
    registry.add_sink(SinkKind {
        name: NAME,
        options: config::OPTIONS,
        formats: &[(Format::Plain, Encode::Json), (Format::Plain, Encode::Bytes)],
        format_required: true,
        key: KeyRule::Optional,
        distributions: DistributionKind::ALL,
        limits: BatchLimits { rows: 5_000, bytes: 4 << 20, linger: Duration::from_millis(10) },
        build: Arc::new(build),
    });
}

fn build(spec: &SinkSpec, options: &Options) -> Result<Arc<dyn Sink>, OptionError> {
    let config = Config::read(options)?;
    let spec = with_json(spec);
    MessageEncoder::new(&spec).map_err(|e| OptionError::config(e.to_string()))?;
    Ok(Arc::new(Kafka { client: Arc::new(Client::new(config, &spec.name)), spec }))
}

struct Kafka {
    client: Arc<Client>,
    spec: SinkSpec,
}

#[async_trait]
impl Sink for Kafka {
    fn capability(&self) -> Capability {
        Capability { ordered: true, ..Capability::default() }
    }

    async fn validate(&self) -> Result<()> {
        self.client.reach().await
    }

    async fn open(&self, task: &TaskId, _: &Run) -> Result<Box<dyn SinkWriter>> {
        let encoder =
            MessageEncoder::new(&self.spec).map_err(|e| Error::new(ErrorKind::Config, e.to_string()))?;
        Ok(Box::new(Writer::new(Arc::clone(&self.client), &task.work, encoder)))
    }
}

//! Amazon Kinesis Data Streams as a destination.
//!
//! ```sql
//! CREATE SINK clicks_out FROM clicks
//! WITH (connector = 'kinesis', stream = 'out', aws.region = 'eu-west-1', primary_key = 'id',
//!       aws.credentials.access_key_id = '…', aws.credentials.secret_access_key = '…')
//! FORMAT PLAIN ENCODE JSON KEY ENCODE TEXT;
//! ```
//!
//! * At least once, in the order of each key (`ordered`): `PutRecords` tells of each record what came of it, and only what was
//!   not stored is sent again.
//! * The partition key is the encoded `primary_key`: JSON, or the bare text of one column with `KEY ENCODE TEXT`. It has
//!   1…256 characters; a row whose key has not is refused, never cut or hashed.
//! * A record may be as large as the stream allows (asked once); a larger one is refused by itself and spoils no other.
//! * Throttling, internal failures and KMS trouble are waited out, however long.

mod client;
mod config;
mod writer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_kinesis::config::SharedHttpClient;
use connector::{
    BatchLimits, Capability, DistributionKind, Error, ErrorKind, KeyRule, OptionError, Registry, Result, Run,
    Sink, SinkKind, SinkWriter,
};
use formats::MessageEncoder;
use model::{Encode, Format, Options, SinkSpec, TaskId};

use self::{client::Client, config::Config, writer::Writer};

/// The value of `connector`.
pub const NAME: &str = "kinesis";

/// Adds the sink to the registry.
pub fn register(registry: &mut Registry) {
    register_over(registry, None);
}

/// Adds the sink to the registry; with `http`, every call to AWS goes through it and nothing is read from the environment of
/// the process if keys are given.
pub fn register_over(registry: &mut Registry, http: Option<SharedHttpClient>) {
    registry.add_sink(SinkKind {
        name: NAME,
        options: &config::OPTIONS,
        formats: &[(Format::Plain, Encode::Json), (Format::Plain, Encode::Bytes)],
        format_required: true,
        key: KeyRule::Required("kinesis sink requires partition key (please define in `primary_key` field)"),
        distributions: DistributionKind::ALL,
        limits: BatchLimits {
            rows: writer::REQUEST_RECORDS,
            bytes: writer::REQUEST_BYTES,
            linger: Duration::from_millis(50),
        },
        build: Arc::new(move |spec: &SinkSpec, options: &Options| build(spec, options, http.clone())),
    });
}

fn build(
    spec: &SinkSpec,
    options: &Options,
    http: Option<SharedHttpClient>,
) -> Result<Arc<dyn Sink>, OptionError> {
    let config = Config::read(options)?;
    // An encoder is made here once, so that a clause that cannot be carried out is refused before anything runs.
    MessageEncoder::new(spec).map_err(|e| OptionError::config(e.to_string()))?;
    let shared =
        Shared { client: Client::new(&config, http), attempt: config.attempt, sink: spec.name.clone() };
    Ok(Arc::new(Kinesis { shared: Arc::new(shared), spec: spec.clone() }))
}

/// What the writers of a sink share.
struct Shared {
    client: Client,
    attempt: Duration,
    sink: String,
}

struct Kinesis {
    shared: Arc<Shared>,
    spec: SinkSpec,
}

#[async_trait]
impl Sink for Kinesis {
    fn capability(&self) -> Capability {
        Capability { ordered: true, piecemeal: true, ..Capability::default() }
    }

    async fn validate(&self) -> Result<()> {
        self.shared.client.reach().await
    }

    async fn open(&self, _: &TaskId, _: &Run) -> Result<Box<dyn SinkWriter>> {
        let encoder =
            MessageEncoder::new(&self.spec).map_err(|e| Error::new(ErrorKind::Config, e.to_string()))?;
        let record_max = self.shared.client.record_max().await;
        Ok(Box::new(Writer { shared: Arc::clone(&self.shared), encoder, record_max }))
    }
}

//! A registry whose connectors have the options of real ones and do nothing, and a source `s` to bind sinks to.

use std::sync::Arc;

use async_trait::async_trait;
use connector::{
    BatchLimits, Capability, CredentialKind, DistributionKind, Error, ErrorKind, KeyRule, Listing, OptionDef,
    OptionKind, Part, Reader, Registry, Result, Run, Sink, SinkKind, SinkWriter, Source, SourceKind,
    SplitReader,
};
use model::{Encode, Format, IncludeKind, Options, Position, SinkSpec, SourceSpec, SplitId, Start, TaskId};
use shardwright_sql as sql;
use sql::{BoundSink, BoundSource, Statement};

const KINESIS: &[OptionDef] = &[
    OptionDef::new("stream", OptionKind::Text).aliases(&["kinesis.stream.name"]),
    OptionDef::new("aws.region", OptionKind::Text).aliases(&["region"]),
    OptionDef::new("endpoint", OptionKind::Text),
    OptionDef::new("aws.credentials.access_key_id", OptionKind::Text),
    OptionDef::secret("aws.credentials.secret_access_key"),
    OptionDef::secret("aws.credentials.session_token"),
    OptionDef::new("scan.startup.mode", OptionKind::Text),
    OptionDef::new("validate", OptionKind::Boolean),
];

const LIMITS: BatchLimits = BatchLimits { rows: 500, bytes: 1 << 20, linger: std::time::Duration::ZERO };

struct Nothing;

fn nothing<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unavailable, "a fake has nothing"))
}

#[async_trait]
impl Source for Nothing {
    async fn start(&self) -> Result<Start> {
        nothing()
    }
    async fn discover(&self) -> Result<Listing> {
        nothing()
    }
    async fn is_gone(&self, _: &SplitId) -> Result<bool> {
        nothing()
    }
    async fn open(&self, _: &SplitId, _: &Position) -> Result<Box<dyn SplitReader>> {
        nothing()
    }
    fn share(&self, _: &SplitId, _: u32) {}
}

#[async_trait]
impl Sink for Nothing {
    fn capability(&self) -> Capability {
        Capability::default()
    }
    async fn validate(&self) -> Result<()> {
        nothing()
    }
    async fn open(&self, _: &TaskId, _: &Run) -> Result<Box<dyn SinkWriter>> {
        nothing()
    }
}

const ACCESS_KEY: CredentialKind = CredentialKind {
    name: "aws_access_key",
    connectors: &["kinesis"],
    parts: &[
        Part::identity("aws.credentials.access_key_id", true),
        Part::secret("aws.credentials.secret_access_key", true),
        Part::option(OptionDef::secret("session_token"), "aws.credentials.session_token"),
        Part::option(OptionDef::new("tenant id", OptionKind::OneOf(&["a", "b"])), "endpoint"),
    ],
    excludes: &[],
    family: "aws.credentials.*",
    finish: |_, _| Ok(()),
};

/// `kinesis` as a source, `kinesis` and `void` as sinks.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add_credential(ACCESS_KEY);
    registry.add_source(SourceKind {
        name: "kinesis",
        options: KINESIS,
        formats: &[(Format::Plain, Encode::Json), (Format::Plain, Encode::Bytes)],
        include: &[
            (IncludeKind::Key, "_rw_kinesis_key"),
            (IncludeKind::Partition, "_rw_kinesis_partition"),
            (IncludeKind::Offset, "_rw_kinesis_offset"),
            (IncludeKind::Timestamp, "_rw_kinesis_timestamp"),
            (IncludeKind::Payload, "_rw_kinesis_payload"),
        ],
        build: Arc::new(|spec: &SourceSpec| {
            Reader::new(&spec.options, KINESIS)?.required("stream")?;
            Ok(Arc::new(Nothing))
        }),
    });
    registry.add_sink(SinkKind {
        name: "kinesis",
        options: KINESIS,
        formats: &[(Format::Plain, Encode::Json), (Format::Plain, Encode::Bytes)],
        format_required: true,
        key: KeyRule::Required("kinesis sink requires partition key (please define in `primary_key` field)"),
        distributions: DistributionKind::ALL,
        limits: LIMITS,
        build: Arc::new(|_: &SinkSpec, own: &Options| {
            Reader::new(own, KINESIS)?.required("stream")?;
            Ok(Arc::new(Nothing))
        }),
    });
    registry.add_sink(SinkKind {
        name: "void",
        options: &[],
        formats: &[],
        format_required: false,
        key: KeyRule::Optional,
        distributions: &[DistributionKind::Split],
        limits: LIMITS,
        build: Arc::new(|_: &SinkSpec, own: &Options| {
            Reader::new(own, &[])?;
            Ok(Arc::new(Nothing))
        }),
    });
    registry
}

/// What a statement was bound to.
pub enum Bound {
    Source(Box<BoundSource>),
    Sink(Box<BoundSink>),
}

/// The source that sinks are bound to.
pub fn source() -> SourceSpec {
    let text = "create source s (id int, name varchar, v_bytea bytea) with (connector='kinesis', stream='in', \
                aws.region='us-east-1') format plain encode json";
    match bind(text) {
        Ok(Bound::Source(bound)) => bound.spec,
        Ok(Bound::Sink(_)) => unreachable!("a source is a source"),
        Err(error) => panic!("{error}"),
    }
}

/// Parses and binds one `CREATE SOURCE`.
pub fn bind(text: &str) -> sql::Result<Bound> {
    bind_statement(sql::parse(text)?.remove(0).statement, None)
}

/// Parses and binds one `CREATE`; sinks are bound to [`source`].
pub fn bind_with_source(text: &str) -> sql::Result<Bound> {
    bind_statement(sql::parse(text)?.remove(0).statement, Some(&source()))
}

fn bind_statement(statement: Statement, source: Option<&SourceSpec>) -> sql::Result<Bound> {
    match (statement, source) {
        (Statement::CreateSource(create), _) => {
            sql::bind_source(&create, &registry()).map(|bound| Bound::Source(Box::new(bound)))
        }
        (Statement::CreateSink(create), Some(source)) => {
            sql::bind_sink(&create, &registry(), source).map(|bound| Bound::Sink(Box::new(bound)))
        }
        (other, _) => panic!("{other:?}"),
    }
}

//! The Kinesis source and sink against an emulated service (ferrokinesis, in this process), and against a service that
//! misbehaves on purpose ([`fake`]).

#![allow(clippy::unwrap_used)]

mod credentials;
mod fake;
mod fanout;
mod over;
mod server;
mod signature;
mod sink;
mod source;
mod storm;
mod trouble;

use std::{sync::Arc, time::Duration};

use connector::{Polled, Registry, Sink, SinkCommon, Source, SplitReader};
use model::{
    Column, Creation, Encode, Format, FormatClause, ObjectId, OnError, Options, RawRecord, SinkSpec,
    SourceSpec, SqlType, Start, StartFrom, Timestamp,
};

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(30);

fn registry() -> Registry {
    rustls_ready();
    let mut registry = Registry::new();
    shardwright_connectors::source::kinesis::register(&mut registry);
    shardwright_connectors::sink::kinesis::register(&mut registry);
    registry
}

fn rustls_ready() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
}

/// Options of a stream at `endpoint`; later pairs replace earlier ones, an empty value takes one out.
fn options(endpoint: &str, stream: &str, more: &[(&str, &str)]) -> Options {
    let mut options: Options = [
        ("stream", stream),
        ("aws.region", "us-east-1"),
        ("endpoint", endpoint),
        ("aws.credentials.access_key_id", "AKIATEST"),
        ("aws.credentials.secret_access_key", "secret"),
    ]
    .into_iter()
    .collect();
    for (name, value) in more {
        options.remove(name);
        if !value.is_empty() {
            options.insert(*name, *value);
        }
    }
    options
}

fn clause(encode: Encode, key_encode: Option<Encode>) -> FormatClause {
    FormatClause { format: Format::Plain, encode, options: Options::default(), key_encode }
}

fn source_of(options: Options) -> Arc<dyn Source> {
    registry().build_source(&source_spec(options)).expect("the options are right")
}

fn source_spec(options: Options) -> SourceSpec {
    SourceSpec {
        id: ObjectId::from_parts(1, 1),
        name: "clicks".into(),
        connector: "kinesis".into(),
        options,
        columns: vec![Column { name: "data".into(), kind: SqlType::Bytea }],
        include: Vec::new(),
        primary_key: Vec::new(),
        format: clause(Encode::Bytes, None),
        on_error: OnError::Skip,
        start: Start::all(StartFrom::Horizon),
        creation: Creation(0),
        created_at: Timestamp(0),
        revision: 1,
    }
}

/// A fast source: the quota of a real shard would make the tests wait.
fn fast_source(endpoint: &str, stream: &str, more: &[(&str, &str)]) -> Arc<dyn Source> {
    let fast = [("kinesis.shard.reads_per_second", "200"), ("kinesis.reader.eof_retry_interval_ms", "20")];
    source_of(options(endpoint, stream, &[&fast, more].concat()))
}

fn sink_spec(options: Options) -> SinkSpec {
    SinkSpec {
        id: ObjectId::from_parts(1, 2),
        name: "out".into(),
        source: ObjectId::from_parts(1, 1),
        source_name: "clicks".into(),
        query: None,
        columns: vec![
            Column { name: "id".into(), kind: SqlType::Varchar },
            Column { name: "n".into(), kind: SqlType::Bigint },
        ],
        connector: "kinesis".into(),
        options,
        primary_key: vec!["id".into()],
        format: Some(clause(Encode::Json, Some(Encode::Text))),
        on_error: OnError::Fail,
        distribution: model::Distribution::Split,
        paused: false,
        created_at: Timestamp(0),
        revision: 1,
        instance: 0,
    }
}

fn sink_of(options: Options) -> (Arc<dyn Sink>, SinkCommon) {
    registry().build_sink(&sink_spec(options)).expect("the options are right")
}

/// The records of one answer; empty for `Idle`.
fn records(polled: Polled) -> Vec<RawRecord> {
    match polled {
        Polled::Records { records, .. } => records,
        Polled::Idle { .. } => Vec::new(),
        Polled::End => panic!("the shard ended too early"),
    }
}

async fn read(reader: &mut dyn SplitReader, n: usize) -> Vec<RawRecord> {
    let reading = async {
        let mut got = Vec::new();
        while got.len() < n {
            got.extend(records(reader.next().await.expect("reads")));
        }
        got
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("records in time")
}

fn texts(records: &[RawRecord]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8_lossy(&r.payload).into_owned()).collect()
}

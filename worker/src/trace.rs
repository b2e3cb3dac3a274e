//! The spans of a batch, by the semantic conventions of OpenTelemetry for messaging:
//!
//! ```text
//! process SOURCE                    from the read to the checkpoint
//! ├─ receive SOURCE                 the read (that of several sinks, where they read together)
//! ├─ decode                         rows, `SELECT … WHERE`
//! ├─ send SINK                      each request that has rows of it; what a destination is told to go on with
//! ├─ send partition n               to another run, perhaps of another worker
//! │  └─ process partition n ── send SINK
//! └─ settle SOURCE                  from the last ack to the word that the position is durable
//!    └─ checkpoint                  the leader's transaction
//! ```
//!
//! Called by the rooms through which a batch passes. Where nothing is sampled there is no span, and nothing is made for one.

use std::{collections::VecDeque, time::SystemTime};

use daemon::trace::{Span, SpanKind, What};
use model::Options;
use opentelemetry::KeyValue;
use proto::v1;

use crate::{
    reading::Piece,
    task::{Job, Tenure},
};

/// Batches of a run that wait for a checkpoint and have a span; of more, the oldest are not waited for.
const SETTLING_MAX: usize = 64;

/// A batch begins with the read that brought it.
pub(crate) fn begin(job: &Job, piece: &Piece) -> Option<Span> {
    let (began, arrived) = piece.read?;
    let spec = &job.source.spec;
    let source = messaging(&spec.connector, &spec.options);
    let common = || source.iter().cloned().chain([count(piece.records.len())]);
    let process = || {
        let own = [
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.destination.partition.id", job.split.to_string()),
            KeyValue::new("shardwright.source", spec.name.clone()),
            KeyValue::new("shardwright.sink", job.sink.spec.name.clone()),
            KeyValue::new("shardwright.epoch", job.epoch.to_string()),
        ];
        What::new(format!("process {}", spec.name), SpanKind::Consumer).since(began).with(common().chain(own))
    };
    let span = Span::root(process)?;
    let receive = [
        KeyValue::new("messaging.operation.type", "receive"),
        KeyValue::new("messaging.operation.name", "receive"),
    ];
    let receive = What::new(format!("receive {}", spec.name), SpanKind::Client)
        .since(began)
        .with(common().chain(receive));
    span.child(receive).into_iter().for_each(|read| read.end_at(arrived));
    Some(span)
}

/// When a read began, if anybody wants to know.
pub(crate) fn reading() -> Option<SystemTime> {
    daemon::trace::is_on().then(SystemTime::now)
}

/// Making rows of a batch.
pub(crate) fn decoding(batch: Option<&Span>) -> Option<Span> {
    batch?.child(What::new("decode", SpanKind::Internal))
}

/// A request to the destination, with rows of these batches.
pub(crate) fn sending(tenure: &Tenure, batches: &[Span], rows: usize) -> Option<Span> {
    let (first, others) = batches.split_first()?;
    let spec = &tenure.sink.spec;
    let what = What::new(format!("send {}", spec.name), SpanKind::Producer).beside(others).with(
        messaging(&spec.connector, &spec.options).into_iter().chain([
            count(rows),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.operation.name", "send"),
            KeyValue::new("shardwright.sink", spec.name.clone()),
        ]),
    );
    first.child(what)
}

/// Rows of a batch on their way to a partition.
pub(crate) fn handing_on(batch: &Span, partition: u32, rows: usize) -> Option<Span> {
    batch.child(What::new(format!("send partition {partition}"), SpanKind::Producer).with([count(rows)]))
}

/// Rows that came to a partition.
pub(crate) fn taken_in(tenure: &Tenure, traceparent: &str, rows: usize) -> Option<Span> {
    let what = || {
        What::new(format!("process {}", tenure.task.work), SpanKind::Consumer).with([
            count(rows),
            KeyValue::new("shardwright.sink", tenure.sink.spec.name.clone()),
            KeyValue::new("shardwright.epoch", tenure.epoch.to_string()),
        ])
    };
    Span::of_remote(traceparent, what)
}

/// A call that opens a stream.
pub(crate) fn calling(method: &'static str) -> Option<Span> {
    let system = KeyValue::new("rpc.system.name", "grpc");
    Span::root(|| What::new(method, SpanKind::Client).with([system, KeyValue::new("rpc.method", method)]))
}

/// Has the call go on with its span.
pub(crate) fn along<T>(message: T, span: Option<&Span>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    span.into_iter().for_each(|span| span.inject(request.metadata_mut().as_mut()));
    request
}

fn count(rows: usize) -> KeyValue {
    KeyValue::new("messaging.batch.message_count", i64::try_from(rows).unwrap_or(i64::MAX))
}

/// What a connector talks to, as the conventions call it.
fn messaging(connector: &str, options: &Options) -> Vec<KeyValue> {
    let system = if connector == "kinesis" { "aws_kinesis" } else { connector };
    let destination = ["stream", "topic"].iter().find_map(|name| options.get(name));
    let destination = destination.map(|name| KeyValue::new("messaging.destination.name", name.to_owned()));
    [KeyValue::new("messaging.system", system.to_owned())].into_iter().chain(destination).collect()
}

/// The batches of a run that are delivered and whose checkpoint is not known to be durable.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    reached: Vec<[Option<Span>; 2]>,
    sent: VecDeque<(u64, [Option<Span>; 2])>,
}

impl Settling {
    /// All of these batches is delivered.
    pub(crate) fn reached(&mut self, batches: Vec<Span>) {
        for batch in batches.into_iter().take(SETTLING_MAX) {
            let what = What::new("settle", SpanKind::Client)
                .with([KeyValue::new("messaging.operation.type", "settle")]);
            self.reached.push([batch.child(what), Some(batch)]);
        }
    }

    /// A position goes to the leader. Those before it go along.
    pub(crate) fn sent(&mut self, message: &mut v1::TaskProgress) {
        let newest = self.sent.back().map_or(0, |(serial, _)| *serial);
        if message.serial > newest {
            self.sent.extend(self.reached.drain(..).map(|batch| (message.serial, batch)));
        }
        while self.sent.len() > SETTLING_MAX {
            self.sent.pop_front();
        }
        if let Some((_, [Some(settle), _])) = self.sent.back() {
            message.traceparent = settle.traceparent();
        }
    }

    /// Everything up to this position is durable.
    pub(crate) fn committed(&mut self, serial: u64) {
        while let Some((_, batch)) = self.sent.pop_front_if(|(of, _)| *of <= serial) {
            batch.into_iter().flatten().for_each(|span| span.end());
        }
    }
}

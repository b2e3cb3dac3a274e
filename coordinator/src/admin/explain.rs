//! `EXPLAIN CREATE SINK`: what the sink would be, without creating it and without asking the outside.

use std::time::Duration;

use connector::{Ordering, Takeover};
use model::{Distribution, Encode, SinkSpec};
use sql::{BoundSink, CreateSink};

use crate::handle::{Handle, Leader};

use super::{create::bind_sink, refuse::Refusal, replace, statement::Answer};

/// `EXPLAIN CREATE SINK …`
pub(super) fn sink(handle: &Handle, leader: &Leader, create: &CreateSink) -> Result<Answer, Refusal> {
    let (bound, _) = bind_sink(leader, create)?;
    let spec = &bound.spec;
    let source = leader.status().sources.into_iter().find(|s| s.name == spec.source_name);
    let splits = source.as_ref().map_or(0, |s| s.splits_open + s.splits_closed);
    let connector = source.map(|s| s.connector).unwrap_or_default();
    let read = match &bound.projection {
        Some(projection) => projection.inputs().join(", "),
        None => spec.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>().join(", "),
    };
    let timing = &handle.config().timing;
    let rows = [
        ("source", format!("{} ({connector})", spec.source_name)),
        ("columns read", read),
        ("projection", spec.query.clone().unwrap_or_else(|| format!("all columns of {}", spec.source_name))),
        ("output", sql::columns_text(&spec.columns)),
        ("key", key(spec)),
        ("format", format(spec)),
        ("destination", spec.connector.clone()),
        ("distribution", distribution(spec)),
        ("tasks now", tasks(spec, splits)),
        ("batch", batch(&bound)),
        ("guarantees", guarantees(&bound)),
        ("gate", gate(&bound, timing.write_attempt_timeout + timing.late_write_margin)),
        ("on error", format!("{:?}", spec.on_error).to_lowercase()),
    ];
    let would = create.or_replace.then(|| ("would", replace::would(leader, create)));
    let rows =
        would.into_iter().chain(rows).map(|(name, value)| vec![Some(name.to_owned()), Some(value)]).collect();
    let mut answer = Answer::rows(&[("Property", "character varying"), ("Value", "character varying")], rows);
    answer.notices = bound.notices;
    Ok(answer)
}

fn distribution(spec: &SinkSpec) -> String {
    match &spec.distribution {
        Distribution::Split => "split: the writer of a split sits beside its reader".to_owned(),
        Distribution::Key { partitions, columns } => {
            format!("key: {partitions} writers, each for the rows of its keys ({})", columns.join(", "))
        }
    }
}

fn tasks(spec: &SinkSpec, splits: u32) -> String {
    match spec.distribution.partitions() {
        0 => format!("{splits}, one per split of the source"),
        partitions => format!("{splits} that read, one per split of the source, and {partitions} that write"),
    }
}

fn key(spec: &SinkSpec) -> String {
    if spec.primary_key.is_empty() { "none".to_owned() } else { spec.primary_key.join(", ") }
}

fn format(spec: &SinkSpec) -> String {
    let word = |encode: Encode| format!("{encode:?}").to_uppercase();
    match &spec.format {
        None => "rows, as the destination takes them".to_owned(),
        Some(clause) => {
            let key = clause.key_encode.map(|key| format!(" KEY ENCODE {}", word(key))).unwrap_or_default();
            format!("PLAIN ENCODE {}{key}", word(clause.encode))
        }
    }
}

fn batch(bound: &BoundSink) -> String {
    let limits = bound.common.limits;
    format!(
        "up to {} rows or {} bytes, {} ms linger, {} in flight",
        limits.rows,
        limits.bytes,
        limits.linger.as_millis(),
        bound.common.in_flight
    )
}

fn guarantees(bound: &BoundSink) -> String {
    let can = bound.sink.capability();
    let ordered = match (can.ordered, bound.common.ordering, bound.spec.primary_key.is_empty()) {
        (true, Ordering::Key, false) => "ordered per key",
        (true, Ordering::Key, true) => "ordered per split",
        _ => "not ordered",
    };
    let mut words = vec!["at least once", ordered];
    words.extend(can.idempotent.then_some("a repeat changes nothing"));
    words.extend(can.transactional.then_some("positions are stored with the data"));
    words.extend(can.fenced.then_some("refuses old owners by itself"));
    words.join(", ")
}

fn gate(bound: &BoundSink, last_breath: Duration) -> String {
    if bound.sink.capability().fenced {
        return "none: the destination refuses an old owner".to_owned();
    }
    if bound.common.takeover == Takeover::Fast {
        return "none: takeover = 'fast', a late write of an old owner may land on top of a newer one"
            .to_owned();
    }
    format!(
        "after a lost owner the new one writes when nothing of the old one can land any more ({} s after it stopped); none \
         after an orderly handoff",
        last_breath.as_secs()
    )
}

//! A destination: says what it can do, proves that it is there, opens writers.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use model::{Batch, Epoch, OnError, Options, Position, SplitId, TaskId};

use crate::{Capability, Error, OptionDef, OptionKind, Reader, Result};

/// One run of a task, as a destination may want to know it.
#[derive(Clone, Debug)]
pub struct Run {
    /// The fencing token.
    pub epoch: Epoch,
    /// Positions that the destination remembers count only within one instance of the sink; a reset makes a new one.
    pub sink_instance: u64,
}

/// A row that the destination did not take, while others of its batch may have been taken.
#[derive(Debug)]
pub struct Rejected {
    /// Its index in the batch.
    pub row: usize,
    /// `Throttled` and `Unavailable`: send it again, later. `Rejected`: `on_error` decides. Others: as for a whole batch.
    pub error: Error,
}

/// Resolves when every row is durable, except those it names. Lazy: polled by the writer task; dropped with it.
pub type Delivery = BoxFuture<'static, Result<Vec<Rejected>>>;

/// A destination. One value serves all tasks of a sink in a process.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Its claims.
    fn capability(&self) -> Capability;
    /// The destination is reachable, the credentials suffice, the thing it writes to exists and fits.
    async fn validate(&self) -> Result<()>;
    /// A writer for one run of a task.
    async fn open(&self, task: &TaskId, run: &Run) -> Result<Box<dyn SinkWriter>>;
}

/// Writes for one run. One call of `write` is one attempt: no retry, no reordering, no batching of its own.
#[async_trait]
pub trait SinkWriter: Send {
    /// The positions that the destination itself remembers, per split; they override the checkpoints.
    async fn resume_from(&mut self) -> Result<HashMap<SplitId, Position>> {
        Ok(HashMap::new())
    }
    /// Accepts a batch within the sink's [`BatchLimits`]; waiting here is the backpressure. An error means that nothing of
    /// it was sent, unless it is `ambiguous`.
    async fn write(&mut self, batch: Batch) -> Result<Delivery>;
    /// When this returns, no delivery handed out so far waits for a further `write`.
    async fn flush(&mut self) -> Result<()>;
}

/// How large one `write` may be. The worker cuts batches by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Rows, at most.
    pub rows: usize,
    /// Bytes of columns, at most; a single larger row is sent alone.
    pub bytes: usize,
    /// How long the first row waits for company.
    pub linger: Duration,
}

/// Whether a sink of this kind needs `primary_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// It may have one.
    Optional,
    /// It must have one; the text is the error.
    Required(&'static str),
}

/// `ordering`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// Nothing after an undelivered row of the same key is sent (default). Without a key all rows of a split are one key.
    Key,
    /// Rows are sent as they come; only undelivered ones are sent again.
    None,
}

/// `takeover`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// A new owner waits until nothing of the old one can land (I11; default).
    Ordered,
    /// A new owner writes at once.
    Fast,
}

/// The options that every sink has.
#[derive(Clone, Debug)]
pub struct SinkCommon {
    /// `ordering`
    pub ordering: Ordering,
    /// `takeover`
    pub takeover: Takeover,
    /// `on_error`
    pub on_error: OnError,
    /// `dead_letter.connector` and its options.
    pub dead_letter: Option<(String, Options)>,
    /// `checkpoint_interval`
    pub checkpoint_interval: Duration,
    /// `buffer.rows`, `buffer.bytes`, `buffer.linger`, over the sink kind's own limits.
    pub limits: BatchLimits,
    /// `in_flight`
    pub in_flight: usize,
    /// `validate`
    pub validate: bool,
    /// `sink_rate_limit`, rows a second per task.
    pub rate_limit: Option<u64>,
}

/// Options common to all sinks, for `DESCRIBE`, completion and the check of unknown names.
pub const COMMON: &[OptionDef] = &[
    OptionDef::new("ordering", OptionKind::OneOf(&["key", "none"])).default("key"),
    OptionDef::new("takeover", OptionKind::OneOf(&["ordered", "fast"])).default("ordered"),
    OptionDef::new("on_error", OptionKind::OneOf(&["fail", "skip", "dead_letter"])).default("fail"),
    OptionDef::new("dead_letter.connector", OptionKind::Text),
    OptionDef::new("checkpoint_interval", OptionKind::Duration { min: Duration::from_millis(100) })
        .default("1s"),
    OptionDef::new("buffer.rows", OptionKind::Integer { min: 1, max: 1_000_000 }),
    OptionDef::new("buffer.bytes", OptionKind::Integer { min: 1, max: 1 << 30 }),
    OptionDef::new("buffer.linger", OptionKind::Duration { min: Duration::ZERO }),
    OptionDef::new("in_flight", OptionKind::Integer { min: 1, max: 256 }).default("8"),
    OptionDef::new("validate", OptionKind::Boolean).default("true"),
    OptionDef::new("sink_rate_limit", OptionKind::Integer { min: 0, max: u64::MAX }),
];

impl SinkCommon {
    /// Reads the common options and hands back the connector's own. `kind` are the limits of the sink kind: they are
    /// the defaults, and `buffer.*` may only lower `rows` and `bytes`.
    pub fn read(options: &Options, kind: BatchLimits) -> Result<(Self, Options), crate::OptionError> {
        let common =
            |name: &str| COMMON.iter().any(|def| def.name == name) || name.starts_with("dead_letter.");
        let own: Options = options.iter().filter(|(name, _)| !common(name)).collect();
        let ours: Options =
            options.iter().filter(|(name, _)| common(name) && !is_dead_letter_option(name)).collect();
        let mut reader = Reader::new(&ours, COMMON)?;
        let on_error = match reader.one_of("on_error")?.unwrap_or("fail") {
            "skip" => OnError::Skip,
            "dead_letter" => OnError::DeadLetter,
            _ => OnError::Fail,
        };
        let dead_letter = dead_letter(&reader.text("dead_letter.connector")?, options, on_error)?;
        let mut limit = |name: &str, most: usize| match reader.integer(name)? {
            None => Ok(most),
            Some(given) => usize::try_from(given).ok().filter(|given| *given <= most).ok_or_else(|| {
                let expected = format!("at most {most}, the limit of this connector");
                crate::OptionError::invalid(name, &expected, &given.to_string())
            }),
        };
        let (rows, bytes) = (limit("buffer.rows", kind.rows)?, limit("buffer.bytes", kind.bytes)?);
        let common = Self {
            ordering: if reader.one_of("ordering")? == Some("none") { Ordering::None } else { Ordering::Key },
            takeover: if reader.one_of("takeover")? == Some("fast") {
                Takeover::Fast
            } else {
                Takeover::Ordered
            },
            on_error,
            dead_letter,
            checkpoint_interval: reader.duration("checkpoint_interval")?.unwrap_or(Duration::from_secs(1)),
            limits: BatchLimits {
                rows,
                bytes,
                linger: reader.duration("buffer.linger")?.unwrap_or(kind.linger),
            },
            in_flight: reader.integer("in_flight")?.map_or(8, |n| usize::try_from(n).unwrap_or(8)),
            validate: reader.boolean("validate")?.unwrap_or(true),
            rate_limit: reader.integer("sink_rate_limit")?,
        };
        Ok((common, own))
    }
}

fn is_dead_letter_option(name: &str) -> bool {
    name.starts_with("dead_letter.") && name != "dead_letter.connector"
}

fn dead_letter(
    connector: &Option<String>,
    options: &Options,
    on_error: OnError,
) -> Result<Option<(String, Options)>, crate::OptionError> {
    match (connector, on_error) {
        (Some(connector), OnError::DeadLetter) => {
            let mut own = options.under("dead_letter.");
            own.remove("connector");
            Ok(Some((connector.clone(), own)))
        }
        (None, OnError::DeadLetter) => Err(crate::OptionError::missing("dead_letter.connector")),
        (Some(_), _) => {
            Err(crate::OptionError::config("dead_letter.connector needs on_error = 'dead_letter'".to_owned()))
        }
        (None, _) if options.iter().any(|(name, _)| is_dead_letter_option(name)) => {
            Err(crate::OptionError::config(
                "dead_letter.* needs dead_letter.connector and on_error = 'dead_letter'",
            ))
        }
        (None, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_beyond_the_limit_of_the_connector_is_refused() {
        let kind = BatchLimits { rows: 500, bytes: 4 << 20, linger: Duration::from_millis(50) };
        let read = |name: &str, value: &str| {
            let options: Options = [(name, value)].into_iter().collect();
            SinkCommon::read(&options, kind).map(|(common, _)| common.limits).map_err(|e| e.to_string())
        };
        assert_eq!(read("in_flight", "1"), Ok(kind));
        assert_eq!(read("buffer.rows", "500"), Ok(kind));
        assert_eq!(read("buffer.rows", "7"), Ok(BatchLimits { rows: 7, ..kind }));
        assert_eq!(read("buffer.bytes", "1024"), Ok(BatchLimits { bytes: 1024, ..kind }));
        let refused = read("buffer.rows", "501").unwrap_err();
        assert!(refused.contains("at most 500, the limit of this connector"), "{refused}");
        assert!(read("buffer.bytes", "5000000").unwrap_err().contains("`buffer.bytes`"));
    }
}

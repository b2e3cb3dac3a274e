//! The options of a Kinesis source (docs/sql.md, Options of the kinesis source): typed, with defaults, checked without
//! I/O.

use std::{collections::BTreeMap, time::Duration};

use connector::{OptionDef, OptionError, OptionKind, Reader};
use model::{Cursor, Options, StartFrom, Timestamp};

use crate::aws::{self, Access};

const OWN: [OptionDef; 16] = [
    OptionDef::new("scan.startup.mode", OptionKind::Text)
        .aliases(&["kinesis.scan.startup.mode"])
        .default("earliest"),
    OptionDef::new("scan.startup.sequence_number", OptionKind::Text),
    OptionDef::new("scan.startup.timestamp.millis", OptionKind::Integer { min: 0, max: i64::MAX as u64 }),
    OptionDef::new("kinesis.reader.eof_retry_interval_ms", OptionKind::Integer { min: 1, max: 3_600_000 })
        .default("1000"),
    OptionDef::new("kinesis.reader.error_retry_interval_ms", OptionKind::Integer { min: 1, max: 3_600_000 })
        .default("100"),
    OptionDef::new("kinesis.sdk.max_retry_limit", OptionKind::Integer { min: 1, max: 1000 }).default("3"),
    OptionDef::new("kinesis.consumer.mode", OptionKind::OneOf(&["polling", "efo", "auto"]))
        .default("polling"),
    OptionDef::new("kinesis.consumer.name", OptionKind::Text),
    OptionDef::new("kinesis.consumer.arn", OptionKind::Text),
    OptionDef::new("kinesis.consumer.renew_interval_ms", OptionKind::Integer { min: 1000, max: 290_000 })
        .default("270000"),
    OptionDef::new("kinesis.consumer.silence_timeout_ms", OptionKind::Integer { min: 1000, max: 300_000 })
        .default("35000"),
    OptionDef::new("read.share", OptionKind::Number { min: 0.05, max: 1.0 }).default("1.0"),
    OptionDef::new("kinesis.shard.reads_per_second", OptionKind::Number { min: 0.1, max: 10_000.0 })
        .default("5"),
    OptionDef::new("kinesis.shard.read_bytes_per_second", OptionKind::Integer { min: 1024, max: 1 << 40 })
        .default("2097152"),
    // The coordinator's `discovery_interval` holds where it is not given.
    OptionDef::new("kinesis.shard.discovery_interval_ms", OptionKind::Integer { min: 1000, max: 3_600_000 }),
    OptionDef::new("validate", OptionKind::Boolean).default("true"),
];

/// Every option of the source.
pub(crate) static OPTIONS: [OptionDef; aws::OPTIONS_LEN + OWN.len()] = aws::with_shared(OWN);

/// `scan.startup.mode`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Startup {
    /// The oldest record that each shard holds.
    Earliest,
    /// What arrives after the creation of the source.
    Latest,
    /// What arrived at or after this moment.
    At(Timestamp),
    /// From this record on, in whichever shard it is; the other shards begin at their oldest record.
    SequenceNumber(String),
    /// From these records on, by shard; the other shards begin at their oldest record.
    SequenceNumbers(BTreeMap<String, StartFrom>),
}

/// How fast one shard may be read, by all readers of this source in this process together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quota {
    /// `GetRecords` a second.
    pub reads: f64,
    /// Bytes a second.
    pub bytes: f64,
    /// Our part of both.
    pub share: f64,
}

/// How enhanced fan-out is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fanout {
    /// `kinesis.consumer.mode = 'auto'`: polls while there is no fan-out to be had.
    pub optional: bool,
    pub consumer: Consumer,
    /// A subscription lives for five minutes; a new one is opened after this time.
    pub renew_after: Duration,
    /// A subscription on which nothing came for so long is given up.
    pub silence_max: Duration,
}

/// Which registered consumer a sink reads as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Consumer {
    /// A name made of the sink's id.
    Derived,
    /// `kinesis.consumer.name`; `{sink}` in it stands for the sink's name.
    Named(String),
    /// `kinesis.consumer.arn`: registered by somebody else.
    Arn(String),
}

/// A source's options.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub access: Access,
    pub startup: Startup,
    pub quota: Quota,
    /// `None`: polling.
    pub fanout: Option<Fanout>,
    /// How long a reader that has caught up waits before it asks again.
    pub idle: Duration,
    /// The wait after a first failure; it doubles up to `access.limits.backoff_cap`.
    pub retry: Duration,
    /// Failures in a row after which an error that may heal by itself is shown.
    pub patience: u32,
}

impl Config {
    /// Reads the options.
    pub(crate) fn read(options: &Options) -> Result<Self, OptionError> {
        let mut options = Reader::new(options, &OPTIONS)?;
        let access = Access::read(&mut options)?;
        let millis = |n: Option<u64>, default| Duration::from_millis(n.unwrap_or(default));
        // Kept by the coordinator, which takes the option as it stands; here it is only checked.
        options.integer("kinesis.shard.discovery_interval_ms")?;
        Ok(Self {
            startup: startup(&mut options)?,
            quota: Quota {
                reads: options.number("kinesis.shard.reads_per_second")?.unwrap_or(5.0),
                #[allow(clippy::cast_precision_loss)]
                bytes: options.integer("kinesis.shard.read_bytes_per_second")?.unwrap_or(2 << 20) as f64,
                share: options.number("read.share")?.unwrap_or(1.0),
            },
            fanout: fanout(&mut options)?,
            idle: millis(options.integer("kinesis.reader.eof_retry_interval_ms")?, 1000),
            retry: options
                .integer("kinesis.reader.error_retry_interval_ms")?
                .map_or(access.limits.backoff_first, Duration::from_millis),
            patience: options
                .integer("kinesis.sdk.max_retry_limit")?
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(3),
            access,
        })
    }
}

fn fanout(options: &mut Reader) -> Result<Option<Fanout>, OptionError> {
    let mode = options.one_of("kinesis.consumer.mode")?.unwrap_or("polling").to_owned();
    let name = options.text("kinesis.consumer.name")?;
    let arn = options.text("kinesis.consumer.arn")?;
    let renew = options.integer("kinesis.consumer.renew_interval_ms")?;
    let silence = options.integer("kinesis.consumer.silence_timeout_ms")?;
    if mode == "polling" && (renew.is_some() || silence.is_some()) {
        return Err(OptionError::config(
            "kinesis.consumer.renew_interval_ms and kinesis.consumer.silence_timeout_ms need \
             kinesis.consumer.mode = 'efo' or 'auto'",
        ));
    }
    let renew_after = Duration::from_millis(renew.unwrap_or(270_000));
    let silence_max = Duration::from_millis(silence.unwrap_or(35_000));
    let consumer = match (name, arn) {
        (Some(_), Some(_)) => {
            return Err(OptionError::config(
                "kinesis.consumer.name and kinesis.consumer.arn are mutually exclusive",
            ));
        }
        (None, None) if mode == "efo" => return Err(OptionError::missing("kinesis.consumer.name")),
        (None, None) => Consumer::Derived,
        _ if mode == "polling" => {
            return Err(OptionError::config(
                "kinesis.consumer.name and kinesis.consumer.arn need kinesis.consumer.mode = 'efo' or 'auto'",
            ));
        }
        (Some(name), None) => Consumer::Named(consumer_name(name)?),
        (None, Some(arn)) => Consumer::Arn(consumer_arn(arn)?),
    };
    let fanout = Fanout { optional: mode == "auto", consumer, renew_after, silence_max };
    Ok((mode != "polling").then_some(fanout))
}

fn consumer_name(name: String) -> Result<String, OptionError> {
    let plain = name.replacen("{sink}", "", 1);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !name.is_empty() && plain.len() <= 128 && plain.bytes().all(allowed) {
        return Ok(name);
    }
    let expected = "1 to 128 letters, digits, `_`, `.`, `-`, and at most one {sink}";
    Err(OptionError::invalid("kinesis.consumer.name", expected, &name))
}

/// `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME/consumer/NAME:NUMBER`
fn consumer_arn(arn: String) -> Result<String, OptionError> {
    let resource = arn.splitn(6, ':').nth(5).unwrap_or_default();
    let well = arn.starts_with("arn:") && resource.starts_with("stream/") && resource.contains("/consumer/");
    if well {
        Ok(arn)
    } else {
        Err(OptionError::invalid("kinesis.consumer.arn", "the ARN of a consumer", &arn))
    }
}

fn startup(options: &mut Reader) -> Result<Startup, OptionError> {
    let number = options.text("scan.startup.sequence_number")?;
    let moment = options.integer("scan.startup.timestamp.millis")?;
    let mode = options.text("scan.startup.mode")?;
    let mode = mode.as_deref().unwrap_or("earliest");
    if !["earliest", "latest", "sequence_number", "timestamp"].contains(&mode) {
        return Err(OptionError::config(
            "invalid scan.startup.mode, accept earliest/latest/sequence_number/timestamp",
        ));
    }
    if number.is_some() && mode != "sequence_number" {
        return Err(OptionError::config(
            "scan.startup.mode need to be set to 'sequence_number' if you want to start with a specific \
             sequence number",
        ));
    }
    if moment.is_some() && mode != "timestamp" {
        return Err(OptionError::config(
            "scan.startup.mode needs to be set to 'timestamp' if you want to start with a specific timestamp",
        ));
    }
    match (mode, number, moment) {
        ("latest", ..) => Ok(Startup::Latest),
        ("timestamp", _, Some(ms)) => Ok(Startup::At(Timestamp(i64::try_from(ms).unwrap_or(i64::MAX)))),
        ("timestamp", ..) => Err(OptionError::config("scan.startup.timestamp.millis is required")),
        ("sequence_number", Some(text), _) => sequence_numbers(&text),
        ("sequence_number", ..) => Err(OptionError::config("scan.startup.sequence_number is required")),
        _ => Ok(Startup::Earliest),
    }
}

/// `4959…`, or `shardId-000000000000:4959…,shardId-000000000001:4960…`
fn sequence_numbers(text: &str) -> Result<Startup, OptionError> {
    let wrong = || {
        OptionError::invalid(
            "scan.startup.sequence_number",
            "a sequence number or a list SHARD:NUMBER,…",
            text,
        )
    };
    let is_number = |t: &str| (1..=128).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    if is_number(text.trim()) {
        return Ok(Startup::SequenceNumber(text.trim().to_owned()));
    }
    let mut numbers = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (shard, number) = item.split_once(':').ok_or_else(wrong)?;
        let (shard, number) = (shard.trim(), number.trim());
        if shard.is_empty() || !is_number(number) {
            return Err(wrong());
        }
        let from = StartFrom::AtCursor(Cursor::new(number));
        if numbers.insert(shard.to_owned(), from).is_some() {
            return Err(wrong());
        }
    }
    if numbers.is_empty() { Err(wrong()) } else { Ok(Startup::SequenceNumbers(numbers)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let mut options: Options = [("stream", "in"), ("aws.region", "eu-west-1")].into_iter().collect();
        for (name, value) in pairs {
            options.insert(*name, *value);
        }
        Config::read(&options).map_err(|e| e.to_string())
    }

    #[test]
    fn fan_out_knows_its_consumer() {
        let mode = |mode| ("kinesis.consumer.mode", mode);
        let name = |name| ("kinesis.consumer.name", name);
        assert_eq!(read(&[]).unwrap().fanout, None);
        assert_eq!(read(&[mode("efo")]).unwrap_err(), "missing field `kinesis.consumer.name`");
        assert!(read(&[name("c")]).unwrap_err().contains("need kinesis.consumer.mode"));
        for timing in ["kinesis.consumer.renew_interval_ms", "kinesis.consumer.silence_timeout_ms"] {
            assert!(
                read(&[(timing, "5000")]).unwrap_err().contains("need kinesis.consumer.mode"),
                "{timing}"
            );
            assert!(read(&[mode("auto"), (timing, "5000")]).is_ok(), "{timing}");
        }
        let consumer = |pairs: &[_]| read(pairs).map(|config| config.fanout.unwrap().consumer);
        assert_eq!(consumer(&[mode("auto")]), Ok(Consumer::Derived));
        assert_eq!(consumer(&[mode("efo"), name("a-{sink}")]), Ok(Consumer::Named("a-{sink}".into())));
        let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/in/consumer/c:1700000000";
        assert_eq!(consumer(&[mode("efo"), ("kinesis.consumer.arn", arn)]), Ok(Consumer::Arn(arn.into())));
        assert!(
            consumer(&[mode("auto"), name("c"), ("kinesis.consumer.arn", arn)])
                .unwrap_err()
                .contains("exclusive")
        );
        for wrong in ["", "a b", "{source}", "{sink}{sink}"] {
            assert!(
                consumer(&[mode("efo"), name(wrong)]).unwrap_err().contains("`kinesis.consumer.name`"),
                "{wrong}"
            );
        }
        assert!(consumer(&[mode("efo"), ("kinesis.consumer.arn", "arn:aws:s3:::b")]).is_err());
    }

    #[test]
    fn modes_and_their_arguments_belong_together() {
        for (pairs, text) in [
            (&[("scan.startup.mode", "newest")][..], "invalid scan.startup.mode"),
            (&[("scan.startup.mode", "timestamp")], "scan.startup.timestamp.millis is required"),
            (&[("scan.startup.mode", "sequence_number")], "scan.startup.sequence_number is required"),
            (
                &[("scan.startup.sequence_number", "1")],
                "scan.startup.mode need to be set to 'sequence_number' if you want to start with a specific \
                 sequence number",
            ),
            (
                &[("scan.startup.timestamp.millis", "1"), ("scan.startup.mode", "latest")],
                "scan.startup.mode needs to be set to 'timestamp' if you want to start with a specific timestamp",
            ),
        ] {
            let error = read(pairs).unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
        assert_eq!(read(&[]).unwrap().startup, Startup::Earliest);
        assert_eq!(read(&[("kinesis.scan.startup.mode", "latest")]).unwrap().startup, Startup::Latest);
    }

    #[test]
    fn sequence_numbers_are_one_or_a_list() {
        let number = |text: &str| {
            read(&[("scan.startup.mode", "sequence_number"), ("scan.startup.sequence_number", text)])
        };
        assert_eq!(number("4959").unwrap().startup, Startup::SequenceNumber("4959".into()));
        let Startup::SequenceNumbers(list) = number("shardId-0:12, shardId-1:13").unwrap().startup else {
            panic!("a list was given")
        };
        assert_eq!(list["shardId-1"], StartFrom::AtCursor(Cursor::new("13")));
        for wrong in ["", "x", "shardId-0", "shardId-0:x", "shardId-0:1,shardId-0:2", "-1"] {
            let error = number(wrong).unwrap_err();
            assert!(error.contains("scan.startup.sequence_number"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_share_has_bounds() {
        assert!(read(&[("read.share", "0.01")]).unwrap_err().contains("`read.share`"));
        assert!((read(&[("read.share", "0.5")]).unwrap().quota.share - 0.5).abs() < 1e-9);
    }
}

//! What a worker may be told. Every field has a default, a misspelt one is refused by its name.

use std::{path::PathBuf, time::Duration};

use logic::Timing;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Settings of one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its stable name; the host's name when absent.
    pub name: Option<String>,
    /// What runs one process of it at a time (a pod's UID); made and kept in `data_dir` when absent.
    pub instance: Option<String>,
    /// Where it keeps its lock and its instance id. Two workers cannot share it.
    pub data_dir: PathBuf,
    /// URLs of coordinators; any of them will do, it is told who leads.
    pub coordinators: Vec<String>,
    /// Relative share of tasks.
    pub capacity: u32,
    /// Failure domain.
    pub zone: String,
    /// Bytes of records that may be between the sources and the destinations, all tasks together.
    pub memory_budget: u64,
    /// Bytes of rows that may be on their way to the partitions that this worker writes, beside `memory_budget`.
    pub exchange_memory: u64,
    /// Where it takes rows for its partitions from other workers.
    pub exchange_listen: String,
    /// Where other workers reach that, as `HOST:PORT`, if it is not the address it listens on.
    pub exchange_advertise: Option<String>,
    /// Reads that may wait for an answer at the same time; each may bring up to 10 MiB more than it reserved.
    pub reads_concurrent_max: usize,
    /// Whether it tells the leader how much of the processor it uses; not where several share one process.
    pub measure_cpu: bool,
    /// How long an orderly stop may take.
    #[serde(with = "span")]
    pub drain_deadline: Duration,
    /// How long one request to a destination may take; every worker and coordinator of a cluster must agree on it.
    #[serde(with = "span")]
    pub write_attempt_timeout: Duration,
    /// How long after it was given up a request may still land; every worker and coordinator must agree on it.
    #[serde(with = "span")]
    pub late_write_margin: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let timing = Timing::default();
        Self {
            name: None,
            instance: None,
            data_dir: PathBuf::from("shardwright-worker"),
            coordinators: vec!["http://127.0.0.1:7070".to_owned()],
            capacity: 1,
            zone: String::new(),
            memory_budget: 256 << 20,
            exchange_memory: 64 << 20,
            exchange_listen: "127.0.0.1:0".to_owned(),
            exchange_advertise: None,
            reads_concurrent_max: 16,
            measure_cpu: true,
            drain_deadline: timing.handoff_deadline,
            write_attempt_timeout: timing.write_attempt_timeout,
            late_write_margin: timing.late_write_margin,
        }
    }
}

/// Less memory than one answer of a source needs.
const MEMORY_BUDGET_MIN: u64 = 1 << 20;

impl Config {
    /// Whether a worker can do anything with these settings.
    ///
    /// # Errors
    /// `Config`: the setting, in words.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::Config(text.to_owned()));
        if self.name.as_deref().is_some_and(|name| name.trim().is_empty()) {
            return wrong("`worker.name` is empty: leave it out to take the host's name");
        }
        if self.capacity == 0 {
            return wrong(
                "`worker.capacity` must be at least 1; `shardwright drain NAME` keeps a worker empty",
            );
        }
        if self.memory_budget < MEMORY_BUDGET_MIN {
            return wrong(
                "`worker.memory_budget` must be at least 1048576 bytes, better 256 MiB (268435456)",
            );
        }
        if self.exchange_memory < MEMORY_BUDGET_MIN {
            return wrong("`worker.exchange_memory` must be at least 1048576 bytes");
        }
        let everywhere = ["0.0.0.0:", "[::]:", "*:"].iter().any(|any| self.exchange_listen.starts_with(any));
        if everywhere && self.exchange_advertise.is_none() {
            return wrong(
                "`worker.exchange_listen` names every address: say in `worker.exchange_advertise` at which one others reach it",
            );
        }
        if self.exchange_advertise.as_ref().is_some_and(|address| !address.contains(':')) {
            return wrong("`worker.exchange_advertise` must be HOST:PORT");
        }
        if self.reads_concurrent_max == 0 {
            return wrong("`worker.reads_concurrent_max` must be at least 1");
        }
        if self.write_attempt_timeout.is_zero() {
            return wrong("`worker.write_attempt_timeout` must be more than nothing");
        }
        Ok(())
    }
}

/// Durations as `100ms`, `5s`, `2m`, `1h`.
mod span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(span: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{}ms", span.as_millis()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        let wrong = || D::Error::custom(format!("`{text}` is not a duration, write it like `5s` or `200ms`"));
        let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..unit].parse().map_err(|_| wrong())?;
        let millis = match text[unit..].trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_default_and_a_wrong_one_is_named() {
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
        let error = serde_json::from_str::<Config>(r#"{"capasity": 2}"#).unwrap_err().to_string();
        assert!(error.contains("capasity"), "{error}");
        let error = serde_json::from_str::<Config>(r#"{"drain_deadline": "5"}"#).unwrap_err().to_string();
        assert!(error.contains("`5` is not a duration"), "{error}");
    }

    #[test]
    fn settings_survive_being_written() {
        let text = serde_json::to_string(&Config::default()).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), Config::default());
    }
}

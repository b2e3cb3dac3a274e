//! What a coordinator may be told. Every field has a default, a misspelt one is refused by its name, and durations are texts
//! with a unit (`"5s"`).

use std::{net::SocketAddr, time::Duration};

use logic::Timing;
use serde::{Deserialize, Serialize};

use crate::{AuthConfig, Error, ErrorKind, Result, Vault};

/// What is done more often than this is done all the time.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Settings of one coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster: the first segment of every key in the metadata store.
    pub cluster: String,
    /// Where sessions and admin calls are served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// URL at which workers and other coordinators reach this one; made of the bound address when absent.
    pub advertise: Option<String>,
    /// The ownership protocol's constants; every coordinator and worker of a cluster must agree on them.
    #[serde(with = "TimingText")]
    pub timing: Timing,
    /// Shortest time between two checkpoint transactions of one lane; ends of splits and handoffs do not wait for it.
    #[serde(with = "span")]
    pub checkpoint_interval: Duration,
    /// How often each source is listed when nothing asks for it sooner.
    #[serde(with = "span")]
    pub discovery_interval: Duration,
    /// How often desired and observed are compared when nothing wakes the reconciler sooner.
    #[serde(with = "span")]
    pub reconcile_interval: Duration,
    /// Whether the leader compacts the store's history; `false` leaves that to others.
    pub compact: bool,
    /// What encrypts the secrets of the catalog: made of `[secrets]`.
    #[serde(skip)]
    pub vault: Vault,
    /// Who callers of the admin API may be: `[auth]`.
    #[serde(skip)]
    pub auth: AuthConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "shardwright".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7070)),
            advertise: None,
            timing: Timing::default(),
            checkpoint_interval: Duration::from_secs(1),
            discovery_interval: Duration::from_secs(10),
            reconcile_interval: Duration::from_secs(5),
            compact: true,
            vault: Vault::default(),
            auth: AuthConfig::default(),
        }
    }
}

impl Config {
    /// Whether these settings can work together.
    ///
    /// # Errors
    /// `Config`: the setting, in words.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Config, text));
        self.auth.check()?;
        if let Err(relation) = self.timing.check() {
            return wrong(format!("[coordinator.timing] {relation}"));
        }
        let intervals = [
            ("checkpoint_interval", self.checkpoint_interval),
            ("discovery_interval", self.discovery_interval),
            ("reconcile_interval", self.reconcile_interval),
        ];
        match intervals.iter().find(|(_, interval)| *interval < INTERVAL_MIN) {
            Some((name, interval)) => {
                wrong(format!("`coordinator.{name}` ({interval:?}) must be at least {INTERVAL_MIN:?}"))
            }
            None if self.cluster.is_empty() => {
                wrong("`coordinator.cluster` is empty: name the cluster".to_owned())
            }
            None => Ok(()),
        }
    }
}

/// How [`Timing`] is written in a settings file.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Timing", default, deny_unknown_fields)]
struct TimingText {
    #[serde(with = "span")]
    heartbeat: Duration,
    #[serde(with = "span")]
    fence_after: Duration,
    #[serde(with = "span")]
    session_timeout: Duration,
    #[serde(with = "span")]
    leader_lease: Duration,
    #[serde(with = "span")]
    leader_keep_alive: Duration,
    #[serde(with = "span")]
    write_attempt_timeout: Duration,
    #[serde(with = "span")]
    late_write_margin: Duration,
    #[serde(with = "span")]
    handoff_deadline: Duration,
    #[serde(with = "span")]
    rejoin_grace: Duration,
}

impl Default for TimingText {
    fn default() -> Self {
        let Timing {
            heartbeat,
            fence_after,
            session_timeout,
            leader_lease,
            leader_keep_alive,
            write_attempt_timeout,
            late_write_margin,
            handoff_deadline,
            rejoin_grace,
        } = Timing::default();
        Self {
            heartbeat,
            fence_after,
            session_timeout,
            leader_lease,
            leader_keep_alive,
            write_attempt_timeout,
            late_write_margin,
            handoff_deadline,
            rejoin_grace,
        }
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
        parse(&text).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is not a duration, write it like `5s` or `200ms`"))
        })
    }

    fn parse(text: &str) -> Option<Duration> {
        let unit = text.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = text[..unit].parse().ok()?;
        let per = match text[unit..].trim() {
            "ms" => return Some(Duration::from_millis(number)),
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        number.checked_mul(per).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Config, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn every_field_has_a_default() {
        assert_eq!(read("{}").unwrap(), Config::default());
        let one = read(r#"{"timing": {"heartbeat": "200ms"}}"#).unwrap();
        assert_eq!(one.timing.heartbeat, Duration::from_millis(200));
        assert_eq!(one.timing.fence_after, Timing::default().fence_after);
    }

    #[test]
    fn what_is_misspelt_is_named() {
        assert!(read(r#"{"listn": "127.0.0.1:1"}"#).unwrap_err().contains("listn"));
        assert!(read(r#"{"timing": {"hartbeat": "1s"}}"#).unwrap_err().contains("hartbeat"));
        assert!(read(r#"{"discovery_interval": "5"}"#).unwrap_err().contains("`5` is not a duration"));
    }

    #[test]
    fn settings_that_cannot_work_together_are_refused_in_words() {
        assert!(Config::default().check().is_ok());
        let refused = |json: &str| read(json).unwrap().check().unwrap_err().to_string();
        let text = refused(r#"{"timing": {"session_timeout": "3s"}}"#);
        assert!(
            text.contains("[coordinator.timing] `fence_after` (5 s) must not exceed `session_timeout` (3 s)"),
            "{text}"
        );
        let text = refused(r#"{"discovery_interval": "0s"}"#);
        assert!(text.contains("`coordinator.discovery_interval` (0ns) must be at least 10ms"), "{text}");
        assert!(refused(r#"{"cluster": ""}"#).contains("`coordinator.cluster` is empty"));
    }

    #[test]
    fn settings_survive_being_written() {
        let text = serde_json::to_string(&Config::default()).unwrap();
        assert_eq!(read(&text).unwrap(), Config::default());
    }
}

//! The options of a Kafka sink, and the client's settings that they become.

use std::{collections::BTreeMap, fmt, time::Duration};

use connector::{OptionDef, OptionError, OptionKind, Reader};
use model::Options;
use secrecy::SecretString;

const TEXT: OptionKind = OptionKind::Text;
const BOOLEAN: OptionKind = OptionKind::Boolean;
const NUMBER: OptionKind = OptionKind::Integer { min: 0, max: i32::MAX as u64 };

/// Every option of the sink. Those under `properties.` are handed to the client under the rest of their name, if
/// [`PASSED`] does not say otherwise.
pub(super) const OPTIONS: &[OptionDef] = &[
    OptionDef::new("properties.bootstrap.server", TEXT)
        .aliases(&["kafka.brokers", "properties.bootstrap.servers"]),
    OptionDef::new("topic", TEXT).aliases(&["kafka.topic"]),
    OptionDef::new(
        "properties.security.protocol",
        OptionKind::OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]),
    )
    .default("PLAINTEXT"),
    OptionDef::new(
        "properties.sasl.mechanism",
        OptionKind::OneOf(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"]),
    ),
    OptionDef::new("properties.sasl.username", TEXT),
    OptionDef::secret("properties.sasl.password"),
    OptionDef::new("properties.ssl.ca.location", TEXT),
    OptionDef::new("properties.ssl.certificate.location", TEXT),
    OptionDef::new("properties.ssl.key.location", TEXT),
    OptionDef::secret("properties.ssl.key.password"),
    OptionDef::secret("properties.ssl.ca.pem"),
    OptionDef::secret("properties.ssl.certificate.pem"),
    OptionDef::secret("properties.ssl.key.pem"),
    OptionDef::new("properties.ssl.endpoint.identification.algorithm", OptionKind::OneOf(&["none", "https"]))
        .default("https"),
    OptionDef::new("properties.enable.ssl.certificate.verification", BOOLEAN).default("true"),
    OptionDef::new("properties.retry.max", NUMBER),
    OptionDef::new("properties.retry.interval", OptionKind::Duration { min: Duration::ZERO }),
    OptionDef::new("properties.sync.call.timeout", OptionKind::Duration { min: Duration::from_millis(100) })
        .default("5s"),
    OptionDef::new("properties.message.timeout.ms", OptionKind::Integer { min: 100, max: i32::MAX as u64 })
        .default("5000"),
    OptionDef::new(
        "properties.max.in.flight.requests.per.connection",
        OptionKind::Integer { min: 1, max: 1_000_000 },
    )
    .default("5"),
    OptionDef::new("properties.enable.idempotence", BOOLEAN).default("true"),
    OptionDef::new(
        "properties.compression.codec",
        OptionKind::OneOf(&["none", "gzip", "snappy", "lz4", "zstd"]),
    )
    .default("none"),
    OptionDef::new("properties.batch.size", NUMBER),
    OptionDef::new("properties.batch.num.messages", NUMBER),
    OptionDef::new("properties.queue.buffering.max.messages", NUMBER),
    OptionDef::new("properties.queue.buffering.max.kbytes", NUMBER),
    OptionDef::new("properties.queue.buffering.max.ms", NUMBER).default("2"),
    OptionDef::new("properties.message.max.bytes", NUMBER),
    OptionDef::new("properties.client.id", TEXT),
    OptionDef::new("properties.request.required.acks", OptionKind::OneOf(&["all", "-1"])).default("all"),
    OptionDef::new("properties.allow.auto.create.topics", BOOLEAN),
    OptionDef::new("properties.socket.keepalive.enable", BOOLEAN).default("true"),
    OptionDef::new("properties.retry.backoff.ms", NUMBER),
    OptionDef::new("properties.statistics.interval.ms", NUMBER),
];

/// Options that are not the client's.
const OURS: &[&str] = &[
    "properties.bootstrap.server",
    "topic",
    "properties.retry.max",
    "properties.retry.interval",
    "properties.sync.call.timeout",
    "properties.message.timeout.ms",
];

/// A sink's options. `Debug` shows neither settings nor secrets.
pub(super) struct Config {
    /// As the user wrote them, for messages.
    pub(super) brokers: String,
    pub(super) topic: String,
    /// How long one write may take, at most the protocol's `write_attempt_timeout` (I11).
    pub(super) attempt: Duration,
    /// For metadata.
    pub(super) call: Duration,
    /// The client's settings by its own names.
    pub(super) settings: BTreeMap<String, String>,
    /// Those that are secret.
    pub(super) secrets: BTreeMap<String, SecretString>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the options.
    pub(super) fn read(options: &Options) -> Result<Self, OptionError> {
        let mut options = Reader::new(options, OPTIONS)?;
        let brokers = options.required("properties.bootstrap.server")?;
        check_brokers(&brokers)?;
        let topic = options.required("topic")?;
        check_sasl(&mut options)?;
        let most = logic::Timing::default().write_attempt_timeout;
        let given = options.integer("properties.message.timeout.ms")?.map(Duration::from_millis);
        let attempt = given.unwrap_or(most).min(most);
        let mut settings: BTreeMap<String, String> = [
            ("bootstrap.servers", brokers.as_str()),
            ("enable.idempotence", "true"),
            ("request.required.acks", "all"),
            ("queue.buffering.max.ms", "2"),
            ("socket.keepalive.enable", "true"),
            ("partitioner", "murmur2_random"),
            ("client.id", "shardwright"),
            // Found again soon after a restart of the broker.
            ("reconnect.backoff.max.ms", "1000"),
            ("socket.connection.setup.timeout.ms", "5000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        settings.insert("message.timeout.ms".to_owned(), attempt.as_millis().to_string());
        let mut secrets = BTreeMap::new();
        for def in OPTIONS.iter().filter(|def| !OURS.contains(&def.name)) {
            let name = def.name.strip_prefix("properties.").unwrap_or(def.name);
            if def.secret {
                secrets.extend(options.secret(def.name)?.map(|secret| (name.to_owned(), secret)));
            } else if let Some(value) = options.text(def.name)? {
                let value =
                    if matches!(def.kind, OptionKind::Boolean) { value.to_ascii_lowercase() } else { value };
                settings.insert(name.to_owned(), value);
            }
        }
        if settings["enable.idempotence"] == "false" {
            // Without sequence numbers a second request under way could overtake one that is tried again.
            settings.insert("max.in.flight.requests.per.connection".to_owned(), "1".to_owned());
        } else if settings
            .get("max.in.flight.requests.per.connection")
            .is_some_and(|n| n.len() > 1 || **n > *"5")
        {
            return Err(OptionError::config(
                "properties.max.in.flight.requests.per.connection must be at most 5 with properties.enable.idempotence",
            ));
        }
        let call = options.duration("properties.sync.call.timeout")?.unwrap_or(Duration::from_secs(5));
        Ok(Self { brokers, topic, attempt, call, settings, secrets })
    }
}

fn check_brokers(brokers: &str) -> Result<(), OptionError> {
    let good = |broker: &str| {
        let address = broker.trim().rsplit_once("://").map_or(broker.trim(), |(_, address)| address);
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "9092"));
        !host.is_empty() && !host.contains('@') && port.parse::<u16>().is_ok()
    };
    if brokers.split(',').all(good) {
        Ok(())
    } else {
        Err(OptionError::invalid("properties.bootstrap.server", "host:port[,host:port…]", brokers))
    }
}

fn check_sasl(options: &mut Reader) -> Result<(), OptionError> {
    let Some(mechanism) = options.text("properties.sasl.mechanism")? else { return Ok(()) };
    match mechanism.as_str() {
        "GSSAPI" | "OAUTHBEARER" => {
            Err(OptionError::config(format!("properties.sasl.mechanism {mechanism} is not built in")))
        }
        _ if options.text("properties.sasl.username")?.is_none()
            || options.text("properties.sasl.password")?.is_none() =>
        {
            Err(OptionError::config(format!(
                "sasl.username and sasl.password are required for mechanism {mechanism}"
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let mut options: Options =
            [("properties.bootstrap.server", "127.0.0.1:9092"), ("topic", "t")].into_iter().collect();
        for (name, value) in pairs {
            options.insert(*name, *value);
        }
        Config::read(&options).map_err(|e| e.to_string())
    }

    #[test]
    fn settings_have_the_clients_names() {
        let config = read(&[
            ("properties.compression.codec", "zstd"),
            ("properties.message.timeout.ms", "300000"),
            ("properties.enable.ssl.certificate.verification", "FALSE"),
        ])
        .unwrap();
        let setting = |name: &str| config.settings.get(name).map(String::as_str);
        assert_eq!(setting("bootstrap.servers"), Some("127.0.0.1:9092"));
        assert_eq!(setting("compression.codec"), Some("zstd"));
        assert_eq!(setting("enable.ssl.certificate.verification"), Some("false"));
        assert_eq!(setting("message.timeout.ms"), Some("5000"), "a takeover waits no longer than that");
        assert_eq!(
            (setting("request.required.acks"), setting("enable.idempotence")),
            (Some("all"), Some("true"))
        );
        assert_eq!(setting("topic"), None);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (pairs, expected) in [
            (
                &[("properties.sasl.mechanism", "PLAIN"), ("properties.sasl.username", "a")][..],
                "sasl.username and sasl.password are required for mechanism PLAIN",
            ),
            (&[("properties.sasl.mechanism", "GSSAPI")], "properties.sasl.mechanism GSSAPI is not built in"),
            (&[("topic", "")], "missing field `topic`"),
            (
                &[("properties.bootstrap.server", "no:port:x")],
                "invalid value for option `properties.bootstrap.server`",
            ),
            (&[("properties.request.required.acks", "1")], "expected one of all|-1"),
            (&[("properties.max.in.flight.requests.per.connection", "10")], "at most 5"),
            (
                &[("properties.bootstrap.server", "a:1,sasl://user:hunter2@b:1")],
                "invalid value for option `properties.bootstrap.server`: expected host:port[,host:port…], found \"a:1,sasl://********@b:1\"",
            ),
            (
                &[("properties.linger", "1")],
                "Unknown fields in the WITH clause: {\"properties.linger\": \"1\"}",
            ),
        ] {
            let error = read(pairs).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(
            read(&[("properties.enable.idempotence", "false")]).unwrap().settings["max.in.flight.requests.per.connection"],
            "1"
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = read(&[
            ("properties.sasl.mechanism", "PLAIN"),
            ("properties.sasl.username", "alice"),
            ("properties.sasl.password", "hunter2"),
        ])
        .unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

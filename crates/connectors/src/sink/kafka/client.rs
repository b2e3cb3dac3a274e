//! The client library: producers that can be thrown away, and what its error codes mean.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use connector::{Error, ErrorKind, Result};
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer},
};
use secrecy::ExposeSecret;
use tokio::task::spawn_blocking;

use super::{config::Config, notices::Notices, reports::Report};

type Producer = ThreadedProducer<Notices>;

/// The producer of one sink in this process.
pub(super) struct Client {
    config: Config,
    sink: String,
    live: Mutex<Option<Live>>,
}

/// A producer, until it is purged.
#[derive(Clone)]
pub(super) struct Live {
    producer: Arc<Held>,
}

/// Ends its producer on a thread of its own: that takes up to half a second.
struct Held(Option<Producer>);

impl Held {
    fn get(&self) -> &Producer {
        self.0.as_ref().expect("it is taken by `drop` only")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let producer = self.0.take();
        let ended = std::thread::Builder::new().name("kafka-end".to_owned()).spawn(move || drop(producer));
        if let Err(e) = ended {
            tracing::warn!("a kafka client was ended on the spot: {e}");
        }
    }
}

/// What is sent.
pub(super) struct Outgoing<'a> {
    pub(super) key: Option<&'a Bytes>,
    pub(super) value: &'a Bytes,
    /// Whose number it is; a partition has rows of many splits.
    pub(super) split: Option<&'a str>,
    pub(super) number: &'a str,
    /// W3C context of the request's span, if it is traced.
    pub(super) traceparent: Option<&'a str>,
}

impl Outgoing<'_> {
    fn headers(&self) -> OwnedHeaders {
        let headers = [
            ("shardwright-split", self.split),
            ("shardwright-sequence-number", Some(self.number)),
            ("traceparent", self.traceparent),
        ];
        let known = headers.into_iter().filter(|(_, value)| value.is_some());
        known.fold(OwnedHeaders::new_with_capacity(headers.len()), |headers, (key, value)| {
            headers.insert(Header { key, value })
        })
    }
}

impl Client {
    /// Talks to nobody yet.
    pub(super) fn new(config: Config, sink: &str) -> Self {
        Self { config, sink: sink.to_owned(), live: Mutex::new(None) }
    }

    /// How long one write may take.
    pub(super) fn attempt(&self) -> Duration {
        self.config.attempt
    }

    fn slot(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> Result<Producer> {
        let mut settings = ClientConfig::new();
        for (name, value) in &self.config.settings {
            settings.set(name, value);
        }
        for (name, secret) in &self.config.secrets {
            settings.set(name, secret.expose_secret());
        }
        settings.create_with_context(Notices::new(&self.sink)).map_err(|e| {
            // Its own text of a wrong setting may quote the value.
            let text = match e {
                KafkaError::ClientConfig(_, why, name, _) => format!("kafka client refuses `{name}`: {why}"),
                other => format!("kafka client cannot be made: {other}"),
            };
            Error::new(ErrorKind::Config, text)
        })
    }

    /// The producer, made if there is none.
    pub(super) fn producer(&self) -> Result<Live> {
        let mut slot = self.slot();
        if let Some(live) = &*slot {
            return Ok(live.clone());
        }
        let live = Live { producer: Arc::new(Held(Some(self.make()?))) };
        *slot = Some(live.clone());
        Ok(live)
    }

    /// Makes sure that nothing of this producer is sent any more: what is queued fails, what is on the wire is no longer
    /// waited for. Waits for nothing itself. The next write makes another.
    pub(super) fn purge(&self, live: &Live) {
        let mut slot = self.slot();
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(&current.producer, &live.producer)) {
            *slot = None;
        }
        drop(slot);
        live.producer.get().purge(everything());
    }

    /// Hands one message over; it is not sent yet. False if the queue is full.
    pub(super) fn enqueue(&self, live: &Live, message: &Outgoing<'_>, report: Box<Report>) -> bool {
        let mut record = BaseRecord::with_opaque_to(&self.config.topic, report)
            .payload(message.value.as_ref())
            .headers(message.headers());
        if let Some(key) = message.key {
            record = record.key(key.as_ref());
        }
        let (error, record) = match live.producer.get().send(record) {
            Ok(()) => return true,
            Err(refused) => refused,
        };
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        if code == Code::QueueFull {
            record.delivery_opaque.withdrawn();
            return false;
        }
        record.delivery_opaque.failed(code);
        true
    }

    /// The topic is there and may be seen.
    pub(super) async fn reach(&self) -> Result<()> {
        let producer = self.make()?;
        let (topic, brokers) = (self.config.topic.clone(), self.config.brokers.clone());
        let deadline = Instant::now() + self.config.call;
        let looked = spawn_blocking(move || look_up(&producer, &topic, &brokers, deadline)).await;
        looked.unwrap_or_else(|e| {
            Err(Error::new(ErrorKind::Bug, "looking for the topic ended early").because(e))
        })
    }

    /// What a failed message means.
    pub(super) fn explain(&self, live: &Live, code: Code, began: Instant) -> Error {
        let topic = &self.config.topic;
        let (kind, ambiguous) = meaning(code);
        let trouble = live.producer.get().context().trouble();
        let error = match trouble {
            // The message itself only timed out: say why.
            Some(trouble) if kind == ErrorKind::Unavailable => Error::new(
                trouble.kind,
                format!("cannot write to kafka ({}): {}", self.config.brokers, trouble.text),
            ),
            _ if kind == ErrorKind::Config => {
                Error::new(kind, format!("kafka topic `{topic}` does not exist"))
            }
            _ => Error::new(kind, format!("kafka topic `{topic}` did not take a message: {code}")),
        };
        let error = error.code(format!("{code:?}"));
        if ambiguous { error.ambiguous_since(began) } else { error }
    }
}

impl Live {
    /// Whether this failure leaves a producer that can go on.
    pub(super) fn survives(&self, code: Code) -> bool {
        matches!(meaning(code).0, ErrorKind::Rejected | ErrorKind::Config | ErrorKind::Denied)
            && self.producer.get().client().fatal_error().is_none()
    }
}

/// Whether the broker looked at what it was sent and will never take it.
pub(super) fn is_refusal(code: Code) -> bool {
    meaning(code).0 == ErrorKind::Rejected
}

/// What a purge takes. Whoever purges is a thread of the runtime: without `non_blocking` it would wait for every thread of the
/// client, and one that looks up the name of a broker hears nothing until the resolver answers. It serves its orders before it
/// sends again.
fn everything() -> PurgeConfig {
    PurgeConfig::default().queue().inflight().non_blocking()
}

/// What the caller should do, and whether the message may have been stored or may still be.
fn meaning(code: Code) -> (ErrorKind, bool) {
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic => {
            (ErrorKind::Config, false)
        }
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication => (ErrorKind::Denied, false),
        // Damaged on the way; the broker stored nothing.
        Code::InvalidMessage => (ErrorKind::Unavailable, false),
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp => (ErrorKind::Rejected, false),
        Code::QueueFull | Code::ThrottlingQuotaExceeded => (ErrorKind::Throttled, false),
        // `PurgeQueue` too: a request whose connection broke puts its messages back into the queue.
        _ => (ErrorKind::Unavailable, true),
    }
}

/// Asks for the topic in short steps, so that a wrong password ends the wait.
fn look_up(producer: &Producer, topic: &str, brokers: &str, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let failed = match producer.client().fetch_metadata(Some(topic), left.min(Duration::from_millis(500)))
        {
            Ok(metadata) => {
                let code = metadata.topics().first().and_then(|t| t.error()).map(Code::from);
                return code.map_or(Ok(()), |code| refused(topic, brokers, code));
            }
            Err(e) => e,
        };
        let trouble = producer.context().trouble();
        let hopeless = trouble.as_ref().is_some_and(|t| t.kind != ErrorKind::Unavailable);
        if hopeless || Instant::now() >= deadline {
            let kind = trouble.as_ref().map_or(ErrorKind::Unavailable, |t| t.kind);
            let why = trouble.map_or_else(|| failed.to_string(), |t| t.text);
            return Err(Error::new(kind, format!("cannot connect to kafka broker ({brokers}): {why}")));
        }
    }
}

fn refused(topic: &str, brokers: &str, code: Code) -> Result<()> {
    let (kind, text) = match meaning(code).0 {
        ErrorKind::Config => {
            (ErrorKind::Config, format!("kafka topic `{topic}` does not exist at {brokers}"))
        }
        ErrorKind::Denied => (ErrorKind::Denied, format!("kafka topic `{topic}` may not be used: {code}")),
        _ => (ErrorKind::Unavailable, format!("kafka topic `{topic}` is not ready: {code}")),
    };
    Err(Error::new(kind, text).code(format!("{code:?}")))
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;

    #[test]
    fn a_purge_waits_for_no_thread_of_the_client() {
        let text = format!("{:?}", everything());
        for flag in ["queue: true", "inflight: true", "non_blocking: true"] {
            assert!(text.contains(flag), "{text}");
        }
    }

    #[test]
    fn a_message_that_was_purged_from_the_queue_may_have_been_sent() {
        let options =
            [("properties.bootstrap.server", "127.0.0.1:9092"), ("topic", "t")].into_iter().collect();
        let client = Client::new(Config::read(&options).unwrap(), "s");
        let (live, began) = (client.producer().unwrap(), Instant::now());
        for code in [Code::PurgeQueue, Code::PurgeInflight, Code::MessageTimedOut] {
            let error = client.explain(&live, code, began);
            assert_eq!((error.kind(), error.ambiguous()), (ErrorKind::Unavailable, Some(began)), "{code:?}");
        }
    }

    #[test]
    fn a_traced_message_says_which_span_to_go_on_with() {
        let value = Bytes::new();
        let message =
            |traceparent| Outgoing { key: None, value: &value, split: Some("s"), number: "7", traceparent };
        let names = |headers: &OwnedHeaders| headers.iter().map(|h| h.key.to_owned()).collect::<Vec<_>>();
        let plain = ["shardwright-split", "shardwright-sequence-number"];
        assert_eq!(names(&message(None).headers()), plain);
        let traced = message(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")).headers();
        assert_eq!(names(&traced), [plain[0], plain[1], "traceparent"]);
        assert_eq!(traced.get(2).value.map(<[u8]>::len), Some(55));
    }
}

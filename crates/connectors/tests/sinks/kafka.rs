//! The Kafka sink: against the client library's own mock of a broker (which can be switched off), and against a real Kafka
//! where `SHARDWRIGHT_TEST_KAFKA_BOOTSTRAP` names one (`SHARDWRIGHT_TEST_KAFKA_SASL_BOOTSTRAP`: one that asks for a password).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use connector::{ErrorKind, Registry, Run, Sink, SinkKind, suite::sink as suite};
use model::{Creation, Epoch, ObjectId, Options, SplitId, TaskId};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
    mocking::MockCluster,
};
use shardwright_connectors::sink::kafka;

const PARTITIONS: i32 = 3;

/// What a broker wants that asks for a password.
const PASSWORD: [(&str, &str); 4] = [
    ("security.protocol", "SASL_PLAINTEXT"),
    ("sasl.mechanism", "PLAIN"),
    ("sasl.username", "alice"),
    ("sasl.password", "alice-secret"),
];

/// A broker and a topic of its own.
struct Fixture {
    bootstrap: String,
    topic: String,
    /// It asks for [`PASSWORD`].
    password: bool,
    /// Switches the mock on and off; the mock ends with it.
    switch: Option<SyncSender<Turn>>,
}

/// On or off, and who waits until it is so.
type Turn = (bool, SyncSender<()>);

impl Fixture {
    /// The mock lives on a thread of its own: it cannot be sent to another.
    async fn mock() -> Self {
        let (switch, switched) = sync_channel::<Turn>(1);
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic("numbers", PARTITIONS, 1).unwrap();
            tell.send(cluster.bootstrap_servers()).unwrap();
            for (on, done) in switched {
                if on {
                    cluster.broker_up(1).unwrap()
                } else {
                    cluster.broker_down(1).unwrap()
                }
                done.send(()).unwrap();
            }
        });
        Self {
            bootstrap: told.await.unwrap(),
            topic: "numbers".into(),
            password: false,
            switch: Some(switch),
        }
    }

    async fn real(bootstrap: &str, password: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let topic = format!("suite-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let admin: AdminClient<DefaultClientContext> = config(bootstrap, password).create().unwrap();
        let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
        let made = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
        assert_eq!(made, [Ok(topic.clone())]);
        Self { bootstrap: bootstrap.to_owned(), topic, password, switch: None }
    }

    /// Everything in the topic, partition by partition.
    fn consume<T>(&self, mut keep: impl FnMut(&BorrowedMessage<'_>) -> T) -> Vec<T> {
        let consumer: BaseConsumer = config(&self.bootstrap, self.password)
            .set("group.id", "reader")
            .set("enable.partition.eof", "false")
            .create()
            .unwrap();
        let mut kept = Vec::new();
        for partition in 0..PARTITIONS {
            let (low, high) =
                consumer.fetch_watermarks(&self.topic, partition, Duration::from_secs(20)).unwrap();
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&self.topic, partition, Offset::Offset(low)).unwrap();
            consumer.assign(&list).unwrap();
            let (mut next, deadline) = (low, Instant::now() + Duration::from_secs(20));
            while next < high {
                assert!(Instant::now() < deadline, "partition {partition} stops at {next} of {high}");
                let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
                let message = message.unwrap();
                next = message.offset() + 1;
                kept.push(keep(&message));
            }
        }
        kept
    }

    fn sink(&self, extra: &[(&str, &str)]) -> Arc<dyn Sink> {
        let mut options = suite::Destination::options(self);
        for (name, value) in extra {
            options.insert(*name, *value);
        }
        registry().build_sink(&suite::spec("kafka", options)).unwrap().0
    }
}

fn config(bootstrap: &str, password: bool) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (name, value) in PASSWORD.iter().filter(|_| password) {
        config.set(*name, *value);
    }
    config
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    kafka::register(&mut registry);
    registry
}

fn task() -> TaskId {
    TaskId::reads(ObjectId::from_parts(1, 1), SplitId::new(Creation(1), "split-0"))
}

fn run() -> Run {
    Run { epoch: Epoch { generation: 0, revision: 1 }, sink_instance: 0 }
}

#[async_trait]
impl suite::Destination for Fixture {
    fn kind(&self) -> SinkKind {
        registry().sink("kafka").unwrap().clone()
    }

    fn options(&self) -> Options {
        let mut options: Options = [
            ("properties.bootstrap.server", self.bootstrap.as_str()),
            ("topic", self.topic.as_str()),
            ("properties.message.max.bytes", "100000"),
        ]
        .into_iter()
        .collect();
        if self.switch.is_some() {
            // The mock answers at once or not at all.
            options.insert("properties.message.timeout.ms", "1500");
        }
        for (name, value) in PASSWORD.iter().filter(|_| self.password) {
            options.insert(format!("properties.{name}"), *value);
        }
        options
    }

    async fn read(&self) -> Option<Vec<Bytes>> {
        Some(tokio::task::block_in_place(|| {
            self.consume(|message| Bytes::copy_from_slice(message.payload().unwrap()))
        }))
    }

    async fn set_outage(&self, on: bool) -> bool {
        let Some(switch) = &self.switch else { return false };
        let (done, turned) = sync_channel(1);
        switch.send((!on, done)).unwrap();
        turned.recv().unwrap();
        true
    }

    fn poison(&self) -> Option<String> {
        Some("x".repeat(200_000))
    }

    fn wrong_password(&self) -> Option<Options> {
        let mut options = self.options();
        for (name, value) in PASSWORD {
            options.insert(format!("properties.{name}"), value);
        }
        options.insert("properties.sasl.password", "not-the-password");
        self.password.then_some(options)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_promises_of_a_sink_against_a_mock() {
    suite::all(Fixture::mock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_promises_of_a_sink_against_kafka() {
    against_kafka("SHARDWRIGHT_TEST_KAFKA_BOOTSTRAP", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_promises_of_a_sink_against_kafka_with_passwords() {
    against_kafka("SHARDWRIGHT_TEST_KAFKA_SASL_BOOTSTRAP", true).await;
}

async fn against_kafka(variable: &str, password: bool) {
    let Ok(bootstrap) = std::env::var(variable) else {
        println!("skipped: the kafka sink against a real Kafka: {variable} is not set");
        return;
    };
    suite::all(|| Fixture::real(&bootstrap, password)).await;
    let fixture = Fixture::real(&bootstrap, password).await;
    a_missing_topic_is_named(&fixture).await;
    messages_say_where_they_come_from(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_have_a_key_and_say_where_they_come_from() {
    messages_say_where_they_come_from(&Fixture::mock().await).await;
}

async fn messages_say_where_they_come_from(fixture: &Fixture) {
    let mut writer = fixture.sink(&[]).open(&task(), &run()).await.unwrap();
    let delivery = writer.write(suite::rows("a", 7..8, "v")).await.unwrap();
    assert!(delivery.await.unwrap().is_empty());
    let found = fixture.consume(|message| {
        let headers = message.headers().unwrap();
        let header = |i| {
            let header = headers.get(i);
            (header.key.to_owned(), String::from_utf8(header.value.unwrap().to_vec()).unwrap())
        };
        (message.key().unwrap().to_vec(), header(0), header(1))
    });
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected =
        (b"a".to_vec(), header("shardwright-split", "split-0"), header("shardwright-sequence-number", "7"));
    assert_eq!(found, [expected]);
    // The numbers of a partition are those of many splits: it is no split.
    let partition = TaskId::writes(ObjectId::from_parts(1, 1), 3);
    let mut writer = fixture.sink(&[]).open(&partition, &run()).await.unwrap();
    let delivery = writer.write(suite::rows("a", 8..9, "v")).await.unwrap();
    assert!(delivery.await.unwrap().is_empty());
    let names = |message: &BorrowedMessage<'_>| {
        let headers = message.headers().unwrap();
        headers.iter().map(|header| header.key.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(fixture.consume(names).last().unwrap(), &["shardwright-sequence-number"]);
}

async fn a_missing_topic_is_named(fixture: &Fixture) {
    let sink = fixture.sink(&[("topic", "no-such-topic")]);
    let error = sink.validate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("topic `no-such-topic` does not exist"), "{error}");
    let mut writer = sink.open(&task(), &run()).await.unwrap();
    let delivery = writer.write(suite::rows("a", 0..1, "v")).await.unwrap();
    let rejected = delivery.await.unwrap();
    assert!(matches!(rejected[0].error.kind(), ErrorKind::Config | ErrorKind::Unavailable), "{rejected:?}");
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let fixture = Fixture { bootstrap: nobody.clone(), topic: "t".into(), password: false, switch: None };
    let error = fixture.sink(&[("properties.sync.call.timeout", "1s")]).validate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains(&format!("cannot connect to kafka broker ({nobody})")), "{error}");
}

/// I11: what nobody waits for any more must not land later.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_delivery_lands_nothing_afterwards() {
    let fixture = Fixture::mock().await;
    let sink = fixture.sink(&[]);
    let mut old = sink.open(&task(), &run()).await.unwrap();
    old.write(suite::rows("a", 0..1, "v")).await.unwrap().await.unwrap();
    assert!(suite::Destination::set_outage(&fixture, true).await);
    let delivery = old.write(suite::rows("a", 1..2, "late")).await.unwrap();
    drop(delivery);
    drop(old);
    assert!(suite::Destination::set_outage(&fixture, false).await);
    let mut new = sink.open(&task(), &run()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        assert!(Instant::now() < deadline);
        let delivery = new.write(suite::rows("a", 2..3, "new")).await.unwrap();
        if delivery.await.unwrap().is_empty() {
            break;
        }
    }
    let texts = suite::Destination::read(&fixture).await.unwrap();
    assert!(texts.iter().all(|text| !text.windows(4).any(|w| w == b"late")), "{texts:?}");
}

//! A real Kafka as a destination that goes away, and one over TLS behind a line that is bad.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use faults::tcp::Link;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use shardwright_integration_tests::{
    ledger::{Found, audit},
    pki::Authority,
    servers::{self, skipped},
};

use crate::trial::{HEALS_WITHIN, Trial, trial};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 3;

/// A Kafka of this test alone; killed when this value goes.
struct Kafka {
    script: String,
    data: PathBuf,
    port: u16,
    pid: String,
}

impl Drop for Kafka {
    fn drop(&mut self) {
        Command::new("kill").args(["-9", &self.pid]).status().ok();
    }
}

impl Kafka {
    fn start(script: String, data: &Path) -> Self {
        let mut kafka =
            Self { script, data: data.to_owned(), port: servers::free_port().unwrap(), pid: String::new() };
        kafka.launch();
        kafka
    }

    /// One that is to be reached over TLS by way of a link; also the file of the authority that its clients trust.
    async fn behind_a_link(script: String, data: &Path) -> (Self, Link, PathBuf) {
        let port = servers::free_port().unwrap();
        let link = Link::start((Ipv4Addr::LOCALHOST, port).into()).await.unwrap();
        std::fs::create_dir_all(data).unwrap();
        std::fs::write(data.join("link"), format!("{port} {}\n", link.address().port())).unwrap();
        let issued = Authority::new(&data.join("tls")).unwrap().issue("kafka", "localhost").unwrap();
        let pem = [&issued.key, &issued.cert].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(data.join("link.pem"), pem.concat()).unwrap();
        (Self::start(script, data), link, issued.ca)
    }

    fn launch(&mut self) {
        let output = Command::new(&self.script)
            .args(["start", "--port", &self.port.to_string(), "--while", &std::process::id().to_string()])
            .arg("--data")
            .arg(&self.data)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.pid = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    }

    fn kill(&self) {
        assert!(Command::new("kill").args(["-9", &self.pid]).status().unwrap().success());
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.port));
        config
    }

    async fn create_topic(&self) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let new = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
        let made = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
        assert_eq!(made, [Ok(TOPIC.to_owned())]);
    }

    /// Everything in the topic, partition by partition: the order of each key.
    fn read_back(&self) -> Vec<Found> {
        let consumer: BaseConsumer = self.config().set("group.id", "ledger").create().unwrap();
        let mut all = Vec::new();
        for partition in 0..PARTITIONS {
            let (low, high) = consumer.fetch_watermarks(TOPIC, partition, Duration::from_secs(20)).unwrap();
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(TOPIC, partition, Offset::Offset(low)).unwrap();
            consumer.assign(&list).unwrap();
            let (mut next, deadline) = (low, Instant::now() + HEALS_WITHIN);
            while next < high {
                assert!(Instant::now() < deadline, "partition {partition} stops at {next} of {high}");
                let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
                let message = message.unwrap();
                next = message.offset() + 1;
                let value: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
                let key = value["key"].as_str().unwrap().to_owned();
                all.push(Found { key, n: value["n"].as_u64().unwrap() });
            }
        }
        all
    }
}

fn missing(sent: &BTreeMap<String, u64>, kafka: &Kafka) -> u64 {
    audit(sent, kafka.read_back()).lost
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_killed_and_comes_back() {
    let test = "kafka_is_killed_and_comes_back";
    let Ok(script) = std::env::var("SHARDWRIGHT_TEST_KAFKA") else {
        skipped(test, "no Kafka: SHARDWRIGHT_TEST_KAFKA is not set");
        return;
    };
    let Some(mut trial) = trial(test, 1, 2, 3).await else { return };
    let mut kafka = Kafka::start(script, &trial.cluster.dir().join("kafka"));
    kafka.create_topic().await;
    trial.create().await;
    trial
        .sql(&format!(
            "CREATE SINK topic FROM orders WITH (connector = 'kafka', properties.bootstrap.server = '127.0.0.1:{}', \
             topic = '{TOPIC}', primary_key = 'key') FORMAT PLAIN ENCODE JSON KEY ENCODE TEXT",
            kafka.port
        ))
        .await;
    trial.reading().await;
    trial.start_load();
    trial.records(800).await;
    kafka.kill();
    trial.records(1600).await;
    kafka.launch();
    trial.records(400).await;
    trial.cluster.worker("worker-1").kill().await.unwrap();
    trial.records(400).await;
    settle(trial, &kafka).await;
}

/// What it takes reaches it late or never, and so do its answers.
#[tokio::test(flavor = "multi_thread")]
async fn the_line_to_kafka_over_tls_is_bad() {
    let test = "the_line_to_kafka_over_tls_is_bad";
    let Ok(script) = std::env::var("SHARDWRIGHT_TEST_KAFKA") else {
        return skipped(test, "no Kafka: SHARDWRIGHT_TEST_KAFKA is not set");
    };
    let Some(mut trial) = trial(test, 1, 2, 3).await else { return };
    let (kafka, link, ca) = Kafka::behind_a_link(script, &trial.cluster.dir().join("kafka")).await;
    kafka.create_topic().await;
    trial.create().await;
    trial
        .sql(&format!(
            "CREATE SINK topic FROM orders WITH (connector = 'kafka', properties.bootstrap.server = '{}', \
             properties.security.protocol = 'SSL', properties.ssl.ca.location = '{}', topic = '{TOPIC}', \
             primary_key = 'key') FORMAT PLAIN ENCODE JSON KEY ENCODE TEXT",
            link.address(),
            ca.display()
        ))
        .await;
    trial.reading().await;
    trial.start_load();
    trial.records(800).await;
    // Longer than an attempt: what was sent lands when the line is sound again, long after it was given up.
    link.handle().partition();
    trial.records(2800).await;
    link.handle().heal();
    trial.records(800).await;
    link.handle().half_open();
    trial.records(2800).await;
    link.handle().refuse();
    trial.records(400).await;
    link.handle().heal();
    trial.records(400).await;
    settle(trial, &kafka).await;
}

/// Stops the load and balances the books of the topic and of the other destinations.
async fn settle(mut trial: Trial, kafka: &Kafka) {
    trial.stop_load().await;
    let deadline = Instant::now() + HEALS_WITHIN;
    while missing(trial.sent(), kafka) > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    trial.judge("topic", &audit(trial.sent(), kafka.read_back()));
    trial.ledger().await;
}

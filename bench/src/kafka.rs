//! The Kafka of the Kafka case: the one that was named, or one of our own that lives as long as the case.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use integration_tests::servers;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use tempfile::TempDir;
use tokio::process::Command;

use crate::RunArgs;

/// A broker, and a topic in it.
pub(crate) struct Kafka {
    /// Where it listens.
    pub(crate) bootstrap: String,
    /// The topic, which nobody else uses.
    pub(crate) topic: String,
    ours: Option<(PathBuf, TempDir)>,
}

impl Kafka {
    /// Finds or starts a broker and creates a topic.
    pub(crate) async fn prepare(args: &RunArgs, partitions: i32) -> Result<Self> {
        let topic = format!("shardwright-bench-{}", std::process::id());
        let kafka = match &args.kafka {
            Some(bootstrap) => Self { bootstrap: bootstrap.clone(), topic, ours: None },
            None => Self::start(args.kafka_script.clone(), topic).await?,
        };
        match kafka.create_topic(partitions).await {
            Ok(()) => Ok(kafka),
            Err(error) => {
                kafka.end().await.ok();
                Err(error)
            }
        }
    }

    async fn start(script: PathBuf, topic: String) -> Result<Self> {
        let (data, port) = (tempfile::tempdir()?, servers::free_port()?);
        let mut command = Command::new(&script);
        command.args(["start", "--port", &port.to_string(), "--while", &std::process::id().to_string()]);
        let output = command.arg("--data").arg(data.path()).output().await;
        let output = output.with_context(|| format!("starting `{}`", script.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "Kafka does not start: {}", said.trim());
        Ok(Self { bootstrap: format!("127.0.0.1:{port}"), topic, ours: Some((script, data)) })
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        Ok(config.create()?)
    }

    async fn create_topic(&self, partitions: i32) -> Result<()> {
        let new = NewTopic::new(&self.topic, partitions, TopicReplication::Fixed(1));
        let made = self.admin()?.create_topics([&new], &AdminOptions::new()).await?;
        for topic in made {
            topic.map_err(|(name, code)| anyhow::anyhow!("topic `{name}` was not created: {code}"))?;
        }
        Ok(())
    }

    /// Stops a broker of our own by its pid; from another's it takes the topic away.
    pub(crate) async fn end(self) -> Result<()> {
        match &self.ours {
            Some((script, data)) => {
                let status = Command::new(script).arg("stop").arg("--data").arg(data.path()).status().await?;
                ensure!(status.success(), "Kafka does not stop");
            }
            None => drop(self.admin()?.delete_topics(&[&self.topic], &AdminOptions::new()).await?),
        }
        Ok(())
    }
}

//! A small cluster of real processes whose telemetry can be looked at: one coordinator with a local file, some workers, and a Kinesis
//! endpoint within the test. No server is needed.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use aws_sdk_kinesis::primitives::Blob;
use shardwright_integration_tests::{
    admin::Admin,
    cluster::binary,
    endpoint::{self, Endpoint},
    process::Process,
    servers,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::Instant,
};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A process and the port of its telemetry.
pub struct Member {
    pub process: Process,
    pub port: u16,
}

pub struct Site {
    pub admin: Admin,
    pub coordinator: Member,
    pub workers: Vec<Member>,
    pub endpoint: Endpoint,
    url: String,
    settings: Vec<String>,
    dir: tempfile::TempDir,
}

impl Site {
    /// Starts a coordinator with these settings, and no worker.
    pub async fn start(settings: &[&str]) -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::start(endpoint::quick()).await.unwrap();
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let listen = servers::free_port().unwrap();
        let url = format!("http://127.0.0.1:{listen}");
        let store = format!("embedded:{}", dir.path().join("metadata.redb").display());
        let listen = format!("127.0.0.1:{listen}");
        let arguments = ["coordinator", "--listen", &listen, "--store", &store];
        let coordinator = member("coordinator", &arguments, &settings, dir.path().join("logs"));
        let admin = Admin::new(vec![url.clone()]);
        Self { admin, coordinator, workers: Vec::new(), endpoint, url, settings, dir }
    }

    /// Starts one more worker, without waiting.
    pub fn worker(&mut self) {
        let name = format!("worker-{}", self.workers.len());
        let data = self.dir.path().join(&name).display().to_string();
        let arguments = ["worker", "--name", &name, "--coordinators", &self.url, "--data-dir", &data];
        self.workers.push(member(&name, &arguments, &self.settings, self.dir.path().join("logs")));
    }

    /// Waits until every process is ready: from then on each worker gets its share.
    pub async fn ready(&self) {
        for member in self.members() {
            member.until("/readyz", |status, _| (status == 200).then_some(())).await.unwrap();
        }
    }

    /// A source `clicks` on a stream with records in it.
    pub async fn source(&self, shards: i32, records: u64) {
        let client = self.endpoint.client();
        endpoint::create_stream(&client, "clicks-in", shards).await.unwrap();
        for n in 0..records {
            let data = Blob::new(format!("{{\"id\":{n}}}"));
            let put = client.put_record().stream_name("clicks-in").partition_key(n.to_string());
            put.data(data).send().await.unwrap();
        }
        let url = self.endpoint.url();
        self.sql(&format!(
            "CREATE SOURCE clicks (id BIGINT) WITH (connector = 'kinesis', stream = 'clicks-in', aws.region = 'us-east-1', \
             endpoint = '{url}', aws.credentials.access_key_id = 'test', aws.credentials.secret_access_key = 'test', \
             scan.startup.mode = 'earliest') FORMAT PLAIN ENCODE JSON"
        ))
        .await;
    }

    /// Where the coordinator listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn sql(&self, statement: &str) {
        self.admin.execute(statement).await.unwrap();
    }

    /// Waits until a sink has delivered so many records and this is durable.
    pub async fn delivered(&self, sink: &str, records: u64) {
        let wanted = |status: &proto::v1::StatusReply| {
            let found = status.sinks.iter().find(|found| found.name == sink).map_or(0, |found| found.records);
            if found >= records { Ok(()) } else { Err(format!("{sink} is at {found} of {records}")) }
        };
        let waited = self.admin.wait(&format!("the records of {sink}"), PATIENCE, wanted).await;
        waited.map_err(|error| format!("{error:#}\n{}", self.tails())).unwrap();
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.coordinator).chain(&self.workers)
    }

    pub fn tails(&self) -> String {
        self.members().map(|member| member.process.tail()).collect()
    }
}

/// A process with these arguments and settings.
pub fn member(name: &str, arguments: &[&str], settings: &[String], logs: PathBuf) -> Member {
    let port = servers::free_port().unwrap();
    let mut command = Command::new(binary().unwrap());
    command.args(arguments).args(["--telemetry-listen", &format!("127.0.0.1:{port}")]);
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    // Soon, for tests.
    for interval in ["OTEL_METRIC_EXPORT_INTERVAL", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"] {
        command.env(interval, "200");
    }
    Member { process: Process::start(name, command, &logs).unwrap(), port }
}

impl Member {
    /// Status and body of a request to its telemetry.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        let status = head.split(' ').nth(1).context("an answer without a status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    /// Asks until the answer is as wanted: what it says then.
    pub async fn until<T>(&self, path: &str, wanted: impl Fn(u16, &str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask("GET", path, "").await;
            if let Ok((status, body)) = &answer
                && let Some(found) = wanted(*status, body)
            {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("{path}: the last answer was {answer:?}\n{}", self.process.tail());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
